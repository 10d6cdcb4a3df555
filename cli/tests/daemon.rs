//! `tensorbus daemon` as a user runs it: the real binary, real signals, real HTTP.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use prometheus_parse::{Sample, Scrape, Value};
use rustix::process::{Pid, Signal, kill_process};
use tensorbus::{
    Bus, DirectoryCallError, DirectoryClient, DirectoryService, KeepAlive, Listing, Measured, ModelHandle,
    ModelRegistry, ProcessModels, SESSION_VARIABLE, ServiceError,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn session() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("cd{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn open(session: &str) -> Bus {
    Bus::builder().session(session).open().unwrap()
}

/// A daemon that ends when it is dropped.
struct Daemon {
    process: Child,
    http: SocketAddr,
}

fn command(session: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tensorbus"));
    command.args(["daemon", "--http", "127.0.0.1:0"]).env(SESSION_VARIABLE, session);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

impl Daemon {
    fn start(session: &str) -> Self {
        let mut process = command(session).spawn().unwrap();
        let mut said = BufReader::new(process.stderr.take().unwrap()).lines();
        let line = said.next().unwrap().unwrap();
        let http = line.strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line}")).parse().unwrap();
        // What it says later is for nobody; the pipe stays open.
        std::thread::spawn(move || said.for_each(drop));
        Self { process, http }
    }

    /// Status, and what follows the header.
    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn metrics(&self) -> Vec<Sample> {
        let (status, body) = self.get("/metrics");
        assert_eq!(status, 200, "{body}");
        Scrape::parse(body.lines().map(|line| Ok(line.to_owned()))).unwrap().samples
    }

    fn wait_for(&self, what: &str, holds: impl Fn(&[Sample]) -> bool) {
        let begun = Instant::now();
        loop {
            let samples = self.metrics();
            if holds(&samples) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "never: {what}: {samples:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // So that it leaves, and its session goes; one that hangs is killed.
        let _ = kill_process(Pid::from_raw(self.process.id() as i32).unwrap(), Signal::TERM);
        let begun = Instant::now();
        while self.process.try_wait().unwrap().is_none() {
            if begun.elapsed() > PATIENCE {
                let _ = self.process.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The value of a series, by its model or alone.
fn value(samples: &[Sample], metric: &str, model: Option<&str>) -> Option<f64> {
    let is_it = |sample: &&Sample| sample.metric == metric && sample.labels.get("model") == model;
    match samples.iter().find(is_it)?.value {
        Value::Gauge(value) | Value::Counter(value) | Value::Untyped(value) => Some(value),
        _ => None,
    }
}

fn load(registry: &ModelRegistry, key: &str, bytes: u64) -> ModelHandle<Measured<u8>> {
    let load = || std::io::Result::Ok(Measured::new(1, bytes));
    registry.entry(key).keep_alive(KeepAlive::Forever).get_or_load_blocking(load).unwrap()
}

#[test]
fn its_metrics_are_those_of_the_session() {
    let name = session();
    let daemon = Daemon::start(&name);
    let bus = open(&name);
    let _publisher = bus.topic("camera").slots(4).slot_bytes(4096).publisher().unwrap();
    let registry = ModelRegistry::new();
    let _announcing = registry.announce(&bus).unwrap();
    let used = load(&registry, "resnet50/1", 1234);
    let handles = |samples: &[Sample]| value(samples, "tensorbus_model_handles", Some("resnet50/1"));
    daemon.wait_for("in use", |samples| handles(samples) == Some(1.0));
    let samples = daemon.metrics();
    assert_eq!(value(&samples, "tensorbus_model_bytes", Some("resnet50/1")), Some(1234.0));
    assert_eq!(value(&samples, "tensorbus_processes", None), Some(2.0));
    let topic = |sample: &&Sample| {
        sample.metric == "tensorbus_topic_pool_bytes" && sample.labels.get("topic") == Some("camera")
    };
    assert!(samples.iter().find(topic).is_some());
    let (status, body) = daemon.get("/healthz");
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &health["status"], &health["session"]), (200, &"ok".into(), &name.as_str().into()));
    assert_eq!(daemon.get("/nothing").0, 404);
    drop(used);
    daemon.wait_for("idle", |samples| handles(samples) == Some(0.0));
    registry.unload("resnet50/1").unwrap();
    daemon.wait_for("gone", |samples| handles(samples).is_none());
}

#[test]
fn a_session_has_one_daemon() {
    let name = session();
    let daemon = Daemon::start(&name);
    let second = command(&name).output().unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8(second.stderr).unwrap();
    let holder = format!("process {}, http://{}", daemon.process.id(), daemon.http);
    assert!(said.contains(&holder), "{said}");
    assert_eq!(daemon.get("/healthz").0, 200, "the first one goes on");
    let other = Daemon::start(&session());
    assert_eq!(other.get("/healthz").0, 200, "another session has its own");
}

#[test]
fn it_ends_when_it_is_told_to_and_leaves_nothing() {
    for signal in [Signal::TERM, Signal::INT] {
        let name = session();
        let mut daemon = Daemon::start(&name);
        kill_process(Pid::from_raw(daemon.process.id() as i32).unwrap(), signal).unwrap();
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = daemon.process.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "{status}");
        assert!(!Bus::sessions().unwrap().iter().any(|facts| facts.name == name), "the session is left behind");
    }
}

/// A supervisor starts it again: it knows everything, and nobody else has noticed.
#[test]
fn one_that_was_killed_is_replaced_and_the_next_knows_everything() {
    let name = session();
    let bus = open(&name);
    let registry = ModelRegistry::new();
    let _announcing = registry.announce(&bus).unwrap();
    let _used = load(&registry, "m", 7);
    for _ in 0..3 {
        let mut daemon = Daemon::start(&name);
        daemon.wait_for("the model", |samples| value(samples, "tensorbus_model_bytes", Some("m")) == Some(7.0));
        daemon.process.kill().unwrap();
    }
    let daemon = Daemon::start(&name);
    daemon.wait_for("the dead are removed", |samples| value(samples, "tensorbus_processes_dead", None) == Some(0.0));
}

#[test]
fn deaths_are_counted_and_cleaned_up_after() {
    let name = session();
    let daemon = Daemon::start(&name);
    let mut dies = Command::new(env!("CARGO_BIN_EXE_tensorbus"));
    dies.args(["models", "watch", "--json"]).env(SESSION_VARIABLE, &name).stdout(Stdio::piped());
    let mut dies = dies.spawn().unwrap();
    BufReader::new(dies.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    dies.kill().unwrap();
    dies.wait().unwrap();
    let deaths = |samples: &[Sample]| value(samples, "tensorbus_deaths_total", None);
    daemon.wait_for("the death is told", |samples| deaths(samples) == Some(1.0));
    daemon.wait_for("it is gone", |samples| value(samples, "tensorbus_processes", None) == Some(1.0));
}

/// FR-015: list, get and watch, from the daemon alone.
#[test]
fn it_answers_for_the_directory() {
    let name = session();
    let bus = open(&name);
    let mut client = DirectoryClient::open(&bus).unwrap();
    assert!(client.list(PATIENCE).unwrap_err().is_no_server());
    let registry = ModelRegistry::new();
    let _announcing = registry.announce(&bus).unwrap();
    let held = load(&registry, "net/1", 7);
    let _daemon = Daemon::start(&name);
    let listing = complete(&mut client, |listing| handles(listing, "net/1") == Some(1));
    assert_eq!(listing.processes[0].pid, std::process::id());
    assert_eq!(client.get("net/1", PATIENCE).unwrap().processes[0].models[0].bytes, 7);
    assert_eq!(client.get("net/2", PATIENCE).unwrap().processes, []);
    assert!(matches!(client.get("", PATIENCE), Err(DirectoryCallError::Key(_))));
    // Nothing changes: the patience ends, with what was known.
    let still = client.watch(listing.generation, Duration::ZERO, PATIENCE).unwrap();
    assert_eq!(still, listing.generation);
    // Something does, while it is waited for.
    let watching = std::thread::spawn(move || {
        let changed = client.watch(listing.generation, PATIENCE, PATIENCE).unwrap();
        (client, changed != listing.generation)
    });
    let more = held.clone();
    let (mut client, has_changed) = watching.join().unwrap();
    assert!(has_changed);
    complete(&mut client, |listing| handles(listing, "net/1") == Some(2));
    drop((held, more));
    complete(&mut client, |listing| handles(listing, "net/1") == Some(0));
    let other = open(&name);
    assert!(matches!(DirectoryService::open(&other), Err(ServiceError::HasServer { .. })));
}

/// More models than an answer holds come in several.
#[test]
fn a_directory_may_be_longer_than_an_answer() {
    let name = session();
    let bus = open(&name);
    let registries: Vec<_> = (0..3).map(|_| ModelRegistry::new()).collect();
    let _announced: Vec<_> = registries.iter().map(|registry| registry.announce(&bus).unwrap()).collect();
    let key = |number: usize| format!("{number:03}/{}", "k".repeat(200));
    for registry in &registries {
        (0..300).for_each(|number| drop(load(registry, &key(number), 1)));
    }
    let _daemon = Daemon::start(&name);
    let mut client = DirectoryClient::open(&bus).unwrap();
    let keys: Vec<_> = (0..300).map(key).collect();
    let are_all = |listing: &Listing| {
        let of =
            |process: &ProcessModels| process.models.iter().map(|model| model.key.clone()).eq(keys.iter().cloned());
        listing.processes.len() == 3 && listing.processes.iter().all(of)
    };
    complete(&mut client, are_all);
    assert_eq!(client.get(&keys[7], PATIENCE).unwrap().processes.len(), 3);
}

/// A daemon that is killed takes nothing along: the next one knows everything again once it has heard everybody, which is
/// within a tick; what it says before that says so.
#[test]
fn a_daemon_that_was_killed_knows_everything_again() {
    let name = session();
    let bus = open(&name);
    let registry = ModelRegistry::new();
    let _announcing = registry.announce(&bus).unwrap();
    let _held = [load(&registry, "a", 1), load(&registry, "b", 2)];
    let mut client = DirectoryClient::open(&bus).unwrap();
    let knows_all = |listing: &Listing| (handles(listing, "a"), handles(listing, "b")) == (Some(1), Some(1));
    let mut before = None;
    for _ in 0..5 {
        let mut daemon = Daemon::start(&name);
        let listing = complete(&mut client, |listing| listing.silent == 0);
        assert!(knows_all(&listing), "{listing:?}");
        assert_ne!(before.replace(listing.generation), Some(listing.generation), "who watches is told");
        let listed = Command::new(env!("CARGO_BIN_EXE_tensorbus"))
            .args(["models", "--json"])
            .env(SESSION_VARIABLE, &name)
            .output()
            .unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        assert!(text.contains("\"a\"") && text.contains("\"b\""), "{text}");
        daemon.process.kill().unwrap();
        daemon.process.wait().unwrap();
    }
    bus.remove_dead().unwrap();
}

/// Asks until the answer is as expected.
fn complete(client: &mut DirectoryClient, expected: impl Fn(&Listing) -> bool) -> Listing {
    let begun = Instant::now();
    loop {
        match client.list(PATIENCE) {
            Ok(listing) if expected(&listing) => return listing,
            other => assert!(begun.elapsed() < PATIENCE, "{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn handles(listing: &Listing, key: &str) -> Option<usize> {
    let models = listing.processes.iter().flat_map(|process| &process.models);
    models.filter(|model| model.key == key).map(|model| model.handles).next()
}

#[test]
fn an_address_that_is_taken_is_an_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tensorbus"));
    command.args(["daemon", "--http", &taken.local_addr().unwrap().to_string()]).env(SESSION_VARIABLE, session());
    let output = command.output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("choose another address or port"));
}
