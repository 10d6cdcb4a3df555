//! How long a message takes from one process to another, whatever its size.
//!
//! Two processes play ping-pong; one way is half of a round trip. Four kinds of links take turns, round by round:
//! tensorbus, raw iceoryx2 with the same service variant, payload, header and settings, the same with the wake-up that
//! tensorbus sends with each message, and a bare atomic in a shared mapping. Only the first word of the data is written
//! and read: the hand-over itself touches header and layout, never the data.
//!
//! One way holds everything that a node does for a message: loan, write, publish, receive, drop. The age is what lies
//! between the call of publish and the message in the receiver's hands; the first word carries the time of that call.
//!
//! Where both sides sleep, each pauses before it sends, so that the other one is asleep by then. In a tight game a side
//! that is about to sleep often finds the answer there already, one kind of link more often than the other, and what is
//! compared is luck. The pauses leave only the age to be seen; `sleeps` counts what really happened for each message.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tensorbus::{Bus, Dtype, Publisher, Subscriber};
use tensorbus_benches::floor::{Counter, Floor};
use tensorbus_benches::peer::{Peer, die_with_parent, pin, scratch, serve, spin};
use tensorbus_benches::raw::{RawNode, RawPublisher, RawSubscriber};
use tensorbus_benches::rounds::{Estimate, turns};

const SIZES: [(&str, usize); 3] = [("1 KiB", 1 << 10), ("1 MiB", 1 << 20), ("100 MiB", 100 << 20)];
const SLOTS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause before a message to a side that shall be asleep: several times what it takes to fall asleep.
const PAUSE: Duration = Duration::from_micros(150);
/// A turn begins with some trips that show the age of a message instead of the time of a trip: one for so many of those.
const AGE_PART: u64 = 4;

#[derive(Parser)]
struct Options {
    /// Rounds; each kind of link has its turn in each.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(6..))]
    rounds: u16,
    /// Round trips in a turn when both sides spin.
    #[arg(long, default_value_t = 5000)]
    spin_trips: u64,
    /// Round trips in a turn when both sides sleep.
    #[arg(long, default_value_t = 300)]
    sleep_trips: u64,
    /// Only the cases whose names contain this, such as `Spin` or `Tensorbus 0 Sleep`; sizes go from 0 to 2.
    #[arg(long, default_value = "")]
    only: String,
    /// Give each process a second, idle thread, as most programs have one: the C library's locks cost more then.
    #[arg(long)]
    threads: bool,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
    /// Be the other process of the run in this directory.
    #[arg(long, hide = true)]
    peer: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How a side waits for the next message.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Wait {
    Spin,
    Sleep,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Tensorbus,
    Raw,
    RawNotifying,
    Floor,
}

/// What takes a turn.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Case {
    kind: Kind,
    /// Index into [`SIZES`].
    size: usize,
    wait: Wait,
}

/// One end of a link: what the loops are written for.
trait End {
    /// Loans a slot, puts the word into it, which is asked for right before publishing, and publishes.
    fn send(&self, word: impl FnOnce() -> u64) -> Result<()>;
    /// Takes a message if there is one, and looks at its word before it is dropped.
    fn take<T>(&self, look: impl FnOnce(u64) -> T) -> Result<Option<T>>;
    /// As `take`, but sleeps until there is one.
    fn sleep<T>(&self, look: impl Fn(u64) -> T) -> Result<T>;
}

struct TensorEnd {
    publisher: Publisher,
    subscriber: Subscriber,
    shape: [usize; 1],
}

struct RawEnd {
    publisher: RawPublisher,
    subscriber: RawSubscriber,
}

struct RawNotifying<'a>(&'a RawEnd);

struct FloorEnd {
    floor: Floor,
    sends: Counter,
    receives: Counter,
    /// Messages so far. The lowest bit of a message tells it from the one before, and nobody has to take that one away.
    sent: Cell<u64>,
    received: Cell<u64>,
}

