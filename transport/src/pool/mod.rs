//! A publisher's slots: how many bytes they need, whether the machine can give them without harm, and whether the session may
//! have them.

mod admission;
mod blobs;
mod facts;
mod growth;
mod ledger;
mod quota;
mod rings;

pub use admission::PoolError;
pub(crate) use admission::admit;
pub(crate) use blobs::{BlobFile, BlobFiles, has_unused_blobs};
pub use facts::MemoryFacts;
pub(crate) use growth::Growth;
pub(crate) use ledger::{POOL_SUFFIX, admit_to_quota, look_at_quota, quota, set_quota, settle_session, used};
pub(crate) use rings::{RingFile, begin_ring, has_unused_rings, path_of, rings};
