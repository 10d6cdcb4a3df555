use std::time::Duration;

use crate::layout::LayoutError;
use crate::os::Forked;
use crate::pool::PoolError;
use crate::port::TopicError;
use crate::view::ViewError;
use crate::wire::EncodeError;

/// Why there is no loan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoanError {
    /// The tensors are not ones a message can carry.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The layout cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The message is larger than a slot.
    #[error(
        "the message needs {needed} bytes, the slots of topic {topic:?} have {slot_bytes}; open the publisher with `slot_bytes` of the largest message"
    )]
    TooLarge {
        /// The topic.
        topic: String,
        /// Bytes of the message, its layout included.
        needed: usize,
        /// Bytes of a slot.
        slot_bytes: usize,
    },
    /// Every slot is loaned, queued or held.
    #[error(
        "all {slots} slots of topic {topic:?} are in use; subscribers hold or queue them: let them drop messages sooner, or open the publisher with more `slots`"
    )]
    NoFreeSlot {
        /// The topic.
        topic: String,
        /// Slots there are.
        slots: usize,
    },
    /// The slot has to grow for the message, and there is no memory for it. Smaller messages still find room.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The pool, which is made at the first loan if no size was given, cannot be had.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The bus belongs to the process that this one was forked from.
    #[error("this process was forked from the one that opened the bus; open a bus of its own in the child")]
    Forked,
    /// The port is damaged.
    #[error("topic {topic:?} is damaged: {reason}; open a new bus")]
    Broken {
        /// The topic.
        topic: String,
        /// What went wrong.
        reason: String,
    },
}

/// Why a message was not published to everybody.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// At least one subscriber's queue was full, and the policy is to say so; the others got the message.
    #[error(
        "{missed} of {} subscribers of topic {topic:?} did not get the message: their queue is full; read faster, use more depth, or another overflow policy",
        missed + delivered
    )]
    Undelivered {
        /// The topic.
        topic: String,
        /// Subscribers that have the message in their queue.
        delivered: usize,
        /// Subscribers that do not get it.
        missed: usize,
    },
    /// The metadata cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The metadata does not fit behind the tensors.
    #[error(
        "the metadata needs {needed} bytes, the slot has {left} left; open the publisher with a larger `slot_bytes`"
    )]
    MetadataTooLarge {
        /// Bytes of the metadata.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// No loan for the message to be copied into.
    #[error(transparent)]
    Loan(#[from] LoanError),
    /// The values do not have the type or number that the tensor has.
    #[error(transparent)]
    View(#[from] ViewError),
    /// Not as many values as the shape has elements.
    #[error("{values} values for a tensor of {elements} elements")]
    WrongNumberOfValues {
        /// Values given.
        values: usize,
        /// Elements of the shape.
        elements: usize,
    },
    /// The bus belongs to the process that this one was forked from.
    #[error("this process was forked from the one that opened the bus; open a bus of its own in the child")]
    Forked,
    /// The port is damaged.
    #[error("topic {topic:?} is damaged: {reason}; open a new bus")]
    Broken {
        /// The topic.
        topic: String,
        /// What went wrong.
        reason: String,
    },
}

/// Why [`Publisher::wait_for_subscribers`](crate::Publisher::wait_for_subscribers) gave up.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// Not enough of them came in time.
    #[error(
        "{ready} of {wanted} subscribers of topic {topic:?} were ready within {waited:?}; are all of them running?"
    )]
    TooFew {
        /// The topic.
        topic: String,
        /// Subscribers that were waited for.
        wanted: usize,
        /// Subscribers that were ready.
        ready: usize,
        /// How long was waited.
        waited: Duration,
    },
    /// The publisher has no slots yet, and so no connections.
    #[error("the publisher of topic {topic:?} has no slots before its first loan; open it with `slot_bytes`")]
    NoSlots {
        /// The topic.
        topic: String,
    },
    /// The bus belongs to the process that this one was forked from.
    #[error("this process was forked from the one that opened the bus; open a bus of its own in the child")]
    Forked,
    /// The port is damaged.
    #[error("topic {topic:?} is damaged: {reason}; open a new bus")]
    Broken {
        /// The topic.
        topic: String,
        /// What went wrong.
        reason: String,
    },
}

/// Why [`Publisher::drain`](crate::Publisher::drain) gave up.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// Some subscribers have not opened their side: if the publisher goes now, they lose what it sent them.
    #[error(
        "{subscribers} subscribers of topic {topic:?} have not looked for messages within {waited:?}; they lose what was sent to them if the publisher goes now"
    )]
    Unopened {
        /// The topic.
        topic: String,
        /// How many.
        subscribers: usize,
        /// How long was waited.
        waited: Duration,
    },
    /// The bus belongs to the process that this one was forked from.
    #[error("this process was forked from the one that opened the bus; open a bus of its own in the child")]
    Forked,
    /// The port is damaged.
    #[error("topic {topic:?} is damaged: {reason}; open a new bus")]
    Broken {
        /// The topic.
        topic: String,
        /// What went wrong.
        reason: String,
    },
}

impl From<Forked> for LoanError {
    fn from(_: Forked) -> Self {
        Self::Forked
    }
}
