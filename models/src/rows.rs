//! Clients and workers of a request ring: a row has one user at a time, each request is run and answered once, no row is lost, whoever dies
//! at whatever step. loom's cells notice when two have a row at a time.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use crate::mortal::{AtomicU64, mortal, nobody_is_mortal, order_nothing};
use crate::ring::{Bits, Finished, Head, Outcome, Rows, State, WORKER_DIED};
use crate::seen::Seen;

const ALICE: u16 = 1;
const BOB: u16 = 2;
const ANN: u16 = 11;
const BEN: u16 = 12;

/// A ring of which input and output are a number in each row.
struct Ring {
    heads: Vec<Head>,
    ready: Vec<AtomicU64>,
    cursor: AtomicU64,
    inputs: Vec<UnsafeCell<u32>>,
    outputs: Vec<UnsafeCell<u32>>,
}

// SAFETY: who may touch a cell is what the models check; loom fails a model in which two do at a time.
unsafe impl Sync for Ring {}
// SAFETY: as above.
unsafe impl Send for Ring {}

impl Ring {
    fn new(rows: usize) -> Arc<Self> {
        nobody_is_mortal();
        Arc::new(Self {
            heads: (0..rows).map(|_| Head::default()).collect(),
            ready: vec![AtomicU64::new(0)],
            cursor: AtomicU64::new(0),
            inputs: (0..rows).map(|_| UnsafeCell::new(0)).collect(),
            outputs: (0..rows).map(|_| UnsafeCell::new(0)).collect(),
        })
    }

    fn rows(&self) -> Rows<'_> {
        Rows { heads: &self.heads, ready: Bits::new(&self.ready), cursor: &self.cursor }
    }

    fn write(cell: &UnsafeCell<u32>, value: u32) {
        // SAFETY: loom fails the model if anybody else touches the cell meanwhile.
        cell.with_mut(|cell| unsafe { *cell = value });
    }

    fn read(cell: &UnsafeCell<u32>) -> u32 {
        // SAFETY: as above.
        cell.with(|cell| unsafe { *cell })
    }

    /// Loans a row and writes its input.
    fn loan(&self, client: u16, input: u32) -> Option<usize> {
        let row = self.rows().loan(client)?;
        Self::write(&self.inputs[row], input);
        Some(row)
    }

    fn submit(&self, client: u16, input: u32) -> usize {
        let row = self.loan(client, input).expect("a free row");
        self.rows().submit(row, client);
        row
    }

    /// What a worker does with a row: the output is ten times the input.
    fn work(&self, row: usize, worker: u16) -> Finished {
        Self::write(&self.outputs[row], 10 * Self::read(&self.inputs[row]));
        self.rows().finish(row, worker, Outcome::Done)
    }

    /// Takes what is ready and works on it. How many rows it were.
    fn serve(&self, worker: u16) -> usize {
        let mut served = 0;
        while let Some(rows) = self.rows().take(0, 2, worker) {
            for row in rows {
                self.work(row, worker);
                served += 1;
            }
        }
        served
    }

    /// Reads the answer to this input, if there is one, and gives the row back.
    fn read_answer(&self, row: usize, client: u16, input: u32) -> bool {
        match self.rows().answer(row, client) {
            Some(Outcome::Done) => {
                assert_eq!(Self::read(&self.outputs[row]), 10 * input, "a wrong answer");
                self.rows().let_go(row, client);
                true
            }
            Some(Outcome::Failed(reason)) => {
                assert_eq!(reason, WORKER_DIED, "the row is somebody else's");
                self.rows().let_go(row, client);
                true
            }
            _ => false,
        }
    }

    /// Nobody has a row, and each can be used.
    fn is_all_free(&self) {
        for row in 0..self.heads.len() {
            assert_eq!(self.rows().state(row), Some(State::Free), "row {row} is lost");
            Self::write(&self.inputs[row], 0);
            Self::write(&self.outputs[row], 0);
        }
    }
}

