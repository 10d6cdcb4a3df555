"""The registry of models: FR-001, FR-002, FR-003, FR-015."""

import asyncio
import contextlib
import gc
import json
import math
import os
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import PATIENCE, Node
from memory import descriptors

import tensorbus
from tensorbus import ModelRegistry


class Net:
    """A model that can be watched going."""

    def __init__(self, memory_bytes: int = 0) -> None:
        self.memory_bytes = memory_bytes


def waiters(registry: ModelRegistry, count: int) -> None:
    """Wait until so many requests wait for a load."""
    until(lambda: registry.metrics().waits >= count)


def until(holds: Callable[[], object]) -> None:
    """Look until it holds; the watchdog bounds it."""
    pause = threading.Event()
    while not holds():
        pause.wait(0.001)


async def waiting_tasks(registry: ModelRegistry, count: int) -> None:
    while registry.metrics().waits < count:
        await asyncio.sleep(0)


def test_a_model_is_loaded_once_and_is_the_same_for_all() -> None:
    registry = ModelRegistry()
    first = registry.get_or_load("m", Net)
    second = registry.get_or_load("m", Net)
    assert first.model is second.model
    assert first.key == "m"
    [model] = registry.list_models()
    assert (model.key, model.state, model.handles, model.uses) == ("m", "in use", 2, 2)
    metrics = registry.metrics()
    assert (metrics.loads, metrics.misses, metrics.hits) == (1, 1, 1)


def test_threads_that_ask_at_once_wait_for_one_load() -> None:
    """FR-001: one load, however many ask."""
    registry, calls, go = ModelRegistry(), [], threading.Event()

    def loader() -> Net:
        calls.append(1)
        assert go.wait(PATIENCE)
        return Net()

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(registry.get_or_load, "m", loader) for _ in range(8)]
        waiters(registry, 7)
        go.set()
        models = {id(request.result(PATIENCE).model) for request in asked}
    assert len(models) == len(calls) == 1


async def test_tasks_that_ask_at_once_wait_for_one_load() -> None:
    registry, calls, go = ModelRegistry(), [], asyncio.Event()

    async def loader() -> Net:
        calls.append(1)
        await go.wait()
        return Net()

    threads = threading.active_count()
    tasks = [asyncio.create_task(registry.get_or_load_async("m", loader)) for _ in range(50)]
    await waiting_tasks(registry, 49)
    # The event loop runs, and nobody has a thread.
    assert threading.active_count() == threads
    go.set()
    handles = await asyncio.gather(*tasks)
    assert len({id(handle.model) for handle in handles}) == len(calls) == 1
    assert threading.active_count() <= threads + 1, "the registry's timer alone"


async def test_waiting_tasks_leave_no_descriptor() -> None:
    registry, go = ModelRegistry(), asyncio.Event()

    async def loader() -> Net:
        await go.wait()
        return Net()

    await registry.get_or_load_async("warm", Net)
    before = descriptors()
    tasks = [asyncio.create_task(registry.get_or_load_async("m", loader)) for _ in range(20)]
    await waiting_tasks(registry, 19)
    for task in tasks[10:]:
        task.cancel()
    go.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    del tasks, task
    gc.collect()
    assert descriptors() == before


async def test_threads_and_tasks_wait_for_each_other() -> None:
    registry, go = ModelRegistry(), threading.Event()

    def slow() -> Net:
        assert go.wait(PATIENCE)
        return Net()

    with ThreadPoolExecutor(2) as pool:
        of_thread = pool.submit(registry.get_or_load, "a", slow)
        until(lambda: registry.metrics().misses == 1)
        of_task = asyncio.create_task(registry.get_or_load_async("a", Net))
        await waiting_tasks(registry, 1)
        go.set()
        assert (await of_task).model is of_thread.result(PATIENCE).model

        loading = asyncio.Event()
        begun = asyncio.Event()

        async def slow_task() -> Net:
            begun.set()
            await loading.wait()
            return Net()

        of_task = asyncio.create_task(registry.get_or_load_async("b", slow_task))
        await begun.wait()
        of_thread = pool.submit(registry.get_or_load, "b", Net)
        await waiting_tasks(registry, 2)
        loading.set()
        handle = await of_task
        assert (await asyncio.wrap_future(of_thread)).model is handle.model


