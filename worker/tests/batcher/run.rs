//! A run of steps, made of any bytes: each is done to the batcher and to its model, and what they say is compared.

use std::collections::BTreeMap;
use std::time::Duration;

use tensorbus_worker::batch::{AdmitError, Batcher, FIRST_COME, Next, Row, Settings};

use crate::model::Naive;

#[derive(Clone, Debug)]
pub struct Run {
    settings: Settings,
    steps: Vec<[u8; 3]>,
}

impl Run {
    /// Settings in the first four bytes (batch size, delay, preferred size, places), then three bytes a step.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let at = |index: usize| bytes.get(index).copied().unwrap_or(0);
        let settings = Settings {
            max_batch_size: usize::from(at(0) % 8) + 1,
            max_delay: ms(at(1) % 32),
            preferred: match at(2) % 8 {
                0 => vec![],
                7 => vec![2, 5],
                size => vec![usize::from(size)],
            },
            max_waiting: usize::from(at(3)),
        };
        let steps = bytes.get(4..).unwrap_or_default().as_chunks().0.to_vec();
        Self { settings, steps }
    }

    /// # Panics
    /// If the batcher does anything else than its model says, or a promise is broken.
    pub fn check(&self) {
        let naive = Naive::new(self.settings.clone());
        let mut world = World { batcher: Batcher::new(self.settings.clone()), naive, ids: 0, due: BTreeMap::new() };
        for step in &self.steps {
            world.step(*step);
            assert_eq!(world.batcher.waiting(), world.naive.rows.len());
            let deadlines = world.naive.rows.iter().filter_map(|waiting| waiting.row.deadline);
            assert_eq!(world.batcher.next_deadline(), deadlines.min());
        }
        world.drain();
    }
}

fn ms(value: u8) -> Duration {
    Duration::from_millis(u64::from(value))
}

struct World {
    batcher: Batcher,
    naive: Naive,
    ids: u64,
    /// For each row that has waited long enough: the number of the batch by which it must have run.
    due: BTreeMap<u64, u64>,
}

impl World {
    /// The first byte says what is done, the others to whom: most steps make a row, so that there is something to decide.
    fn step(&mut self, [what, who, value]: [u8; 3]) {
        match what % 16 {
            0..=7 => {
                let row = Row {
                    id: self.ids,
                    client: u64::from(who % 4),
                    bucket: u64::from(who / 4 % 3),
                    priority: who / 64 % 3,
                    deadline: (value >= 128).then(|| self.naive.now + ms(value - 128)),
                };
                self.ids += 1;
                self.admit(row);
            }
            8 => {
                let id = u64::from(value) % self.ids.max(1);
                let waited = !self.naive.remove(|row| row.id == id).is_empty();
                assert_eq!(self.batcher.cancel(id), waited);
            }
            9 => {
                let client = u64::from(who % 4);
                assert_eq!(self.batcher.leave(client), self.naive.remove(|row| row.client == client));
            }
            10 => {
                assert_eq!(self.batcher.expire(self.naive.now), self.naive.expire());
            }
            11 | 12 => self.naive.now += ms(value % 16),
            13 => {
                let twice = self.naive.rows.first().map(|waiting| waiting.row);
                if let Some(row) = twice {
                    assert_eq!(self.batcher.admit(row, self.naive.now), Err(AdmitError::AlreadyWaiting { id: row.id }));
                }
            }
            _ => {
                self.next();
            }
        }
    }

    fn admit(&mut self, row: Row) {
        let before = self.naive.rows.len();
        let admitted = self.batcher.admit(row, self.naive.now);
        assert_eq!(admitted, self.naive.admit(row));
        assert!(self.naive.rows.len() <= self.naive.settings.max_waiting, "more rows than places");
        let is_client = |waiting: &crate::model::Waiting| waiting.row.client == row.client;
        if !self.naive.rows.iter().any(is_client) {
            assert_eq!(before, self.naive.settings.max_waiting, "a client that has nothing waiting finds a place");
        }
    }

    /// What a free worker is told.
    fn next(&mut self) -> Next {
        let before = self.naive.rows.clone();
        for (index, waiting) in before.iter().enumerate().filter(|(_, waiting)| self.naive.is_due(waiting)) {
            // One of those before it is taken in every fourth batch.
            let bound = self.naive.batches + FIRST_COME * (index as u64 + 1);
            self.due.entry(waiting.row.id).or_insert(bound);
        }
        let next = self.batcher.next(self.naive.now);
        assert_eq!(next, self.naive.next());
        match &next {
            Next::Run(batch) => {
                assert!((1..=self.naive.settings.max_batch_size).contains(&batch.rows.len()));
                for id in &batch.rows {
                    let waiting = before.iter().find(|waiting| waiting.row.id == *id).expect("a row that waited");
                    assert_eq!(waiting.row.bucket, batch.bucket, "rows of two buckets in one batch");
                    assert!(waiting.row.deadline.is_none_or(|deadline| deadline > self.naive.now), "run too late");
                }
            }
            Next::Wait(until) => {
                assert!(until.is_none_or(|until| until > self.naive.now), "a wait until a time that is over");
                assert_eq!(until.is_none(), before.is_empty());
            }
            Next::Expired(rows) => assert!(!rows.is_empty()),
        }
        let batches = self.naive.batches;
        self.due.retain(|id, _| self.naive.rows.iter().any(|waiting| waiting.row.id == *id));
        for (id, bound) in &self.due {
            assert!(batches < *bound, "row {id} was to run within {bound} batches, there were {batches}");
        }
        next
    }

    /// Everything is run or given back in the end, whoever waits until the time that is said.
    fn drain(&mut self) {
        for _ in 0..=2 * self.naive.rows.len() {
            match self.next() {
                Next::Wait(Some(until)) => self.naive.now = until,
                Next::Wait(None) => return,
                _ => {}
            }
        }
        assert_eq!(self.naive.rows.len(), 0, "rows that nobody runs");
    }
}
