use std::fmt;
use std::time::Duration;

use anyhow::ensure;
use hdrhistogram::Histogram;
use indicatif::{HumanCount, HumanDuration};

/// What a client counted, and says in a line.
#[derive(Clone, Default)]
pub(crate) struct Report {
    pub(crate) submitted: u64,
    pub(crate) answered: u64,
    pub(crate) wrong: u64,
    pub(crate) worker_died: u64,
    pub(crate) no_worker: u64,
    pub(crate) timeout: u64,
    pub(crate) overloaded: u64,
    pub(crate) copied_bytes: u64,
    /// Nanoseconds, and how many answers took so long. With the last line.
    pub(crate) latencies: Vec<(u64, u64)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { submitted, answered, wrong, worker_died, no_worker, timeout, overloaded, copied_bytes, latencies } =
            self;
        write!(f, "{submitted} {answered} {wrong} {worker_died} {no_worker} {timeout} {overloaded} {copied_bytes}")?;
        latencies.iter().try_for_each(|(value, count)| write!(f, " {value}:{count}"))
    }
}

impl Report {
    pub(crate) fn read(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let mut next = || words.next()?.parse().ok();
        let mut report = Self {
            submitted: next()?,
            answered: next()?,
            wrong: next()?,
            worker_died: next()?,
            no_worker: next()?,
            timeout: next()?,
            overloaded: next()?,
            copied_bytes: next()?,
            latencies: Vec::new(),
        };
        for word in words {
            let (value, count) = word.split_once(':')?;
            report.latencies.push((value.parse().ok()?, count.parse().ok()?));
        }
        Some(report)
    }

    fn errors(&self) -> u64 {
        self.worker_died + self.no_worker + self.timeout + self.overloaded
    }
}

/// Of all clients.
#[derive(Default)]
pub(crate) struct Totals {
    sum: Report,
    /// Neither answered nor ended by an error, of clients that lived to tell.
    lost: u64,
    killed: u64,
}

impl Totals {
    /// A process that lived. Its requests must have ended.
    pub(crate) fn add(&mut self, report: &Report) {
        self.lost += report.submitted - (report.answered + report.wrong + report.errors()).min(report.submitted);
        self.add_counts(report);
    }

    /// A process that was killed, as far as it told.
    pub(crate) fn add_killed(&mut self, report: &Report) {
        self.killed += 1;
        self.add_counts(report);
    }

    fn add_counts(&mut self, report: &Report) {
        let sum = &mut self.sum;
        sum.submitted += report.submitted;
        sum.answered += report.answered;
        sum.wrong += report.wrong;
        sum.worker_died += report.worker_died;
        sum.no_worker += report.no_worker;
        sum.timeout += report.timeout;
        sum.overloaded += report.overloaded;
        sum.copied_bytes += report.copied_bytes;
        sum.latencies.extend(&report.latencies);
    }

    pub(crate) fn print(&self, took: Duration, repeated: u64) {
        let sum = &self.sum;
        let line = |what, count| println!("{what:<36}{:>14}", HumanCount(count).to_string());
        line("requests", sum.submitted);
        line("answered", sum.answered);
        line("run again after a worker's death", repeated);
        line("processes killed", self.killed);
        for (what, count) in [
            ("error: worker died", sum.worker_died),
            ("error: no worker", sum.no_worker),
            ("error: timeout", sum.timeout),
            ("error: overloaded", sum.overloaded),
        ] {
            if count > 0 {
                line(what, count);
            }
        }
        line("lost", self.lost);
        line("duplicated or wrong", sum.wrong);
        line("bytes copied", sum.copied_bytes);
        if let Ok(mut all) = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3) {
            sum.latencies.iter().for_each(|&(value, count)| all.saturating_record_n(value, count));
            for (what, quantile) in [("p50", 0.5), ("p99", 0.99)] {
                println!("{what:<36}{:>14}", format!("{:.0} us", all.value_at_quantile(quantile) as f64 / 1000.0));
            }
        }
        let rate = sum.answered as f64 / took.as_secs_f64();
        println!("{:<36}{rate:>14.0}", format!("answers a second, for {}", HumanDuration(took)));
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(self.sum.answered > 0, "nothing was answered");
        ensure!(self.lost == 0, "{} requests were lost", self.lost);
        ensure!(self.sum.wrong == 0, "{} answers were wrong or somebody else's", self.sum.wrong);
        Ok(())
    }
}
