use std::fs::File;
use std::io;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

/// The beginning of a file, mapped shared until this is dropped. The file itself need not stay open.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is memory of the process, not of a thread.
unsafe impl Send for Mapping {}
// SAFETY: through a shared reference only its address can be had; what is done with it has to be proven there.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes to write, which the file must have: beyond its end, access is SIGBUS.
    pub(crate) fn new(file: &File, len: usize) -> io::Result<Self> {
        Self::with(file, len, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// The same, to read only.
    pub(crate) fn read_only(file: &File, len: usize) -> io::Result<Self> {
        Self::with(file, len, ProtFlags::READ)
    }

    fn with(file: &File, len: usize, protection: ProtFlags) -> io::Result<Self> {
        if len == 0 || file.metadata()?.len() < len as u64 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("shorter than {len} bytes")));
        }
        // SAFETY: the kernel chooses a free place, so no memory that is in use is mapped over.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))?;
        Ok(Self { start, len })
    }

    /// The first byte, at the beginning of a page.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// How many bytes are mapped.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `with` with this length, and nobody can reach it any more.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
