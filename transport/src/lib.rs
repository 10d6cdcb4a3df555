//! Tensors on the bus: written once in shared memory, read where they lie by any number of processes.
//!
//! This crate is the lowest layer of [tensorbus]: sessions, topics, publishers, subscribers and tensors. It is the only
//! one that knows iceoryx2, and the one that holds the unsafe code. [`Bus`] shows how it is used.
//!
//! [tensorbus]: https://docs.rs/tensorbus

#[cfg(feature = "tokio")]
mod async_subscriber;
mod bus;
mod contiguous;
mod control;
pub mod dlpack;
mod element;
#[doc(hidden)]
pub mod layout;
mod loan;
mod map;
mod message;
mod os;
mod peers;
mod pool;
mod port;
mod publisher;
mod request_ring;
mod ring;
mod subscriber;
mod sync;
mod tensor_view;
mod topic;
mod view;
#[doc(hidden)]
pub mod wire;

#[cfg(feature = "tokio")]
pub use async_subscriber::AsyncSubscriber;
pub use bus::{
    BACKEND_VARIABLE, Backend, BackendChoice, BackendError, Blob, BlobError, BlobInfo, Bus, BusBuilder, Capabilities,
    ChosenBy, CleanedUp, DEFAULT_SESSION, Death, Deaths, MAX_BLOB_NAME, MAX_SESSION_NAME, MIN_SHARED_MEMORY, NotChosen,
    PassedOver, PoolInfo, Quota, ResourceLimit, SESSION_VARIABLE, ServiceThread, SessionError, SessionFacts,
    SharedMemory, TopicInfo,
};
pub use contiguous::{ContiguousError, ContiguousTensor};
pub use control::{ControlClient, ControlRequest, ControlServer, ServiceBuilder};
pub use element::Element;
pub use layout::{
    ALIGNMENT, DEFAULT_TENSOR_NAME, Dtype, DtypeCode, DtypeError, LayoutError, MAX_LAYOUT_BYTES, MAX_METADATA_BYTES,
    MAX_METADATA_ENTRIES, MAX_METADATA_KEY_BYTES, MAX_NAME_BYTES, MAX_RANK, MAX_TENSORS, TensorLayout, TensorSpec,
    Unpack,
};
pub use loan::{MessageMut, TensorMut, TensorViewMut};
pub use map::{MapFileError, MappedTensor, Region, RegionError};
pub use message::{Message, Tensor};
pub use pool::{MemoryFacts, PoolError};
pub use port::{
    CallError, DRAIN_ON_DROP, MAX_CONTROL_CLIENTS, MAX_RING_CLIENTS, MAX_RING_ROWS, MAX_RING_WORKERS, Overflow,
    RING_VERSION, ReplyError, RequestError, RingFormatError, RingSpecError, ServiceError, ShapeError, TopicError,
    TopicSettings,
};
pub use publisher::{DrainError, LoanError, PublishError, Publisher, PublisherStats, WaitError};
pub use request_ring::{
    Answer, AnswerError, Batch, BatchParts, Pending, RequestLoanError, RequestMut, RingBuilder, RingClient, RingError,
    RingWorker, RowCounts, TakeError,
};
pub use subscriber::{ReceiveError, Subscriber, SubscriberStats};
pub use tensor_view::TensorView;
pub use topic::{DEFAULT_SPIN, TopicBuilder};
pub use view::ViewError;
pub use wire::{
    CONTROL_VERSION, ControlDecodeError, DecodeError, EncodeError, MAX_CONTROL_BYTES, Metadata, Value, WIRE_VERSION,
};
