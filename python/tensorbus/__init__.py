"""Tensors from process to process in shared memory, without a copy."""

from tensorbus._core import (
    Bus,
    Client,
    Deaths,
    Dtype,
    Message,
    MessageMut,
    Publisher,
    PublisherStats,
    Request,
    Server,
    Service,
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
    NoFreeSlot,
    NoReply,
    NoServer,
    NoSuchTensor,
    OutOfMemory,
    QueueFull,
    ReadOnlyWarning,
    ServerGone,
    Timeout,
    TooLarge,
    TooManyHeld,
    Undelivered,
    UnsupportedTensor,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tensorbus._asyncio import AsyncClient, AsyncDeaths, AsyncServer, AsyncSubscriber

__all__ = [
    "Abandoned",
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
    "Message",
    "MessageMut",
    "Mismatch",
    "NoFreeSlot",
    "NoReply",
    "NoServer",
    "NoSuchTensor",
    "OutOfMemory",
    "Publisher",
    "PublisherStats",
    "QueueFull",
    "ReadOnlyWarning",
    "Request",
    "Server",
    "ServerGone",
    "Service",
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
    "__version__",
]


def __getattr__(name: str) -> object:
    # Importing asyncio takes longer than all the rest; programs that do not use it are spared.
    if name in ("AsyncClient", "AsyncDeaths", "AsyncServer", "AsyncSubscriber"):
        from tensorbus import _asyncio

        return getattr(_asyncio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
