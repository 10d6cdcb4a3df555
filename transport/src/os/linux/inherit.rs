use std::os::fd::{BorrowedFd, RawFd};
use std::path::Path;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Marks this process's descriptors of files below `directory` to be closed at `exec`.
///
/// iceoryx2 0.10 opens its files without that mark. A program that is started from here would have them open all its life: the
/// memory of a pool would stay with it, and it could write to what it was never told of.
pub(crate) fn keep_from_children(directory: &Path) {
    // The links in /proc tell real paths.
    let Ok(directory) = directory.canonicalize() else { return };
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    for entry in entries.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        let is_below = std::fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(&directory));
        if let Some(number) = number.filter(|_| is_below) {
            // SAFETY: only the flag of the descriptor is touched. If another thread has closed it since it was listed, the
            // calls fail, or mark one that was opened at its place, which Rust's own files are anyway.
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            if let Ok(flags) = fcntl_getfd(descriptor)
                && !flags.contains(FdFlags::CLOEXEC)
            {
                let _ = fcntl_setfd(descriptor, flags | FdFlags::CLOEXEC);
            }
        }
    }
}
