"""Tensors from process to process in shared memory, without a copy."""

from tensorbus._core import (
    Bus,
    Dtype,
    Message,
    MessageMut,
    Publisher,
    PublisherStats,
    Subscriber,
    SubscriberStats,
    Tensor,
    TensorMut,
    TopicInfo,
    __version__,
)
from tensorbus._errors import (
    Closed,
    CopyWarning,
    Error,
    Forked,
    InvalidArgument,
    Mismatch,
    NoFreeSlot,
    NoSuchTensor,
    OutOfMemory,
    ReadOnlyWarning,
    Timeout,
    TooLarge,
    TooManyHeld,
    Undelivered,
    UnsupportedTensor,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tensorbus._asyncio import AsyncSubscriber

__all__ = [
    "AsyncSubscriber",
    "Bus",
    "Closed",
    "CopyWarning",
    "Dtype",
    "Error",
    "Forked",
    "InvalidArgument",
    "Message",
    "MessageMut",
    "Mismatch",
    "NoFreeSlot",
    "NoSuchTensor",
    "OutOfMemory",
    "Publisher",
    "PublisherStats",
    "ReadOnlyWarning",
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
    if name == "AsyncSubscriber":
        from tensorbus._asyncio import AsyncSubscriber

        return AsyncSubscriber
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
