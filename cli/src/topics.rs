//! `tensorbus topics`: what is published in a session.

use std::io::{self, Write};
use std::process::ExitCode;

use indicatif::HumanBytes;
use serde::Serialize;
use tensorbus::{Bus, PoolInfo, SessionFacts, TopicInfo};

use crate::output;
use crate::session::SessionArg;

/// List the topics of a session
///
/// With the number of publishers and subscribers, the settings, and the memory of the publishers' slots.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    session: SessionArg,
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
    bytes: u64,
}

#[derive(Serialize)]
struct PoolReport {
    slots: usize,
    slot_bytes: usize,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    output::until_closed(list(&args))
}

fn list(args: &Args) -> anyhow::Result<ExitCode> {
    let bus = args.session.open()?;
    let topics = bus.topics()?;
    let mut out = io::stdout().lock();
    if args.json {
        let report = Report { session: bus.session(), topics: topics.iter().map(TopicReport::of).collect() };
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else if topics.is_empty() {
        write!(out, "{}", nothing_here(bus.session(), &others_in_use(&bus)))?;
    } else {
        writeln!(out, "session {}", bus.session())?;
        write!(out, "{}", output::table(&rows(&topics), &[1, 2, 3, 4, 7]))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl<'a> TopicReport<'a> {
    fn of(topic: &'a TopicInfo) -> Self {
        let pool = |pool: &PoolInfo| PoolReport { slots: pool.slots, slot_bytes: pool.slot_bytes };
        Self {
            name: &topic.name,
            publishers: topic.publishers(),
            subscribers: topic.subscribers,
            depth: topic.settings.depth,
            history: topic.settings.history,
            overflow: topic.settings.overflow.to_string(),
            pools: topic.pools.iter().map(pool).collect(),
            bytes: topic.pool_bytes(),
        }
    }
}

fn rows(topics: &[TopicInfo]) -> Vec<Vec<String>> {
    let head = ["TOPIC", "PUBLISHERS", "SUBSCRIBERS", "DEPTH", "HISTORY", "WHEN FULL", "SLOTS", "MEMORY"];
    let row = |topic: &TopicInfo| {
        vec![
            topic.name.clone(),
            topic.publishers().to_string(),
            topic.subscribers.to_string(),
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
