"""Control services: small requests to one server, and what becomes of a call when somebody dies (FR-007)."""

import asyncio
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

import tensorbus

LIMIT = 65_536


def served(server: tensorbus.Server) -> threading.Thread:
    """A thread that answers with what was asked, turned round, until the server is closed."""

    def serve() -> None:
        for request in server:
            request.reply(request.data[::-1])

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_a_call_is_answered(bus: tensorbus.Bus) -> None:
    service = bus.service("health")
    assert service.name == "health"
    with service.server() as server, service.client() as client:
        thread = served(server)
        assert client.call(b"", timeout=60) == b""
        assert client.call(b"abc", timeout=60) == b"cba"
        assert client.call(bytes(LIMIT), timeout=60) == bytes(LIMIT)
        assert (server.name, client.name, server.rejected) == ("health", "health", 0)
        server.close()
        thread.join(60)
        assert not thread.is_alive()
        with pytest.raises(tensorbus.NoServer, match="health") as raised:
            client.call(b"abc", timeout=60)
        assert isinstance(raised.value, ConnectionError)


def test_what_cannot_be_is_refused(bus: tensorbus.Bus) -> None:
    with pytest.raises(tensorbus.InvalidArgument, match="name"):
        bus.service("no spaces").client()
    server, client = bus.service("health").server(), bus.service("health").client()
    with pytest.raises(tensorbus.HasServer):
        bus.service("health").server()
    with pytest.raises(tensorbus.TooLarge, match="65537"):
        client.call(bytes(LIMIT + 1), timeout=60)
    with pytest.raises(tensorbus.InvalidArgument, match="timeout"):
        client.call(b"", timeout=-1)
    with pytest.raises(tensorbus.Timeout, match="health"):
        server.recv(timeout=0.01)
    assert server.try_recv() is None
    server.close()
    for call in (server.recv, server.try_recv, server.fileno, server.arm):
        with pytest.raises(tensorbus.Closed):
            call()
    client.close()
    with pytest.raises(tensorbus.Closed):
        client.call(b"", timeout=1)
    assert repr(server) == "<Server, closed>"
    # The name is free again.
    bus.service("health").server()


def test_a_request_that_is_dropped_has_no_reply(bus: tensorbus.Bus) -> None:
    server, client = bus.service("health").server(), bus.service("health").client()

    def drop() -> None:
        server.recv(timeout=60).drop()
        server.recv(timeout=60)

    thread = threading.Thread(target=drop)
    thread.start()
    for _ in range(2):
        with pytest.raises(tensorbus.NoReply):
            client.call(b"abc", timeout=60)
    thread.join(60)


def test_a_client_that_waits_no_more_is_gone(bus: tensorbus.Bus) -> None:
    server, client = bus.service("health").server(), bus.service("health").client()
    with pytest.raises(tensorbus.Timeout):
        client.call(b"abc", timeout=0.01)
    # Nobody has looked at that one yet.
    with pytest.raises(tensorbus.QueueFull):
        client.call(b"abc", timeout=60)
    # Nobody waits for it any more, so it is skipped.
    assert server.try_recv() is None
    is_wanted, outcome = True, []

    def call() -> None:
        try:
            client.call(b"abc", timeout=600, go_on=lambda: is_wanted)
        except tensorbus.Error as error:
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    request = server.recv(timeout=60)
    is_wanted = False
    thread.join(60)
    assert isinstance(outcome[0], tensorbus.Abandoned)
    with pytest.raises(tensorbus.ClientGone):
        request.reply(b"too late")
    with pytest.raises(tensorbus.Closed):
        request.reply(b"twice")

    def fail() -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client.call(b"abc", timeout=60, go_on=fail)
    assert server.try_recv() is None
    thread = served(server)
    assert client.call(b"abc", timeout=60) == b"cba"
    server.close()
    thread.join(60)


def test_a_server_that_is_killed_ends_the_call(bus: tensorbus.Bus, node: Callable[..., Any]) -> None:
    client = bus.service("health").client()
    other = node("serve_slowly")
    other.expect("ready")
    outcome: list[BaseException] = []

    def call() -> None:
        try:
            client.call(b"abc", timeout=600)
        except tensorbus.Error as error:
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    other.expect("asked")
    other.kill()
    # Bounded by this, not by the time of the call.
    thread.join(60)
    assert isinstance(outcome[0], tensorbus.ServerGone)
    with pytest.raises(tensorbus.NoServer):
        client.call(b"abc", timeout=60)
    # Another one takes its place, and the client is as good as before.
    with bus.service("health").server() as server:
        thread = served(server)
        assert client.call(b"abc", timeout=60) == b"cba"
        server.close()
        thread.join(60)


def test_a_server_in_another_process(bus: tensorbus.Bus, node: Callable[..., Any]) -> None:
    client = bus.service("health").client()
    other = node("serve", 100)
    other.expect("ready")
    for number in range(100):
        assert client.call(str(number).encode(), timeout=60) == str(number).encode()[::-1]
    assert other.end() == 0


@pytest.mark.parametrize("role", ["serve_for_ever", "call_for_ever", "wait_for_deaths"])
def test_ctrl_c_ends_a_wait(bus: tensorbus.Bus, node: Callable[..., Any], role: str) -> None:
    server = bus.service("silent").server()
    other = node(role)
    other.expect("ready")
    other.process.send_signal(signal.SIGINT)
    other.expect("interrupted")
    assert other.end() == 0
    server.close()