async def test_a_loader_that_blocks_does_not_block_the_event_loop() -> None:
    registry, go = ModelRegistry(), threading.Event()

    def loader() -> Net:
        assert go.wait(PATIENCE)
        return Net()

    task = asyncio.create_task(registry.get_or_load_async("m", loader))
    while registry.metrics().misses == 0:
        await asyncio.sleep(0)
    go.set()
    assert isinstance((await task).model, Net)


def fails() -> Net:
    raise FileNotFoundError("no such weights")


def frames(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def test_an_exception_reaches_all_who_wait_with_its_traceback() -> None:
    registry, go = ModelRegistry(), threading.Event()

    def loader() -> Net:
        assert go.wait(PATIENCE)
        return fails()

    def ask() -> BaseException:
        with pytest.raises(FileNotFoundError, match="no such weights") as raised:
            registry.get_or_load("m", loader)
        return raised.value

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask) for _ in range(4)]
        waiters(registry, 3)
        go.set()
        errors = [request.result(PATIENCE) for request in asked]
    assert len({id(error) for error in errors}) == 1
    assert frames(errors[0])[-2:] == ["loader", "fails"]
    [model] = registry.list_models()
    assert model.state == "failed"
    assert model.failure is not None
    assert model.failure.endswith("FileNotFoundError: no such weights")
    assert isinstance(registry.get_or_load("m", Net).model, Net), "it can be tried again at once"


async def test_an_exception_reaches_tasks_too() -> None:
    registry = ModelRegistry()

    async def loader() -> Net:
        await waiting_tasks(registry, 2)
        return fails()

    tasks = [asyncio.create_task(registry.get_or_load_async("m", loader)) for _ in range(3)]
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    for error in errors:
        assert isinstance(error, FileNotFoundError)
        assert frames(error)[-2:] == ["loader", "fails"]


async def test_a_cancelled_loader_is_taken_over_by_a_task_that_waits() -> None:
    registry = ModelRegistry()

    async def never() -> Net:
        await asyncio.Event().wait()
        raise AssertionError

    first = asyncio.create_task(registry.get_or_load_async("m", never))
    while registry.metrics().misses == 0:
        await asyncio.sleep(0)
    second = asyncio.create_task(registry.get_or_load_async("m", Net))
    third = asyncio.create_task(registry.get_or_load_async("m", Net))
    await waiting_tasks(registry, 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await second).model is (await third).model
    assert registry.metrics().cancelled == 1


async def test_a_cancelled_waiter_harms_nobody() -> None:
    registry, go = ModelRegistry(), asyncio.Event()

    async def loader() -> Net:
        await go.wait()
        return Net()

    first = asyncio.create_task(registry.get_or_load_async("m", loader))
    await asyncio.sleep(0)
    second = asyncio.create_task(registry.get_or_load_async("m", loader))
    await waiting_tasks(registry, 1)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    go.set()
    assert isinstance((await first).model, Net)


def test_a_wait_has_a_bound() -> None:
    registry, begun, go = ModelRegistry(), threading.Event(), threading.Event()

    def loader() -> Net:
        begun.set()
        assert go.wait(PATIENCE)
        return Net()

    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(registry.get_or_load, "m", loader)
        assert begun.wait(PATIENCE)
        with pytest.raises(tensorbus.Timeout, match="still being loaded"):
            registry.get_or_load("m", Net, timeout=0.01)
        with pytest.raises(tensorbus.Timeout, match="still being loaded"):
            asyncio.run(registry.get_or_load_async("m", Net, timeout=0.01))
        go.set()
        assert isinstance(loading.result(PATIENCE).model, Net)


def test_ctrl_c_ends_a_wait(node: Callable[..., Node]) -> None:
    waits = node("wait_for_model")
    waits.expect("waiting")
    waits.process.send_signal(2)
    waits.expect("interrupted")
    assert waits.end() == 0


