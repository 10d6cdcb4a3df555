"""Loading models: what a registry does when a model is not there. The bookkeeping is in Rust."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

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
            refuse_recursion(registry, key)
            handle = request.wait(timeout)
        if handle is not None:
            return handle
        with runs(registry, key):
            try:
                model = loader()
            except Exception as error:
                return request.failed(error)
        return request.loaded(model, *measured(model, wish))
    finally:
        # A loader that was interrupted has not failed: one of those who wait runs its own.
        request.cancel()


def refuse_recursion(registry: ModelRegistry, key: str) -> None:
    """Raise `RecursiveLoad` if the loader of this model asks for it."""
    if (id(registry), key) in _loading.get():
        raise RecursiveLoad(
            f"the loader of model {key!r} asks for the same model; load what it needs under another key"
        )


@contextmanager
def runs(registry: ModelRegistry, key: str) -> Iterator[None]:
    """Remember that the loader of this model runs in this context."""
    token = _loading.set((*_loading.get(), (id(registry), key)))
    try:
        yield
    finally:
        _loading.reset(token)


def measured(model: Any, wish: dict[str, Any]) -> tuple[int, str]:
    """Return the bytes that a model takes, and where: what it says of itself, else what was said before."""
    if callable(getattr(model, "parameters", None)) and callable(getattr(model, "buffers", None)):
        tensors = [*model.parameters(), *model.buffers()]
        device = str(tensors[0].device) if tensors else "cpu"
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors), device
    device = str(getattr(model, "device", "cpu"))
    for name in ("memory_bytes", "nbytes"):
        size = getattr(model, name, None)
        if isinstance(size, int) and size >= 0:
            return size, device
    return wish["memory_bytes"] or 0, device