def test_others_run_while_one_waits(bus: tensorbus.Bus) -> None:
    """A call that waits for this very interpreter would never end if it kept the interpreter to itself."""
    server, client = bus.service("health").server(), bus.service("health").client()
    replies: list[bytes] = []
    thread = threading.Thread(target=lambda: replies.append(client.call(b"abc", timeout=60)))
    thread.start()
    server.recv(timeout=60).reply(b"fine")
    thread.join(60)
    assert replies == [b"fine"]


async def test_a_server_and_a_client_in_an_event_loop(bus: tensorbus.Bus) -> None:
    before = threading.active_count()
    async with bus.service("health").async_server() as server, bus.service("health").async_client() as client:
        assert server.try_recv() is None

        async def serve() -> None:
            async for request in server:
                request.reply(request.data[::-1])

        serving = asyncio.create_task(serve())
        await asyncio.sleep(0)
        # To wait for requests takes no thread.
        assert threading.active_count() == before
        calls = [client.call(str(number).encode(), timeout=60) for number in range(10, 30)]
        assert await asyncio.gather(*calls) == [str(number).encode()[::-1] for number in range(10, 30)]
        assert (server.name, client.name, server.rejected) == ("health", "health", 0)
        server.close()
        await serving
        with pytest.raises(tensorbus.NoServer):
            await client.call(b"abc", timeout=60)
    assert isinstance(server, tensorbus.AsyncServer)
    assert isinstance(client, tensorbus.AsyncClient)


async def test_a_call_that_is_cancelled_ends(bus: tensorbus.Bus) -> None:
    server = bus.service("health").async_server()
    client = bus.service("health").async_client()
    with pytest.raises(tensorbus.Timeout, match="health"):
        await server.recv(timeout=0.01)
    call = asyncio.create_task(client.call(b"abc", timeout=600))
    request = await server.recv(timeout=60)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(tensorbus.ClientGone):
        request.reply(b"too late")
    # The next request of the same client waits for nothing.
    call = asyncio.create_task(client.call(b"abc", timeout=600))
    (await server.recv(timeout=60)).reply(b"fine")
    assert await call == b"fine"
    server.close()
    client.close()


def test_a_forked_child_is_told_that_nothing_is_its_own(bus: tensorbus.Bus) -> None:
    from test_fork import in_child

    server, client, deaths = bus.service("health").server(), bus.service("health").client(), bus.deaths()

    def use() -> None:
        calls: list[Callable[[], Any]] = [
            lambda: server.recv(timeout=1),
            lambda: server.try_recv(),
            lambda: server.arm(),
            lambda: client.call(b"abc", timeout=1),
            lambda: deaths.try_recv(),
            lambda: bus.service("other").client(),
        ]
        for call in calls:
            with pytest.raises(tensorbus.Forked):
                call()

    assert in_child(use) == 0
    thread = served(server)
    assert client.call(b"abc", timeout=60) == b"cba"
    server.close()
    thread.join(60)


def test_deaths_are_told(session: str, node: Callable[..., Any]) -> None:
    with tensorbus.Bus(service_interval=0.01) as bus, bus.deaths() as deaths:
        assert deaths.try_recv() is None
        with pytest.raises(tensorbus.Timeout, match="nobody died"):
            deaths.recv(timeout=0.01)
        others = [node("wait_for_ever", "recv") for _ in range(3)]
        for other in others:
            other.expect("ready")
        for other in others:
            other.kill()
        assert sorted(deaths.recv(timeout=60) for _ in others) == sorted(other.process.pid for other in others)
        # One that leaves in order is no death.
        other = node("wait_for_ever", "recv")
        other.expect("ready")
        other.process.send_signal(signal.SIGINT)
        other.expect("interrupted")
        assert other.end() == 0
        assert bus.members()[1] == []
        assert deaths.try_recv() is None
        assert deaths.missed == 0
    with pytest.raises(tensorbus.Closed):
        deaths.recv(timeout=1)
    assert list(deaths) == []


async def test_deaths_are_told_in_an_event_loop(session: str, node: Callable[..., Any]) -> None:
    with tensorbus.Bus(service_interval=0.01) as bus:
        async with bus.async_deaths() as deaths:
            other = node("wait_for_ever", "recv")
            other.expect("ready")
            waiting = asyncio.create_task(deaths.recv(timeout=60))
            await asyncio.sleep(0)
            other.kill()
            assert await waiting == other.process.pid
            with pytest.raises(tensorbus.Timeout):
                await deaths.recv(timeout=0.01)
            assert deaths.missed == 0
            assert isinstance(deaths, tensorbus.AsyncDeaths)


def test_calls_leave_nothing_behind(bus: tensorbus.Bus) -> None:
    from memory import descriptors, resident

    server, client = bus.service("health").server(), bus.service("health").client()
    thread = served(server)

    def call(times: int) -> None:
        for _ in range(times):
            assert len(client.call(bytes(1000), timeout=60)) == 1000

    call(200)
    before, open_before = resident(), descriptors()
    call(5000)
    assert descriptors() == open_before
    assert resident() - before < 4 << 20
    server.close()
    thread.join(60)
