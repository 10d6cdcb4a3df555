use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use super::error::RingFormatError;
use super::geometry::{
    CLIENTS_AT, COUNTS_AT, CURSOR_AT, Geometry, HEADS_AT, MAX_RING_CLIENTS, MAX_RING_ROWS, MAX_RING_WORKERS,
    PLACE_BYTES, READY_AT, Side, TEXT_BYTES, WANTING_AT, WORKERS_AT,
};
use crate::os::{Mapping, keep_from_forks, populate_write};
use crate::ring::{Bits, Head, Rows, Sleeper, State};
use crate::sync::{AtomicU32, AtomicU64};

/// A ring's file, mapped. A forked child does not have the mapping.
#[derive(Debug)]
pub(crate) struct Segment {
    mapping: Mapping,
    geometry: Geometry,
    path: PathBuf,
}

/// What stands in the table of clients or of workers.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Place {
    pub(super) taken: AtomicU32,
    pub(super) pid: AtomicU32,
    pub(super) sleeper: Sleeper,
    /// Counts those who have had the place.
    pub(super) tenants: AtomicU32,
}

/// How many places there are, and who looked last.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Counts {
    pub(super) clients: AtomicU32,
    pub(super) workers: AtomicU32,
    pub(super) looked: AtomicU64,
    /// Requests that another worker ran again, since the ring was made.
    pub(super) repeated: AtomicU64,
}

const _: () = assert!(size_of::<Place>() == PLACE_BYTES && size_of::<Head>() == 64 && size_of::<Counts>() == 64);

/// Why a ring cannot be opened.
#[derive(Debug)]
pub(super) enum OpenFailure {
    Io(io::Error),
    Format(RingFormatError),
}

impl Segment {
    /// Writes a new ring into an empty file, for which there is room, and puts memory behind it.
    pub(super) fn create(file: &File, path: &Path, geometry: Geometry) -> io::Result<Self> {
        file.set_len(geometry.file_len() as u64)?;
        crate::os::reserve(path)?;
        for (at, bytes) in geometry.parts() {
            file.write_all_at(&bytes, at as u64)?;
        }
        let segment = Self::map(file, path, geometry)?;
        // SAFETY: the whole mapping, which nobody else has yet, and of which no other reference is there.
        let whole =
            unsafe { std::slice::from_raw_parts_mut(segment.mapping.start().as_ptr(), segment.geometry.file_len()) };
        populate_write(whole)?;
        Ok(segment)
    }

    /// What a file says that it is; changes nothing.
    pub(super) fn look(file: &File) -> Result<Geometry, OpenFailure> {
        let len = file.metadata().map_err(OpenFailure::Io)?.len();
        let read = |into: &mut [u8], at| file.read_exact_at(into, at);
        Geometry::read(len, read).map_err(OpenFailure::Io)?.map_err(OpenFailure::Format)
    }

    /// `geometry` is what was read from the file.
    pub(super) fn map(file: &File, path: &Path, geometry: Geometry) -> io::Result<Self> {
        let mapping = Mapping::new(file, geometry.file_len())?;
        keep_from_forks(&mapping)?;
        Ok(Self { mapping, geometry, path: path.to_owned() })
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    #[inline]
    pub(super) fn rows(&self) -> Rows<'_> {
        Rows {
            heads: self.array(HEADS_AT, self.geometry.rows()),
            ready: Bits::new(self.array(READY_AT, MAX_RING_ROWS / 64)).only(self.geometry.rows()),
            cursor: &self.array(CURSOR_AT, 1)[0],
        }
    }

    /// Who has each row, for onlookers.
    pub(crate) fn states(&self) -> impl Iterator<Item = Option<State>> {
        let rows = self.rows();
        (0..self.geometry.rows()).map(move |row| rows.state(row))
    }

