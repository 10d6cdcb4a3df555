use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::mm::Advice;

use crate::os::{Mapping, page_size, touch_pages};

/// Makes the file system promise the file's whole length now: `ENOSPC` here instead of SIGBUS at some later write.
///
/// A file system that cannot promise (`EOPNOTSUPP`) is not an error; it is one where admission was all that can be done.
pub(crate) fn reserve(path: &Path) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    let len = file.metadata()?.len();
    allocate(&file, FallocateFlags::KEEP_SIZE, 0..len)
}

/// As [`reserve`], for ranges of the file only.
pub(crate) fn reserve_ranges(path: &Path, ranges: impl IntoIterator<Item = Range<u64>>) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    ranges.into_iter().try_for_each(|range| allocate(&file, FallocateFlags::KEEP_SIZE, range))
}

/// Gives the memory of ranges of the file back: whoever reads there finds zeros. Where the file system cannot, nothing happens.
pub(crate) fn release_ranges(path: &Path, ranges: impl IntoIterator<Item = Range<u64>>) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    ranges
        .into_iter()
        .try_for_each(|range| allocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, range))
}

fn allocate(file: &File, how: FallocateFlags, range: Range<u64>) -> io::Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    loop {
        match rustix::fs::fallocate(file, how, range.start, range.end - range.start) {
            Ok(()) | Err(Errno::OPNOTSUPP) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A child that is forked does not have the mapping.
pub(crate) fn keep_from_forks(mapping: &Mapping) -> io::Result<()> {
    let (start, len) = (mapping.start().as_ptr(), mapping.len());
    // SAFETY: changes no content, and covers the pages of the mapping only.
    unsafe { rustix::mm::madvise(start.cast(), len, Advice::LinuxDontFork) }.map_err(Into::into)
}

/// Puts writable pages behind the bytes, so that the first write to them is as fast as any other.
pub(crate) fn populate_write(bytes: &mut [u8]) -> io::Result<()> {
    let page = page_size();
    let range = bytes.as_mut_ptr_range();
    let start = range.start.map_addr(|address| address & !(page - 1));
    let len = (range.end.addr() - start.addr()).next_multiple_of(page);
    if bytes.is_empty() {
        return Ok(());
    }
    // Where the mount allows huge pages on request (`huge=advise`) this is the request; elsewhere it changes nothing.
    // SAFETY: the advice changes no content. The range covers only pages that `bytes` lies in, all of them mapped.
    let _ = unsafe { rustix::mm::madvise(start.cast(), len, Advice::LinuxHugepage) };
    loop {
        // SAFETY: populating changes no content. The range covers only pages that `bytes` lies in, all of them mapped.
        match unsafe { rustix::mm::madvise(start.cast(), len, Advice::LinuxPopulateWrite) } {
            Ok(()) => return Ok(()),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // A kernel before 5.14: touch one byte of each page instead.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    touch_pages(bytes);
    Ok(())
}
