//! A publisher's slots: how many bytes they need, and whether the machine can give them without harm.

mod admission;
mod facts;

pub use admission::PoolError;
pub(crate) use admission::admit;
pub use facts::MemoryFacts;
