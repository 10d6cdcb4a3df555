//! Weights that several processes use and the machine has once. The first process publishes them, the others attach; each
//! reads every byte, and the kernel says what that takes. Then the same with a copy of its own in each process:
//! `cargo run --release --example shared_weights -- --processes 4 --mib 256`

use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use indicatif::BinaryBytes;
use tensorbus::prelude::*;
use tensorbus::{MemoryFacts, SharedWeights};

/// Measure what weights take that several processes share
#[derive(Parser)]
struct Options {
    /// Processes that use the weights at a time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    processes: u64,
    /// Size of the weights, in MiB
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    mib: u64,
    /// What this process is: the others are started by the first one
    #[arg(long, hide = true)]
    role: Option<Role>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    Publish,
    Attach,
    Private,
}

const NAME: &str = "example/shared-weights";

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    match options.role {
        Some(role) => use_weights(role, options.mib),
        None => measure(&options),
    }
}

/// A process that uses the weights: gets them, reads them all, says where they lie, and keeps them until it is told to end.
fn use_weights(role: Role, mib: u64) -> anyhow::Result<()> {
    let private = if role == Role::Attach { Vec::new() } else { numbers(mib) };
    if role == Role::Private {
        return hold(&private);
    }
    let bus = Bus::open()?;
    let weights = if role == Role::Publish {
        let tensor = TensorView::new(&private, &[private.len()], &[1])?;
        let weights = SharedWeights::publish(&bus, NAME, [("weights", tensor)])?;
        drop(private); // this process's own numbers are not needed any more
        weights
    } else {
        SharedWeights::attach(&bus, NAME)?
    };
    hold(weights.tensor("weights")?.view()?)
}

fn numbers(mib: u64) -> Vec<f32> {
    (0..mib << 18).map(|index| (index % 1021) as f32).collect()
}

fn hold(weights: &[f32]) -> anyhow::Result<()> {
    let sum: f64 = weights.iter().map(|&number| f64::from(number)).sum();
    let Range { start, end } = weights.as_ptr_range();
    println!("{sum} {} {}", start.addr(), end.addr());
    std::io::stdin().read_line(&mut String::new())?; // ends when the first process closes it, or is gone
    Ok(())
}

fn measure(options: &Options) -> anyhow::Result<()> {
    let (sender, events) = channel();
    let interrupted = sender.clone();
    // Whoever is interrupted ends like anybody else, and leaves nothing behind.
    ctrlc::set_handler(move || drop(interrupted.send(Event::Interrupted)))?;
    // A session of its own, which this process keeps.
    let bus = Bus::builder().session(&format!("weights-{}", std::process::id())).open()?;
    let needed = ((options.processes + 1) * options.mib) << 20;
    if let Some(available) = MemoryFacts::gather(bus.directory())?.memory_available {
        ensure!(
            needed < available,
            "copies in {} processes take {needed} bytes, {available} are available",
            options.processes
        );
    }
    println!("{} processes, {} of weights, every byte read", options.processes, BinaryBytes(options.mib << 20));
    println!("{:<24}{:>16}{:>16}", "PSS", "weights", "whole process");
    let run = |roles: &dyn Fn(u64) -> Role, what| {
        let users = (0..options.processes).map(|number| User::start(&bus, roles(number), options, &sender, &events));
        let users = users.collect::<anyhow::Result<Vec<_>>>()?; // all of them live while they are measured
        let mut total = 0;
        for (number, user) in users.iter().enumerate() {
            let (weights, whole) = user.pss()?;
            println!(
                "{what:<16}{number:>8}{:>16}{:>16}",
                BinaryBytes(weights).to_string(),
                BinaryBytes(whole).to_string()
            );
            total += weights;
        }
        ensure!(users.windows(2).all(|pair| pair[0].sum == pair[1].sum), "the processes read different numbers");
        anyhow::Ok(total as f64 / (options.mib << 20) as f64)
    };
    let shared = run(&|number| if number == 0 { Role::Publish } else { Role::Attach }, "shared")?;
    let private = run(&|_| Role::Private, "private")?;
    println!("private: {private:.2} copies");
    println!("weights: {shared:.2} copies");
    ensure!(shared <= 1.03, "the weights take more than one copy");
    Ok(())
}

enum Event {
    Line(String),
    Ended,
    Interrupted,
}

/// A process that holds the weights. Ended when dropped.
struct User {
    child: Child,
    sum: String,
    weights: Range<usize>,
}

impl User {
    /// Returns when it has read the weights.
    fn start(
        bus: &Bus,
        role: Role,
        options: &Options,
        to: &Sender<Event>,
        events: &Receiver<Event>,
    ) -> anyhow::Result<Self> {
        let role = clap::ValueEnum::to_possible_value(&role).context("a role has a name")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--role", role.get_name(), "--mib", &options.mib.to_string()]);
        let command = command.env("TENSORBUS_SESSION", bus.session()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut user = Self { child: command.spawn()?, sum: String::new(), weights: 0..0 };
        let output = user.child.stdout.take().context("its output is ours")?;
        let to = to.clone();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(output).read_line(&mut line);
            to.send(if read.is_ok_and(|read| read > 0) { Event::Line(line) } else { Event::Ended })
        });
        match events.recv()? {
            Event::Line(line) => {
                let mut words = line.split_whitespace().map(str::to_owned);
                let mut next = || words.next().context("a process says its sum and two addresses");
                user.sum = next()?;
                user.weights = next()?.parse()?..next()?.parse()?;
                Ok(user)
            }
            Event::Ended => bail!("a process ended before it had read the weights"),
            Event::Interrupted => bail!("interrupted"),
        }
    }

    /// Proportional set size of what the weights lie in, and of all the process has, in bytes (proc_pid_smaps(5)): a page that
    /// N processes have counts as one Nth in each.
    fn pss(&self) -> anyhow::Result<(u64, u64)> {
        let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", self.child.id()))?;
        let (mut weights, mut whole, mut is_weights) = (0, 0, false);
        for line in smaps.lines() {
            if let Some(kib) = line.strip_prefix("Pss:").and_then(|rest| rest.trim().strip_suffix(" kB")) {
                let bytes = kib.trim().parse::<u64>()? << 10;
                whole += bytes;
                weights += if is_weights { bytes } else { 0 };
            } else if let Some(range) = mapping(line) {
                is_weights = range.start < self.weights.end && self.weights.start < range.end;
            }
        }
        Ok((weights, whole))
    }
}

/// The addresses with which the lines about a mapping begin.
fn mapping(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

impl Drop for User {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
