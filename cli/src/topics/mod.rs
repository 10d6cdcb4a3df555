//! `tensorbus topics`: what is published in a session.

mod rates;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::HumanBytes;
use rates::Rates;
use serde::Serialize;
use tensorbus::{Bus, PoolInfo, SessionFacts, TopicInfo};

use crate::output;
use crate::session::SessionArg;
use crate::stop;

/// A wish to stop is seen so soon.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// List the topics of a session
///
/// With the number of publishers and subscribers, what is sent, the settings, and the memory of the publishers' slots. Each publisher
/// counts its messages and their bytes where others can read them: two looks give the rates, and no message is received.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    session: SessionArg,
    /// Seconds between two looks, over which rates are measured; 0 looks once, without rates
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    interval: f64,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    session: &'a str,
    topics: Vec<TopicReport<'a>>,
}

#[derive(Serialize)]
struct TopicReport<'a> {
    name: &'a str,
    publishers: usize,
    subscribers: usize,
    depth: usize,
    history: usize,
    overflow: String,
    pools: Vec<PoolReport>,
    /// Of all slots.
    bytes: u64,
    /// `null` without an interval.
    messages_per_s: Option<f64>,
    /// Bytes of tensors that are sent a second, however many subscribers read them.
    bytes_per_s: Option<f64>,
}

#[derive(Serialize)]
struct PoolReport {
    slots: usize,
    slot_bytes: usize,
    /// Messages that the publisher has sent.
    messages: u64,
    /// Bytes of their tensors.
    sent_bytes: u64,
}

/// A topic, and what is sent on it if that was measured.
type Seen = (TopicInfo, Option<Rates>);

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    output::until_closed(list(&args))
}

fn list(args: &Args) -> anyhow::Result<ExitCode> {
    let interval = Duration::try_from_secs_f64(args.interval).context("--interval is no time")?;
    let stop = stop::on_signals()?;
    let bus = args.session.open()?;
    let topics = look(&bus, interval, &stop)?;
    let mut out = io::stdout().lock();
    if args.json {
        let report = Report { session: bus.session(), topics: topics.iter().map(TopicReport::of).collect() };
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else if topics.is_empty() {
        write!(out, "{}", nothing_here(bus.session(), &others_in_use(&bus)))?;
    } else {
        writeln!(out, "session {}", bus.session())?;
        write!(out, "{}", output::table(&rows(&topics), &[1, 2, 3, 4, 5, 6, 9]))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks twice, if rates are wanted.
fn look(bus: &Bus, interval: Duration, stop: &AtomicBool) -> anyhow::Result<Vec<Seen>> {
    let (before, begun) = (bus.topics()?, Instant::now());
    if interval.is_zero() || before.is_empty() {
        return Ok(before.into_iter().map(|topic| (topic, None)).collect());
    }
    while !stop.load(Ordering::Relaxed) && begun.elapsed() < interval {
        std::thread::sleep(LOOK_EVERY.min(interval.saturating_sub(begun.elapsed())));
    }
    let (after, between) = (bus.topics()?, begun.elapsed());
    let with_rates = |topic: TopicInfo| {
        let rates = Rates::of(&topic, &before, between);
        (topic, Some(rates))
    };
    Ok(after.into_iter().map(with_rates).collect())
}

impl<'a> TopicReport<'a> {
    fn of((topic, rates): &'a Seen) -> Self {
        let pool = |pool: &PoolInfo| PoolReport {
            slots: pool.slots,
            slot_bytes: pool.slot_bytes,
            messages: pool.messages,
            sent_bytes: pool.bytes,
        };
        Self {
            name: &topic.name,
            publishers: topic.publishers(),
            subscribers: topic.subscribers,
            depth: topic.settings.depth,
            history: topic.settings.history,
            overflow: topic.settings.overflow.to_string(),
            pools: topic.pools.iter().map(pool).collect(),
            bytes: topic.pool_bytes(),
            messages_per_s: rates.map(|rates| rates.messages),
            bytes_per_s: rates.map(|rates| rates.bytes),
        }
    }
}

fn rows(topics: &[Seen]) -> Vec<Vec<String>> {
    let head = [
        "TOPIC",
        "PUBLISHERS",
        "SUBSCRIBERS",
        "MESSAGES/S",
        "BYTES/S",
        "DEPTH",
        "HISTORY",
        "WHEN FULL",
        "SLOTS",
        "MEMORY",
    ];
    let row = |(topic, rates): &Seen| {
        vec![
            topic.name.clone(),
            topic.publishers().to_string(),
            topic.subscribers.to_string(),
            rates.map_or("-".to_owned(), |rates| format!("{:.1}", rates.messages)),
            rates.map_or("-".to_owned(), |rates| HumanBytes(rates.bytes as u64).to_string()),
            topic.settings.depth.to_string(),
            topic.settings.history.to_string(),
            output::overflow(topic.settings.overflow),
            slots(topic.pools.iter().map(|pool| (pool.slots, pool.slot_bytes))),
            HumanBytes(topic.pool_bytes()).to_string(),
        ]
    };
    std::iter::once(head.map(str::to_owned).to_vec()).chain(topics.iter().map(row)).collect()
}

/// The pools of a topic's publishers: `10 x 904.00 KiB`, each size once.
fn slots(pools: impl Iterator<Item = (usize, usize)>) -> String {
    let mut sizes: Vec<((usize, usize), usize)> = Vec::new();
    for pool in pools {
        match sizes.iter_mut().find(|(size, _)| *size == pool) {
            Some((_, times)) => *times += 1,
            None => sizes.push((pool, 1)),
        }
    }
    if sizes.is_empty() {
        return "-".to_owned();
    }
    let written = sizes.into_iter().map(|((slots, bytes), times)| {
        let pool = format!("{slots} x {}", HumanBytes(bytes as u64));
        if times == 1 { pool } else { format!("{times} x ({pool})") }
    });
    written.collect::<Vec<_>>().join(" + ")
}

/// Other sessions that somebody lives in.
fn others_in_use(bus: &Bus) -> Vec<String> {
    let sessions = Bus::sessions().unwrap_or_default();
    // Those of another backend could not be joined by their name alone.
    let is_here = |facts: &SessionFacts| facts.directory.parent() == bus.directory().parent();
    let others = sessions.into_iter().filter(|facts| facts.in_use && facts.name != bus.session() && is_here(facts));
    others.map(|facts| facts.name).collect()
}

fn nothing_here(session: &str, others: &[String]) -> String {
    let mut text = format!(
        "no topics in session {session:?}: nobody publishes or subscribes there now\n\
         start a program that does, or name its session with --session NAME\n"
    );
    if !others.is_empty() {
        text.push_str(&format!("sessions in use: {}\n", others.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_of_one_size_are_written_once() {
        assert_eq!(slots([].into_iter()), "-");
        assert_eq!(slots([(10, 1024)].into_iter()), "10 x 1.00 KiB");
        assert_eq!(slots([(10, 64), (4, 2048), (10, 64)].into_iter()), "2 x (10 x 64 B) + 4 x 2.00 KiB");
    }

    #[test]
    fn an_empty_session_says_what_to_do() {
        let text = nothing_here("default", &["lab".to_owned(), "robot".to_owned()]);
        assert!(text.contains("--session NAME") && text.contains("in use: lab, robot"), "{text}");
        assert!(!nothing_here("default", &[]).contains("in use:"));
    }
}
