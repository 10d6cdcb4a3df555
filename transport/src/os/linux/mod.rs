//! What only Linux can do, or does in this way. `elsewhere.rs` says what is lost without.

mod inherit;
mod lease;
mod mapped_file;
mod memory;
mod watch;

pub(crate) use inherit::keep_from_children;
pub(crate) use lease::is_used_elsewhere;
pub(crate) use mapped_file::start_of_mapped_file;
pub(crate) use memory::{keep_from_forks, populate_write, release_ranges, reserve, reserve_ranges};
pub(crate) use watch::FileWatch;
