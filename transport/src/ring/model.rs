//! The rows of a ring do what a naive model of them says, whatever clients and workers do, and whoever dies: one step at a time, which each
//! other test leaves to chance.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Bits, Finished, Head, Outcome, Rows, State, WORKER_DIED};
use crate::sync::AtomicU64;

const CLIENTS: u16 = 4;
const WORKERS: u16 = 3;

#[derive(Clone, Debug)]
enum Step {
    Loan(u16),
    /// Of the rows that the client writes, the one with this number.
    Submit(u16, usize),
    /// Of the rows that it has.
    LetGo(u16, usize),
    Answer(u16, usize),
    Take(u16, usize, usize),
    /// Of the rows that the worker runs.
    Finish(u16, usize, Outcome),
    /// The party dies, and is buried; its place is the next one's.
    ClientDies(u16),
    WorkerDies(u16),
    /// It dies after it has taken bits, and before it has taken rows.
    WorkerDiesTaking(u16, usize, usize),
    /// It dies after the word, and before the bit.
    ClientDiesSubmitting(u16, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (client, worker, which) = (0..CLIENTS, 0..WORKERS, any::<usize>());
    let outcome = prop_oneof![
        4 => Just(Outcome::Done),
        1 => (2_u8..9).prop_map(Outcome::Failed),
        1 => Just(Outcome::Again),
    ];
    prop_oneof![
        6 => client.clone().prop_map(Step::Loan),
        6 => (client.clone(), which).prop_map(|(client, which)| Step::Submit(client, which)),
        4 => (client.clone(), which).prop_map(|(client, which)| Step::LetGo(client, which)),
        2 => (client.clone(), which).prop_map(|(client, which)| Step::Answer(client, which)),
        4 => (worker.clone(), which, 1_usize..6).prop_map(|(worker, from, max)| Step::Take(worker, from, max)),
        6 => (worker.clone(), which, outcome).prop_map(|(worker, which, how)| Step::Finish(worker, which, how)),
        1 => client.clone().prop_map(Step::ClientDies),
        1 => worker.clone().prop_map(Step::WorkerDies),
        1 => (worker, which, 1_usize..6).prop_map(|(worker, from, max)| Step::WorkerDiesTaking(worker, from, max)),
        1 => (client, which).prop_map(|(client, which)| Step::ClientDiesSubmitting(client, which)),
    ]
}

/// What the rows should be: the state of each that is not free. Which bits are set follows.
#[derive(Debug)]
struct Model {
    states: BTreeMap<usize, State>,
    rows: usize,
    /// Where the next loan begins to look.
    cursor: usize,
    may_repeat: bool,
    /// What was withdrawn while its bit was set: takers find such bits, and throw them away.
    stale: BTreeSet<usize>,
}

impl Model {
    fn loan(&mut self, client: u16) -> Option<usize> {
        let row =
            (0..self.rows).map(|step| (self.cursor + step) % self.rows).find(|row| !self.states.contains_key(row));
        self.cursor = row.map_or(self.cursor + self.rows, |row| row + 1) % self.rows;
        self.states.insert(row?, State::Writing { client });
        row
    }

    fn of(&self, is_so: impl Fn(State) -> bool) -> Vec<usize> {
        self.states.iter().filter(|&(_, &state)| is_so(state)).map(|(&row, _)| row).collect()
    }

    fn let_go(&mut self, row: usize) -> bool {
        match self.states.remove(&row).expect("a row of the client") {
            State::Running { worker, .. } => {
                self.states.insert(row, State::Abandoned { worker });
                return false;
            }
            State::Ready { .. } => {
                self.stale.insert(row);
            }
            _ => {}
        }
        true
    }

    fn has_bit(&self, row: usize) -> bool {
        matches!(self.states.get(&row), Some(State::Ready { .. })) || self.stale.contains(&row)
    }

    /// Neighbours whose bits are set, which are cleared by that.
    fn take_bits(&mut self, from: usize, max: usize) -> Option<Range<usize>> {
        let start = (from..self.rows).chain(0..self.rows).find(|&row| self.has_bit(row))?;
        let end = (start..self.rows).take(max).take_while(|&row| self.has_bit(row)).last()? + 1;
        self.stale.retain(|row| !(start..end).contains(row));
        Some(start..end)
    }

    fn take(&mut self, from: usize, max: usize, worker: u16) -> Option<Range<usize>> {
        loop {
            let run = self.take_bits(from, max)?;
            let client = |row| match self.states.get(&row) {
                Some(State::Ready { client }) => Some(*client),
                _ => None,
            };
            let clients: Vec<_> = run.clone().map_while(client).collect();
            for (row, client) in (run.start..).zip(&clients) {
                self.states.insert(row, State::Running { client: *client, worker });
            }
            // Bits behind the first that was withdrawn stay, also if nothing is behind them.
            let end = run.start + clients.len();
            for row in end + 1..run.end {
                if !self.has_bit(row) {
                    self.stale.insert(row);
                }
            }
            if !clients.is_empty() {
                return Some(run.start..end);
            }
        }
    }

