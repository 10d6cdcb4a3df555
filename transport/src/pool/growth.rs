//! How much of each slot has memory, in a pool whose slots get theirs when a message needs it. Pure.
//!
//! The file of such a pool is sparse. What lies before the slots, and the headers in front of each, always have memory; the
//! bytes of a slot have it up to a number that grows at loan and shrinks when memory is given back. Only whoever has the
//! slot on loan changes its number.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(crate) struct Growth {
    /// Offset in the file of the first slot's bytes.
    first: u64,
    /// From one slot's bytes to the next one's, the headers between them included.
    stride: u64,
    slot_bytes: usize,
    /// Bytes of each slot that have memory from the beginning and keep it.
    ahead: usize,
    page: u64,
    /// Bytes of each slot that have memory.
    committed: Box<[AtomicUsize]>,
}

impl Growth {
    pub(crate) fn new(first: u64, headers: u64, slot_bytes: usize, slots: usize, ahead: usize, page: usize) -> Self {
        let ahead = ahead.min(slot_bytes);
        Self {
            first,
            stride: headers + slot_bytes as u64,
            slot_bytes,
            ahead,
            page: page as u64,
            committed: (0..slots).map(|_| AtomicUsize::new(ahead)).collect(),
        }
    }

    /// The parts of the file that have memory from the beginning: headers, and what is committed ahead.
    pub(crate) fn beginning(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let headers = self.stride - self.slot_bytes as u64;
        (0..self.committed.len()).map(move |slot| {
            let start = self.offset(slot);
            start.saturating_sub(headers)..start + self.ahead as u64
        })
    }

    /// The slot whose bytes begin at this offset of the file.
    pub(crate) fn slot_at(&self, offset: u64) -> Option<usize> {
        let distance = offset.checked_sub(self.first)?;
        let slot = usize::try_from(distance / self.stride).ok()?;
        (distance.is_multiple_of(self.stride) && slot < self.committed.len()).then_some(slot)
    }

    /// Bytes of the slot that have memory.
    pub(crate) fn committed(&self, slot: usize) -> usize {
        self.committed.get(slot).map_or(0, |bytes| bytes.load(Ordering::Relaxed))
    }

    /// Whole pages of the file that lack memory for `wanted` bytes of the slot. `None` if it has enough.
    pub(crate) fn missing(&self, slot: usize, wanted: usize) -> Option<Range<u64>> {
        let (wanted, committed) = (wanted.min(self.slot_bytes), self.committed(slot));
        // The page of the last byte that has memory has it as a whole; in an empty slot that is the headers' page.
        let end = (self.offset(slot) + wanted as u64).next_multiple_of(self.page);
        (wanted > committed).then(|| self.page_behind(slot, committed)..end)
    }

    /// Notes that `wanted` bytes of the slot have memory.
    pub(crate) fn grown(&self, slot: usize, wanted: usize) {
        if let Some(bytes) = self.committed.get(slot) {
            bytes.store(wanted.min(self.slot_bytes).max(self.committed(slot)), Ordering::Relaxed);
        }
    }

    /// Whole pages of the file that can be given back, as nobody uses the slot: what it has beyond the beginning.
    pub(crate) fn excess(&self, slot: usize) -> Range<u64> {
        // The page of the slot's end is the next slot's too.
        let whole = (self.offset(slot) + self.slot_bytes as u64) / self.page * self.page;
        let end = self.page_behind(slot, self.committed(slot)).min(whole);
        let start = self.page_behind(slot, self.ahead);
        start..end.max(start)
    }

    /// Notes that the excess of the slot is given back.
    pub(crate) fn shrunk(&self, slot: usize) {
        if let Some(bytes) = self.committed.get(slot) {
            bytes.store(self.ahead, Ordering::Relaxed);
        }
    }

    fn offset(&self, slot: usize) -> u64 {
        self.first + self.stride * slot as u64
    }

    fn page_behind(&self, slot: usize, bytes: usize) -> u64 {
        (self.offset(slot) + bytes as u64).next_multiple_of(self.page)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const HEADERS: u64 = 128;

    #[test]
    fn slots_are_known_by_their_offset() {
        let growth = Growth::new(1000, HEADERS, 640, 3, 0, 4096);
        assert_eq!([1000, 1768, 2536].map(|offset| growth.slot_at(offset)), [Some(0), Some(1), Some(2)]);
        assert_eq!([0, 1001, 3304].map(|offset| growth.slot_at(offset)), [None; 3]);
    }

    proptest! {
        /// The model: the set of pages that have memory. Whatever grows and shrinks, each byte that is said to have
        /// memory lies on such a page, and when all is given back there are hardly more pages than at the beginning.
        #[test]
        fn what_is_committed_has_pages(
            first in 200u64..20_000,
            blocks in 1usize..1000,
            ahead in 0usize..20_000,
            events in prop::collection::vec((0usize..4, prop::option::of(0usize..70_000)), 0..40),
        ) {
            const PAGE: u64 = 4096;
            let slot_bytes = blocks * 64;
            let growth = Growth::new(first, HEADERS, slot_bytes, 4, ahead, PAGE as usize);
            let on = |range: Range<u64>| range.start / PAGE..range.end.div_ceil(PAGE);
            let mut pages: BTreeSet<u64> = growth.beginning().flat_map(on).collect();
            let at_first = pages.len();
            for (slot, event) in events {
                match event {
                    Some(wanted) => {
                        if let Some(missing) = growth.missing(slot, wanted) {
                            prop_assert!(missing.start <= missing.end && missing.start % PAGE == 0 && missing.end % PAGE == 0);
                            pages.extend(on(missing));
                            growth.grown(slot, wanted);
                        }
                        prop_assert!(growth.committed(slot) >= wanted.min(slot_bytes));
                    }
                    None => {
                        for page in on(growth.excess(slot)) { pages.remove(&page); }
                        growth.shrunk(slot);
                    }
                }
                for slot in 0..4 {
                    let start = growth.offset(slot);
                    let needed = on(start - HEADERS..start + growth.committed(slot) as u64);
                    prop_assert!(needed.clone().all(|page| pages.contains(&page)), "slot {} lacks one of {:?}", slot, needed);
                }
            }
            for slot in 0..4 {
                for page in on(growth.excess(slot)) { pages.remove(&page); }
                growth.shrunk(slot);
            }
            // At most the page that a slot's end shares with whatever comes behind it.
            prop_assert!(pages.len() <= at_first + 4);
        }
    }
}