/// All ends of one process.
struct Ends {
    tensor: Vec<TensorEnd>,
    raw: Vec<RawEnd>,
    floor: FloorEnd,
    _bus: Bus,
    _node: RawNode,
}

/// What a case has shown: a figure for each round, and all trips together.
struct Figures {
    case: Case,
    /// Median of one way in each round, in nanoseconds; none where both sides sleep.
    one_way: Vec<f64>,
    /// Median age at which a message is in the receiver's hands in each round, in nanoseconds.
    age: Vec<f64>,
    /// How often this process gave its core away, for each message that it waited for, in each round.
    sleeps: Vec<f64>,
    trips: Histogram<u64>,
    ages: Histogram<u64>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if options.threads {
        std::thread::spawn(|| std::thread::sleep(Duration::MAX));
    }
    match &options.peer {
        Some(directory) => {
            die_with_parent()?;
            pin(1)?;
            let ends = Ends::open(directory, true)?;
            serve(|order| ends.answer(order))
        }
        None => measure(&options),
    }
}

fn measure(options: &Options) -> Result<()> {
    let directory = scratch()?;
    let ends = Ends::open(directory.path(), false)?;
    let path = directory.path().to_str().context("a path in UTF-8")?;
    let mut peer = Peer::start(["--peer", path].into_iter().chain(options.threads.then_some("--threads")))?;
    pin(0)?;
    let mut cases = cases();
    cases.retain(|case| case.to_order().contains(&options.only));
    let mut all: Vec<_> = cases.iter().map(|&case| Figures::new(case)).collect::<Result<_>>()?;
    for case in &cases {
        ends.turn(&mut peer, *case, options.trips(case.wait) / 4 + 8, None)?;
    }
    for round in 0..usize::from(options.rounds) {
        for turn in turns(round, cases.len()) {
            ends.turn(&mut peer, cases[turn], options.trips(cases[turn].wait), Some(&mut all[turn]))?;
        }
    }
    if options.json {
        println!("{:#}", report(&all));
    } else {
        print(&all);
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for wait in [Wait::Spin, Wait::Sleep] {
        for size in 0..SIZES.len() {
            cases.push(Case { kind: Kind::Tensorbus, size, wait });
            cases.push(Case { kind: Kind::Raw, size, wait });
            if wait == Wait::Spin {
                cases.push(Case { kind: Kind::RawNotifying, size, wait });
            }
        }
    }
    cases.push(Case { kind: Kind::Floor, size: 0, wait: Wait::Spin });
    cases
}

impl Options {
    fn trips(&self, wait: Wait) -> u64 {
        match wait {
            Wait::Spin => self.spin_trips,
            Wait::Sleep => self.sleep_trips,
        }
    }
}

impl Ends {
    fn open(directory: &Path, is_peer: bool) -> Result<Self> {
        let bus = Bus::builder().session("s").directory(directory).open()?;
        let raw_directory = directory.join("r");
        std::fs::create_dir_all(&raw_directory)?;
        let node = RawNode::join(&raw_directory)?;
        let (mut tensor, mut raw) = (Vec::new(), Vec::new());
        for (_, bytes) in SIZES {
            let [ping, pong] = [format!("ping/{bytes}"), format!("pong/{bytes}")];
            let (to, from) = if is_peer { (pong, ping) } else { (ping, pong) };
            let publisher = bus.topic(&to).slots(SLOTS).slot_bytes(bytes).publisher()?;
            let subscriber = bus.topic(&from).spin(Duration::ZERO).subscriber()?;
            raw.push(RawEnd {
                publisher: node.topic(&to, publisher.settings())?.publisher(SLOTS, bytes)?,
                subscriber: node.topic(&from, subscriber.settings())?.subscriber()?,
            });
            tensor.push(TensorEnd { publisher, subscriber, shape: [bytes / size_of::<u64>()] });
        }
        let (sends, receives) = if is_peer { (Counter::Pong, Counter::Ping) } else { (Counter::Ping, Counter::Pong) };
        let floor = Floor::map(&directory.join("floor"), 0, 0)?;
        let floor = FloorEnd { floor, sends, receives, sent: Cell::new(0), received: Cell::new(0) };
        Ok(Self { tensor, raw, floor, _bus: bus, _node: node })
    }

    /// Runs `run` on this process's end of the link.
    fn with<T>(&self, case: Case, run: impl FnOnce(&dyn Play) -> T) -> T {
        match case.kind {
            Kind::Tensorbus => run(&self.tensor[case.size]),
            // A sleeping side has to be woken in any case.
            Kind::Raw if case.wait == Wait::Spin => run(&self.raw[case.size]),
            Kind::Raw | Kind::RawNotifying => run(&RawNotifying(&self.raw[case.size])),
            Kind::Floor => run(&self.floor),
        }
    }

    fn turn(&self, peer: &mut Peer, case: Case, trips: u64, figures: Option<&mut Figures>) -> Result<()> {
        peer.tell(&format!("{} {trips}", case.to_order()))?;
        let before = voluntary_switches()?;
        let (round_trips, ages) = self.with(case, |end| end.ping(trips, case.wait))?;
        let switches = voluntary_switches()? - before;
        peer.hear()?;
        if let Some(figures) = figures {
            if !round_trips.is_empty() {
                figures.one_way.push(round_trips.value_at_quantile(0.5) as f64 / 2.0);
            }
            figures.age.push(ages.value_at_quantile(0.5) as f64);
            figures.sleeps.push(switches as f64 / (round_trips.len() + ages.len()) as f64);
            figures.trips.add(&round_trips)?;
            figures.ages.add(&ages)?;
        }
        Ok(())
    }

    fn answer(&self, order: &str) -> Result<()> {
        let (case, trips) = order.rsplit_once(' ').context("an order has a case and a number")?;
        let case = *cases().iter().find(|known| known.to_order() == case).context("a known case")?;
        self.with(case, |end| end.pong(trips.parse()?, case.wait))
    }
}

impl Case {
    fn to_order(self) -> String {
        format!("{:?} {} {:?}", self.kind, self.size, self.wait)
    }
}

/// The loops, compiled for each kind of end by itself.
trait Play {
    fn ping(&self, trips: u64, wait: Wait) -> Result<(Histogram<u64>, Histogram<u64>)>;
    fn pong(&self, trips: u64, wait: Wait) -> Result<()>;
}

impl<E: End> Play for E {
    fn ping(&self, trips: u64, wait: Wait) -> Result<(Histogram<u64>, Histogram<u64>)> {
        let (mut round_trips, mut ages) = (histogram()?, histogram()?);
        for _ in 0..wait.ages_of(trips) {
            wait.pause();
            self.send(monotonic_ns)?;
            ages.saturating_record(next(self, wait, |word| monotonic_ns().saturating_sub(word))?);
        }
        let mut start = Instant::now();
        for number in 0..wait.round_trips_of(trips) {
            self.send(|| number)?;
            let word = next(self, wait, |word| word)?;
            ensure!(word == number, "message {word} came instead of {number}");
            let end = Instant::now();
            round_trips.saturating_record((end - start).as_nanos() as u64);
            start = end;
        }
        Ok((round_trips, ages))
    }

    fn pong(&self, trips: u64, wait: Wait) -> Result<()> {
        for _ in 0..wait.ages_of(trips) {
            next(self, wait, |word| word)?;
            wait.pause();
            self.send(monotonic_ns)?;
        }
        for _ in 0..wait.round_trips_of(trips) {
            let word = next(self, wait, |word| word)?;
            self.send(|| word)?;
        }
        Ok(())
    }
}

impl Wait {
    /// Trips of a turn that show the age of a message.
    fn ages_of(self, trips: u64) -> u64 {
        match self {
            Self::Spin => trips / AGE_PART,
            Self::Sleep => trips,
        }
    }

    /// Trips of a turn that show how long a round takes.
    fn round_trips_of(self, trips: u64) -> u64 {
        match self {
            Self::Spin => trips,
            Self::Sleep => 0,
        }
    }

    /// Gives the other side the time to wait as it should.
    fn pause(self) {
        let start = Instant::now();
        while self == Self::Sleep && start.elapsed() < PAUSE {
            std::hint::spin_loop();
        }
    }
}

#[inline]
fn next<E: End, T>(end: &E, wait: Wait, look: impl Fn(u64) -> T) -> Result<T> {
    match wait {
        Wait::Spin => spin(|| end.take(&look)),
        Wait::Sleep => end.sleep(look),
    }
}

/// How often this thread went to sleep so far, as the kernel counts it.
fn voluntary_switches() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Ok(line.context("the kernel counts context switches")?.trim().parse()?)
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

impl End for TensorEnd {
    #[inline]
    fn send(&self, word: impl FnOnce() -> u64) -> Result<()> {
        let mut tensor = self.publisher.loan(Dtype::U64, &self.shape)?;
        tensor.view_mut::<u64>()?[0] = word();
        tensor.publish()?;
        Ok(())
    }

    #[inline]
    fn take<T>(&self, look: impl FnOnce(u64) -> T) -> Result<Option<T>> {
        let Some(message) = self.subscriber.try_recv()? else { return Ok(None) };
        Ok(Some(look(message.first().view::<u64>()?[0])))
    }

    fn sleep<T>(&self, look: impl Fn(u64) -> T) -> Result<T> {
        let message = self.subscriber.recv(PATIENCE)?;
        Ok(look(message.first().view::<u64>()?[0]))
    }
}

impl End for RawEnd {
    #[inline]
    fn send(&self, word: impl FnOnce() -> u64) -> Result<()> {
        self.publisher.send(word)
    }

    #[inline]
    fn take<T>(&self, look: impl FnOnce(u64) -> T) -> Result<Option<T>> {
        self.subscriber.take(look)
    }

    fn sleep<T>(&self, look: impl Fn(u64) -> T) -> Result<T> {
        self.subscriber.wait(look)
    }
}

impl End for RawNotifying<'_> {
    #[inline]
    fn send(&self, word: impl FnOnce() -> u64) -> Result<()> {
        self.0.send(word)?;
        self.0.publisher.notify()
    }

    #[inline]
    fn take<T>(&self, look: impl FnOnce(u64) -> T) -> Result<Option<T>> {
        self.0.take(look)
    }

    fn sleep<T>(&self, look: impl Fn(u64) -> T) -> Result<T> {
        self.0.sleep(look)
    }
}

