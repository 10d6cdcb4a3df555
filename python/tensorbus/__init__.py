"""Tensors from process to process in shared memory, without a copy."""

from tensorbus._core import (
    Announcing,
    Bus,
    Client,
    Deaths,
    Dtype,
    MappedTensor,
    Message,
    MessageMut,
    ModelHandle,
    ModelInfo,
    ModelRegistry,
    Publisher,
    PublisherStats,
    RegistryMetrics,
    Request,
    Server,
    Service,
    SharedWeights,
    Subscriber,
    SubscriberStats,
    Tensor,
    TensorMut,
    TopicInfo,
    __version__,
)
from tensorbus._errors import (
    Abandoned,
    ClientGone,
    Closed,
    CopyWarning,
    Error,
    Forked,
    HasServer,
    InvalidArgument,
    Mismatch,
    ModelInUse,
    NoFreeSlot,
    NoReply,
    NoServer,
    NoSuchModel,
    NoSuchTensor,
    NoSuchWeights,
    OutOfMemory,
    QueueFull,
    ReadOnlyWarning,
    RecursiveLoad,
    ServerGone,
    Timeout,
    TooLarge,
    TooManyHeld,
    Undelivered,
    UnsupportedTensor,
    WeightsChanged,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tensorbus._asyncio import AsyncClient, AsyncDeaths, AsyncServer, AsyncSubscriber
    from tensorbus._models import get_or_load, list_models, metrics
    from tensorbus._models_asyncio import get_or_load_async

__all__ = [
    "Abandoned",
    "Announcing",
    "AsyncClient",
    "AsyncDeaths",
    "AsyncServer",
    "AsyncSubscriber",
    "Bus",
    "Client",
    "ClientGone",
    "Closed",
    "CopyWarning",
    "Deaths",
    "Dtype",
    "Error",
    "Forked",
    "HasServer",
    "InvalidArgument",
    "MappedTensor",
    "Message",
    "MessageMut",
    "Mismatch",
    "ModelHandle",
    "ModelInUse",
    "ModelInfo",
    "ModelRegistry",
    "NoFreeSlot",
    "NoReply",
    "NoServer",
    "NoSuchModel",
    "NoSuchTensor",
    "NoSuchWeights",
    "OutOfMemory",
    "Publisher",
    "PublisherStats",
    "QueueFull",
    "ReadOnlyWarning",
    "RecursiveLoad",
    "RegistryMetrics",
    "Request",
    "Server",
    "ServerGone",
    "Service",
    "SharedWeights",
    "Subscriber",
    "SubscriberStats",
    "Tensor",
    "TensorMut",
    "Timeout",
    "TooLarge",
    "TooManyHeld",
    "TopicInfo",
    "Undelivered",
    "UnsupportedTensor",
    "WeightsChanged",
    "__version__",
    "get_or_load",
    "get_or_load_async",
    "list_models",
    "metrics",
]


def __getattr__(name: str) -> object:
    # Importing asyncio takes longer than all the rest; programs that do not use it are spared.
    if name in ("AsyncClient", "AsyncDeaths", "AsyncServer", "AsyncSubscriber"):
        from tensorbus import _asyncio

        return getattr(_asyncio, name)
    if name == "get_or_load_async":
        from tensorbus._models_asyncio import get_or_load_async

        return get_or_load_async
    if name in ("get_or_load", "list_models", "metrics"):
        from tensorbus import _models

        return getattr(_models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
