use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::queue::{Bucket, Waiting};
use super::settings::Settings;

/// Every batch of this many begins with the row that arrived first.
pub const FIRST_COME: u64 = 4;

/// A request for one row of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// The caller's name for it; no two rows that wait have the same.
    pub id: u64,
    /// Who asks.
    pub client: u64,
    /// Rows of one bucket may be run together.
    pub bucket: u64,
    /// How urgent it is: 0 comes before 1.
    pub priority: u8,
    /// When it is not wanted any more.
    pub deadline: Option<Duration>,
}

/// Rows to be run together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Their bucket.
    pub bucket: u64,
    /// Their ids, first come first.
    pub rows: Vec<u64>,
}

/// What a worker that is free is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Run these.
    Run(Batch),
    /// Tell the clients of these that their deadline is over, and ask again.
    Expired(Vec<u64>),
    /// Ask again at this time, or when a row has arrived. `None`: there is no row.
    Wait(Option<Duration>),
}

/// Why a row is not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// The model has too much to do.
    #[error(
        "overloaded: {waiting} requests of this client wait and {left} places are left for all; wait for an answer, or ask later"
    )]
    Overloaded {
        /// Rows of the client that wait.
        waiting: usize,
        /// Places that are left for everybody.
        left: usize,
    },
    /// A row of this id waits already.
    #[error("request {id} waits already; each one has an id of its own")]
    AlreadyWaiting {
        /// The id.
        id: u64,
    },
}

/// The rows that wait, and the rules by which they are run. All times are since the same moment, and do not go back.
///
/// ```
/// use std::time::Duration;
/// use tensorbus_worker::batch::{Batch, Batcher, Next, Row, Settings};
///
/// let ms = Duration::from_millis;
/// let mut batcher = Batcher::new(Settings { max_batch_size: 2, max_delay: ms(5), ..Settings::default() });
/// let row = |id, client| Row { id, client, bucket: 0, priority: 0, deadline: None };
/// batcher.admit(row(1, 7), ms(0))?;
/// assert_eq!(batcher.next(ms(1)), Next::Wait(Some(ms(5))));
/// batcher.admit(row(2, 8), ms(2))?;
/// assert_eq!(batcher.next(ms(2)), Next::Run(Batch { bucket: 0, rows: vec![1, 2] }));
/// # Ok::<(), tensorbus_worker::batch::AdmitError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Batcher {
    settings: Settings,
    rows: BTreeMap<u64, Waiting>,
    numbers: HashMap<u64, u64>,
    buckets: BTreeMap<u64, Bucket>,
    deadlines: BTreeSet<(Duration, u64)>,
    clients: HashMap<u64, usize>,
    turns: Turns,
    arrivals: u64,
    batches: u64,
}

