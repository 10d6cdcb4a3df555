use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::state::Row;

/// A row that waits. Its number counts arrivals.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) row: Row,
    /// When it has waited long enough for others.
    pub(super) due: Duration,
}

/// The rows of one bucket, by their numbers.
#[derive(Clone, Default, Debug)]
pub(super) struct Bucket {
    arrivals: BTreeSet<u64>,
    due: BTreeSet<(Duration, u64)>,
    /// By priority, and then by client.
    levels: BTreeMap<u8, BTreeMap<u64, BTreeSet<u64>>>,
}

impl Bucket {
    pub(super) fn len(&self) -> usize {
        self.arrivals.len()
    }

    pub(super) fn insert(&mut self, number: u64, waiting: &Waiting) {
        self.arrivals.insert(number);
        self.due.insert((waiting.due, number));
        let level = self.levels.entry(waiting.row.priority).or_default();
        level.entry(waiting.row.client).or_default().insert(number);
    }

    pub(super) fn remove(&mut self, number: u64, waiting: &Waiting) {
        self.arrivals.remove(&number);
        self.due.remove(&(waiting.due, number));
        let Row { priority, client, .. } = waiting.row;
        let Some(level) = self.levels.get_mut(&priority) else { return };
        if let Some(rows) = level.get_mut(&client) {
            rows.remove(&number);
            if rows.is_empty() {
                level.remove(&client);
            }
        }
        if level.is_empty() {
            self.levels.remove(&priority);
        }
    }

    /// The row that arrived first.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.arrivals.first().copied()
    }

    /// When the first of the rows has waited long enough.
    pub(super) fn first_due(&self) -> Option<Duration> {
        self.due.first().map(|&(due, _)| due)
    }

    /// The row that comes first, with what it is ranked by: priority, turns that its client has had, number. `turns` are those of a
    /// client at a priority.
    pub(super) fn best(&self, turns: impl Fn(u8, u64) -> u64) -> Option<(u8, u64, u64)> {
        let (&priority, clients) = self.levels.first_key_value()?;
        let first = |(&client, rows): (&u64, &BTreeSet<u64>)| Some((priority, turns(priority, client), *rows.first()?));
        clients.iter().filter_map(first).min()
    }
}