impl End for FloorEnd {
    #[inline]
    fn send(&self, word: impl FnOnce() -> u64) -> Result<()> {
        let number = self.sent.get() + 1;
        self.sent.set(number);
        self.floor.counter(self.sends).store(word() << 1 | number & 1, Ordering::Release);
        Ok(())
    }

    #[inline]
    fn take<T>(&self, look: impl FnOnce(u64) -> T) -> Result<Option<T>> {
        let message = self.floor.counter(self.receives).load(Ordering::Acquire);
        let number = self.received.get() + 1;
        if message & 1 != number & 1 {
            return Ok(None);
        }
        self.received.set(number);
        Ok(Some(look(message >> 1)))
    }

    fn sleep<T>(&self, _look: impl Fn(u64) -> T) -> Result<T> {
        bail!("nobody wakes this side")
    }
}

/// Nanoseconds of the machine's monotonic clock.
#[inline]
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

impl Figures {
    fn new(case: Case) -> Result<Self> {
        Ok(Self {
            case,
            one_way: Vec::new(),
            age: Vec::new(),
            sleeps: Vec::new(),
            trips: histogram()?,
            ages: histogram()?,
        })
    }

    fn json(&self) -> Value {
        let way = |quantile| self.trips.value_at_quantile(quantile) / 2;
        let age = |quantile| self.ages.value_at_quantile(quantile);
        let measured = !self.one_way.is_empty();
        let one_way = measured.then(|| json!({ "p50": way(0.5), "p99": way(0.99), "p999": way(0.999) }));
        json!({
            "link": format!("{:?}", self.case.kind),
            "wait": format!("{:?}", self.case.wait),
            "bytes": SIZES[self.case.size].1,
            "one_way_ns": one_way,
            "age_ns": { "p50": age(0.5), "p99": age(0.99), "p999": age(0.999) },
            "one_way_ns_by_round": self.one_way,
            "age_ns_by_round": self.age,
            "sleeps_for_each_message": Estimate::of(&self.sleeps).median,
        })
    }
}