impl Batcher {
    /// A batcher with no rows.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            rows: BTreeMap::new(),
            numbers: HashMap::new(),
            buckets: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            clients: HashMap::new(),
            turns: Turns::default(),
            arrivals: 0,
            batches: 0,
        }
    }

    /// Takes a row that is ready to be run.
    ///
    /// # Errors
    /// [`AdmitError`]. The row is not taken then.
    pub fn admit(&mut self, row: Row, now: Duration) -> Result<(), AdmitError> {
        if self.numbers.contains_key(&row.id) {
            return Err(AdmitError::AlreadyWaiting { id: row.id });
        }
        let waiting = self.clients.get(&row.client).copied().unwrap_or(0);
        let left = self.settings.max_waiting.saturating_sub(self.rows.len());
        if waiting >= left {
            return Err(AdmitError::Overloaded { waiting, left });
        }
        let number = self.arrivals;
        self.arrivals += 1;
        let patience = row.deadline.map(|deadline| deadline.saturating_sub(now) / 2);
        let due =
            now.saturating_add(patience.map_or(self.settings.max_delay, |half| half.min(self.settings.max_delay)));
        let waiting = Waiting { row, due };
        self.buckets.entry(row.bucket).or_default().insert(number, &waiting);
        self.deadlines.extend(row.deadline.map(|deadline| (deadline, number)));
        self.numbers.insert(row.id, number);
        *self.clients.entry(row.client).or_default() += 1;
        self.turns.waits(row.priority, row.client);
        self.rows.insert(number, waiting);
        Ok(())
    }

    /// Gives up a row. Returns whether it waited; one that runs is not stopped.
    pub fn cancel(&mut self, id: u64) -> bool {
        self.numbers.get(&id).copied().and_then(|number| self.take(number)).is_some()
    }

    /// Gives up all rows of a client that is gone, and says which.
    pub fn leave(&mut self, client: u64) -> Vec<u64> {
        let of_client = self.rows.iter().filter(|(_, waiting)| waiting.row.client == client);
        let numbers: Vec<u64> = of_client.map(|(&number, _)| number).collect();
        numbers.into_iter().filter_map(|number| self.take(number)).map(|waiting| waiting.row.id).collect()
    }

    /// Gives up the rows whose deadline is over, and says which: the earliest deadline first.
    pub fn expire(&mut self, now: Duration) -> Vec<u64> {
        let over: Vec<u64> =
            self.deadlines.iter().take_while(|&&(deadline, _)| deadline <= now).map(|&(_, number)| number).collect();
        over.into_iter().filter_map(|number| self.take(number)).map(|waiting| waiting.row.id).collect()
    }

    /// The first deadline of a row that waits. Who has no free worker calls [`Batcher::expire`] then.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Rows that wait.
    pub fn waiting(&self) -> usize {
        self.rows.len()
    }

    /// What a free worker is to do. The rows of a batch have left the queue with that.
    pub fn next(&mut self, now: Duration) -> Next {
        let expired = self.expire(now);
        if !expired.is_empty() {
            return Next::Expired(expired);
        }
        let size = |bucket: &Bucket| self.settings.size(bucket.len(), bucket.first_due().is_some_and(|due| due <= now));
        let ripe = self.buckets.iter().filter_map(|(&id, bucket)| Some((id, bucket, size(bucket)?)));
        let by_arrival = self.batches % FIRST_COME == FIRST_COME - 1;
        let chosen = if by_arrival {
            ripe.min_by_key(|(_, bucket, _)| bucket.oldest())
        } else {
            ripe.min_by_key(|(_, bucket, _)| bucket.best(|priority, client| self.turns.of(priority, client)))
        };
        let Some((id, bucket, size)) = chosen else {
            return Next::Wait(self.buckets.values().filter_map(Bucket::first_due).min());
        };
        let first = by_arrival.then(|| bucket.oldest()).flatten();
        let mut rows = Vec::with_capacity(size);
        rows.extend(first.and_then(|number| self.serve(number)));
        while rows.len() < size {
            let best = |bucket: &Bucket| bucket.best(|priority, client| self.turns.of(priority, client));
            let Some((_, _, number)) = self.buckets.get(&id).and_then(best) else { break };
            rows.extend(self.serve(number));
        }
        self.batches += 1;
        Next::Run(Batch { bucket: id, rows })
    }

    /// Takes a row into a batch: its client has had its turn.
    fn serve(&mut self, number: u64) -> Option<u64> {
        let row = self.rows.get(&number)?.row;
        self.turns.serve(row.priority, row.client);
        self.take(number).map(|waiting| waiting.row.id)
    }

    /// Takes a row out of everything.
    fn take(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.rows.remove(&number)?;
        let Row { id, client, bucket, priority, deadline } = waiting.row;
        self.numbers.remove(&id);
        self.deadlines.remove(&(deadline.unwrap_or_default(), number));
        if let Some(rows) = self.buckets.get_mut(&bucket) {
            rows.remove(number, &waiting);
            if rows.len() == 0 {
                self.buckets.remove(&bucket);
            }
        }
        if let Some(count) = self.clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(&client);
            }
        }
        self.turns.waits_no_more(priority, client);
        Some(waiting)
    }
}

/// How often clients were served, for each priority: start-time fair queueing. Who begins to wait is as if it had been served as
/// often as the one that was served last, and who has nothing waiting is forgotten.
#[derive(Clone, Default, Debug)]
struct Turns {
    of: HashMap<(u8, u64), Turn>,
    last: HashMap<u8, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    had: u64,
    waiting: usize,
}

impl Turns {
    fn of(&self, priority: u8, client: u64) -> u64 {
        self.of.get(&(priority, client)).map_or(0, |turn| turn.had)
    }

    fn waits(&mut self, priority: u8, client: u64) {
        let had = self.last.get(&priority).copied().unwrap_or(0);
        self.of.entry((priority, client)).or_insert(Turn { had, waiting: 0 }).waiting += 1;
    }

    fn serve(&mut self, priority: u8, client: u64) {
        if let Some(turn) = self.of.get_mut(&(priority, client)) {
            self.last.insert(priority, turn.had);
            turn.had += 1;
        }
    }

    fn waits_no_more(&mut self, priority: u8, client: u64) {
        if let Some(turn) = self.of.get_mut(&(priority, client)) {
            turn.waiting -= 1;
            if turn.waiting == 0 {
                self.of.remove(&(priority, client));
            }
        }
    }
}
