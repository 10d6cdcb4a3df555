//! `tensorbus echo`: what comes on a topic, message by message.

mod preview;
mod rate;
mod value;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::DecimalBytes;
use serde::Serialize;
use serde_json::{Map, Value as Json};
use tensorbus::{Bus, Message, Metadata, Overflow, ReceiveError, Subscriber, TopicError, TopicInfo, Value};

pub(crate) use self::preview::{Preview, all};
use self::rate::{PerSecond, Rate};
use crate::output;
use crate::session::SessionArg;
use crate::stop;

/// How often a topic that is not there yet is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest wait for a message before the wish to stop is looked at.
const STOP_EVERY: Duration = Duration::from_millis(100);

/// Print what comes on a topic
///
/// For each message its number, age, rate, losses so far and metadata; for each tensor its type, shape, first values,
/// and their least, greatest and mean (with ~ if taken from a sample).
///
/// A topic that does not exist yet is waited for. The command takes part as a subscriber like any other: where
/// publishers wait for slow subscribers (block), they wait for this one as well.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Topic to subscribe to
    topic: String,
    #[command(flatten)]
    session: SessionArg,
    /// End after this many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Longest wait for the topic and for each message
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    timeout: Duration,
    /// Print one JSON object a message and line
    #[arg(long)]
    json: bool,
}

/// One message, as it is printed.
#[derive(Serialize)]
struct Report<'a> {
    topic: &'a str,
    sequence: u64,
    publisher: String,
    age_us: f64,
    messages_per_s: Option<f64>,
    mb_per_s: Option<f64>,
    /// Missed since the message before.
    lost: u64,
    /// Missed since the command began.
    lost_total: u64,
    source_time_ns: Option<u64>,
    metadata: Map<String, Json>,
    tensors: Vec<TensorReport>,
}

#[derive(Serialize)]
struct TensorReport {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    strides: Vec<isize>,
    bytes: usize,
    #[serde(flatten)]
    preview: Preview,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    output::until_closed(echo(&args))
}

fn echo(args: &Args) -> anyhow::Result<ExitCode> {
    let stop = stop::on_signals()?;
    let bus = args.session.open()?;
    let Some(subscriber) = wait_for_topic(&bus, args, &stop)? else { return Ok(ExitCode::SUCCESS) };
    let mut out = io::stdout().lock();
    let mut rate = Rate::default();
    let mut printed = 0;
    while args.count.is_none_or(|count| printed < count) {
        let Some(message) = next(&bus, &subscriber, args.timeout, &stop)? else { break };
        let age = message.age();
        let bytes = message.tensors().map(|tensor| tensor.bytes().len() as u64).sum();
        let per_second = rate.arrived(Instant::now(), bytes);
        let lost_total = subscriber.stats().lost;
        if args.json {
            let report = Report::of(&args.topic, &message, age, per_second, lost_total);
            writeln!(out, "{}", serde_json::to_string(&report)?)?;
        } else {
            write!(out, "{}", in_words(&message, age, per_second, lost_total))?;
        }
        printed += 1;
    }
    Ok(ExitCode::SUCCESS)
}

