//! A session and this process's place in it.

mod backend;
mod blobs;
mod capabilities;
mod deaths;
mod handle;
mod service_thread;
mod session;
mod topics;

pub use backend::{
    BACKEND_VARIABLE, Backend, BackendChoice, BackendError, ChosenBy, MIN_SHARED_MEMORY, NotChosen, PassedOver,
};
pub(crate) use blobs::is_legal_name;
pub use blobs::{Blob, BlobError, BlobInfo, MAX_BLOB_NAME};
pub use capabilities::{Capabilities, ResourceLimit, SharedMemory};
pub use deaths::{Death, Deaths};
pub(crate) use handle::BusInner;
pub use handle::{Bus, BusBuilder, CleanedUp, Quota};
pub use service_thread::ServiceThread;
pub use session::{DEFAULT_SESSION, MAX_SESSION_NAME, SESSION_VARIABLE, SessionError, SessionFacts};
pub use topics::{PoolInfo, TopicInfo};
