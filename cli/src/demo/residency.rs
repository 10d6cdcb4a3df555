//! Whether the bytes of a tensor lie in the session's shared memory: counted, not assumed.

use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tensorbus::Message;

/// Checks where received tensors lie.
///
/// A tensor that lies in a mapping of one of the session's files is the one that its publisher wrote. One that lies
/// elsewhere, on the heap for instance, must have been copied there.
pub(super) struct Residency {
    directory: PathBuf,
    /// Addresses at which files of the session were mapped when they were last looked up.
    mapped: Vec<Range<usize>>,
    copied_bytes: u64,
}

impl Residency {
    pub(super) fn new(directory: &Path) -> Self {
        // The kernel lists real paths.
        let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        Self { directory, mapped: Vec::new(), copied_bytes: 0 }
    }

    /// Counts the bytes of those of the message's tensors that are copies.
    pub(super) fn check(&mut self, message: &Message) -> anyhow::Result<()> {
        for tensor in message.tensors() {
            let address = tensor.bytes().as_ptr().addr();
            let bytes = address..address + tensor.bytes().len();
            if self.is_mapped(&bytes) {
                continue;
            }
            // Not there yet when it was looked up, or really not there.
            let maps = std::fs::read("/proc/self/maps").context("cannot check for copies without /proc/self/maps")?;
            self.mapped = mapped_files(&maps, &self.directory);
            if !self.is_mapped(&bytes) {
                self.copied_bytes += bytes.len() as u64;
            }
        }
        Ok(())
    }

    /// Bytes of tensors that lay outside the session.
    pub(super) fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    fn is_mapped(&self, bytes: &Range<usize>) -> bool {
        self.mapped.iter().any(|range| range.start <= bytes.start && bytes.end <= range.end)
    }
}

/// Addresses of the mappings of files below `directory`, from the text of `/proc/self/maps`.
///
/// Mappings that touch are one: the kernel lists a mapping in parts if their protection differs.
fn mapped_files(maps: &[u8], directory: &Path) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for range in maps.split(|&byte| byte == b'\n').filter_map(|line| mapped_file(line, directory)) {
        match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    }
    ranges
}

/// A line is `start-end protection offset device inode      path`, numbers in hexadecimal.
fn mapped_file(line: &[u8], directory: &Path) -> Option<Range<usize>> {
    let path = &line[line.iter().position(|&byte| byte == b'/')?..];
    if !path.strip_prefix(directory.as_os_str().as_bytes())?.starts_with(b"/") {
        return None;
    }
    let range = std::str::from_utf8(line.split(|&byte| byte == b' ').next()?).ok()?;
    let (start, end) = range.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &[u8] = b"\
55d0c0a00000-55d0c0a21000 r--p 00000000 08:01 1234     /usr/bin/dev/shm/tb-0-default/tool
55d0c2a00000-55d0c2b00000 rw-p 00000000 00:00 0        [heap]
7f0000000000-7f0000001000 rw-s 00000000 00:19 77       /dev/shm/tb-0-default/tb_1.pool
7f0000001000-7f0000003000 r--s 00001000 00:19 77       /dev/shm/tb-0-default/tb_1.pool
7f0000010000-7f0000011000 rw-s 00000000 00:19 78       /dev/shm/tb-0-default/tb_2.pool (deleted)
7f0000020000-7f0000021000 rw-s 00000000 00:19 79       /dev/shm/tb-0-default2/tb_3.pool
7f0000030000-7f0000031000 rw-s 00000000 00:19 80       /dev/shm/other
7fff00000000-7fff00021000 rw-p 00000000 00:00 0        [stack]
";

    #[test]
    fn finds_the_files_of_the_session_and_no_others() {
        let found = mapped_files(MAPS, Path::new("/dev/shm/tb-0-default"));
        assert_eq!(found, [0x7f00_0000_0000..0x7f00_0000_3000, 0x7f00_0001_0000..0x7f00_0001_1000]);
        assert!(mapped_files(MAPS, Path::new("/dev/shm/tb-0")).is_empty());
        assert!(mapped_files(b"garbage\n\nx-y /dev/shm/tb-0-default/z", Path::new("/dev/shm/tb-0-default")).is_empty());
    }

    #[test]
    fn a_tensor_must_lie_inside_as_a_whole() {
        let mut residency = Residency::new(Path::new("/s"));
        residency.mapped = vec![100..200, 300..400];
        assert!(residency.is_mapped(&(100..200)));
        assert!(residency.is_mapped(&(350..350)));
        assert!(!residency.is_mapped(&(150..201)));
        assert!(!residency.is_mapped(&(200..300)));
        assert!(!residency.is_mapped(&(150..350)));
    }
}