    /// A bit for each client that waits for a free row.
    #[inline]
    pub(super) fn wanting(&self) -> Bits<'_> {
        Bits::new(self.array(WANTING_AT, MAX_RING_CLIENTS / 64))
    }

    #[inline]
    pub(super) fn counts(&self) -> &Counts {
        &self.array(COUNTS_AT, 1)[0]
    }

    #[inline]
    pub(super) fn clients(&self) -> &[Place] {
        self.array(CLIENTS_AT, MAX_RING_CLIENTS)
    }

    #[inline]
    pub(super) fn workers(&self) -> &[Place] {
        self.array(WORKERS_AT, MAX_RING_WORKERS)
    }

    /// Part of the file that consists of atomics.
    #[inline]
    fn array<T: Shared>(&self, at: usize, len: usize) -> &[T] {
        debug_assert!(at.is_multiple_of(64) && at + len * size_of::<T>() <= self.geometry.file_len());
        // SAFETY: inside the mapping: every caller names a part as `geometry` places it, of which the last are the heads, as many as
        // there are rows; `map` has mapped all of `file_len`, and `Geometry::read` and `new` see to it that the parts lie within.
        let start = unsafe { self.mapping.start().add(at) };
        // SAFETY: as above, aligned (parts begin at multiples of 64 of a page), alive as long as `self`; `Shared` are types of
        // atomics only, of which every bit pattern is a value, and which other processes change by atomic operations.
        unsafe { std::slice::from_raw_parts(start.cast().as_ptr(), len) }
    }

    /// The bytes of some rows of a tensor. Who may read and write them is what the rows' words say.
    #[inline]
    pub(crate) fn data(&self, side: &Side, tensor: usize, rows: Range<usize>) -> NonNull<[u8]> {
        debug_assert!(rows.end <= self.geometry.rows());
        let at = side.offset(tensor, rows.start);
        let len = side.offset(tensor, rows.end) - at;
        // SAFETY: inside the mapping: `side` is of this segment's geometry, which has room for all rows of all its tensors.
        let start = unsafe { self.mapping.start().add(at) };
        NonNull::slice_from_raw_parts(start, len)
    }

    /// Where the text of a row lies.
    fn text(&self, row: usize) -> NonNull<[u8; TEXT_BYTES]> {
        debug_assert!(row < self.geometry.rows());
        let at = Geometry::texts_at(self.geometry.rows()) + row * TEXT_BYTES;
        // SAFETY: inside the mapping, since `row` is one of the rows, for all of which there are texts.
        unsafe { self.mapping.start().add(at) }.cast()
    }

    /// Says why a request failed, as far as there is room. By the worker that has the row.
    pub(super) fn set_text(&self, row: usize, text: &str) {
        let room = TEXT_BYTES - 2;
        let cut = (0..=text.len().min(room)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let mut bytes = [0; TEXT_BYTES];
        bytes[..2].copy_from_slice(&(cut as u16).to_le_bytes());
        bytes[2..2 + cut].copy_from_slice(&text.as_bytes()[..cut]);
        // SAFETY: in the mapping, bytes have no alignment, and by the row's word nobody else reads or writes them now.
        unsafe { self.text(row).write(bytes) };
    }

    /// By the client that has the row, whatever a worker wrote there.
    pub(super) fn read_text(&self, row: usize) -> String {
        // SAFETY: in the mapping, bytes have no alignment, and by the row's word nobody writes them now.
        let bytes = unsafe { self.text(row).read() };
        let len = usize::from(u16::from_le_bytes([bytes[0], bytes[1]])).min(TEXT_BYTES - 2);
        String::from_utf8_lossy(&bytes[2..2 + len]).into_owned()
    }
}

/// Types of the file's parts that are shared: nothing but atomics, without padding that matters.
///
/// # Safety
/// Every bit pattern is a value, and all fields are atomics.
unsafe trait Shared {}

// SAFETY: consists of atomics.
unsafe impl Shared for Head {}
// SAFETY: consists of atomics.
unsafe impl Shared for Place {}
// SAFETY: consists of atomics.
unsafe impl Shared for Counts {}
// SAFETY: is an atomic.
unsafe impl Shared for AtomicU64 {}
