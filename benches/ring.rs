//! What a request costs: from the loan of a row to the answer read and given back.
//!
//! A client process and a worker process spin, each on a core of its own; kinds of links take turns, round by round: a request ring at
//! several sizes, one with a crowd of idle client processes, iceoryx2's request-response with a number for a payload, and a bare atomic in a
//! shared mapping. Of a request and of an answer only the first word is written and read: what the link itself takes does not depend on
//! the size.
//!
//! Then what a batch of 16 requests of 1 MiB costs a worker that finds them side by side, beside the copy that gathers them elsewhere; and
//! how many requests a second several workers answer for many client processes, each with four in flight.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tensorbus::{Bus, Dtype, RingClient, RingWorker, TakeError};
use tensorbus_benches::floor::{Counter, Floor};
use tensorbus_benches::peer::{Peer, die_with_parent, pin, scratch, serve, spin};
use tensorbus_benches::raw_calls::{RawAnswerer, RawCaller};
use tensorbus_benches::rounds::{Estimate, turns};

const SIZES: [(&str, usize); 3] = [("1 KiB", 1 << 10), ("1 MiB", 1 << 20), ("10 MiB", 10 << 20)];
/// Idle clients of the crowded ring.
const CROWD: usize = 100;
const PATIENCE: Duration = Duration::from_secs(60);
const BATCH: usize = 16;
/// Requests that a client has in flight in the measurement of throughput.
const DEPTH: usize = 4;
const WORKERS: [usize; 3] = [1, 2, 4];
const CLIENTS: [usize; 4] = [1, 4, 16, 100];
/// How long a worker of the throughput sleeps before it looks whether it is over.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Parser)]
struct Options {
    /// Rounds; each kind of link has its turn in each.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(6..))]
    rounds: u16,
    /// Requests in a turn.
    #[arg(long, default_value_t = 5000)]
    requests: u64,
    /// Milliseconds for each point of the throughput; 0 leaves it out.
    #[arg(long, default_value_t = 1000)]
    throughput_ms: u64,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
    /// Be another process of the run in this directory.
    #[arg(long, hide = true)]
    peer: Option<PathBuf>,
    /// What that process does.
    #[arg(long, hide = true, default_value = "answer")]
    role: String,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What takes a turn.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Case {
    /// Index into [`SIZES`].
    Ring(usize),
    Crowded,
    RequestResponse,
    Floor,
}

const CASES: [Case; 6] =
    [Case::Ring(0), Case::Ring(1), Case::Ring(2), Case::Crowded, Case::RequestResponse, Case::Floor];

impl Case {
    fn name(self) -> String {
        match self {
            Self::Ring(size) => format!("request ring, {}", SIZES[size].0),
            Self::Crowded => format!("request ring, {}, {CROWD} idle clients", SIZES[0].0),
            Self::RequestResponse => "iceoryx2 request-response, 8 bytes".to_owned(),
            Self::Floor => "floor: an atomic there and back".to_owned(),
        }
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    match &options.peer {
        Some(directory) => {
            die_with_parent()?;
            let role: Vec<_> = options.role.split(' ').collect();
            match *role.as_slice() {
                ["answer"] => {
                    pin(1)?;
                    let mut answers = Answers::new(directory)?;
                    serve(|order| answers.carry_out(order))
                }
                ["idle"] => {
                    let _client = bus(directory)?.ring("crowded").client()?;
                    serve(|_| Ok(()))
                }
                ["client"] => {
                    let client = bus(directory)?.ring("throughput").client()?;
                    serve(|order| load(&client, order))
                }
                ["worker", rows] => {
                    let worker = throughput_worker(&bus(directory)?, rows.parse()?)?;
                    std::thread::spawn(move || work(worker));
                    serve(|_| Ok(()))
                }
                _ => bail!("no role {:?}", options.role),
            }
        }
        None => measure(&options),
    }
}

fn bus(directory: &Path) -> Result<Bus> {
    Ok(Bus::builder().session("s").directory(directory).open()?)
}

fn ring_name(size: usize) -> String {
    format!("ring/{size}")
}

fn worker(bus: &Bus, name: &str, bytes: usize) -> Result<RingWorker> {
    let ring = bus.ring(name).input("x", Dtype::U64, &[bytes / 8]).output("y", Dtype::U64, &[bytes / 8]);
    Ok(ring.rows(8).credits(4).spin(PATIENCE).worker()?)
}

/// The side that answers.
struct Answers {
    rings: Vec<RingWorker>,
    raw: RawAnswerer,
    floor: Floor,
    floor_seen: Cell<u64>,
}

impl Answers {
    fn new(directory: &Path) -> Result<Self> {
        let bus = bus(directory)?;
        let mut rings = Vec::new();
        for (size, (_, bytes)) in SIZES.iter().enumerate() {
            rings.push(worker(&bus, &ring_name(size), *bytes)?);
        }
        rings.push(worker(&bus, "crowded", SIZES[0].1)?);
        Ok(Self {
            rings,
            raw: RawAnswerer::new(&directory.join("r"), 2)?,
            floor: Floor::map(&directory.join("floor"), 0, 0)?,
            floor_seen: Cell::new(0),
        })
    }

