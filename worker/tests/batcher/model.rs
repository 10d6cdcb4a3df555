//! What a batcher has to do, said as simply as possible: a list of rows, looked through for every question.

use std::collections::BTreeMap;
use std::time::Duration;

use tensorbus_worker::batch::{AdmitError, Batch, FIRST_COME, Next, Row, Settings};

#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub row: Row,
    pub arrived: Duration,
}

/// Rows in the order in which they arrived.
pub struct Naive {
    pub settings: Settings,
    pub rows: Vec<Waiting>,
    pub now: Duration,
    pub batches: u64,
    /// Turns that clients with waiting rows have had, by priority and client.
    turns: BTreeMap<(u8, u64), u64>,
    last: BTreeMap<u8, u64>,
}

impl Naive {
    pub fn new(settings: Settings) -> Self {
        let (turns, last) = (BTreeMap::new(), BTreeMap::new());
        Self { settings, rows: Vec::new(), now: Duration::ZERO, batches: 0, turns, last }
    }

    pub fn admit(&mut self, row: Row) -> Result<(), AdmitError> {
        if self.rows.iter().any(|waiting| waiting.row.id == row.id) {
            return Err(AdmitError::AlreadyWaiting { id: row.id });
        }
        let waiting = self.rows.iter().filter(|waiting| waiting.row.client == row.client).count();
        let left = self.settings.max_waiting.saturating_sub(self.rows.len());
        if waiting >= left {
            return Err(AdmitError::Overloaded { waiting, left });
        }
        let last = self.last.get(&row.priority).copied().unwrap_or(0);
        self.turns.entry((row.priority, row.client)).or_insert(last);
        self.rows.push(Waiting { row, arrived: self.now });
        Ok(())
    }

    /// Removes the rows of which `goes` says so, and gives their ids in the order of arrival.
    pub fn remove(&mut self, goes: impl Fn(&Row) -> bool) -> Vec<u64> {
        let gone = self.rows.iter().filter(|waiting| goes(&waiting.row)).map(|waiting| waiting.row.id).collect();
        self.rows.retain(|waiting| !goes(&waiting.row));
        let rows = &self.rows;
        self.turns.retain(|&(priority, client), _| {
            rows.iter().any(|waiting| (waiting.row.priority, waiting.row.client) == (priority, client))
        });
        gone
    }

    pub fn expire(&mut self) -> Vec<u64> {
        let mut over: Vec<_> =
            self.rows.iter().filter_map(|waiting| Some((waiting.row.deadline?, waiting.row.id))).collect();
        over.retain(|&(deadline, _)| deadline <= self.now);
        // The sort keeps those of one deadline in the order of arrival.
        over.sort_by_key(|&(deadline, _)| deadline);
        let over: Vec<u64> = over.into_iter().map(|(_, id)| id).collect();
        self.remove(|row| over.contains(&row.id));
        over
    }

    pub fn due(&self, waiting: &Waiting) -> Duration {
        let max_delay = self.settings.max_delay;
        let patience = match waiting.row.deadline {
            Some(deadline) => max_delay.min(deadline.saturating_sub(waiting.arrived) / 2),
            None => max_delay,
        };
        waiting.arrived + patience
    }

    pub fn is_due(&self, waiting: &Waiting) -> bool {
        self.due(waiting) <= self.now
    }

    /// How many rows of a bucket are to be run now.
    pub fn size(&self, bucket: u64) -> Option<usize> {
        let of_bucket: Vec<_> = self.rows.iter().filter(|waiting| waiting.row.bucket == bucket).collect();
        let (count, most) = (of_bucket.len(), self.settings.max_batch_size);
        if count >= most {
            return Some(most);
        }
        let mut sizes = self.settings.preferred.clone();
        sizes.retain(|&size| 0 < size && size <= count);
        let is_due = of_bucket.iter().any(|waiting| self.is_due(waiting));
        sizes.into_iter().max().or(is_due.then_some(count))
    }

    fn rank(&self, index: usize) -> (u8, u64, usize) {
        let Row { priority, client, .. } = self.rows[index].row;
        (priority, self.turns[&(priority, client)], index)
    }

    pub fn next(&mut self) -> Next {
        let expired = self.expire();
        if !expired.is_empty() {
            return Next::Expired(expired);
        }
        let mut ripe: Vec<usize> =
            (0..self.rows.len()).filter(|&index| self.size(self.rows[index].row.bucket).is_some()).collect();
        let by_arrival = (self.batches + 1).is_multiple_of(FIRST_COME);
        if !by_arrival {
            ripe.sort_by_key(|&index| self.rank(index));
        }
        let Some(&first) = ripe.first() else {
            return Next::Wait(self.rows.iter().map(|waiting| self.due(waiting)).min());
        };
        let bucket = self.rows[first].row.bucket;
        let size = self.size(bucket).expect("it is ripe");
        let mut rows = Vec::new();
        let mut index = Some(first);
        while let Some(at) = index.filter(|_| rows.len() < size) {
            let Row { id, priority, client, .. } = self.rows[at].row;
            let turn = self.turns.get_mut(&(priority, client)).expect("it waits");
            self.last.insert(priority, *turn);
            *turn += 1;
            self.remove(|row| row.id == id);
            rows.push(id);
            let others = (0..self.rows.len()).filter(|&index| self.rows[index].row.bucket == bucket);
            index = others.min_by_key(|&index| self.rank(index));
        }
        self.batches += 1;
        Next::Run(Batch { bucket, rows })
    }
}
