//! iceoryx2 and nothing else: a node, the services of a topic, and the two ports. No other folder names iceoryx2.

mod alone;
mod connection;
mod control;
mod dead;
mod death_log;
mod ghosts;
mod growing;
mod handshake;
mod incoming;
mod node;
mod outgoing;
mod pool;
mod receiver;
mod repair;
mod ring;
mod sender;
mod service;
mod shield;
mod slot;
mod slots;
mod stale;
mod tended;
mod topic;
mod turn;
mod unopened;
mod wake;

pub(crate) use control::{Asked, ClientPort, ServerPort};
pub use control::{CallError, MAX_CONTROL_CLIENTS, ReplyError, RequestError, ServiceError};
pub(crate) use dead::Cleaned;
pub(crate) use death_log::DeathFollower;
pub(crate) use node::{Node, NodeError, members_of};
#[cfg(feature = "tokio")]
pub(crate) use receiver::Asleep;
pub(crate) use receiver::{ReceiveFailure, Received, Receiver};
pub(crate) use ring::{
    Gathered, Geometry, Held, MAX_RING_NAME, RingClientPort, RingFailure, RingSpec, RingWorkerPort, RowFailure, SAID,
    Segment, Side, Source, Tensors, Waited, of_rows, with_shape,
};
pub use ring::{
    MAX_RING_CLIENTS, MAX_RING_ROWS, MAX_RING_WORKERS, RING_VERSION, RingFormatError, RingSpecError, ShapeError,
};
pub use sender::DRAIN_ON_DROP;
pub(crate) use sender::{LoanFailure, SendFailure, Sender, Sending};
pub(crate) use slot::Slot;
pub(crate) use topic::{OpenTopic, TopicFacts, Wishes};
pub use topic::{Overflow, TopicError, TopicSettings};
pub(crate) use turn::{Part, Turn, TurnError, hold_still};