    fn carry_out(&mut self, order: &str) -> Result<()> {
        let (case, requests) = order.split_once(' ').context("an order has a case and a number")?;
        let (case, requests) = (CASES[case.parse::<usize>()?], requests.parse::<u64>()?);
        for _ in 0..requests {
            match case {
                Case::Ring(size) => answer(&mut self.rings[size])?,
                Case::Crowded => answer(&mut self.rings[SIZES.len()])?,
                Case::RequestResponse => self.raw.answer()?,
                Case::Floor => {
                    let next = self.floor_seen.get() + 1;
                    let ping = self.floor.counter(Counter::Ping);
                    spin(|| Ok((ping.load(Ordering::Acquire) == next).then_some(())))?;
                    self.floor.counter(Counter::Pong).store(next, Ordering::Release);
                    self.floor_seen.set(next);
                }
            }
        }
        Ok(())
    }
}

#[inline]
fn answer(worker: &mut RingWorker) -> Result<()> {
    let mut batch = worker.take(1, PATIENCE)?;
    let word = batch.input_bytes(0)?[0];
    batch.output_bytes_mut(0)?[0] = word;
    batch.finish();
    Ok(())
}

/// The side that asks.
struct Asks {
    rings: Vec<RingClient>,
    raw: RawCaller,
    floor: Floor,
    floor_sent: Cell<u64>,
}

impl Asks {
    fn new(directory: &Path) -> Result<Self> {
        let bus = bus(directory)?;
        let client = |name: &str| bus.ring(name).spin(PATIENCE).client();
        let mut rings = (0..SIZES.len()).map(|size| client(&ring_name(size))).collect::<Result<Vec<_>, _>>()?;
        rings.push(client("crowded")?);
        Ok(Self {
            rings,
            raw: RawCaller::new(&directory.join("r"), 2)?,
            floor: Floor::map(&directory.join("floor"), 0, 0)?,
            floor_sent: Cell::new(0),
        })
    }

    #[inline]
    fn ask(&self, case: Case, number: u64) -> Result<()> {
        match case {
            Case::Ring(size) => ask(&self.rings[size], number as u8),
            Case::Crowded => ask(&self.rings[SIZES.len()], number as u8),
            Case::RequestResponse => {
                ensure!(self.raw.call(number)? == number, "another answer");
                Ok(())
            }
            Case::Floor => {
                let next = self.floor_sent.get() + 1;
                self.floor.counter(Counter::Ping).store(next, Ordering::Release);
                let pong = self.floor.counter(Counter::Pong);
                spin(|| Ok((pong.load(Ordering::Acquire) == next).then_some(())))?;
                self.floor_sent.set(next);
                Ok(())
            }
        }
    }