/// What is compared: a name, and the figures of two cases in the same rounds.
fn ratios(all: &[Figures]) -> Vec<(String, Estimate)> {
    let find = |kind, size, wait| all.iter().find(|figures| figures.case == Case { kind, size, wait });
    let mut pairs = Vec::new();
    for wait in [Wait::Spin, Wait::Sleep] {
        for (size, (name, _)) in SIZES.iter().enumerate() {
            for (kind, raw) in [(Kind::Raw, "raw"), (Kind::RawNotifying, "raw with wake-up")] {
                let name = format!("{wait:?}, {name}: tensorbus / {raw}");
                pairs.push((name, find(Kind::Tensorbus, size, wait), find(kind, size, wait)));
            }
        }
        let [(small, _), _, (large, _)] = SIZES;
        for kind in [Kind::Tensorbus, Kind::Raw] {
            let name = format!("{wait:?}, {kind:?}: {large} / {small}");
            pairs.push((name, find(kind, SIZES.len() - 1, wait), find(kind, 0, wait)));
        }
    }
    let floor = find(Kind::Floor, 0, Wait::Spin);
    pairs.push((format!("Spin, {}: tensorbus / floor", SIZES[0].0), find(Kind::Tensorbus, 0, Wait::Spin), floor));
    let mut ratios = Vec::new();
    for (name, above, below) in pairs {
        let (Some(above), Some(below)) = (above, below) else { continue };
        if !above.one_way.is_empty() {
            ratios.push((format!("one way, {name}"), Estimate::of_ratio(&above.one_way, &below.one_way)));
        }
        ratios.push((format!("age, {name}"), Estimate::of_ratio(&above.age, &below.age)));
    }
    ratios
}

