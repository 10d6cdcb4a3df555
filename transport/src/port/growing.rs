//! A pool whose slots get their memory when a message needs it, and can give it back.
//!
//! The pool itself never changes: it has all its addresses from the beginning, in a sparse file. So nothing moves when it
//! grows, and messages keep their order. Memory is given by `fallocate` after the same admission as at the beginning: if
//! there is none, the loan fails, and no write ever meets a page that cannot be had.

use std::iter::once;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::node::Node;
use super::turn::Turn;
use crate::os::{page_size, release_ranges, reserve_ranges, start_of_mapped_file};
use crate::pool::{Growth, MemoryFacts, PoolError, admit};

/// What iceoryx2 keeps in front of each slot's bytes: its header of 48 bytes and our preamble, in blocks of 64. That the
/// slots lie as this says is checked when a pool is made.
const HEADERS: u64 = 128;
/// Room for what iceoryx2 keeps in front of the first slot: so many bytes, and so many more for each slot.
const BEFORE_SLOTS: u64 = 16 * 1024;
const BEFORE_EACH: u64 = 64;

#[derive(Debug)]
pub(super) struct Growing {
    growth: Growth,
    file: PathBuf,
    /// Address of the file's first byte.
    mapped_at: usize,
}

/// Bytes that such a pool takes from the beginning, at most.
pub(super) fn bytes_at_first(slots: usize, ahead: usize) -> u64 {
    // Each slot may begin and end in the middle of a page.
    let each = ahead as u64 + HEADERS + BEFORE_EACH + 2 * page_size() as u64;
    BEFORE_SLOTS.saturating_add(each.saturating_mul(slots as u64))
}

/// In a turn, before a slot is loaned: memory for what iceoryx2 writes when it loans the first one.
pub(super) fn reserve_before_slots(file: &Path, slots: usize) -> std::io::Result<()> {
    let len = std::fs::metadata(file)?.len();
    reserve_ranges(file, once(0..before_slots(slots).min(len)))
}

fn before_slots(slots: usize) -> u64 {
    BEFORE_SLOTS + BEFORE_EACH * slots as u64
}

impl Growing {
    /// In a turn: memory for all headers and for `ahead` bytes of each slot. `address` is that of the first slot's bytes.
    pub(super) fn new(
        file: PathBuf,
        address: usize,
        slot_bytes: usize,
        slots: usize,
        ahead: usize,
    ) -> std::io::Result<Self> {
        let mapped_at = start_of_mapped_file(address)?;
        let first = (address - mapped_at) as u64;
        if first > before_slots(slots) {
            return Err(std::io::Error::other(format!("the first slot lies at {first} of the pool's file")));
        }
        let growth = Growth::new(first, HEADERS, slot_bytes, slots, ahead, page_size());
        reserve_ranges(&file, growth.beginning())?;
        Ok(Self { growth, file, mapped_at })
    }

    /// Bytes that have memory of the slot whose bytes begin at this address. `None` if no slot does.
    pub(super) fn committed(&self, address: usize) -> Option<usize> {
        Some(self.growth.committed(self.slot_at(address)?))
    }

    /// Gets memory for the first `wanted` bytes of a slot, which the caller has on loan. `populate` puts it into place.
    pub(super) fn grow(
        &self,
        node: &Node,
        address: usize,
        wanted: usize,
        populate: impl FnOnce() -> std::io::Result<()>,
    ) -> Result<(), PoolError> {
        let Some(slot) = self.slot_at(address) else { return Ok(()) };
        let Some(missing) = self.growth.missing(slot, wanted) else { return Ok(()) };
        let needed = missing.end - missing.start;
        let prepare = |reason| PoolError::Prepare { needed, reason };
        let turn = Turn::take(node.directory()).map_err(|error| prepare(std::io::Error::other(error.to_string())))?;
        admit(needed, &MemoryFacts::gather(node.directory()).map_err(prepare)?)?;
        node.admit_to_quota(needed)?;
        let reserved = reserve_ranges(&self.file, once(missing.clone()));
        drop(turn);
        if let Err(reason) = reserved.and_then(|()| populate()) {
            // What was got in part belongs to no slot's number, and would never be given back.
            let _ = release_ranges(&self.file, once(missing));
            return Err(prepare(reason));
        }
        self.growth.grown(slot, wanted);
        Ok(())
    }

    /// Gives back what slots have beyond the beginning; the caller has them on loan. Returns how many bytes it was.
    pub(super) fn release(&self, addresses: impl Iterator<Item = usize>) -> std::io::Result<u64> {
        let blocks = || Ok::<_, std::io::Error>(std::fs::metadata(&self.file)?.blocks());
        let before = blocks()?;
        let excess: Vec<_> = addresses
            .filter_map(|address| self.slot_at(address))
            .map(|slot| {
                let excess = self.growth.excess(slot);
                // Before the memory goes: whatever fails, no slot has less than its number says.
                self.growth.shrunk(slot);
                excess
            })
            .collect();
        release_ranges(&self.file, excess)?;
        Ok(before.saturating_sub(blocks()?) * 512)
    }

    fn slot_at(&self, address: usize) -> Option<usize> {
        self.growth.slot_at(address.checked_sub(self.mapped_at)? as u64)
    }
}
