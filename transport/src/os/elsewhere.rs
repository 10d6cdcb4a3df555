//! In place of what only Linux can do. Compiled for macOS, and never run there (`docs/platforms.md`).

use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use super::touch_pages;

/// Longest sleep between two looks at a file.
const NAP: Duration = Duration::from_millis(10);

/// No file system here promises room for a part of a file: that there is some was asked before, and is all that can be done.
pub(crate) fn reserve(_: &Path) -> io::Result<()> {
    Ok(())
}

/// As [`reserve`].
pub(crate) fn reserve_ranges(_: &Path, _: impl IntoIterator<Item = Range<u64>>) -> io::Result<()> {
    Ok(())
}

/// Nothing is given back before the pool goes.
pub(crate) fn release_ranges(_: &Path, _: impl IntoIterator<Item = Range<u64>>) -> io::Result<()> {
    Ok(())
}

pub(crate) fn populate_write(bytes: &mut [u8]) -> io::Result<()> {
    touch_pages(bytes);
    Ok(())
}

/// A forked child has the mapping, and must not use it.
pub(crate) fn keep_from_forks(_: &super::Mapping) -> io::Result<()> {
    Ok(())
}

/// Pools of departed publishers do not count for a quota: nothing tells whether they are still mapped.
pub(crate) fn is_used_elsewhere(_: &std::fs::File) -> io::Result<bool> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Slots cannot grow: nothing tells where their file is mapped.
pub(crate) fn start_of_mapped_file(_: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Programs that are started inherit iceoryx2's files.
pub(crate) fn keep_from_children(_: &Path) {}

/// Looks again and again, in place of being told.
#[derive(Debug)]
pub(crate) struct FileWatch;

impl FileWatch {
    pub(crate) fn new(_: &Path) -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) fn clear(&self) -> io::Result<()> {
        Ok(())
    }

    /// Ends early: whoever waits looks at the file again.
    pub(crate) fn wait(&self, bound: Duration) -> io::Result<()> {
        std::thread::sleep(bound.min(NAP));
        Ok(())
    }
}
