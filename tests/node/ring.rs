//! Clients and workers of a request ring: those that do one step for each line on stdin, and those that go on until they are killed, and
//! check each other. Whatever breaks a promise ends them with an error, which the parent notices.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tensorbus::prelude::*;
use tensorbus::{
    Answer, AnswerError, Batch, Pending, RequestLoanError, RequestMut, RingBuilder, RingClient, RingWorker, TakeError,
};

use super::{PATIENCE, say, sealed, told};

/// Numbers in an input and in an output: 2 KiB.
const LEN: usize = 256;

/// The ring of the tests: input and output are so many numbers a row.
fn ring(bus: &Bus, name: &str, policy: &str, rows: usize, credits: usize) -> RingBuilder {
    let ring = bus.ring(name).input("x", Dtype::U64, &[LEN]).output("y", Dtype::U64, &[LEN]);
    let ring = ring.rows(rows).credits(credits);
    let ring = if policy.contains("isolated") { ring.isolated() } else { ring };
    if policy.contains("repeatable") { ring.repeatable() } else { ring }
}

/// What the right answer to a request is made from.
fn answer_to(seed: u64) -> u64 {
    seed.rotate_left(17) ^ 0x5851_f42d_4c95_7f2d
}

/// Does what each line on stdin says, and says what came of it.
pub(crate) fn client_by_hand(name: &str) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let client = bus.ring(name).spin(Duration::ZERO).client()?;
    let (mut written, mut pending, mut answers) =
        (Vec::<RequestMut>::new(), Vec::<Pending>::new(), Vec::<Answer>::new());
    say("ready");
    for line in std::io::stdin().lines() {
        match line?.as_str() {
            "loan" => match client.loan(Duration::ZERO) {
                Ok(request) => {
                    say("loaned");
                    written.push(request);
                }
                Err(error) => say(error),
            },
            "submit" => {
                for mut request in written.drain(..) {
                    request.view_mut::<u64>("x")?.fill(7);
                    pending.push(request.submit()?);
                }
                say("submitted");
            }
            "wait" => {
                for request in pending.drain(..) {
                    answers.push(request.wait(PATIENCE)?);
                }
                say("answered");
            }
            "let go" => {
                written.clear();
                pending.clear();
                answers.clear();
                say("let go");
            }
            other => bail!("no order {other}"),
        }
    }
    Ok(())
}

/// The same for a worker.
pub(crate) fn worker_by_hand(name: &str, policy: &str, rows: usize) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let mut worker = ring(&bus, name, policy, rows, rows).worker()?;
    let mut batch = None;
    say("ready");
    for line in std::io::stdin().lines() {
        match line?.as_str() {
            "take" => {
                let taken = worker.take(usize::MAX, PATIENCE)?;
                say(format!("took {}", taken.len()));
                batch = Some(taken);
            }
            "finish" => {
                let mut batch = batch.take().context("no batch")?;
                let mut tensors = batch.tensors()?;
                let (x, y) = (tensors.inputs[0].view::<u64>()?, tensors.outputs[0].view_mut::<u64>()?);
                y.iter_mut().zip(x).for_each(|(y, x)| *y = x + 1);
                batch.finish();
                say("finished");
            }
            other => bail!("no order {other}"),
        }
    }
    Ok(())
}

/// Reads each request of a batch twice, and answers it. Its seeds go into `log` before anything else happens.
fn run(batch: &mut Batch, log: &mut File, pause: Duration) -> anyhow::Result<()> {
    let mut tensors = batch.tensors()?;
    let (x, y) = (tensors.inputs[0].view::<u64>()?, tensors.outputs[0].view_mut::<u64>()?);
    let read = || x.chunks(LEN).map(|row| sealed::opened(row).context("a torn request")).collect::<Result<Vec<_>, _>>();
    let seeds = read()?;
    // One write, which is whole or not there, whoever is killed.
    log.write_all(&seeds.iter().flat_map(|seed| seed.to_ne_bytes()).collect::<Vec<_>>())?;
    std::thread::sleep(pause);
    for (row, &seed) in y.chunks_mut(LEN).zip(&seeds) {
        sealed::seal(row, answer_to(seed));
    }
    ensure!(read()? == seeds, "a request changed while it ran");
    Ok(())
}

/// Whether stdin has ended.
struct Told(Arc<AtomicBool>);

impl Told {
    /// Says that it is ready, and waits until it is told to begin.
    fn to_begin() -> Self {
        say("ready");
        told();
        let over = Arc::new(AtomicBool::new(false));
        let theirs = over.clone();
        std::thread::spawn(move || {
            while told() {}
            theirs.store(true, Ordering::Relaxed);
        });
        Self(over)
    }

    fn to_go_on(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

/// A small generator (SplitMix64), as the parents have.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn micros(&mut self, bound: u64) -> Duration {
        Duration::from_micros(self.below(bound))
    }
}

/// Nothing of the session is left in this process.
fn nothing_is_left(descriptors: usize, directory: &std::path::Path) -> anyhow::Result<()> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let left: Vec<_> = maps.lines().filter(|line| line.contains(&*directory.to_string_lossy())).collect();
    ensure!(left.is_empty(), "still mapped: {left:?}");
    let now = count_descriptors()?;
    ensure!(now == descriptors, "{now} descriptors instead of {descriptors}");
    Ok(())
}

fn count_descriptors() -> anyhow::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

/// What clients count, for their parent.
#[derive(Default)]
struct Counts {
    answered: u64,
    refused: u64,
    died: u64,
    no_worker: u64,
    withdrawn: u64,
    overloaded: u64,
}