    fn finish(&mut self, row: usize, outcome: Outcome) -> Finished {
        let (state, finished) = match (self.states.remove(&row), outcome) {
            (Some(State::Running { client, .. }), Outcome::Done) => (State::Done { client }, Finished::Answered),
            (Some(State::Running { client, .. }), Outcome::Failed(reason)) => {
                (State::Failed { client, reason }, Finished::Answered)
            }
            (Some(State::Running { client, .. }), Outcome::Again) => (State::Ready { client }, Finished::Ready),
            _ => return Finished::Freed,
        };
        self.states.insert(row, state);
        finished
    }

    fn client_dies(&mut self, client: u16) {
        for row in self.of(|state| state.client() == Some(client)) {
            self.let_go(row);
        }
    }

    fn worker_dies(&mut self, worker: u16) {
        let outcome = if self.may_repeat { Outcome::Again } else { Outcome::Failed(WORKER_DIED) };
        for row in self.of(|state| state.worker() == Some(worker)) {
            self.finish(row, outcome);
        }
    }
}

fn pick(rows: &[usize], which: usize) -> Option<usize> {
    (!rows.is_empty()).then(|| rows[which % rows.len()])
}

/// Does the step to both, and compares what they say.
fn agree(rows: &Rows<'_>, model: &mut Model, step: Step) -> Result<(), TestCaseError> {
    match step {
        Step::Loan(client) => prop_assert_eq!(rows.loan(client), model.loan(client)),
        Step::Submit(client, which) => {
            if let Some(row) = pick(&model.of(|state| state == State::Writing { client }), which) {
                rows.submit(row, client);
                model.states.insert(row, State::Ready { client });
                model.stale.remove(&row);
            }
        }
        Step::LetGo(client, which) => {
            if let Some(row) = pick(&model.of(|state| state.client() == Some(client)), which) {
                prop_assert_eq!(rows.let_go(row, client), model.let_go(row));
                prop_assert!(!rows.let_go(row, client), "it is not the client's any more");
            }
        }
        Step::Answer(client, which) => {
            let submitted = |state: State| state.client() == Some(client) && state != State::Writing { client };
            if let Some(row) = pick(&model.of(submitted), which) {
                let expected = match model.states[&row] {
                    State::Done { .. } => Some(Outcome::Done),
                    State::Failed { reason, .. } => Some(Outcome::Failed(reason)),
                    _ => None,
                };
                prop_assert_eq!(rows.answer(row, client), expected);
                prop_assert_eq!(rows.answer(row, client + 1), Some(Outcome::Failed(u8::MAX)), "another's row");
            }
        }
        Step::Take(worker, from, max) => {
            let from = from % model.rows;
            prop_assert_eq!(rows.take(from, max, worker), model.take(from, max, worker));
        }
        Step::Finish(worker, which, outcome) => {
            if let Some(row) = pick(&model.of(|state| state.worker() == Some(worker)), which) {
                prop_assert_eq!(rows.finish(row, worker + 1, outcome), Finished::NotYours);
                prop_assert_eq!(rows.finish(row, worker, outcome), model.finish(row, outcome));
                prop_assert_eq!(rows.finish(row, worker, outcome), Finished::NotYours, "it is finished");
            }
        }
        Step::ClientDies(client) => {
            rows.bury_client(client);
            model.client_dies(client);
        }
        Step::WorkerDies(worker) => {
            rows.bury_worker(worker, model.may_repeat);
            model.worker_dies(worker);
        }
        Step::WorkerDiesTaking(worker, from, max) => {
            let from = from % model.rows;
            prop_assert_eq!(rows.ready.take_run(from, max), model.take_bits(from, max));
            rows.bury_worker(worker, model.may_repeat);
            model.worker_dies(worker);
        }
        Step::ClientDiesSubmitting(client, which) => {
            if let Some(row) = pick(&model.of(|state| state == State::Writing { client }), which) {
                let changed = rows.change(row, State::Writing { client }, State::Ready { client });
                prop_assert!(changed);
            }
            rows.bury_client(client);
            model.client_dies(client);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn rows_do_what_their_model_says(
        count in prop_oneof![1_usize..8, 60_usize..70],
        may_repeat in any::<bool>(),
        steps in vec(step(), 0..200),
    ) {
        let heads: Vec<_> = (0..count).map(|_| Head::default()).collect();
        let words: Vec<_> = (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let cursor = AtomicU64::new(0);
        let rows = Rows { heads: &heads, ready: Bits::new(&words), cursor: &cursor };
        let mut model =
            Model { states: BTreeMap::new(), rows: count, cursor: 0, may_repeat, stale: BTreeSet::new() };
        for step in steps {
            let text = format!("{step:?}");
            agree(&rows, &mut model, step)?;
            for row in 0..count {
                let expected = model.states.get(&row).copied().unwrap_or(State::Free);
                prop_assert_eq!(rows.state(row), Some(expected), "row {} after {}", row, text);
                prop_assert_eq!(rows.ready.first(row) == Some(row), model.has_bit(row), "bit {} after {}", row, text);
            }
        }
        // Everybody dies: every row is free.
        (0..CLIENTS).for_each(|client| rows.bury_client(client));
        for worker in 0..WORKERS {
            rows.bury_worker(worker, may_repeat);
        }
        prop_assert!((0..count).all(|row| rows.state(row) == Some(State::Free)));
    }
}
