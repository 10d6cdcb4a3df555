"""Receiving with asyncio: the event loop waits for the port's descriptor, no thread does."""

import asyncio
from collections import deque
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from tensorbus._core import Client, Deaths, Message, Request, Server, Subscriber, SubscriberStats
from tensorbus._errors import Closed, Timeout

Item = TypeVar("Item", covariant=True)


class _Port(Protocol[Item]):
    def try_recv(self) -> Item | None: ...
    def fileno(self) -> int: ...
    def arm(self) -> None: ...
    def close(self) -> None: ...


class _AsyncPort(Generic[Item]):
    """What is received from a port whose descriptor becomes readable when there is something.

    Several tasks may wait; each item goes to one of them. All must run in one event loop.
    """

    # What tasks wait for, and of whom.
    _what = "nothing"
    # The queue is looked at again after so many seconds, whatever the descriptor says.
    _longest_sleep: float | None = None

    def __init__(self, port: _Port[Item]) -> None:
        self._port = port
        self._waiters: deque[asyncio.Future[None]] = deque()
        # The loop that watches the descriptor, while somebody waits.
        self._loop: asyncio.AbstractEventLoop | None = None

    def try_recv(self) -> Item | None:
        """Return what is the next in the queue, if there is something."""
        return self._port.try_recv()

    async def recv(self, timeout: float | None = None) -> Item:
        """Wait for the next one, at most `timeout` seconds, or for ever.

        Cancelling it loses nothing. Raises `Timeout` if none came.
        """
        item = self._port.try_recv()
        if item is not None:
            return item
        try:
            async with asyncio.timeout(timeout):
                return await self._wait()
        except TimeoutError:
            raise Timeout(f"{self._what} within {timeout} s") from None

    async def _wait(self) -> Item:
        while True:
            waiter = self._watch()
            try:
                # What came before the descriptor was armed is in the queue.
                item = self._port.try_recv()
                if item is None:
                    await self._sleep(waiter)
                    item = self._port.try_recv()
            finally:
                self._unwatch(waiter)
            if item is not None:
                return item

    async def _sleep(self, waiter: asyncio.Future[None]) -> None:
        if self._longest_sleep is None:
            await waiter
        else:
            await asyncio.wait([waiter], timeout=self._longest_sleep)
            if waiter.done():
                waiter.result()

    def _watch(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            loop.add_reader(self._port.fileno(), self._readable)
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(f"{self!r} is waited for in another event loop")
        self._port.arm()
        waiter = loop.create_future()
        self._waiters.append(waiter)
        return waiter

    def _unwatch(self, waiter: asyncio.Future[None]) -> None:
        self._waiters.remove(waiter)
        if not self._waiters:
            self._stop_watching()
        elif waiter.done():
            # There may be more than the one that this task takes or, if it was cancelled, leaves.
            self._wake_one()

    def _stop_watching(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._port.fileno())
            self._loop = None

    def _readable(self) -> None:
        try:
            self._port.arm()
        finally:
            self._wake_one()

    def _wake_one(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
                return

    def close(self) -> None:
        """Close the port; what is held stays valid. Whoever waits gets `Closed`."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(Closed(f"{self!r} was closed"))
        self._stop_watching()
        self._port.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        try:
            return await self.recv()
        except Closed:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._port!r}>"


class AsyncSubscriber(_AsyncPort[Message]):
    """The receiving side of a topic for asyncio. Made by `Bus.async_subscriber`.

    Several tasks may wait; each message goes to one of them. All must run in one event loop.
    """

    def __init__(self, subscriber: Subscriber) -> None:
        super().__init__(subscriber)
        self._subscriber = subscriber
        self._what = f"no message on topic {subscriber.topic!r}"

    @property
    def topic(self) -> str:
        """Name of the topic."""
        return self._subscriber.topic

    def stats(self) -> SubscriberStats:
        """What has come so far."""
        return self._subscriber.stats()


class AsyncServer(_AsyncPort[Request]):
    """The one server of a control service for asyncio. Made by `Service.async_server`.

    Several tasks may wait; each request goes to one of them. All must run in one event loop.
    """

    # A request that waits for an earlier one of the same client does not wake.
    _longest_sleep = 0.05

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._server = server
        self._what = f"no request to service {server.name!r}"

    @property
    def name(self) -> str:
        """Name of the service."""
        return self._server.name

    @property
    def rejected(self) -> int:
        """Requests that were skipped because they broke a rule."""
        return self._server.rejected


class AsyncDeaths(_AsyncPort[int]):
    """The deaths of members of the session for asyncio, as process ids. Made by `Bus.async_deaths`."""

    def __init__(self, deaths: Deaths) -> None:
        super().__init__(deaths)
        self._deaths = deaths
        self._what = "nobody died"

    @property
    def missed(self) -> int:
        """Deaths that were not seen because hundreds were told between two calls."""
        return self._deaths.missed


class AsyncClient:
    """A client of a control service for asyncio. Made by `Service.async_client`.

    It makes one call at a time; tasks that share it take turns. A call waits in a thread of the event loop's pool.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._turn = asyncio.Lock()

    @property
    def name(self) -> str:
        """Name of the service."""
        return self._client.name

    async def call(self, data: bytes, timeout: float) -> bytes:
        """Send a request and wait for the reply, at most `timeout` seconds. Errors are those of `Client.call`.

        Where it is cancelled, nobody knows whether the request was carried out.
        """
        async with self._turn:
            wanted = True
            call = asyncio.create_task(
                asyncio.to_thread(self._client.call, data, timeout, go_on=lambda: wanted), name=f"call {self.name}"
            )
            try:
                return await asyncio.shield(call)
            except asyncio.CancelledError:
                wanted = False
                # The next call begins when this one has let go of the client.
                await asyncio.wait([call])
                if not call.cancelled():
                    call.exception()
                raise

    def close(self) -> None:
        """Leave the service."""
        self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
