use crate::port::Segment;
use crate::ring::State;

/// How many rows of a ring are in which state, for people who look at it. Rows change meanwhile: the sum is that of the rows, but a row that
/// goes on may be counted where it was.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RowCounts {
    /// Nobody has them.
    pub free: usize,
    /// Clients write them.
    pub writing: usize,
    /// Submitted; they wait for a worker.
    pub ready: usize,
    /// Workers run them.
    pub running: usize,
    /// Workers run them, and their clients have given up, or died.
    pub abandoned: usize,
    /// Answered; their clients have not given them back yet.
    pub done: usize,
    /// Answered with an error; their clients have not given them back yet.
    pub failed: usize,
    /// Somebody who may not has written their words.
    pub damaged: usize,
}

impl RowCounts {
    pub(super) fn of(segment: &Segment) -> Self {
        let mut counts = Self::default();
        for state in segment.states() {
            let count = match state {
                Some(State::Free) => &mut counts.free,
                Some(State::Writing { .. }) => &mut counts.writing,
                Some(State::Ready { .. }) => &mut counts.ready,
                Some(State::Running { .. }) => &mut counts.running,
                Some(State::Abandoned { .. }) => &mut counts.abandoned,
                Some(State::Done { .. }) => &mut counts.done,
                Some(State::Failed { .. }) => &mut counts.failed,
                None => &mut counts.damaged,
            };
            *count += 1;
        }
        counts
    }
}
