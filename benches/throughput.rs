//! Bytes a second from one process that writes all of them to another that reads all of them, beside the same loops on
//! a plain shared mapping with as many slots; and what the first use of a slot costs.
//!
//! Both sides spin. The producer writes every word, the consumer adds all of them up and compares the sum.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};
use tensorbus::{Bus, Dtype, Overflow, Publisher, Subscriber};
use tensorbus_benches::floor::{Consumer, Floor, Producer};
use tensorbus_benches::peer::{Peer, die_with_parent, pin, scratch, serve, spin};
use tensorbus_benches::rounds::{Estimate, turns};

const MIB: usize = 1 << 20;
const SIZES: [usize; 3] = [MIB, 10 * MIB, 100 * MIB];
/// One that is written, two that wait, one that is read.
const SLOTS: usize = 4;
const DEPTH: usize = 2;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Options {
    /// Rounds; each case has its turn in each.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(6..))]
    rounds: u16,
    /// MiB that each case moves in a turn.
    #[arg(long, default_value_t = 400)]
    mib: usize,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
    /// Be the producer of the run in this directory.
    #[arg(long, hide = true)]
    peer: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A size over tensorbus, or over the plain mapping.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Case {
    Tensorbus(usize),
    Mapping(usize),
}

/// Bytes a nanosecond, so GB/s, of each case in each round.
struct Figures {
    case: Case,
    rates: Vec<f64>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    match &options.peer {
        Some(directory) => {
            die_with_parent()?;
            pin(1)?;
            produce(directory)
        }
        None => measure(&options),
    }
}

fn measure(options: &Options) -> Result<()> {
    let directory = scratch()?;
    let first_use = first_use(directory.path())?;
    let bus = open(directory.path())?;
    let mut tensorbus = Vec::new();
    let mut mappings = Vec::new();
    for bytes in SIZES {
        tensorbus.push(topic(&bus, bytes).spin(PATIENCE).subscriber()?);
        mappings.push(map(directory.path(), bytes)?.consumer()?);
    }
    let mut peer = Peer::start(["--peer", directory.path().to_str().context("a path in UTF-8")?])?;
    pin(0)?;
    let cases: Vec<_> = (0..SIZES.len()).flat_map(|size| [Case::Tensorbus(size), Case::Mapping(size)]).collect();
    let mut all: Vec<_> = cases.iter().map(|&case| Figures { case, rates: Vec::new() }).collect();
    // The first round warms up: the consumer has not seen the pages of either side yet.
    for round in 0..=usize::from(options.rounds) {
        for turn in turns(round, cases.len()) {
            let case = cases[turn];
            let messages = (options.mib * MIB / SIZES[case.size()]).max(SLOTS);
            let start = Instant::now();
            peer.tell(&format!("{case:?} {messages}"))?;
            match case {
                Case::Tensorbus(size) => read_tensors(&tensorbus[size], messages)?,
                Case::Mapping(size) => read_mapping(&mut mappings[size], messages)?,
            }
            let elapsed = start.elapsed();
            peer.hear()?;
            if round > 0 {
                all[turn].rates.push((messages * SIZES[case.size()]) as f64 / elapsed.as_nanos() as f64);
            }
        }
    }
    if options.json {
        println!("{:#}", report(&all, &first_use));
    } else {
        print(&all, &first_use);
    }
    Ok(())
}

/// The life of the other process.
fn produce(directory: &Path) -> Result<()> {
    let bus = open(directory)?;
    let mut tensorbus = Vec::new();
    let mut mappings = Vec::new();
    for bytes in SIZES {
        tensorbus.push(topic(&bus, bytes).slots(SLOTS).slot_bytes(bytes).publisher()?);
        mappings.push(map(directory, bytes)?.producer()?);
    }
    serve(|order| {
        let (case, messages) = order.rsplit_once(' ').context("an order has a case and a number")?;
        let messages = messages.parse()?;
        for size in 0..SIZES.len() {
            if case == format!("{:?}", Case::Tensorbus(size)) {
                return write_tensors(&tensorbus[size], SIZES[size], messages);
            }
            if case == format!("{:?}", Case::Mapping(size)) {
                return write_mapping(&mut mappings[size], messages);
            }
        }
        anyhow::bail!("unknown case {case:?}")
    })
}

impl Case {
    fn size(self) -> usize {
        let (Self::Tensorbus(size) | Self::Mapping(size)) = self;
        size
    }
}

fn open(directory: &Path) -> Result<Bus> {
    Ok(Bus::builder().session("s").directory(directory).open()?)
}

fn topic(bus: &Bus, bytes: usize) -> tensorbus::TopicBuilder {
    bus.topic(&bytes.to_string()).depth(DEPTH).max_borrowed(1).overflow(Overflow::Block(PATIENCE))
}

fn map(directory: &Path, bytes: usize) -> Result<Floor> {
    Floor::map(&directory.join(format!("floor-{bytes}")), SLOTS, bytes)
}

/// Writes message `number`: words that count up from it.
#[inline(never)]
fn fill(words: &mut [u64], number: usize) {
    for (index, word) in words.iter_mut().enumerate() {
        *word = (number + index) as u64;
    }
}

/// Reads message `number`: every word of it.
#[inline(never)]
fn check(words: &[u64], number: usize) -> Result<()> {
    let sum = words.iter().fold(0u64, |sum, word| sum.wrapping_add(*word));
    let n = words.len() as u64;
    ensure!(sum == n * number as u64 + n * (n - 1) / 2, "message {number} has the wrong sum {sum}");
    Ok(())
}

fn write_tensors(publisher: &Publisher, bytes: usize, messages: usize) -> Result<()> {
    for number in 0..messages {
        let mut tensor = publisher.loan(Dtype::U64, &[bytes / size_of::<u64>()])?;
        fill(tensor.view_mut::<u64>()?, number);
        tensor.publish()?;
    }
    Ok(())
}

fn read_tensors(subscriber: &Subscriber, messages: usize) -> Result<()> {
    for number in 0..messages {
        let message = subscriber.recv(PATIENCE)?;
        check(message.first().view::<u64>()?, number)?;
    }
    Ok(())
}

fn write_mapping(producer: &mut Producer, messages: usize) -> Result<()> {
    for number in 0..messages {
        spin(|| Ok(producer.write(|words| fill(words, number))))?;
    }
    Ok(())
}

fn read_mapping(consumer: &mut Consumer, messages: usize) -> Result<()> {
    for number in 0..messages {
        spin(|| Ok(consumer.read(|words| check(words, number))))??;
    }
    Ok(())
}

/// How much slower the first use of a slot is than the second, with and without memory behind the slots from the start.
fn first_use(directory: &Path) -> Result<Vec<(&'static str, Estimate)>> {
    const ROUNDS: usize = 6;
    let bytes = SIZES[2];
    let bus = open(directory)?;
    let mut ratios = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for turn in turns(round, 2) {
            let builder = bus.topic("fresh").slots(SLOTS).slot_bytes(bytes).prefault(turn == 0);
            let publisher = builder.publisher()?;
            let first = write_all_slots(&publisher, bytes)?;
            let second = write_all_slots(&publisher, bytes)?;
            ratios[turn].push(first.as_secs_f64() / second.as_secs_f64());
        }
    }
    let [with, without] = ratios;
    Ok(vec![("with prefault", Estimate::of(&with)), ("without prefault", Estimate::of(&without))])
}

