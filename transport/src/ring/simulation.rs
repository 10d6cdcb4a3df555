//! Ten clients and three workers of a ring, of which one at a time makes the smallest step that it can, chosen at random. Everybody may die
//! between any two of them, and so may who buries them. `TENSORBUS_SEED` repeats a run, `TENSORBUS_STEPS` makes it longer.

use std::collections::{BTreeMap, VecDeque};

use super::{Bits, Finished, Head, Outcome, Rows, State, WORKER_DIED};
use crate::sync::AtomicU64;

const CLIENTS: u16 = 10;
const WORKERS: u16 = 3;
/// Rows that a client may have.
const CREDITS: usize = 4;
const STEPS: u64 = 1_000_000;
/// Then nothing new begins, and everything has to end.
const STEPS_A_ROUND: u64 = 10_000;

/// Two numbers that are written one after the other: torn if they differ.
type Data = [u64; 2];

/// What a client has with a row.
#[derive(Clone, Copy, Debug)]
struct Held {
    row: usize,
    request: u64,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Phase {
    /// So much of the input is written.
    Writing(usize),
    /// The word says so, the bit does not yet.
    Submitting,
    Waiting,
    Reading,
}

#[derive(Debug)]
struct Client {
    index: u16,
    is_dead: bool,
    held: Vec<Held>,
}

/// A worker, in the middle of what `Rows::take` does, or of a batch.
#[derive(Debug)]
struct Worker {
    index: u16,
    is_dead: bool,
    /// Rows whose bits it has taken out.
    bits: VecDeque<usize>,
    /// Rows whose bits go back.
    back: VecDeque<usize>,
    /// Rows that it runs: the request, once it has read it, and how much of the output is written.
    batch: Vec<(usize, Option<u64>, usize)>,
}

/// Somebody who buries the dead, row by row.
#[derive(Debug, Default)]
struct Undertaker {
    /// Worker or not, index, and the next row.
    grave: Option<(bool, u16, usize)>,
}

#[derive(Debug, Default)]
struct Seen {
    answered: u64,
    refused: u64,
    withdrawn: u64,
    died: [u64; 3],
    repeated: u64,
    lost_to_death: u64,
}

struct World {
    heads: Vec<Head>,
    words: Vec<AtomicU64>,
    cursor: AtomicU64,
    clients: Vec<Client>,
    workers: Vec<Worker>,
    undertaker: Undertaker,
    around: Around,
}

/// What is there beside the rows' states, and who looks on.
struct Around {
    inputs: Vec<Data>,
    outputs: Vec<Data>,
    may_repeat: bool,
    /// Nothing new begins, nobody dies.
    is_over: bool,
    /// How often each request that has not ended was begun.
    begun: BTreeMap<u64, u32>,
    next: u64,
    seen: Seen,
    random: Random,
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

fn answer_to(request: u64) -> u64 {
    request.rotate_left(9) ^ 0x5555
}

impl World {
    fn new(rows: usize, may_repeat: bool, seed: u64) -> Self {
        let client = |index| Client { index, is_dead: false, held: Vec::new() };
        let worker =
            |index| Worker { index, is_dead: false, bits: VecDeque::new(), back: VecDeque::new(), batch: Vec::new() };
        Self {
            heads: (0..rows).map(|_| Head::default()).collect(),
            words: (0..rows.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            cursor: AtomicU64::new(0),
            clients: (0..CLIENTS).map(client).collect(),
            workers: (0..WORKERS).map(worker).collect(),
            undertaker: Undertaker::default(),
            around: Around {
                inputs: vec![[0; 2]; rows],
                outputs: vec![[0; 2]; rows],
                may_repeat,
                is_over: false,
                begun: BTreeMap::new(),
                next: 1,
                seen: Seen::default(),
                random: Random(seed),
            },
        }
    }

    /// One step of anybody.
    fn step(&mut self) {
        let rows = Rows { heads: &self.heads, ready: Bits::new(&self.words), cursor: &self.cursor };
        let around = &mut self.around;
        let dies = |around: &mut Around, one_in| !around.is_over && around.random.one_in(one_in);
        match around.random.below(usize::from(CLIENTS + WORKERS) + 2) {
            who if who < usize::from(CLIENTS) => {
                let client = &mut self.clients[who];
                if !client.is_dead && dies(around, 150) {
                    client.is_dead = true;
                    around.seen.died[0] += 1;
                } else if !client.is_dead {
                    client.step(&rows, around);
                }
            }
            who if who < usize::from(CLIENTS + WORKERS) => {
                let worker = &mut self.workers[who - usize::from(CLIENTS)];
                if !worker.is_dead && dies(around, 100) {
                    worker.is_dead = true;
                    around.seen.died[1] += 1;
                } else if !worker.is_dead {
                    worker.step(&rows, around);
                }
            }
            _ => self.bury(),
        }
    }

    /// One step of the undertaker, or its death, after which the next one begins anew.
    fn bury(&mut self) {
        let around = &mut self.around;
        let rows = Rows { heads: &self.heads, ready: Bits::new(&self.words), cursor: &self.cursor };
        let Some((is_worker, index, row)) = self.undertaker.grave else {
            // Workers first, as in `bury_the_dead`.
            let worker = self.workers.iter().find(|worker| worker.is_dead).map(|worker| (true, worker.index, 0));
            let client = || self.clients.iter().find(|client| client.is_dead).map(|client| (false, client.index, 0));
            self.undertaker.grave = worker.or_else(client);
            return;
        };
        if !around.is_over && around.random.one_in(100) {
            around.seen.died[2] += 1;
            self.undertaker.grave = None;
            return;
        }
        if row < self.heads.len() {
            // What `bury_worker` and `bury_client` do, of which either half may be the last.
            if is_worker && rows.state(row).and_then(State::worker) == Some(index) {
                rows.finish(row, index, if around.may_repeat { Outcome::Again } else { Outcome::Failed(WORKER_DIED) });
            } else if is_worker && matches!(rows.state(row), Some(State::Ready { .. })) {
                rows.ready.set(row);
                self.undertaker.grave = Some((is_worker, index, row + 1));
            } else {
                if !is_worker {
                    rows.let_go(row, index);
                }
                self.undertaker.grave = Some((is_worker, index, row + 1));
            }
            return;
        }
        // The place is another one's now.
        self.undertaker.grave = None;
        if is_worker {
            let worker = &mut self.workers[usize::from(index)];
            worker.is_dead = false;
            worker.bits.clear();
            worker.back.clear();
            worker.batch.clear();
        } else {
            let client = &mut self.clients[usize::from(index)];
            client.is_dead = false;
            around.seen.lost_to_death += client.held.len() as u64;
            for held in client.held.drain(..) {
                around.begun.remove(&held.request);
            }
        }
    }

    fn is_quiet(&self) -> bool {
        self.clients.iter().all(|client| !client.is_dead && client.held.is_empty())
            && self.workers.iter().all(|worker| !worker.is_dead && worker.batch.is_empty() && worker.bits.is_empty())
    }

    fn state(&self, row: usize) -> Option<State> {
        Rows { heads: &self.heads, ready: Bits::new(&self.words), cursor: &self.cursor }.state(row)
    }
}

impl Client {
    fn step(&mut self, rows: &Rows<'_>, around: &mut Around) {
        let Around { inputs, outputs, begun, next, seen, random, .. } = around;
        let which = random.below(CREDITS);
        let Some(held) = self.held.get_mut(which) else {
            if let Some(row) = if around.is_over || self.held.len() == CREDITS { None } else { rows.loan(self.index) } {
                self.held.push(Held { row, request: *next, phase: Phase::Writing(0) });
                begun.insert(*next, 0);
                *next += 1;
            }
            return;
        };
        let (row, request, client) = (held.row, held.request, self.index);
        let is_mine = rows.state(row).and_then(State::client) == Some(client);
        assert!(is_mine, "{held:?} of client {client} is {:?}", rows.state(row));
        // It gives up at any point but between word and bit, where it is in the middle of a call.
        let gives_up = held.phase == Phase::Reading || held.phase != Phase::Submitting && random.one_in(40);
        if gives_up {
            seen.withdrawn += u64::from(held.phase != Phase::Reading);
            rows.let_go(row, client);
            self.held.remove(which);
            begun.remove(&request);
            return;
        }
        match held.phase {
            Phase::Writing(2) => {
                assert!(rows.change(row, State::Writing { client }, State::Ready { client }));
                held.phase = Phase::Submitting;
            }
            Phase::Writing(done) => {
                inputs[row][done] = request;
                held.phase = Phase::Writing(done + 1);
            }
            Phase::Submitting => {
                rows.ready.set(row);
                held.phase = Phase::Waiting;
            }
            Phase::Waiting => match rows.answer(row, client) {
                None => {}
                Some(Outcome::Done) => {
                    assert_eq!(outputs[row], [answer_to(request); 2], "torn, or the answer to another request");
                    seen.answered += 1;
                    held.phase = Phase::Reading;
                }
                Some(Outcome::Failed(WORKER_DIED)) => {
                    assert!(!around.may_repeat, "it could be repeated");
                    seen.refused += 1;
                    held.phase = Phase::Reading;
                }
                Some(other) => panic!("{other:?} for {held:?}"),
            },
            Phase::Reading => unreachable!("given back above"),
        }
    }
}

impl Worker {
    fn step(&mut self, rows: &Rows<'_>, around: &mut Around) {
        let Around { inputs, outputs, begun, seen, random, .. } = around;
        let index = self.index;
        if let Some(row) = self.back.pop_front() {
            rows.ready.set(row);
        } else if let Some(row) = self.bits.pop_front() {
            if rows.run(row, index) {
                self.batch.push((row, None, 0));
            } else {
                // The one that was withdrawn does not go back, those behind it do.
                self.back = std::mem::take(&mut self.bits);
            }
        } else if self.batch.is_empty() {
            // Bits only: what `take` does next is in the two branches above.
            let run = rows.ready.take_run(random.below(rows.heads.len()), 1 + random.below(6));
            self.bits = run.into_iter().flatten().collect();
        } else {
            let which = random.below(self.batch.len());
            let (row, read, written) = &mut self.batch[which];
            let row = *row;
            let is_mine = rows.state(row).and_then(State::worker) == Some(index);
            assert!(is_mine, "worker {index} runs row {row}, which is {:?}", rows.state(row));
            match (*read, *written) {
                (None, _) => {
                    let [first, second] = inputs[row];
                    assert_eq!(first, second, "a torn request");
                    *read = Some(first);
                    // Unless its client is gone meanwhile.
                    if let Some(times) = begun.get_mut(&first) {
                        *times += 1;
                        seen.repeated += u64::from(*times > 1);
                        assert!(around.may_repeat || *times == 1, "request {first} is run for the {times}. time");
                    }
                }
                (Some(request), 2) => {
                    assert_eq!(inputs[row], [request; 2], "a request changed while it ran");
                    assert_ne!(rows.finish(row, index, Outcome::Done), Finished::NotYours);
                    self.batch.swap_remove(which);
                }
                (Some(request), done) => {
                    outputs[row][done] = answer_to(request);
                    *written += 1;
                }
            }
        }
    }
}

#[test]
fn clients_and_workers_at_random() {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let now = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let (seed, steps) = (number("TENSORBUS_SEED").unwrap_or_else(now), number("TENSORBUS_STEPS").unwrap_or(STEPS));
    println!("seed: TENSORBUS_SEED={seed}");
    for (round, rows) in [5, 16, 70].into_iter().cycle().enumerate().take((steps / STEPS_A_ROUND) as usize) {
        let mut world = World::new(rows, round % 2 == 0, seed.wrapping_add(round as u64));
        (0..STEPS_A_ROUND).for_each(|_| world.step());
        world.around.is_over = true;
        let mut left = 0;
        while !world.is_quiet() {
            world.step();
            left += 1;
            let held = || world.clients.iter().map(|client| &client.held).collect::<Vec<_>>();
            assert!(left < 1_000_000, "round {round}: requests that never end: {:?}", held());
        }
        for row in 0..rows {
            assert_eq!(
                world.state(row),
                Some(State::Free),
                "round {round}: row {row} is lost; {:?}",
                world.around.seen
            );
        }
        if round < 6 {
            println!("{rows} rows, {:?}", world.around.seen);
        }
    }
}