def test_ctrl_c_in_a_loader_leaves_the_load_to_who_waits() -> None:
    registry = ModelRegistry()

    def interrupted() -> Net:
        waiters(registry, 1)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as pool:

        def second() -> object:
            until(lambda: registry.metrics().misses == 1)
            return registry.get_or_load("m", Net).model

        other = pool.submit(second)
        with pytest.raises(KeyboardInterrupt):
            registry.get_or_load("m", interrupted)
        assert isinstance(other.result(PATIENCE), Net)


def test_a_loader_that_asks_for_its_own_model_is_told() -> None:
    registry = ModelRegistry()
    with pytest.raises(tensorbus.RecursiveLoad, match="asks for the same model"):
        registry.get_or_load("m", lambda: registry.get_or_load("m", Net))

    async def loader() -> object:
        return await registry.get_or_load_async("m", Net)

    with pytest.raises(tensorbus.RecursiveLoad):
        asyncio.run(registry.get_or_load_async("m", loader))
    with registry.get_or_load("outer", lambda: registry.get_or_load("inner", Net)) as inner:
        assert isinstance(inner.model, Net), "other models may be asked for"


def test_handles_are_context_managers() -> None:
    registry = ModelRegistry()
    with registry.get_or_load("m", Net) as model:
        assert isinstance(model, Net)
        assert registry.list_models()[0].handles == 1
    assert registry.list_models()[0].state == "idle"
    handle = registry.get_or_load("m", Net)
    handle.release()
    with pytest.raises(tensorbus.Closed, match="released"):
        _ = handle.model
    handle.release()


def test_an_idle_model_goes_after_its_time() -> None:
    registry = ModelRegistry(ttl=0.0)
    net = Net()
    gone = threading.Event()
    weakref.finalize(net, gone.set)
    handle = registry.get_or_load("m", lambda net=net: net)
    del net
    assert not gone.is_set()
    handle.release()
    # On the registry's timer, without a call of ours.
    assert gone.wait(PATIENCE)
    assert registry.metrics().expired == 1


def test_keep_alive_and_pins() -> None:
    registry = ModelRegistry(ttl=0.0)
    registry.get_or_load("m", Net, keep_alive=math.inf).release()
    [model] = registry.list_models()
    assert (model.state, model.keep_alive) == ("loaded", math.inf)
    assert registry.pin("m")
    with pytest.raises(tensorbus.ModelInUse, match="pinned"):
        registry.unload("m")
    assert registry.keep_alive("m", 0)
    assert registry.evict_expired() == 0
    assert registry.unpin("m")
    until(lambda: registry.list_models() == [])
    assert not registry.pin("m")
    assert not registry.keep_alive("m", 5)
    with pytest.raises(tensorbus.NoSuchModel, match='no model "m" is loaded'):
        registry.unload("m")


def test_a_model_in_use_is_not_unloaded() -> None:
    registry = ModelRegistry()
    handle = registry.get_or_load("m", Net)
    with pytest.raises(tensorbus.ModelInUse, match="1 handles"):
        registry.unload("m")
    handle.release()
    registry.unload("m")
    assert registry.metrics().unloaded == 1
    registry.get_or_load("a", Net).release()
    registry.get_or_load("b", Net).release()
    assert registry.clear() == 2


def test_a_budget_is_kept() -> None:
    """FR-003: room is made before a load; what cannot fit is an error."""
    registry = ModelRegistry(max_memory=100)
    registry.get_or_load("a", lambda: Net(60), memory_bytes=60).release()
    held = registry.get_or_load("b", lambda: Net(60), memory_bytes=60)
    assert [model.key for model in registry.list_models()] == ["b"]
    with pytest.raises(tensorbus.OutOfMemory, match="budget"):
        registry.get_or_load("c", lambda: Net(60), memory_bytes=60)
    assert held.model.memory_bytes == 60
    assert registry.metrics().evicted == 1


def test_models_are_measured() -> None:
    registry = ModelRegistry()
    registry.get_or_load("array", lambda: np.zeros(1000, np.float32))
    registry.get_or_load("net", lambda: Net(7), memory_bytes=5)
    registry.get_or_load("declared", object, memory_bytes=5)
    sizes = {model.key: model.memory_bytes for model in registry.list_models()}
    assert sizes == {"array": 4000, "net": 7, "declared": 5}


