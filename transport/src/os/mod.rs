//! What the operating system is asked for: fork detection, clock, memory, who uses a file. Knows nothing of tensors or of
//! iceoryx2.

mod cache;
mod clock;
#[cfg(target_os = "macos")]
mod elsewhere;
mod fork;
#[cfg(target_os = "linux")]
mod linux;
mod mapping;
mod pages;

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!(
    "tensorbus runs on Linux, and is compiled for macOS: its sessions, memory checks and wake-ups are written for them. On \
     Windows use WSL 2, elsewhere a Linux container or virtual machine; docs/platforms.md has the list"
);

pub(crate) use cache::prefetch;
pub(crate) use clock::{Deadline, monotonic_ns};
#[cfg(target_os = "macos")]
pub(crate) use elsewhere::*;
pub(crate) use fork::{Forked, Owned};
#[cfg(target_os = "linux")]
pub(crate) use linux::*;
pub(crate) use mapping::Mapping;
pub(crate) use pages::page_size;
use pages::touch_pages;