fn report(all: &[Figures]) -> Value {
    let cases: Vec<_> = all.iter().map(Figures::json).collect();
    let ratios: Vec<_> = ratios(all)
        .into_iter()
        .map(|(name, ratio)| json!({ "of": name, "median": ratio.median, "low": ratio.low, "high": ratio.high }))
        .collect();
    json!({ "bench": "handover", "cases": cases, "ratios": ratios })
}

fn print(all: &[Figures]) {
    println!("two processes, each on a core of its own; microseconds");
    println!("way: half of a round trip; age: from publish to the message in the receiver's hands;");
    println!("sleeps: how often the receiver gave its core away for each message");
    println!(
        "{:<14}{:<7}{:<9}{:>8}{:>9}{:>9}{:>12}{:>9}{:>10}{:>8}",
        "link", "wait", "size", "way p50", "p99", "p99.9", "age p50", "p99", "p99.9", "sleeps"
    );
    for figures in all {
        let Case { kind, size, wait } = figures.case;
        let way = |quantile| figures.trips.value_at_quantile(quantile) as f64 / 2000.0;
        let age = |quantile| figures.ages.value_at_quantile(quantile) as f64 / 1000.0;
        print!("{:<14}{:<7}{:<9}", format!("{kind:?}"), format!("{wait:?}"), SIZES[size].0);
        match figures.one_way.is_empty() {
            true => print!("{:>26}", ""),
            false => print!("{:>8.3}{:>9.3}{:>9.3}", way(0.5), way(0.99), way(0.999)),
        }
        print!("{:>12.3}{:>9.3}{:>10.3}", age(0.5), age(0.99), age(0.999));
        println!("{:>8.2}", Estimate::of(&figures.sleeps).median);
    }
    println!("ratios of the medians in each round: median [95 % interval]");
    for (name, ratio) in ratios(all) {
        println!("{name:<58}{ratio:>26}");
    }
}
