use std::ops::Range;

use super::{Bits, Sleeper, State};
use crate::sync::{AtomicU32, AtomicU64, Ordering, crash_point, peek};

/// Why a request failed: its worker died.
pub(crate) const WORKER_DIED: u8 = 1;

/// What stands in shared memory for each row, besides its data. All zeros are a free row.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Head {
    word: AtomicU64,
    /// Its client, while it waits for the answer.
    pub(crate) sleeper: Sleeper,
    /// Where its data lies in the client's file, if the ring is isolated. Written before the row is submitted.
    pub(crate) slot: AtomicU32,
}

/// The rows of a request ring: who has which one. `RING.md` says what is done here, and why it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    pub(crate) heads: &'a [Head],
    /// A bit for each ready row.
    pub(crate) ready: Bits<'a>,
    /// Which row is tried next.
    pub(crate) cursor: &'a AtomicU64,
}

/// How a request ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Done,
    Failed(u8),
    /// It did not end: another worker runs it.
    Again,
}

/// What became of a row that was finished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Finished {
    /// Its client has the answer.
    Answered,
    /// It waits for another worker.
    Ready,
    /// Nobody waited for it: it is free.
    Freed,
    /// The worker did not have it.
    NotYours,
}

impl Rows<'_> {
    /// A free row for a client, which writes from now on.
    #[inline]
    pub(crate) fn loan(&self, client: u16) -> Option<usize> {
        let rows = self.heads.len() as u64;
        (0..rows).find_map(|_| {
            let row = (self.cursor.fetch_add(1, Ordering::Relaxed) % rows) as usize;
            self.change(row, State::Free, State::Writing { client }).then_some(row)
        })
    }

    /// After the client has written the inputs of its row.
    #[inline]
    pub(crate) fn submit(&self, row: usize, client: u16) {
        if self.change(row, State::Writing { client }, State::Ready { client }) {
            self.ready.set(row);
        }
    }

    /// How the client's request ended, if it did. The outputs, or the text, can be read from then on.
    #[inline]
    pub(crate) fn answer(&self, row: usize, client: u16) -> Option<Outcome> {
        match State::of(self.heads[row].word.load(Ordering::Acquire)) {
            Some(State::Ready { client: of } | State::Running { client: of, .. }) if of == client => None,
            Some(State::Done { client: of }) if of == client => Some(Outcome::Done),
            Some(State::Failed { client: of, reason }) if of == client => Some(Outcome::Failed(reason)),
            // Somebody else has written this word, which nobody may.
            _ => Some(Outcome::Failed(u8::MAX)),
        }
    }

    /// The client does not want the row any more, whatever it was used for; or is dead, and this is who buries it. Whether the row is free now.
    #[inline]
    pub(crate) fn let_go(&self, row: usize, client: u16) -> bool {
        loop {
            let seen = State::of(peek(&self.heads[row].word));
            let Some(state) = seen.filter(|state| state.client() == Some(client)) else { return false };
            let next = match state {
                State::Running { worker, .. } => State::Abandoned { worker },
                _ => State::Free,
            };
            // Fails only if a worker, or who buries one, went on with the row meanwhile.
            if self.change(row, state, next) {
                return next == State::Free;
            }
        }
    }

    /// Neighbouring ready rows for a worker, at most `max`: from the first one at or behind `from` on, else from the first of all.
    #[inline]
    pub(crate) fn take(&self, from: usize, max: usize, worker: u16) -> Option<Range<usize>> {
        loop {
            // Before the rows are taken: a bit that is set from now on is of a later request.
            let run = self.ready.take_run(from, max)?;
            let run = run.start..run.end.min(self.heads.len());
            let taken = run.clone().take_while(|&row| self.run(row, worker)).count();
            let end = run.start + taken;
            // The one at the end was withdrawn. Those behind it are left to others.
            (end + 1..run.end).for_each(|row| self.ready.set(row));
            if taken > 0 {
                return Some(run.start..end);
            }
        }
    }

    /// Takes a row if it is ready.
    #[inline]
    pub(crate) fn run(&self, row: usize, worker: u16) -> bool {
        match State::of(peek(&self.heads[row].word)) {
            Some(ready @ State::Ready { client }) => self.change(row, ready, State::Running { client, worker }),
            _ => false,
        }
    }

    /// The worker is done with a row; or is dead, and this is who buries it.
    #[inline]
    pub(crate) fn finish(&self, row: usize, worker: u16, outcome: Outcome) -> Finished {
        loop {
            let seen = State::of(peek(&self.heads[row].word));
            let Some(state) = seen.filter(|state| state.worker() == Some(worker)) else { return Finished::NotYours };
            let (next, finished) = match (state, outcome) {
                (State::Running { client, .. }, Outcome::Done) => (State::Done { client }, Finished::Answered),
                (State::Running { client, .. }, Outcome::Failed(reason)) => {
                    (State::Failed { client, reason }, Finished::Answered)
                }
                (State::Running { client, .. }, Outcome::Again) => (State::Ready { client }, Finished::Ready),
                _ => (State::Free, Finished::Freed),
            };
            // Fails only if the client withdrew meanwhile, which it does once.
            if self.change(row, state, next) {
                if finished == Finished::Ready {
                    self.ready.set(row);
                }
                return finished;
            }
        }
    }

    /// In a turn, of a dead client: no row names it any more.
    pub(crate) fn bury_client(&self, client: u16) {
        (0..self.heads.len()).for_each(|row| {
            self.let_go(row, client);
        });
    }

    /// In a turn, of a dead worker: no row names it any more, and what it was just about to take is found by others. How many of its
    /// requests have to be run again.
    pub(crate) fn bury_worker(&self, worker: u16, may_repeat: bool) -> usize {
        let outcome = if may_repeat { Outcome::Again } else { Outcome::Failed(WORKER_DIED) };
        let mut repeated = 0;
        for row in 0..self.heads.len() {
            repeated += usize::from(self.finish(row, worker, outcome) == Finished::Ready);
            if matches!(self.state(row), Some(State::Ready { .. })) {
                self.ready.set(row);
            }
        }
        repeated
    }

    /// For onlookers.
    pub(crate) fn state(&self, row: usize) -> Option<State> {
        State::of(peek(&self.heads[row].word))
    }

    /// The one step that all others are made of.
    #[inline]
    pub(crate) fn change(&self, row: usize, from: State, to: State) -> bool {
        let word = &self.heads[row].word;
        let changed = word.compare_exchange(from.word(), to.word(), Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if changed {
            crash_point();
        }
        changed
    }
}
