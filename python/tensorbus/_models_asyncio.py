"""Loading models with asyncio: the event loop waits for a descriptor, no thread does."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tensorbus._core import ModelHandle, ModelRegistry
from tensorbus._models import measured, refuse_recursion, runs

if TYPE_CHECKING:
    from tensorbus._core import _Request

M = TypeVar("M")


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
            refuse_recursion(registry, key)
            try:
                async with asyncio.timeout(timeout):
                    handle = await _waited(request)
            except TimeoutError:
                raise request.timed_out(timeout) from None
        if handle is not None:
            return handle
        with runs(registry, key):
            try:
                model = await _made(loader)
            except Exception as error:
                return request.failed(error)
        return request.loaded(model, *measured(model, wish))
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
