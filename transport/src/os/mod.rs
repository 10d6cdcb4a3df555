//! What the operating system is asked for: fork detection, clock, memory, who uses a file. Knows nothing of tensors or of
//! iceoryx2.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "tensorbus runs on Linux only for now: its sessions, memory checks and wake-ups are written for it. On Windows use WSL 2, \
     elsewhere a Linux container or virtual machine; docs/platforms.md has the list"
);

mod cache;
mod clock;
mod fork;
mod inherit;
mod lease;
mod mapped_file;
mod mapping;
mod memory;
mod watch;

pub(crate) use cache::prefetch;
pub(crate) use clock::{Deadline, monotonic_ns};
pub(crate) use fork::{Forked, Owned};
pub(crate) use inherit::keep_from_children;
pub(crate) use lease::is_used_elsewhere;
pub(crate) use mapped_file::start_of_mapped_file;
pub(crate) use mapping::Mapping;
pub(crate) use memory::{page_size, populate_write, release_ranges, reserve, reserve_ranges};
pub(crate) use watch::FileWatch;
