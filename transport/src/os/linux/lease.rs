use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `fcntl` command that chooses the signal a lease is broken with, from `asm-generic/fcntl.h`.
const F_SETSIG: libc::c_int = 10;

/// Whether any process, this one included, has the file mapped or open besides `file` itself.
///
/// The kernel knows: it gives a write lease only for a file that nobody else has open, and a mapping keeps open what it
/// was made from (fcntl(2), "Leases"). So the answer is right after any death, with nothing to be cleaned up.
pub(crate) fn is_used_elsewhere(file: &File) -> io::Result<bool> {
    // Whoever opens the file while we hold the lease would have us sent SIGIO, which ends a process; SIGURG does nothing.
    fcntl(file, F_SETSIG, libc::SIGURG)?;
    match fcntl(file, libc::F_SETLEASE, libc::F_WRLCK as libc::c_int) {
        Ok(()) => {
            fcntl(file, libc::F_SETLEASE, libc::F_UNLCK as libc::c_int)?;
            Ok(false)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

fn fcntl(file: &File, command: libc::c_int, argument: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `file` is borrowed; the commands used here take a number, no pointer.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_keeps_a_file_used() {
        for directory in ["/dev/shm", "/tmp"] {
            let file = tempfile::NamedTempFile::new_in(directory).unwrap();
            file.as_file().set_len(4096).unwrap();
            let (path, opened) = (file.path().to_owned(), file.reopen().unwrap());
            // SAFETY: a new mapping at an address of the kernel's choice; nobody reads it.
            let mapped = unsafe {
                rustix::mm::mmap(
                    std::ptr::null_mut(),
                    4096,
                    rustix::mm::ProtFlags::READ,
                    rustix::mm::MapFlags::SHARED,
                    &opened,
                    0,
                )
            }
            .unwrap();
            drop(opened);
            let kept = path.with_extension("kept");
            std::fs::hard_link(&path, &kept).unwrap();
            drop(file);
            let asked = || is_used_elsewhere(&File::open(&kept).unwrap()).unwrap();
            assert!(asked(), "mapped, though closed and unlinked");
            let again = File::open(&kept).unwrap();
            // SAFETY: the mapping made above, which nobody uses any more.
            unsafe { rustix::mm::munmap(mapped, 4096) }.unwrap();
            assert!(asked(), "open");
            drop(again);
            assert!(!asked());
            std::fs::remove_file(&kept).unwrap();
        }
    }
}