/// Subscribes to the topic once it exists; `None` if the user wants to stop.
fn wait_for_topic(bus: &Bus, args: &Args, stop: &AtomicBool) -> anyhow::Result<Option<Subscriber>> {
    let since = Instant::now();
    let mut announced = false;
    loop {
        let topics = bus.topics()?;
        if let Some(topic) = topics.iter().find(|topic| topic.name == args.topic) {
            match subscribe(bus, topic) {
                // It went away and came back with other settings between our looking and subscribing.
                Err(TopicError::Mismatch { .. }) => continue,
                subscriber => return Ok(Some(subscriber?)),
            }
        }
        if since.elapsed() >= args.timeout {
            bail!("{}", no_topic(&args.topic, bus.session(), args.timeout, &topics));
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if !announced {
            output::note(&format!("waiting for topic {:?} in session {:?}", args.topic, bus.session()));
            announced = true;
        }
        std::thread::sleep(LOOK_EVERY.min(args.timeout.saturating_sub(since.elapsed())));
    }
}

/// Takes part with the settings that the topic has: if it goes away meanwhile, it is made again as it was.
fn subscribe(bus: &Bus, topic: &TopicInfo) -> Result<Subscriber, TopicError> {
    let settings = &topic.settings;
    let subscriber = bus
        .topic(&topic.name)
        .depth(settings.depth)
        .history(settings.history)
        .max_borrowed(settings.max_borrowed)
        .max_publishers(settings.max_publishers)
        .max_subscribers(settings.max_subscribers)
        .overflow(settings.overflow)
        .spin(Duration::ZERO)
        .subscriber()?;
    if matches!(settings.overflow, Overflow::Block(_) | Overflow::Error) {
        let what = if settings.overflow == Overflow::Error { "fail" } else { "wait" };
        output::note(&format!(
            "publishers of {:?} {what} while a subscriber's queue is full, and this is one now",
            topic.name
        ));
    }
    Ok(subscriber)
}

/// The next message; `None` if the user wants to stop.
fn next(bus: &Bus, subscriber: &Subscriber, timeout: Duration, stop: &AtomicBool) -> anyhow::Result<Option<Message>> {
    let since = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let left = timeout.saturating_sub(since.elapsed());
        match subscriber.recv(left.min(STOP_EVERY)) {
            Ok(message) => return Ok(Some(message)),
            Err(ReceiveError::Timeout { .. }) if since.elapsed() >= timeout => {
                let topics = bus.topics()?;
                let topic = topics.iter().find(|topic| topic.name == subscriber.topic());
                bail!("{}", silence(subscriber, timeout, topic.map_or(0, TopicInfo::publishers)));
            }
            Err(ReceiveError::Timeout { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

fn no_topic(topic: &str, session: &str, waited: Duration, topics: &[TopicInfo]) -> String {
    let there = match topics {
        [] => "it has no topics at all; start the publisher, or name its session with --session".to_owned(),
        topics => {
            let names: Vec<_> = topics.iter().map(|topic| topic.name.as_str()).collect();
            format!("it has {}", names.join(", "))
        }
    };
    format!("nobody opened topic {topic:?} in session {session:?} within {waited:?}: {there}")
}

fn silence(subscriber: &Subscriber, waited: Duration, publishers: usize) -> String {
    let topic = subscriber.topic();
    let stats = subscriber.stats();
    if let Some(rejection) = stats.last_rejection {
        return format!(
            "{} on topic {topic:?} not valid, the last: {rejection}",
            output::count(stats.rejected as usize, "message", "messages")
        );
    }
    match publishers {
        0 => format!("no message on topic {topic:?} within {waited:?}: it has no publisher now"),
        publishers => format!(
            "no message on topic {topic:?} within {waited:?}, though it has {}; wait longer with --timeout",
            output::count(publishers, "publisher", "publishers")
        ),
    }
}

impl<'a> Report<'a> {
    fn of(topic: &'a str, message: &Message, age: Duration, rate: Option<PerSecond>, lost_total: u64) -> Self {
        Self {
            topic,
            sequence: message.sequence(),
            publisher: format!("{:x}", message.publisher()),
            age_us: age.as_secs_f64() * 1e6,
            messages_per_s: rate.map(|rate| rate.messages),
            mb_per_s: rate.map(|rate| rate.bytes / 1e6),
            lost: message.lost(),
            lost_total,
            source_time_ns: message.source_time_ns(),
            metadata: metadata_as_json(message.metadata()),
            tensors: message
                .tensors()
                .map(|tensor| TensorReport {
                    name: tensor.name().to_owned(),
                    dtype: tensor.dtype().to_string(),
                    shape: tensor.shape().to_vec(),
                    strides: tensor.strides().to_vec(),
                    bytes: tensor.bytes().len(),
                    preview: Preview::of(&tensor),
                })
                .collect(),
        }
    }
}

fn in_words(message: &Message, age: Duration, rate: Option<PerSecond>, lost_total: u64) -> String {
    let rate = rate.map_or_else(String::new, |rate| {
        format!("  {:.1} msg/s  {}/s", rate.messages, DecimalBytes(rate.bytes as u64))
    });
    let mut text = format!("#{}  age {age:.1?}{rate}  lost {lost_total}", message.sequence());
    for (key, value) in message.metadata().iter() {
        text.push_str(&format!("  {}={}", key.escape_debug(), metadata_in_words(value)));
    }
    text.push('\n');
    let rows: Vec<Vec<String>> = message
        .tensors()
        .map(|tensor| {
            let kind = format!("{} {:?}", tensor.dtype(), tensor.shape());
            vec![String::new(), tensor.name().escape_debug().to_string(), kind, Preview::of(&tensor).to_string()]
        })
        .collect();
    text + &output::table(&rows, &[])
}

fn metadata_in_words(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

fn metadata_as_json(metadata: &Metadata) -> Map<String, Json> {
    let json = |value: &Value| match value {
        Value::Bool(value) => Json::from(*value),
        Value::Int(value) => Json::from(*value),
        Value::Float(value) => Json::from(*value),
        Value::Text(value) => Json::from(value.as_str()),
        Value::Bytes(value) => Json::from(value.as_slice()),
        other => Json::from(other.to_string()),
    };
    metadata.iter().map(|(key, value)| (key.to_owned(), json(value))).collect()
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds such as 10 or 0.5 is needed".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_positive_numbers() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["", "ten", "-1", "nan", "inf", "1e30"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn metadata_keeps_its_types() {
        let mut metadata = Metadata::new();
        metadata.set("lens", "wide \"a\"").set("gain", 1.5).set("number", 7).set("on", true).set("raw", &[1u8, 2][..]);
        let json = Json::from(metadata_as_json(&metadata));
        assert_eq!(
            json,
            serde_json::json!({"lens": "wide \"a\"", "gain": 1.5, "number": 7, "on": true, "raw": [1, 2]})
        );
        let words: Vec<_> = metadata.iter().map(|(_, value)| metadata_in_words(value)).collect();
        assert_eq!(words, ["\"wide \\\"a\\\"\"", "1.5", "7", "true", "2 bytes"]);
    }

    #[test]
    fn a_missing_topic_is_told_with_what_there_is() {
        let text = no_topic("camera", "default", Duration::from_secs(10), &[]);
        assert!(text.contains("\"camera\"") && text.contains("within 10s") && text.contains("--session"), "{text}");
    }
}
