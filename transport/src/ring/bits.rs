use std::ops::Range;

use crate::sync::{AtomicU64, Ordering, crash_point, peek};

const BITS: usize = u64::BITS as usize;

/// A set of small numbers that many change at the same time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bits<'a> {
    words: &'a [AtomicU64],
}

impl<'a> Bits<'a> {
    /// Numbers below 64 times the words.
    pub(crate) fn new(words: &'a [AtomicU64]) -> Self {
        Self { words }
    }

    /// Of the words only those that numbers below `len` are in.
    pub(crate) fn only(self, len: usize) -> Self {
        Self { words: &self.words[..len.div_ceil(BITS)] }
    }

    /// Puts a number in, after everything that was done before.
    #[inline]
    pub(crate) fn set(&self, number: usize) {
        self.words[number / BITS].fetch_or(1 << (number % BITS), Ordering::AcqRel);
        crash_point();
    }

    /// Takes a number out.
    #[inline]
    pub(crate) fn clear(&self, number: usize) {
        self.words[number / BITS].fetch_and(!(1 << (number % BITS)), Ordering::AcqRel);
    }

    /// How many there are.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.words.iter().map(|word| peek(word).count_ones() as usize).sum()
    }

    /// The first one at or behind `from`, else the first of all.
    #[inline]
    pub(crate) fn first(&self, from: usize) -> Option<usize> {
        let words = self.words.len();
        let start = from / BITS % words;
        // The word that `from` lies in is looked at twice: behind it first, before it last.
        for step in 0..=words {
            let index = (start + step) % words;
            let behind = u64::MAX << (from % BITS);
            let seen = peek(&self.words[index]) & if step == 0 { behind } else { u64::MAX };
            if seen != 0 {
                return Some(index * BITS + seen.trailing_zeros() as usize);
            }
        }
        None
    }

    /// Takes out neighbours, at most `max`: from the first one at or behind `from` on, else from the first of all. What is returned, nobody
    /// else takes.
    #[inline]
    pub(crate) fn take_run(&self, from: usize, max: usize) -> Option<Range<usize>> {
        loop {
            let start = self.first(from)?;
            let mut end = start;
            while end - start < max && end / BITS < self.words.len() {
                let taken = self.take_in_word(end, max - (end - start));
                end += taken;
                // Only a run that ends with its word may go on in the next.
                if taken == 0 || !end.is_multiple_of(BITS) {
                    break;
                }
            }
            if end > start {
                return Some(start..end);
            }
        }
    }

    /// Takes `start` and what follows it in the same word; how many it got.
    fn take_in_word(&self, start: usize, max: usize) -> usize {
        let (word, shift) = (&self.words[start / BITS], start % BITS);
        let seen = (peek(word) >> shift).trailing_ones() as usize;
        let wanted = mask(seen.min(max)) << shift;
        if wanted == 0 {
            return 0;
        }
        let got = word.fetch_and(!wanted, Ordering::AcqRel) & wanted;
        crash_point();
        let run = (got >> shift).trailing_ones() as usize;
        // Others were quicker with some: what lies behind those goes back.
        let rest = got & !(mask(run) << shift);
        if rest != 0 {
            word.fetch_or(rest, Ordering::AcqRel);
        }
        run
    }
}

/// The lowest `count` bits.
fn mask(count: usize) -> u64 {
    if count >= BITS { u64::MAX } else { (1 << count) - 1 }
}

#[cfg(all(test, not(tensorbus_loom)))]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn words(numbers: &BTreeSet<usize>, count: usize) -> Vec<AtomicU64> {
        let words: Vec<_> = (0..count).map(|_| AtomicU64::new(0)).collect();
        numbers.iter().for_each(|&number| Bits::new(&words).set(number));
        words
    }

    proptest! {
        #[test]
        fn runs_are_those_of_a_set(
            numbers in proptest::collection::btree_set(0_usize..192, 0..192),
            from in 0_usize..192,
            max in 1_usize..130,
        ) {
            let words = words(&numbers, 3);
            let bits = Bits::new(&words);
            let start = numbers.range(from..).next().or(numbers.first()).copied();
            prop_assert_eq!(bits.first(from), start);
            let run = bits.take_run(from, max);
            prop_assert_eq!(run.as_ref().map(|run| run.start), start);
            let mut left = numbers.clone();
            if let Some(run) = run {
                let expected = (run.start..192).take_while(|number| numbers.contains(number)).take(max).count();
                prop_assert_eq!(run.len(), expected);
                run.for_each(|number| { left.remove(&number); });
            }
            prop_assert_eq!(bits.count(), left.len());
            prop_assert!(left.iter().all(|&number| bits.first(number) == Some(number)));
        }
    }

    #[test]
    fn a_number_goes_in_and_out() {
        let words = words(&BTreeSet::new(), 2);
        let bits = Bits::new(&words);
        bits.set(127);
        bits.set(127);
        assert_eq!((bits.count(), bits.first(0), bits.first(127)), (1, Some(127), Some(127)));
        bits.clear(127);
        assert_eq!((bits.count(), bits.first(5)), (0, None));
    }
}
