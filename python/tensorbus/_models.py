"""Loading models: what a registry does when a model is not there. The bookkeeping is in Rust."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tensorbus._core import ModelHandle, ModelInfo, ModelRegistry, RegistryMetrics
from tensorbus._errors import RecursiveLoad

if TYPE_CHECKING:
    from tensorbus._core import _Request

M = TypeVar("M")

# What the loaders load that are running in this context: one that asks for the same would wait for itself.
_loading: ContextVar[tuple[tuple[int, str], ...]] = ContextVar("tensorbus_loading", default=())


def get_or_load(
    key: str,
    loader: Callable[[], M],
    *,
    memory_bytes: int | None = None,
    keep_alive: float | None = None,
    pinned: bool = False,
    timeout: float | None = 600.0,
) -> ModelHandle[M]:
    """Return the model of this key in the registry of the process. As `ModelRegistry.get_or_load`."""
    return ModelRegistry.default().get_or_load(
        key, loader, memory_bytes=memory_bytes, keep_alive=keep_alive, pinned=pinned, timeout=timeout
    )


async def get_or_load_async(
    key: str,
    loader: Callable[[], Awaitable[M]] | Callable[[], M],
    *,
    memory_bytes: int | None = None,
    keep_alive: float | None = None,
    pinned: bool = False,
    timeout: float | None = 600.0,
) -> ModelHandle[M]:
    """Return the model of this key in the registry of the process. As `ModelRegistry.get_or_load_async`."""
    return await ModelRegistry.default().get_or_load_async(
        key, loader, memory_bytes=memory_bytes, keep_alive=keep_alive, pinned=pinned, timeout=timeout
    )


def list_models() -> list[ModelInfo]:
    """Return the models of the registry that all of the process share."""
    return ModelRegistry.default().list_models()


def metrics() -> RegistryMetrics:
    """Return the figures of the registry that all of the process share."""
    return ModelRegistry.default().metrics()


def load(
    registry: ModelRegistry, key: str, loader: Callable[[], M], timeout: float | None, **wish: Any
) -> ModelHandle[M]:
    """Wait for the model on this thread, or load it."""
    request: _Request[M] = registry._request(key, **wish)
    try:
        handle = request.poll()
        if handle is None and not request.must_load:
            _refuse_recursion(registry, key)
            handle = request.wait(timeout)
        if handle is not None:
            return handle
        with _runs(registry, key):
            try:
                model = loader()
            except Exception as error:
                return request.failed(error)
        return request.loaded(model, *_measured(model, wish))
    finally:
        # A loader that was interrupted has not failed: one of those who wait runs its own.
        request.cancel()


async def load_async(
    registry: ModelRegistry,
    key: str,
    loader: Callable[[], Awaitable[M]] | Callable[[], M],
    timeout: float | None,
    **wish: Any,
) -> ModelHandle[M]:
    """Wait for the model in this task, or load it."""
    found: ModelHandle[M] | None = registry.get(key)
    if found is not None:
        return found
    request: _Request[M] = registry._request(key, **wish)
    try:
        handle = request.poll()
        if handle is None and not request.must_load:
            _refuse_recursion(registry, key)
            try:
                async with asyncio.timeout(timeout):
                    handle = await _waited(request)
            except TimeoutError:
                raise request.timed_out(timeout) from None
        if handle is not None:
            return handle
        with _runs(registry, key):
            try:
                model = await _made(loader)
            except Exception as error:
                return request.failed(error)
        return request.loaded(model, *_measured(model, wish))
    finally:
        request.cancel()


async def _waited(request: "_Request[M]") -> ModelHandle[M] | None:
    """Wait until the handle is there, or the model is to be loaded here."""
    loop = asyncio.get_running_loop()
    descriptor = request.fileno()
    while True:
        woken = loop.create_future()
        # Watched before it is looked: what happens from here on wakes.
        loop.add_reader(descriptor, _wake, woken)
        try:
            handle = request.poll()
            if handle is not None or request.must_load:
                return handle
            await woken
        finally:
            loop.remove_reader(descriptor)


def _wake(woken: "asyncio.Future[None]") -> None:
    if not woken.done():
        woken.set_result(None)


async def _made(loader: Callable[[], Awaitable[M]] | Callable[[], M]) -> M:
    if inspect.iscoroutinefunction(loader):
        return await cast(Callable[[], Awaitable[M]], loader)()
    made = await asyncio.to_thread(cast(Callable[[], M], loader))
    # Something that was not to be seen as asynchronous, like a lambda that calls what is.
    return cast(M, await made) if inspect.isawaitable(made) else made


def _refuse_recursion(registry: ModelRegistry, key: str) -> None:
    if (id(registry), key) in _loading.get():
        raise RecursiveLoad(
            f"the loader of model {key!r} asks for the same model; load what it needs under another key"
        )


@contextmanager
def _runs(registry: ModelRegistry, key: str) -> Iterator[None]:
    token = _loading.set((*_loading.get(), (id(registry), key)))
    try:
        yield
    finally:
        _loading.reset(token)


def _measured(model: Any, wish: dict[str, Any]) -> tuple[int, str]:
    """Bytes that a model takes, and where: what it says of itself, else what was said before."""
    if inspect.ismethod(getattr(model, "parameters", None)) and hasattr(model, "buffers"):
        tensors = [*model.parameters(), *model.buffers()]
        device = str(tensors[0].device) if tensors else "cpu"
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors), device
    device = str(getattr(model, "device", "cpu"))
    for name in ("memory_bytes", "nbytes"):
        size = getattr(model, name, None)
        if isinstance(size, int) and size >= 0:
            return size, device
    return wish["memory_bytes"] or 0, device
