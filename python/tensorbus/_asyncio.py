"""Receiving with asyncio: the event loop waits for the subscriber's descriptor, no thread does."""

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

from tensorbus._core import Message, Subscriber, SubscriberStats
from tensorbus._errors import Closed, Timeout


class AsyncSubscriber:
    """The receiving side of a topic for asyncio. Made by `Bus.async_subscriber`.

    Several tasks may wait; each message goes to one of them. All must run in one event loop.
    """

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self._waiters: deque[asyncio.Future[None]] = deque()
        # The loop that watches the descriptor, while somebody waits.
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def topic(self) -> str:
        """Name of the topic."""
        return self._subscriber.topic

    def stats(self) -> SubscriberStats:
        """What has come so far."""
        return self._subscriber.stats()

    def try_recv(self) -> Message | None:
        """Return the oldest message in the queue, if there is one."""
        return self._subscriber.try_recv()

    async def recv(self, timeout: float | None = None) -> Message:
        """Wait for the next message, at most `timeout` seconds, or for ever.

        Cancelling it loses no message. Raises `Timeout` if none came.
        """
        message = self._subscriber.try_recv()
        if message is not None:
            return message
        try:
            async with asyncio.timeout(timeout):
                return await self._wait()
        except TimeoutError:
            raise Timeout(f"no message on topic {self.topic!r} within {timeout} s") from None

    async def _wait(self) -> Message:
        while True:
            waiter = self._watch()
            try:
                # What came before the descriptor was armed is in the queue.
                message = self._subscriber.try_recv()
                if message is None:
                    await waiter
                    message = self._subscriber.try_recv()
            finally:
                self._unwatch(waiter)
            if message is not None:
                return message

    def _watch(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            loop.add_reader(self._subscriber.fileno(), self._readable)
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(f"the subscriber of topic {self.topic!r} is waited for in another event loop")
        self._subscriber.arm()
        waiter = loop.create_future()
        self._waiters.append(waiter)
        return waiter

    def _unwatch(self, waiter: asyncio.Future[None]) -> None:
        self._waiters.remove(waiter)
        if not self._waiters:
            self._stop_watching()
        elif waiter.done():
            # There may be more messages than the one that this task takes or, if it was cancelled, leaves.
            self._wake_one()

    def _stop_watching(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._subscriber.fileno())
            self._loop = None

    def _readable(self) -> None:
        try:
            self._subscriber.arm()
        finally:
            self._wake_one()

    def _wake_one(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
                return

    def close(self) -> None:
        """Leave the topic; messages that are held stay valid. Whoever waits gets `Closed`."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(Closed(f"the subscriber of topic {self.topic!r} was closed"))
        self._stop_watching()
        self._subscriber.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
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