fn write_all_slots(publisher: &Publisher, bytes: usize) -> Result<Duration> {
    let start = Instant::now();
    // All at the same time, so that each is another slot.
    let mut all = Vec::with_capacity(SLOTS);
    for number in 0..SLOTS {
        let mut tensor = publisher.loan(Dtype::U64, &[bytes / size_of::<u64>()])?;
        fill(tensor.view_mut::<u64>()?, number);
        all.push(tensor);
    }
    Ok(start.elapsed())
}

/// Tensorbus beside the mapping, for each size.
fn pairs(all: &[Figures]) -> impl Iterator<Item = (usize, &Figures, &Figures, Estimate)> {
    let of = |case| all.iter().find(move |figures| figures.case == case);
    (0..SIZES.len()).filter_map(move |size| {
        let (tensorbus, mapping) = (of(Case::Tensorbus(size))?, of(Case::Mapping(size))?);
        Some((SIZES[size], tensorbus, mapping, Estimate::of_ratio(&tensorbus.rates, &mapping.rates)))
    })
}

fn report(all: &[Figures], first_use: &[(&str, Estimate)]) -> Value {
    let ratio = |ratio: &Estimate| json!({ "median": ratio.median, "low": ratio.low, "high": ratio.high });
    let sizes: Vec<_> = pairs(all)
        .map(|(bytes, tensorbus, mapping, of_both)| {
            json!({
                "bytes": bytes,
                "tensorbus_gbps": tensorbus.rates,
                "mapping_gbps": mapping.rates,
                "tensorbus_to_mapping": ratio(&of_both),
            })
        })
        .collect();
    let first_use: Vec<_> =
        first_use.iter().map(|(name, of)| json!({ "slots": name, "first_to_second": ratio(of) })).collect();
    json!({ "bench": "throughput", "sizes": sizes, "first_use_of_a_slot": first_use })
}

fn print(all: &[Figures], first_use: &[(&str, Estimate)]) {
    println!("two processes, each on a core of its own; one writes all bytes, the other reads all of them");
    println!("medians of rounds [95 % interval]");
    println!("{:<10}{:>26}{:>26}{:>26}", "size", "tensorbus GB/s", "plain mapping GB/s", "ratio");
    for (bytes, tensorbus, mapping, ratio) in pairs(all) {
        let [tensorbus, mapping] = [tensorbus, mapping].map(|figures| Estimate::of(&figures.rates));
        println!("{:<10}{tensorbus:>26.2}{mapping:>26.2}{ratio:>26}", format!("{} MiB", bytes / MIB));
    }
    println!("time of the first write of a slot of 100 MiB to the second, in one process");
    for (name, ratio) in first_use {
        println!("{name:<20}{ratio:>26.2}");
    }
}