def test_bad_arguments_are_told() -> None:
    registry = ModelRegistry()
    for key in ("", "x" * 4096, "a\nb"):
        with pytest.raises(tensorbus.InvalidArgument, match="key"):
            registry.get_or_load(key, Net)
    with pytest.raises(tensorbus.InvalidArgument, match="'lru'"):
        ModelRegistry(policy="fifo")  # type: ignore[arg-type]
    with pytest.raises(tensorbus.InvalidArgument, match="ttl"):
        ModelRegistry(ttl=-1.0)
    with pytest.raises(tensorbus.InvalidArgument, match="keep_alive"):
        registry.get_or_load("m", Net, keep_alive=math.nan)
    assert registry.list_models() == []


def test_a_registry_that_goes_takes_its_models_and_its_thread() -> None:
    def timers() -> int:
        """Threads of registries; one that ends while it is looked at is none."""
        count = 0
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):
                count += (task / "comm").read_text() == "tensorbus-ttl\n"
        return count

    gc.collect()
    before = timers()
    registry = ModelRegistry()
    net = Net()
    gone = weakref.ref(net)
    handle = registry.get_or_load("m", lambda net=net: net)
    del net
    # A thread has its name a moment after it was started, and is seen a moment after it was joined.
    until(lambda: timers() == before + 1)
    del registry
    until(lambda: timers() == before)
    assert gone() is not None, "a handle outlives its registry"
    del handle
    assert gone() is None


async def test_the_process_has_a_registry() -> None:
    key = "default-registry"
    first = tensorbus.get_or_load(key, Net)
    second = await tensorbus.get_or_load_async(key, Net)
    assert first.model is second.model
    assert tensorbus.ModelRegistry.default() is tensorbus.ModelRegistry.default()
    assert [model.handles for model in tensorbus.list_models() if model.key == key] == [2]
    assert tensorbus.metrics().loads >= 1


def models(session: str) -> list[dict[str, object]]:
    """What `tensorbus models` says."""
    command = [sys.executable, "-m", "tensorbus", "models", "--json", "--session", session]
    report = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE).stdout)
    return [{"pid": process["pid"], **model} for process in report["processes"] for model in process["models"]]


def test_models_of_python_are_in_the_sessions_directory(bus: tensorbus.Bus) -> None:
    registry = ModelRegistry()
    with registry.announce(bus):
        held = [registry.get_or_load("net", lambda: Net(9)) for _ in range(3)]
        [model] = models(bus.session)
        assert (model["pid"], model["key"], model["state"]) == (os.getpid(), "net", "in use")
        assert (model["handles"], model["bytes"]) == (3, 9)
        held.clear()
        unload = [sys.executable, "-m", "tensorbus", "models", "unload", "net", "--session", bus.session]
        subprocess.run(unload, check=True, timeout=PATIENCE, stdout=subprocess.DEVNULL)
        assert registry.list_models() == []
    assert models(bus.session) == []


def test_models_of_a_killed_process_are_gone(bus: tensorbus.Bus, node: Callable[..., Node]) -> None:
    owner = node("own_model")
    owner.expect("loaded")
    [model] = models(bus.session)
    assert (model["pid"], model["key"], model["handles"]) == (owner.process.pid, "net", 1)
    owner.kill()
    assert models(bus.session) == []


@pytest.mark.usefixtures("session")
def test_a_program_may_end_with_everything_in_globals(node: Callable[..., Node]) -> None:
    """Nothing is left of it in the session, and the timer does not disturb its end."""
    nodes = [node("models_at_exit") for _ in range(4)]
    for each in nodes:
        each.expect("ends")
        assert each.end() == 0


def test_types_are_generic() -> None:
    asked: Callable[..., Awaitable[tensorbus.ModelHandle[Net]]] = tensorbus.get_or_load_async
    assert asked.__annotations__["return"].__origin__ is tensorbus.ModelHandle
