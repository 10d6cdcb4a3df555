//! What a node counts while it works, and reports when it is done.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tensorbus::{Message, Publisher, Subscriber};

use super::residency::Residency;

/// Latencies in nanoseconds, to three digits.
pub(super) type Latencies = Histogram<u64>;

/// Longest latency that is told from longer ones.
const LONGEST: Duration = Duration::from_secs(60);

/// No latencies yet.
pub(super) fn latencies() -> Latencies {
    // It fails for bounds that are not in order or more than five digits; these are, and three.
    Latencies::new_with_bounds(1, LONGEST.as_nanos() as u64, 3).unwrap_or_else(|error| unreachable!("{error}"))
}

/// What became of the messages of a node.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct NodeReport {
    /// Process id.
    pub(super) process: u32,
    /// Frames worked on.
    pub(super) frames: u64,
    /// Time from publishing to having received, in nanoseconds: `(value, how often)`.
    pub(super) hop: Vec<(u64, u64)>,
    /// Bytes of tensor data received over that hop.
    pub(super) bytes: u64,
    /// Nanoseconds from the first message's publishing to the last one's arrival.
    pub(super) elapsed_ns: u64,
    /// Messages that did not come.
    pub(super) lost: u64,
    /// Messages that were not valid.
    pub(super) rejected: u64,
    /// Bytes of tensor data that were copied on their way.
    pub(super) copied_bytes: u64,
    /// Digits compared with their labels.
    pub(super) digits: u64,
    /// Digits that were recognised.
    pub(super) correct: u64,
    /// Bytes of memory that models take.
    pub(super) model_bytes: u64,
}

impl NodeReport {
    /// Those of several nodes of one process, as one.
    pub(super) fn of_all(reports: Vec<Self>) -> Self {
        let mut all = Self::default();
        for report in reports {
            all.process = report.process;
            all.frames += report.frames;
            all.hop.extend(report.hop);
            all.bytes += report.bytes;
            all.elapsed_ns = all.elapsed_ns.max(report.elapsed_ns);
            all.lost += report.lost;
            all.rejected += report.rejected;
            all.copied_bytes += report.copied_bytes;
            all.digits += report.digits;
            all.correct += report.correct;
            all.model_bytes += report.model_bytes;
        }
        all
    }
}

/// Counts while a node works.
pub(super) struct Tally {
    hop: Latencies,
    residency: Residency,
    publishers_seen: HashSet<u128>,
    first_published_ns: Option<u64>,
    report: NodeReport,
}

impl Tally {
    /// `session` is the directory of the session.
    pub(super) fn new(session: &Path) -> Self {
        let report = NodeReport { process: std::process::id(), ..NodeReport::default() };
        Self {
            hop: latencies(),
            residency: Residency::new(session),
            publishers_seen: HashSet::new(),
            first_published_ns: None,
            report,
        }
    }

    /// Counts a message over the hop that is measured. To be called as soon as it was received.
    pub(super) fn hop(&mut self, message: &Message) -> anyhow::Result<()> {
        let age = message.age().as_nanos() as u64;
        self.hop.saturating_record(age);
        let first = *self.first_published_ns.get_or_insert(message.publish_time_ns());
        self.report.elapsed_ns = message.publish_time_ns() + age - first;
        self.report.bytes += message.tensors().map(|tensor| tensor.bytes().len() as u64).sum::<u64>();
        self.received(message)
    }

    /// Counts a message that is not measured, but checked for copies and gaps all the same.
    pub(super) fn received(&mut self, message: &Message) -> anyhow::Result<()> {
        if self.publishers_seen.insert(message.publisher()) {
            // A subscriber's own count begins with the first message that it gets. This one was there before them all.
            self.report.lost += message.sequence();
        }
        self.residency.check(message)
    }

    /// Counts a frame as done.
    pub(super) fn frame_done(&mut self) {
        self.report.frames += 1;
    }

    /// Counts digits compared, and how many of them were recognised.
    pub(super) fn compared(&mut self, digits: usize, correct: usize) {
        self.report.digits += digits as u64;
        self.report.correct += correct as u64;
    }

    /// The report, with what the node's ports have counted.
    pub(super) fn finish(mut self, subscribers: &[&Subscriber], publisher: Option<&Publisher>) -> NodeReport {
        for subscriber in subscribers {
            let stats = subscriber.stats();
            self.report.lost += stats.lost;
            self.report.rejected += stats.rejected;
        }
        self.report.copied_bytes += self.residency.copied_bytes();
        self.report.copied_bytes += publisher.map_or(0, |publisher| publisher.stats().copied_bytes);
        self.report.hop = recorded(&self.hop);
        self.report
    }
}

/// The values of a histogram, and how often each was counted.
pub(super) fn recorded(latencies: &Latencies) -> Vec<(u64, u64)> {
    latencies.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
}

/// The histogram of values that [`recorded`] gave.
pub(super) fn from_recorded(values: &[(u64, u64)]) -> Latencies {
    let mut latencies = latencies();
    for &(value, count) in values {
        latencies.saturating_record_n(value, count);
    }
    latencies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_survive_being_sent() {
        let mut sent = latencies();
        for value in [0, 1, 37_000, 37_001, 41_000, 2_000_000, u64::MAX] {
            sent.saturating_record(value);
        }
        let received = from_recorded(&recorded(&sent));
        assert_eq!(received.len(), sent.len());
        for quantile in [0.0, 0.5, 0.99, 1.0] {
            assert_eq!(received.value_at_quantile(quantile), sent.value_at_quantile(quantile));
        }
    }
}
