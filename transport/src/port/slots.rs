//! Who has the slots of a publisher's pool. Pure.

use std::collections::VecDeque;

/// Which free slot is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// The one that is free for longest: no reader's cache has its lines any more, which a writer would have to wait for.
    LongestFree,
    /// The one that came back last: where slots grow it has memory, and others may not.
    LastReturned,
}

/// The slots of a pool, by number.
#[derive(Debug)]
pub(super) struct Slots {
    /// How many have each slot: who loaned it, the history, and each queue or subscriber that it was delivered to.
    holders: Vec<u32>,
    /// The one that came back last stands at the end.
    free: VecDeque<usize>,
    order: Order,
    /// The last messages, the oldest first.
    history: VecDeque<usize>,
    /// How many of them are kept.
    kept: usize,
}

impl Slots {
    /// All slots free.
    pub(super) fn new(slots: usize, order: Order, kept: usize) -> Self {
        Self {
            holders: vec![0; slots],
            free: (0..slots).collect(),
            order,
            history: VecDeque::with_capacity(kept),
            kept,
        }
    }

    /// A free slot, which the caller has now.
    #[inline]
    pub(super) fn take(&mut self) -> Option<usize> {
        let slot = match self.order {
            Order::LongestFree => self.free.pop_front(),
            Order::LastReturned => self.free.pop_back(),
        }?;
        self.holders[slot] = 1;
        Some(slot)
    }

    /// One more has a slot that the caller has.
    #[inline]
    pub(super) fn share(&mut self, slot: usize) {
        self.holders[slot] += 1;
    }

    /// One of those that have the slot gives it back. `false` if nobody has it: a peer returned what it was not given.
    #[inline]
    pub(super) fn give_back(&mut self, slot: usize) -> bool {
        match self.holders.get_mut(slot) {
            None | Some(0) => return false,
            Some(holders) => *holders -= 1,
        }
        if self.holders[slot] == 0 {
            self.free.push_back(slot);
        }
        true
    }

    /// The message in this slot becomes the latest of the history.
    #[inline]
    pub(super) fn remember(&mut self, slot: usize) {
        if self.kept == 0 {
            return;
        }
        if self.history.len() == self.kept
            && let Some(oldest) = self.history.pop_front()
        {
            self.give_back(oldest);
        }
        self.share(slot);
        self.history.push_back(slot);
    }

    /// At most so many of the last messages, the oldest first.
    pub(super) fn last(&self, messages: usize) -> Vec<usize> {
        self.history.iter().skip(self.history.len().saturating_sub(messages)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slot_is_free_when_the_last_one_gives_it_back() {
        let mut slots = Slots::new(1, Order::LongestFree, 0);
        let slot = slots.take().unwrap();
        slots.share(slot);
        assert!(slots.give_back(slot));
        assert_eq!(slots.take(), None);
        assert!(slots.give_back(slot));
        assert!(!slots.give_back(slot), "nobody has it");
        assert!(!slots.give_back(7), "there is none");
        assert_eq!(slots.take(), Some(slot));
    }

    #[test]
    fn free_slots_are_taken_in_order() {
        for order in [Order::LongestFree, Order::LastReturned] {
            let mut slots = Slots::new(3, order, 0);
            let [returned, _] = [slots.take().unwrap(), slots.take().unwrap()];
            slots.give_back(returned);
            assert_eq!(slots.take() == Some(returned), order == Order::LastReturned, "{order:?}");
        }
    }

    proptest! {
        /// Against the plain list of who has what.
        #[test]
        fn as_a_list_of_holders(steps in prop::collection::vec((0..4u8, any::<prop::sample::Index>()), 0..200), kept in 0..4usize, last_first: bool) {
            let order = if last_first { Order::LastReturned } else { Order::LongestFree };
            let mut slots = Slots::new(5, order, kept);
            let (mut held, mut history): (Vec<usize>, Vec<usize>) = Default::default();
            for (step, which) in steps {
                match step {
                    0 => match slots.take() {
                        Some(slot) => {
                            prop_assert!(!held.contains(&slot) && !history.contains(&slot));
                            held.push(slot);
                        }
                        None => prop_assert!((0..5).all(|slot| held.contains(&slot) || history.contains(&slot))),
                    },
                    _ if held.is_empty() => {}
                    1 => {
                        let slot = *which.get(&held);
                        slots.share(slot);
                        held.push(slot);
                    }
                    2 => {
                        let slot = held.swap_remove(which.index(held.len()));
                        prop_assert!(slots.give_back(slot));
                    }
                    _ => {
                        let slot = *which.get(&held);
                        slots.remember(slot);
                        history.push(slot);
                        history.drain(..history.len().saturating_sub(kept));
                    }
                }
                prop_assert_eq!(slots.last(usize::MAX), history.clone());
                prop_assert_eq!(slots.last(1), history.iter().rev().take(1).copied().collect::<Vec<_>>());
            }
        }
    }
}
