//! The Rust half of the figures that compare Python with Rust (`side_by_side.py`): a process that plays one end of a link over
//! tensorbus, told by lines on its standard input what to do. `half.py` is the same in Python; the two answer alike.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use tensorbus::{Bus, Dtype, Overflow, Publisher, Subscriber};
use tensorbus_benches::peer::{die_with_parent, pin, spin};

/// One is written while the other one is read.
const SLOTS: usize = 2;
/// One message of a flow is written, two wait, one is read.
const FLOW_DEPTH: usize = 2;
const FLOW_SLOTS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a side is busy before it sends to one that shall be asleep, in nanoseconds.
const PAUSE: u64 = 100_000;

/// `A` begins, `B` answers; in a flow `B` writes and `A` reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    A,
    B,
}

/// How a side waits for a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Looks until there is one.
    Poll,
    /// `recv`, in a tight game.
    Recv,
    /// `recv`, and each is busy for a while before it sends, so that the other one sleeps.
    Asleep,
}

struct Half {
    side: Side,
    bus: Bus,
    links: HashMap<String, (Publisher, Subscriber)>,
    writers: HashMap<String, Publisher>,
    readers: HashMap<String, Subscriber>,
    pattern: OnceCell<Vec<u64>>,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().context("a directory is the first argument")?;
    let side = match arguments.next().as_deref() {
        Some("A") => Side::A,
        Some("B") => Side::B,
        other => anyhow::bail!("the second argument is A or B, not {other:?}"),
    };
    die_with_parent()?;
    pin(usize::from(side == Side::B))?;
    let bus = Bus::builder().session("s").directory(Path::new(&directory)).open()?;
    let mut half = Half {
        side,
        bus,
        links: HashMap::new(),
        writers: HashMap::new(),
        readers: HashMap::new(),
        pattern: OnceCell::new(),
    };
    println!("ready");
    for order in std::io::stdin().lines() {
        let answer = half.carry_out(&order?)?;
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

impl Half {
    fn carry_out(&mut self, order: &str) -> Result<String> {
        let words: Vec<_> = order.split(' ').collect();
        match words[..] {
            ["open", pair, bytes] => self.open(pair, bytes.parse()?).map(|()| "{}".to_owned()),
            ["play", pair, bytes, _, wait, trips] => {
                let (publisher, subscriber) = &self.links[&format!("{pair}/{bytes}")];
                let wait = match wait {
                    "poll" => Wait::Poll,
                    "recv" => Wait::Recv,
                    _ => Wait::Asleep,
                };
                play(self.side, publisher, subscriber, bytes.parse()?, wait, trips.parse()?)
            }
            ["open-flow", pair, bytes] => self.open_flow(pair, bytes.parse()?).map(|()| "{}".to_owned()),
            ["flow", pair, bytes, messages] => {
                let topic = format!("flow/{pair}/{bytes}");
                match self.side {
                    Side::A => read(&self.readers[&topic], messages.parse()?, self.pattern()),
                    Side::B => write(&self.writers[&topic], bytes.parse()?, messages.parse()?, self.pattern()),
                }
            }
            _ => anyhow::bail!("unknown order {order:?}"),
        }
    }

    fn open(&mut self, pair: &str, bytes: usize) -> Result<()> {
        let [ping, pong] = [format!("ping/{pair}/{bytes}"), format!("pong/{pair}/{bytes}")];
        let (to, from) = if self.side == Side::A { (ping, pong) } else { (pong, ping) };
        let publisher = self.bus.topic(&to).slots(SLOTS).slot_bytes(bytes).publisher()?;
        let subscriber = self.bus.topic(&from).subscriber()?;
        self.links.insert(format!("{pair}/{bytes}"), (publisher, subscriber));
        Ok(())
    }

    fn open_flow(&mut self, pair: &str, bytes: usize) -> Result<()> {
        let topic = format!("flow/{pair}/{bytes}");
        let builder = self.bus.topic(&topic).depth(FLOW_DEPTH).max_borrowed(1).overflow(Overflow::Block(PATIENCE));
        match self.side {
            Side::A => self.readers.insert(topic, builder.spin(PATIENCE).subscriber()?).map(drop),
            Side::B => self.writers.insert(topic, builder.slots(FLOW_SLOTS).slot_bytes(bytes).publisher()?).map(drop),
        };
        Ok(())
    }

    /// What messages of a flow are made of; long enough for the largest.
    fn pattern(&self) -> &[u64] {
        self.pattern.get_or_init(|| (0..(100 << 20) / size_of::<u64>() as u64).collect())
    }
}

fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Plays ping-pong. Each message carries the time at which it was published; `ages` are how old they are when they are in hands,
/// `trips` are round trips, all in nanoseconds.
fn play(
    side: Side,
    publisher: &Publisher,
    subscriber: &Subscriber,
    bytes: usize,
    wait: Wait,
    trips: usize,
) -> Result<String> {
    let send = || -> Result<()> {
        if wait == Wait::Asleep {
            let end = now() + PAUSE;
            while now() < end {}
        }
        let mut tensor = publisher.loan(Dtype::U64, &[bytes / size_of::<u64>()])?;
        tensor.view_mut::<u64>()?[0] = now();
        tensor.publish()?;
        Ok(())
    };
    let take = || -> Result<u64> {
        let message = match wait {
            Wait::Poll => spin(|| Ok(subscriber.try_recv()?))?,
            Wait::Recv | Wait::Asleep => subscriber.recv(PATIENCE)?,
        };
        let view = message.first().view::<u64>()?;
        Ok(now() - view[0])
    };
    let (mut round_trips, mut ages) = (Vec::with_capacity(trips), Vec::with_capacity(trips));
    let before = voluntary_switches()?;
    for _ in 0..trips {
        let begin = now();
        match side {
            Side::A => {
                send()?;
                ages.push(take()?);
                round_trips.push(now() - begin);
            }
            Side::B => {
                ages.push(take()?);
                send()?;
            }
        }
    }
    let sleeps = voluntary_switches()? - before;
    Ok(format!("{{\"trips\": {round_trips:?}, \"ages\": {ages:?}, \"sleeps\": {sleeps}}}"))
}

/// Writes all of a message. The pattern begins with 0.
#[inline(never)]
fn fill(words: &mut [u64], pattern: &[u64], number: u64) {
    words.copy_from_slice(pattern);
    words[0] = number;
}

#[inline(never)]
fn sum(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum, word| sum.wrapping_add(*word))
}

fn write(publisher: &Publisher, bytes: usize, messages: usize, pattern: &[u64]) -> Result<String> {
    let words = bytes / size_of::<u64>();
    for number in 0..messages {
        let mut tensor = publisher.loan(Dtype::U64, &[words])?;
        fill(tensor.view_mut::<u64>()?, &pattern[..words], number as u64);
        tensor.publish()?;
    }
    Ok("{}".to_owned())
}

fn read(subscriber: &Subscriber, messages: usize, _: &[u64]) -> Result<String> {
    let begin = Instant::now();
    for number in 0..messages as u64 {
        let message = subscriber.recv(PATIENCE)?;
        let words = message.first().view::<u64>()?;
        let n = words.len() as u64;
        ensure!(sum(words) == number + n * (n - 1) / 2, "message {number} has the wrong sum");
    }
    Ok(format!("{{\"ns\": {}}}", begin.elapsed().as_nanos()))
}

/// How often this thread gave its core away.
fn voluntary_switches() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Ok(line.context("the kernel counts switches")?.trim().parse()?)
}