    /// A turn of a case: all requests of it.
    fn turn(&self, peer: &mut Peer, case: usize, requests: u64) -> Result<Histogram<u64>> {
        let mut times = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        peer.tell(&format!("{case} {requests}"))?;
        let mut start = Instant::now();
        for number in 0..requests {
            self.ask(CASES[case], number)?;
            let end = Instant::now();
            times.saturating_record((end - start).as_nanos() as u64);
            start = end;
        }
        peer.hear()?;
        Ok(times)
    }
}

#[inline]
fn ask(client: &RingClient, word: u8) -> Result<()> {
    let mut request = client.loan(PATIENCE)?;
    request.bytes_mut(0)?[0] = word;
    let answer = request.submit()?.wait(PATIENCE)?;
    ensure!(answer.bytes(0)?[0] == word, "another answer");
    Ok(())
}

fn measure(options: &Options) -> Result<()> {
    let directory = scratch()?;
    std::fs::create_dir_all(directory.path().join("r"))?;
    let path = directory.path().to_str().context("a path in UTF-8")?;
    let mut peer = Peer::start(["--peer", path])?;
    let asks = Asks::new(directory.path())?;
    let crowd = (0..CROWD).map(|_| Peer::start(["--peer", path, "--role", "idle"])).collect::<Result<Vec<_>>>()?;
    pin(0)?;
    let mut medians = vec![Vec::new(); CASES.len()];
    let mut all = Vec::new();
    for case in 0..CASES.len() {
        asks.turn(&mut peer, case, options.requests / 4 + 8)?;
        all.push(Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?);
    }
    for round in 0..usize::from(options.rounds) {
        for case in turns(round, CASES.len()) {
            let times = asks.turn(&mut peer, case, options.requests)?;
            medians[case].push(times.value_at_quantile(0.5) as f64);
            all[case].add(&times)?;
        }
    }
    drop((crowd, asks, peer));
    let gathering = gather(options.rounds)?;
    let throughput = if options.throughput_ms > 0 { throughput(options.throughput_ms)? } else { Vec::new() };
    let ratio = |above: Case, below: Case| {
        let at = |case| CASES.iter().position(|&known| known == case).map(|at| &medians[at][..]).unwrap_or_default();
        Estimate::of_ratio(at(above), at(below))
    };
    let ratios = [
        ("ring 1 KiB / floor", ratio(Case::Ring(0), Case::Floor)),
        ("iceoryx2 request-response / ring 1 KiB", ratio(Case::RequestResponse, Case::Ring(0))),
        ("ring 1 MiB / 1 KiB", ratio(Case::Ring(1), Case::Ring(0))),
        ("ring 10 MiB / 1 KiB", ratio(Case::Ring(2), Case::Ring(0))),
        ("ring with 100 idle clients / alone", ratio(Case::Crowded, Case::Ring(0))),
    ];
    if options.json {
        let of = |ratio: &Estimate| json!({ "median": ratio.median, "low": ratio.low, "high": ratio.high });
        let cases: Vec<Value> = CASES.iter().zip(&all).map(|(case, times)| times_json(*case, times)).collect();
        let ratios: Vec<Value> = ratios.iter().map(|(name, ratio)| json!({ "of": name, "is": of(ratio) })).collect();
        let points: Vec<Value> = throughput
            .iter()
            .map(|(workers, clients, rate)| json!({ "workers": workers, "clients": clients, "requests_per_s": rate }))
            .collect();
        let gather = json!({ "take_us": gathering.0, "copy_us": gathering.1, "copied_bytes": gathering.2 });
        println!(
            "{:#}",
            json!({ "bench": "ring", "cases": cases, "ratios": ratios, "gather": gather, "throughput": points })
        );
        return Ok(());
    }
    println!("a request from loan to answer read, both sides spinning; microseconds");
    println!("{:<44}{:>9}{:>9}{:>9}", "", "p50", "p99", "p99.9");
    for (case, times) in CASES.iter().zip(&all) {
        let at = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
        println!("{:<44}{:>9.3}{:>9.3}{:>9.3}", case.name(), at(0.5), at(0.99), at(0.999));
    }
    println!("ratios of the medians in each round: median [95 % interval]");
    ratios.iter().for_each(|(name, ratio)| println!("{name:<44}{ratio:>26}"));
    let (take, copy, copied) = gathering;
    println!(
        "a batch of {BATCH} x 1 MiB: taken where it lies in {take:.2} us, {copied} bytes copied; a copy takes {copy:.0} us"
    );
    if !throughput.is_empty() {
        println!("requests a second, 1 KiB, by clients, for {WORKERS:?} workers:");
        for clients in CLIENTS {
            let rates = throughput.iter().filter(|point| point.1 == clients);
            let rates: Vec<_> = rates.map(|(_, _, rate)| format!("{rate:>12.0}")).collect();
            println!("{clients:>8}{}", rates.concat());
        }
    }
    Ok(())
}

fn times_json(case: Case, times: &Histogram<u64>) -> Value {
    let at = |quantile| times.value_at_quantile(quantile);
    json!({ "link": case.name(), "ns": { "p50": at(0.5), "p99": at(0.99), "p999": at(0.999) } })
}

/// Microseconds to take a batch, and to copy as much; and bytes that were copied on the way to the worker.
fn gather(rounds: u16) -> Result<(f64, f64, u64)> {
    let directory = scratch()?;
    let bus = bus(directory.path())?;
    let bytes = 1 << 20;
    let ring = bus.ring("gather").input("x", Dtype::U8, &[bytes]).output("y", Dtype::U8, &[8]);
    let mut worker = ring.rows(BATCH).credits(BATCH).worker()?;
    let client = bus.ring("gather").client()?;
    let (mut takes, mut copies, mut elsewhere) = (Vec::new(), Vec::new(), vec![0_u8; BATCH * bytes]);
    for round in 0..u8::try_from(rounds.min(100))? {
        let mut pending = Vec::new();
        for _ in 0..BATCH {
            let mut request = client.loan(PATIENCE)?;
            request.bytes_mut(0)?.fill(round);
            pending.push(request.submit()?);
        }
        let start = Instant::now();
        let batch = worker.take(BATCH, PATIENCE)?;
        let input = batch.input_bytes(0)?;
        takes.push(start.elapsed().as_nanos() as f64 / 1000.0);
        ensure!(input.len() == BATCH * bytes, "the requests do not lie side by side: {}", input.len());
        let start = Instant::now();
        elsewhere.copy_from_slice(input);
        copies.push(start.elapsed().as_nanos() as f64 / 1000.0);
        ensure!(std::hint::black_box(&elsewhere)[bytes] == round, "another request");
        batch.finish();
    }
    Ok((Estimate::of(&takes).median, Estimate::of(&copies).median, client.copied_bytes()))
}

fn throughput_worker(bus: &Bus, rows: usize) -> Result<RingWorker> {
    let ring = bus.ring("throughput").input("x", Dtype::U64, &[128]).output("y", Dtype::U64, &[128]);
    Ok(ring.rows(rows).credits(DEPTH).worker()?)
}

/// Answers for ever.
fn work(mut worker: RingWorker) -> Result<()> {
    loop {
        match worker.take(BATCH, LOOK) {
            Ok(mut batch) => {
                let words = batch.input_bytes(0)?.to_vec();
                batch.output_bytes_mut(0)?.copy_from_slice(&words);
                batch.finish();
            }
            Err(TakeError::Timeout { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Keeps requests in flight until so many are answered.
fn load(client: &RingClient, order: &str) -> Result<()> {
    let requests: usize = order.parse()?;
    let mut pending = std::collections::VecDeque::new();
    for number in 0..requests + DEPTH {
        if number >= DEPTH.min(requests) {
            let (number, request): (u8, tensorbus::Pending) = match pending.pop_front() {
                Some(first) => first,
                None => break,
            };
            ensure!(request.wait(PATIENCE)?.bytes(0)?[0] == number, "another answer");
        }
        if number < requests {
            let mut request = client.loan(PATIENCE)?;
            request.bytes_mut(0)?.fill(number as u8);
            pending.push_back((number as u8, request.submit()?));
        }
    }
    Ok(())
}

/// Workers, clients, and requests a second.
fn throughput(milliseconds: u64) -> Result<Vec<(usize, usize, f64)>> {
    let mut points = Vec::new();
    for workers in WORKERS {
        for clients in CLIENTS {
            let directory = scratch()?;
            let path = directory.path().to_str().context("a path in UTF-8")?;
            let rows = (2 * DEPTH * clients).max(2 * BATCH);
            let role = format!("worker {rows}");
            let serving = (0..workers).map(|_| Peer::start(["--peer", path, "--role", &role]));
            let serving = serving.collect::<Result<Vec<_>>>()?;
            let asking = (0..clients).map(|_| Peer::start(["--peer", path, "--role", "client"]));
            let mut asking = asking.collect::<Result<Vec<_>>>()?;
            // As many requests as take about the time that was asked for.
            let mut requests = 200;
            let mut took = Duration::ZERO;
            for _ in 0..4 {
                let start = Instant::now();
                asking.iter_mut().try_for_each(|peer| peer.tell(&requests.to_string()))?;
                asking.iter_mut().try_for_each(Peer::hear)?;
                took = start.elapsed();
                if took.as_millis() as u64 >= milliseconds / 2 {
                    break;
                }
                requests = (requests as f64 * milliseconds as f64 / 1000.0 / took.as_secs_f64()).ceil() as usize;
            }
            points.push((workers, clients, (requests * clients) as f64 / took.as_secs_f64()));
            drop((asking, serving));
        }
    }
    Ok(points)
}