/// Requests and checks, leaves and comes again, until it is killed or its stdin ends. `workers`: whether one is always there.
pub(crate) fn client_for_ever(name: &str, seed: u64, policy: &str, stays: &str, workers: &str) -> anyhow::Result<()> {
    let descriptors = count_descriptors()?;
    let (mut random, mut counts, mut next) = (Random(seed), Counts::default(), 0);
    let mut bus = Bus::open()?;
    let mut client = bus.ring(name).client()?;
    let directory = bus.directory().to_owned();
    let told = Told::to_begin();
    while told.to_go_on() {
        let mut left = if stays == "stays" { u64::MAX } else { random.below(200) };
        while left > 0 && told.to_go_on() {
            some_requests(&client, &mut random, &mut counts, &mut next, (policy, workers))?;
            left -= 1;
        }
        drop(client);
        if random.below(4) == 0 {
            drop(bus);
            bus = Bus::open()?;
        }
        client = bus.ring(name).spin(random.micros(100)).client()?;
    }
    drop((client, bus));
    nothing_is_left(descriptors, &directory)?;
    let Counts { answered, refused, died, no_worker, withdrawn, overloaded } = counts;
    say(format!("{answered} {refused} {died} {no_worker} {withdrawn} {overloaded}"));
    Ok(())
}

/// Up to four requests at a time.
fn some_requests(
    client: &RingClient,
    random: &mut Random,
    counts: &mut Counts,
    next: &mut u64,
    (policy, workers): (&str, &str),
) -> anyhow::Result<()> {
    let mut pending = Vec::new();
    for _ in 0..1 + random.below(4) {
        // Who waits for a row while it has some can wait for one who does the same.
        let is_patient = pending.is_empty() && random.below(4) > 0;
        match client.loan(if is_patient { PATIENCE } else { random.micros(2000) }) {
            Ok(mut request) => {
                // A process's numbers do not come twice, whoever else gets its process id later.
                let seed = random.0 << 32 | u64::from(std::process::id()) << 16 & 0xffff_0000 | *next & 0xffff;
                *next += 1;
                sealed::seal(request.view_mut("x")?, seed);
                match random.below(20) {
                    0 => drop(request),
                    1 => drop(request.submit()?),
                    _ => pending.push((request.submit()?, seed)),
                }
            }
            Err(RequestLoanError::Overloaded { .. }) if !is_patient => counts.overloaded += 1,
            Err(error) => return Err(error.into()),
        }
    }
    while !pending.is_empty() {
        let (request, seed) = pending.swap_remove(random.below(pending.len() as u64) as usize);
        let is_patient = random.below(8) > 0;
        match request.wait(if is_patient { PATIENCE } else { random.micros(3000) }) {
            Ok(answer) => {
                ensure!(sealed::opened(answer.view("y")?) == Some(answer_to(seed)), "a torn answer, or another's");
                if random.below(8) == 0 {
                    std::thread::sleep(random.micros(500));
                }
                ensure!(sealed::opened(answer.view("y")?) == Some(answer_to(seed)), "an answer changed");
                counts.answered += 1;
            }
            Err(AnswerError::Failed { reason, .. }) => {
                let texts = ["the worker gave the request up".to_owned(), "the worker says no".to_owned()];
                ensure!(texts.contains(&reason), "a torn text: {reason}");
                counts.refused += 1;
            }
            Err(AnswerError::WorkerDied { .. }) if !policy.contains("repeatable") => counts.died += 1,
            Err(AnswerError::NoWorker { .. }) if workers != "always" => counts.no_worker += 1,
            Err(AnswerError::Timeout { .. }) if !is_patient => counts.withdrawn += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Serves, leaves and comes again, until it is killed or its stdin ends. What it begins to run it writes into a file.
pub(crate) fn worker_for_ever(
    name: &str,
    seed: u64,
    policy: &str,
    stays: &str,
    log: &str,
    (rows, credits): (usize, usize),
) -> anyhow::Result<()> {
    let mut log = File::options().append(true).create(true).open(log)?;
    let descriptors = count_descriptors()?;
    let mut random = Random(seed);
    let mut bus = Bus::open()?;
    let directory = bus.directory().to_owned();
    let mut worker = ring(&bus, name, policy, rows, credits).worker()?;
    let told = Told::to_begin();
    while told.to_go_on() {
        some_batches(&mut worker, &mut random, policy, &mut log)?;
        if stays != "stays" && random.below(40) == 0 {
            drop(worker);
            if random.below(4) == 0 {
                drop(bus);
                bus = Bus::open()?;
            }
            worker = ring(&bus, name, policy, rows, credits).spin(random.micros(100)).worker()?;
        }
    }
    drop((worker, bus));
    nothing_is_left(descriptors, &directory)?;
    say("done");
    Ok(())
}

/// One batch, or two at a time.
fn some_batches(worker: &mut RingWorker, random: &mut Random, policy: &str, log: &mut File) -> anyhow::Result<()> {
    let mut batches = Vec::new();
    for _ in 0..1 + random.below(2) {
        match worker.take(1 + random.below(8) as usize, random.micros(20_000)) {
            Ok(batch) => batches.push(batch),
            Err(TakeError::Timeout { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for mut batch in batches {
        if policy.contains("repeatable") && random.below(20) == 0 {
            batch.give_back();
            continue;
        }
        let pause = if random.below(2) == 0 { random.micros(2000) } else { Duration::ZERO };
        run(&mut batch, log, pause)?;
        match random.below(20) {
            0 => batch.fail("the worker says no"),
            1 => drop(batch),
            _ => batch.finish(),
        }
    }
    Ok(())
}
