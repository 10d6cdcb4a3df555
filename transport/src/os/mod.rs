//! What the operating system is asked for: fork detection, clock, memory. Knows nothing of tensors or of iceoryx2.

mod clock;
mod fork;
mod mapping;
mod memory;

pub(crate) use clock::{Deadline, monotonic_ns};
pub(crate) use fork::{Forked, Owned};
pub(crate) use mapping::Mapping;
pub(crate) use memory::{populate_write, reserve};
