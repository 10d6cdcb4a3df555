//! Clients that write requests straight into the batch that a worker runs, while processes of both kinds are killed:
//! `cargo run --release --example request_ring -- --clients 16 --workers 2 --kill 20`

mod client;
mod report;
mod worker;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use report::{Report, Totals};
use tensorbus::prelude::*;

/// Send requests from many processes to a few workers, and kill some of both
#[derive(Parser, Clone)]
struct Options {
    /// Processes that send requests
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1000))]
    clients: u64,
    /// Processes that answer them
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    workers: u64,
    /// Processes to kill meanwhile, workers and clients by turns
    #[arg(long, default_value_t = 20)]
    kill: u64,
    /// Bytes of a request
    #[arg(long, default_value_t = 64 << 10, value_parser = clap::value_parser!(u64).range(16..=1 << 30))]
    bytes: u64,
    /// How long, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// What decides which processes are killed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What this process is: the others are started by the first one
    #[arg(long, hide = true)]
    role: Option<Role>,
    /// Number of a process that was started
    #[arg(long, hide = true, default_value_t = 0)]
    number: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    Client,
    Worker,
}

/// Name of the ring.
const NAME: &str = "example/checksum";
/// Requests that a client has in flight.
const DEPTH: usize = 4;
/// Most requests that a worker runs at a time.
const BATCH: usize = 16;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    match options.role {
        Some(Role::Client) => client::run(&options),
        Some(Role::Worker) => worker::run(&options),
        None => run(&options),
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let heard = interrupted.clone();
    ctrlc::set_handler(move || heard.store(true, Ordering::Relaxed))?;
    // A session of its own, which this process keeps.
    let bus = Bus::builder().session(&format!("ring-{}", std::process::id())).open()?;
    let start = |role, number| Node::start(&bus, options, role, number);
    let mut workers = (0..options.workers).map(|number| start(Role::Worker, number)).collect::<Result<Vec<_>, _>>()?;
    let mut clients = (0..options.clients).map(|number| start(Role::Client, number)).collect::<Result<Vec<_>, _>>()?;
    println!(
        "{} clients, {} workers, requests of {} bytes, {} kills, seed {}",
        options.clients, options.workers, options.bytes, options.kill, options.seed
    );

    let mut totals = Totals::default();
    let mut random = options.seed;
    let pause = Duration::from_secs(options.seconds) / (options.kill as u32 + 1);
    let begun = Instant::now();
    for kill in 0..=options.kill {
        let due = begun + pause * (kill as u32 + 1);
        while Instant::now() < due && !interrupted.load(Ordering::Relaxed) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
        }
        if kill == options.kill || interrupted.load(Ordering::Relaxed) {
            break;
        }
        // Knuth's linear congruential generator (MMIX): its upper bits are random enough to choose a victim.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (role, nodes) = if kill % 2 == 0 { (Role::Worker, &mut workers) } else { (Role::Client, &mut clients) };
        let victim = (random >> 33) as usize % nodes.len();
        totals.add_killed(&nodes[victim].kill()?);
        nodes[victim] = start(role, options.clients + options.workers + kill)?;
    }
    let repeated = bus.ring(NAME).client()?.repeated();
    for client in &mut clients {
        totals.add(&client.end()?);
    }
    for worker in &mut workers {
        worker.end()?;
    }
    totals.print(begun.elapsed(), repeated);
    totals.check()
}

/// A process that takes part.
struct Node {
    child: Child,
    said: Arc<Mutex<Report>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Node {
    /// Returns when it is ready.
    fn start(bus: &Bus, options: &Options, role: Role, number: u64) -> anyhow::Result<Self> {
        let role = clap::ValueEnum::to_possible_value(&role).context("a role has a name")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args([
            "--role",
            role.get_name(),
            "--number",
            &number.to_string(),
            "--bytes",
            &options.bytes.to_string(),
        ]);
        command.args(["--clients", &options.clients.to_string()]);
        let command = command.env("TENSORBUS_SESSION", bus.session()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut output = BufReader::new(child.stdout.take().context("its output is ours")?);
        let mut ready = String::new();
        output.read_line(&mut ready)?;
        let said = Arc::new(Mutex::new(Report::default()));
        let heard = said.clone();
        let reader = std::thread::spawn(move || {
            for report in output.lines().map_while(Result::ok).filter_map(|line| Report::read(&line)) {
                *heard.lock().unwrap_or_else(PoisonError::into_inner) = report;
            }
        });
        let mut node = Self { child, said, reader: Some(reader) };
        if ready.trim() != "ready" {
            node.end()?;
            anyhow::bail!("a {} ended before it was ready", role.get_name());
        }
        Ok(node)
    }

    /// Kills it. What it said last.
    fn kill(&mut self) -> anyhow::Result<Report> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(self.last())
    }

    /// Has it end. What it said last.
    fn end(&mut self) -> anyhow::Result<Report> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "a process ended with {status}");
        Ok(self.last())
    }

    fn last(&mut self) -> Report {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Whether the first process is gone, or wants this one to end.
fn told_to_end() -> Arc<AtomicBool> {
    let told = Arc::new(AtomicBool::new(false));
    let tell = told.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        tell.store(true, Ordering::Relaxed);
    });
    told
}

/// A sum of the whole request, and its first number: what the workers answer.
fn checksum(request: &[u64]) -> [u64; 2] {
    let sum = request.iter().fold(0_u64, |sum, &number| sum.rotate_left(5) ^ number);
    [request.first().copied().unwrap_or_default(), sum]
}