/// Two want the only row.
fn loan_against_loan() -> Seen {
    let seen = Seen::default();
    let counted = seen.clone();
    loom::model(move || {
        let (ring, seen) = (Ring::new(1), counted.clone());
        let bob = {
            let ring = ring.clone();
            thread::spawn(move || ring.loan(BOB, 2).map(|row| ring.rows().let_go(row, BOB)).is_some())
        };
        let alice = ring.loan(ALICE, 1).map(|row| ring.rows().let_go(row, ALICE)).is_some();
        match (alice, bob.join().unwrap()) {
            (true, true) => seen.note("one after the other"),
            (false, false) => panic!("nobody got a free row"),
            _ => seen.note("one of them"),
        }
        ring.is_all_free();
    });
    seen
}

#[test]
fn a_row_is_loaned_to_one() {
    loan_against_loan().all(&["one after the other", "one of them"]);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn planted_words_without_order_are_found() {
    order_nothing();
    loan_against_loan();
}

#[derive(Clone, Copy, PartialEq)]
enum Submits {
    Right,
    /// The bit first, then the word.
    BitFirst,
}

/// One submits while another takes.
fn submit_against_take(how: Submits) -> Seen {
    let seen = Seen::default();
    let counted = seen.clone();
    loom::model(move || {
        let (ring, seen) = (Ring::new(2), counted.clone());
        let client = {
            let ring = ring.clone();
            thread::spawn(move || {
                let row = ring.loan(ALICE, 1).unwrap();
                if how == Submits::BitFirst {
                    ring.rows().ready.set(row);
                    ring.rows().change(row, State::Writing { client: ALICE }, State::Ready { client: ALICE });
                } else {
                    ring.rows().submit(row, ALICE);
                }
                (row, ring.read_answer(row, ALICE, 1))
            })
        };
        let early = ring.serve(ANN);
        let (row, read) = client.join().unwrap();
        let late = ring.serve(ANN);
        assert_eq!(early + late, 1, "run once, by whoever found it");
        seen.note(if early > 0 { "taken early" } else { "taken late" });
        if read {
            seen.note("answered at once");
        } else {
            assert!(ring.read_answer(row, ALICE, 1), "no answer");
        }
        ring.is_all_free();
    });
    seen
}

#[test]
fn what_is_submitted_is_found() {
    submit_against_take(Submits::Right).all(&["taken early", "taken late", "answered at once"]);
}

#[test]
#[should_panic(expected = "run once")]
fn planted_bit_before_word_is_found() {
    submit_against_take(Submits::BitFirst);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn planted_answers_without_order_are_found() {
    order_nothing();
    submit_against_take(Submits::Right);
}

#[derive(Clone, Copy, PartialEq)]
enum Takes {
    Right,
    /// The rows first, then the bits.
    RowsFirst,
}

/// Two workers; the client uses the only row again as soon as it can.
fn take_against_take(how: Takes) -> Seen {
    let seen = Seen::default();
    let counted = seen.clone();
    loom::model(move || {
        let (ring, seen) = (Ring::new(1), counted.clone());
        let first = ring.submit(ALICE, 1);
        let ann = {
            let ring = ring.clone();
            thread::spawn(move || {
                if how == Takes::RowsFirst {
                    let mut served = 0;
                    if let Some(row) = ring.rows().ready.first(0)
                        && ring.rows().run(row, ANN)
                    {
                        ring.work(row, ANN);
                        served = 1;
                        ring.rows().ready.clear(row);
                    }
                    return served;
                }
                ring.serve(ANN)
            })
        };
        let ben = ring.serve(BEN);
        let again = ring.read_answer(first, ALICE, 1).then(|| ring.submit(ALICE, 2));
        let ann = ann.join().unwrap();
        let rest = ring.serve(BEN);
        if let Some(row) = again {
            assert!(ring.read_answer(row, ALICE, 2), "a request was never found");
            seen.note("again");
        } else {
            assert!(ring.read_answer(first, ALICE, 1), "a request was never found");
        }
        assert_eq!(ann + ben + rest, if again.is_some() { 2 } else { 1 }, "each request runs once");
        seen.note(if ben > 0 { "ben" } else { "ann" });
        ring.is_all_free();
    });
    seen
}

#[test]
fn workers_share_what_is_ready() {
    take_against_take(Takes::Right).all(&["ann", "ben", "again"]);
}

#[test]
#[should_panic(expected = "never found")]
fn planted_clearing_bits_late_is_found() {
    take_against_take(Takes::RowsFirst);
}

#[derive(Clone, Copy, PartialEq)]
enum Withdraws {
    Right,
    /// Makes the row free although a worker runs it, as one would who decides by a time-out.
    WhileItRuns,
}

/// The client withdraws, and uses the row again if it can.
fn withdraw_against_worker(how: Withdraws) -> Seen {
    let seen = Seen::default();
    let counted = seen.clone();
    loom::model(move || {
        let (ring, seen) = (Ring::new(1), counted.clone());
        let row = ring.submit(ALICE, 1);
        let worker = {
            let ring = ring.clone();
            thread::spawn(move || ring.serve(ANN))
        };
        if how == Withdraws::WhileItRuns {
            ring.rows().change(row, State::Running { client: ALICE, worker: ANN }, State::Free);
        }
        let freed = ring.rows().let_go(row, ALICE);
        let again = ring.loan(ALICE, 2);
        if let Some(row) = again {
            ring.rows().submit(row, ALICE);
        }
        let served = worker.join().unwrap();
        let rest = ring.serve(ANN);
        match (freed, served) {
            (true, 0) => seen.note("withdrawn in time"),
            (true, _) => seen.note("withdrawn, or answered already"),
            (false, _) => seen.note("abandoned"),
        }
        if let Some(row) = again {
            assert!(served + rest >= 1, "never run");
            assert!(ring.read_answer(row, ALICE, 2), "no answer");
            seen.note("used again");
        }
        ring.is_all_free();
    });
    seen
}

#[test]
fn who_withdraws_disturbs_nobody() {
    withdraw_against_worker(Withdraws::Right).all(&[
        "withdrawn in time",
        "withdrawn, or answered already",
        "abandoned",
        "used again",
    ]);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn planted_stealing_from_a_living_worker_is_found() {
    withdraw_against_worker(Withdraws::WhileItRuns);
}

/// A client dies after each of its steps, while a worker works. It is buried, by somebody who may die too.
#[test]
fn a_client_may_die_at_any_step() {
    let seen = Seen::default();
    for steps in 1..8 {
        let counted = seen.clone();
        loom::model(move || {
            let (ring, seen) = (Ring::new(2), counted.clone());
            let client = {
                let ring = ring.clone();
                thread::spawn(move || {
                    mortal(steps, || {
                        let row = ring.submit(ALICE, 1);
                        ring.read_answer(row, ALICE, 1)
                    })
                })
            };
            let worker = {
                let ring = ring.clone();
                thread::spawn(move || ring.serve(ANN))
            };
            let died = client.join().unwrap().is_none();
            if died {
                seen.note("died");
                if mortal(1, || ring.rows().bury_client(ALICE)).is_none() {
                    seen.note("so did who buried it");
                }
            }
            ring.rows().bury_client(ALICE);
            // The place is Bob's now, and with it the name.
            let row = ring.submit(ALICE, 7);
            if worker.join().unwrap() > 0 {
                seen.note("served");
            }
            ring.serve(ANN);
            assert!(ring.read_answer(row, ALICE, 7), "the next one in the place has no answer");
            ring.is_all_free();
        });
    }
    seen.all(&["died", "so did who buried it", "served"]);
}

/// The next client gets the place of a dead one before it is buried.
#[test]
#[should_panic(expected = "somebody else's")]
fn planted_place_given_away_too_early_is_found() {
    loom::model(|| {
        let ring = Ring::new(2);
        ring.loan(ALICE, 1);
        let buries = {
            let ring = ring.clone();
            thread::spawn(move || ring.rows().bury_client(ALICE))
        };
        // The one before died: this is its place.
        let row = ring.submit(ALICE, 7);
        buries.join().unwrap();
        ring.serve(ANN);
        assert!(ring.read_answer(row, ALICE, 7), "no answer");
    });
}

#[derive(Clone, Copy, PartialEq)]
enum Buries {
    Right,
    /// Does not look for rows that the dead one was just about to take.
    ForgetsBits,
}

/// A worker dies after each of its steps, while a client withdraws one of two requests. It is buried, by somebody who may die too, and
/// another worker goes on.
fn worker_dies(how: Buries, may_repeat: bool) -> Seen {
    let seen = Seen::default();
    for steps in 1..7 {
        let counted = seen.clone();
        loom::model(move || {
            let (ring, seen) = (Ring::new(2), counted.clone());
            let (stays, goes) = (ring.submit(ALICE, 1), ring.submit(BOB, 2));
            let worker = {
                let ring = ring.clone();
                thread::spawn(move || mortal(steps, || ring.serve(ANN)))
            };
            let withdraws = {
                let ring = ring.clone();
                thread::spawn(move || ring.rows().let_go(goes, BOB))
            };
            if worker.join().unwrap().is_none() {
                if how == Buries::ForgetsBits {
                    (0..2).for_each(|row| {
                        ring.rows().finish(row, ANN, Outcome::Again);
                    });
                } else {
                    if mortal(1, || ring.rows().bury_worker(ANN, may_repeat)).is_none() {
                        seen.note("so did who buried it");
                    }
                    ring.rows().bury_worker(ANN, may_repeat);
                }
                seen.note("died");
            }
            let failed = ring.rows().answer(stays, ALICE) == Some(Outcome::Failed(WORKER_DIED));
            assert!(!(failed && may_repeat), "it could be repeated");
            if ring.serve(BEN) > 0 {
                seen.note("another went on");
            }
            withdraws.join().unwrap();
            if failed {
                seen.note("failed");
            }
            assert!(ring.read_answer(stays, ALICE, 1), "a request was never answered");
            // What was withdrawn after the other one looked is found by nobody, and free.
            ring.serve(BEN);
            ring.is_all_free();
        });
    }
    seen
}

#[test]
fn a_worker_may_die_at_any_step() {
    worker_dies(Buries::Right, true).all(&["died", "so did who buried it", "another went on"]);
}

#[test]
fn a_worker_of_what_cannot_be_repeated_may_die_at_any_step() {
    worker_dies(Buries::Right, false).all(&["died", "failed", "another went on"]);
}

#[test]
#[should_panic(expected = "never answered")]
fn planted_forgetting_what_was_about_to_be_taken_is_found() {
    worker_dies(Buries::ForgetsBits, true);
}

#[derive(Clone, Copy, PartialEq)]
enum Waits {
    Right,
    /// Says where it hears after it has lain down.
    SaysWhereLate,
}

/// A client sleeps until its request is answered, at another socket than whoever had the row before.
fn wait_for_the_answer(how: Waits) -> Seen {
    const DEAD: u64 = 1;
    const MINE: u64 = 2;
    let seen = Seen::default();
    let counted = seen.clone();
    loom::model(move || {
        let (ring, seen) = (Ring::new(1), counted.clone());
        // Asleep when it died.
        ring.heads[0].sleeper.lie_down(DEAD);
        let row = ring.submit(ALICE, 1);
        let worker = {
            let ring = ring.clone();
            thread::spawn(move || {
                ring.serve(ANN);
                crate::ring::Bell::order();
                let mut rung = 0;
                ring.heads[0].sleeper.wake(|socket| rung = socket);
                rung
            })
        };
        let sleeper = &ring.heads[row].sleeper;
        sleeper.lie_down(if how == Waits::SaysWhereLate { DEAD } else { MINE });
        let answered = ring.rows().answer(row, ALICE).is_some();
        if how == Waits::SaysWhereLate {
            sleeper.lie_down(MINE);
        }
        let rung = worker.join().unwrap();
        if answered {
            seen.note("answered already");
        } else {
            seen.note("slept");
            assert_eq!(rung, MINE, "its client sleeps");
        }
        if rung == DEAD {
            seen.note("rang for the one before");
        }
    });
    seen
}

#[test]
fn who_waits_for_an_answer_is_woken() {
    wait_for_the_answer(Waits::Right).all(&["answered already", "slept", "rang for the one before"]);
}

#[test]
#[should_panic(expected = "its client sleeps")]
fn planted_saying_late_where_to_ring_is_found() {
    wait_for_the_answer(Waits::SaysWhereLate);
}
