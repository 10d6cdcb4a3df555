//! The commands as a user runs them: the real binary, against publishers of this process.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs::{self, DirBuilder};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use tensorbus::prelude::*;
use tensorbus::{Capabilities, SESSION_VARIABLE};

/// No command that is tested here takes longer than this.
const BOUND: Duration = Duration::from_secs(60);

/// A session that no other test has.
struct Session {
    name: String,
}

impl Session {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self { name: format!("c{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)) }
    }

    fn open(&self) -> Bus {
        Bus::builder().session(&self.name).open().unwrap()
    }

    fn is_there(&self) -> bool {
        Bus::sessions().unwrap().iter().any(|facts| facts.name == self.name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tensorbus"));
        command.args(args).env(SESSION_VARIABLE, &self.name);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).spawn().unwrap()
    }

    fn run(&self, args: &[&str]) -> Output {
        finish(self.spawn(args))
    }

    fn run_json(&self, args: &[&str]) -> Json {
        let output = self.run(args);
        serde_json::from_str(&stdout(&output)).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }
}

/// Waits for a command; one that hangs is killed. None of them writes more than a pipe holds.
fn finish(mut child: Child) -> Output {
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > BOUND {
            child.kill().unwrap();
            panic!("hangs: {:?}", child.wait_with_output().unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// Publishes until the command has ended.
fn finish_while(child: Child, mut publish: impl FnMut()) -> Output {
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| finish(child));
        while !ended.is_finished() {
            publish();
            std::thread::sleep(Duration::from_millis(5));
        }
        ended.join().unwrap()
    })
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn publish_ramp(publisher: &Publisher) {
    let mut tensor = publisher.loan(Dtype::F32, &[2, 3]).unwrap();
    tensor.view_mut::<f32>().unwrap().copy_from_slice(&[0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
    tensor.metadata_mut().set("lens", "wide").set("gain", 1.5);
    tensor.publish().unwrap();
}

#[test]
fn doctor_tries_the_bus() {
    let session = Session::new();
    let report = session.run_json(&["doctor", "--json", "--session", &session.name]);
    assert_eq!(report["ok"], true, "{report}");
    let checks = report["checks"].as_array().unwrap();
    let check = |name: &str| checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(check("self-test")["status"], "ok");
    assert_eq!(check("sessions")["fact"], "0 in use");
    let directory = Capabilities::detect().shared_memory.directory;
    assert!(check("shared memory")["fact"].as_str().unwrap().starts_with(directory.to_str().unwrap()));
    let words = session.run(&["doctor", "--session", &session.name]);
    assert!(words.status.success() && stdout(&words).contains("\nok    self-test"), "{words:?}");
}

#[test]
fn doctor_tells_who_is_in_a_session() {
    let session = Session::new();
    let _bus = session.open();
    let report = session.run_json(&["doctor", "--json", "--session", &session.name]);
    let found = &report["sessions"][0];
    assert_eq!(found["in_use"], true);
    assert_eq!(found["members"], serde_json::json!([std::process::id()]));
    assert!(found["files"].as_u64().unwrap() > 0);
}

/// FR-014.
#[test]
fn doctor_tells_a_sessions_quota_and_its_use() {
    const QUOTA: u64 = 8 << 20;
    let session = Session::new();
    let bus = Bus::builder().session(&session.name).quota_bytes(QUOTA).open().unwrap();
    let publisher = bus.topic("ramp").slots(4).slot_bytes(256 * 1024).publisher().unwrap();
    let used = bus.quota().unwrap().unwrap().used;
    assert!(used >= 4 * 256 * 1024, "{used}");
    let report = session.run_json(&["doctor", "--json", "--session", &session.name]);
    assert_eq!(report["sessions"][0]["quota"], serde_json::json!({ "bytes": QUOTA, "used": used }), "{report}");
    let words = stdout(&session.run(&["doctor", "--session", &session.name]));
    assert!(words.contains("of a quota of 8.00 MiB"), "{words}");
    drop(publisher);
    let report = session.run_json(&["doctor", "--json", "--session", &session.name]);
    assert_eq!(report["sessions"][0]["quota"]["used"], 0, "{report}");
}

#[test]
fn doctor_finds_and_removes_what_the_dead_left() {
    let session = Session::new();
    let user = rustix::process::geteuid().as_raw();
    let directory = Bus::default_directory().join(format!("tb-{user}-{}", session.name));
    DirBuilder::new().mode(0o700).create(&directory).unwrap();
    fs::write(directory.join("left"), [1; 5000]).unwrap();

    let report = session.run_json(&["doctor", "--json", "--session", &session.name]);
    assert_eq!(report["ok"], true, "{report}");
    let found = &report["sessions"][0];
    assert_eq!((&found["in_use"], &found["files"], &found["cleaned"]), (&false.into(), &1.into(), &false.into()));
    let words = stdout(&session.run(&["doctor", "--session", &session.name]));
    assert!(words.contains("tensorbus doctor --fix") && words.contains("left by dead processes"), "{words}");
    assert!(directory.exists());

    let report = session.run_json(&["doctor", "--json", "--fix", "--session", &session.name]);
    assert_eq!(report["sessions"][0]["cleaned"], true, "{report}");
    assert!(!directory.exists());
}

/// FR-009: in a session in use: a killed member, and files that belong to nobody.
#[test]
fn doctor_removes_dead_members_of_a_session_in_use_and_says_so() {
    let session = Session::new();
    let bus = session.open();
    let publisher = bus.topic("ramp").publisher().unwrap();
    let mut echo = session.spawn(&["echo", "ramp"]);
    let mut lines = BufReader::new(echo.stdout.take().unwrap());
    std::thread::scope(|scope| {
        let read = scope.spawn(|| lines.read_line(&mut String::new()).unwrap());
        while !read.is_finished() {
            publish_ramp(&publisher);
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    echo.kill().unwrap();
    echo.wait().unwrap();
    let stale = bus.directory().join(format!("tb_{}_12345.pool", "a".repeat(40)));
    fs::write(&stale, [1; 5000]).unwrap();

    let report = session.run_json(&["doctor", "--json", "--session", &session.name]);
    let found = &report["sessions"][0];
    assert_eq!(found["dead"], serde_json::json!([echo.id()]), "{report}");
    assert_eq!((&found["cleaned"], stale.exists()), (&false.into(), true), "only looked at");
    let report = session.run_json(&["doctor", "--json", "--fix", "--session", &session.name]);
    let found = &report["sessions"][0];
    assert_eq!(found["removed"], serde_json::json!([echo.id()]), "{report}");
    assert_eq!((&found["cleaned"], &found["removed_files"]), (&true.into(), &1.into()), "{report}");
    assert_eq!((&found["dead"], stale.exists()), (&serde_json::json!([]), false));
    assert_eq!(bus.topics().unwrap()[0].subscribers, 0);

    fs::write(&stale, [1; 5000]).unwrap();
    let words = stdout(&session.run(&["doctor", "--fix", "--session", &session.name]));
    assert!(words.contains("removed 1 file of nobody"), "{words}");
    publish_ramp(&publisher);
}

#[test]
fn topics_are_listed_with_their_settings() {
    let session = Session::new();
    let bus = session.open();
    let topic = || bus.topic("front/camera").depth(3).history(2).overflow(Overflow::DropNewest);
    let _publisher = topic().slots(12).slot_bytes(100_000).publisher().unwrap();
    let _subscribers = [topic().subscriber().unwrap(), topic().subscriber().unwrap()];

    let report = session.run_json(&["topics", "--interval", "0", "--json"]);
    assert_eq!(report["session"], session.name);
    let found = &report["topics"][0];
    let facts = ["name", "publishers", "subscribers", "depth", "history", "overflow"].map(|key| found[key].clone());
    let expected = serde_json::json!(["front/camera", 1, 2, 3, 2, "drop-newest"]);
    assert_eq!(Json::from(facts.to_vec()), expected);
    assert_eq!(found["pools"][0]["slots"], 12);
    assert!(found["bytes"].as_u64().unwrap() >= 1_200_000);

    let words = stdout(&session.run(&["topics", "--session", &session.name]));
    let line = words.lines().find(|line| line.starts_with("front/camera")).unwrap();
    assert!(line.contains("drop-newest  12 x "), "{line}");
}

/// What is sent is counted by its publishers: who asks receives nothing, and is no subscriber.
#[test]
fn topics_have_rates() {
    let session = Session::new();
    let bus = session.open();
    let publisher = bus.topic("ramp").publisher().unwrap();
    let other = bus.topic("ramp").publisher().unwrap();
    publish_ramp(&other);
    let quiet = bus.topic("quiet").publisher().unwrap();
    quiet.publish_copy(&[1u8; 10], &[10]).unwrap();
    let output = finish_while(session.spawn(&["topics", "--json", "--interval", "0.5"]), || publish_ramp(&publisher));
    let report: Json = serde_json::from_str(&stdout(&output)).unwrap();
    let topic = |name: &str| report["topics"].as_array().unwrap().iter().find(|topic| topic["name"] == name).unwrap();
    let (ramp, quiet) = (topic("ramp"), topic("quiet"));
    let messages = ramp["messages_per_s"].as_f64().unwrap();
    assert!(messages > 0.0, "{report}");
    // Each message has 24 bytes of tensors.
    assert!((ramp["bytes_per_s"].as_f64().unwrap() / messages - 24.0).abs() < 1e-6, "{report}");
    assert_eq!((ramp["publishers"].clone(), ramp["subscribers"].clone()), (2.into(), 0.into()));
    let mut sent: Vec<_> = ramp["pools"].as_array().unwrap().iter().map(|pool| pool["messages"].as_u64()).collect();
    sent.sort();
    assert!(sent[0] == Some(1) && sent[1] > Some(1), "{report}");
    assert_eq!((quiet["messages_per_s"].as_f64(), quiet["pools"][0]["sent_bytes"].as_u64()), (Some(0.0), Some(10)));

    let listed = bus.topics().unwrap();
    let counted = listed.iter().find(|topic| topic.name == "ramp").unwrap();
    let of = |publisher: &Publisher| publisher.stats().published;
    let counts: Vec<_> = counted.pools.iter().map(|pool| pool.messages).collect();
    assert_eq!(counts.iter().sum::<u64>(), of(&publisher) + of(&other));

    // One that comes takes the place of one that has left, and counts anew.
    drop(other);
    let third = bus.topic("ramp").publisher().unwrap();
    publish_ramp(&third);
    publish_ramp(&third);
    let listed = bus.topics().unwrap();
    let counted = listed.iter().find(|topic| topic.name == "ramp").unwrap();
    let counts: Vec<_> = counted.pools.iter().map(|pool| (pool.messages, pool.bytes)).collect();
    assert!(counts.contains(&(2, 48)) && counts.contains(&(of(&publisher), 24 * of(&publisher))), "{counts:?}");
    let words = stdout(&session.run(&["topics", "--interval", "0.05"]));
    assert!(words.contains("MESSAGES/S") && words.contains("0.0"), "{words}");
}

#[test]
fn weights_are_listed_with_their_users() {
    let session = Session::new();
    let bus = session.open();
    let listed = || session.run_json(&["weights", "--json"])["weights"].clone();
    assert_eq!(listed(), serde_json::json!([]));
    let publish = |value: f32| {
        let tensor = TensorView::new(std::slice::from_ref(&value), &[1], &[1]).unwrap();
        tensorbus::SharedWeights::publish(&bus, "net/layer", [("w", tensor)]).unwrap()
    };
    let old = publish(1.0);
    let new = publish(2.0);
    let found = listed();
    let facts = |index: usize| {
        let weights = &found[index];
        (weights["digest"].as_str().unwrap(), weights["current"].as_bool().unwrap(), weights["processes"].clone())
    };
    let us = serde_json::json!([std::process::id()]);
    assert_eq!(facts(0), (old.digest().to_string().as_str(), false, us.clone()));
    assert_eq!(facts(1), (new.digest().to_string().as_str(), true, us));
    assert_eq!((&found[0]["name"], &found[0]["bytes"]), (&"net/layer".into(), &old.mapped_bytes().into()));
    let words = stdout(&session.run(&["weights"]));
    assert!(words.contains("net/layer (replaced)") && words.contains(&std::process::id().to_string()), "{words}");
    drop((old, new));
    assert_eq!(listed(), serde_json::json!([]));
}

#[test]
fn an_empty_session_says_what_to_do() {
    let session = Session::new();
    let output = session.run(&["topics"]);
    assert!(output.status.success() && stdout(&output).contains("--session NAME"), "{output:?}");
    assert_eq!(session.run_json(&["topics", "--json"])["topics"], serde_json::json!([]));
    assert!(!session.is_there());
}

#[test]
fn echo_prints_messages() {
    let session = Session::new();
    let bus = session.open();
    let publisher = bus.topic("ramp").publisher().unwrap();
    let output = finish_while(session.spawn(&["echo", "ramp", "--count", "3", "--json"]), || publish_ramp(&publisher));
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<Json> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    let sequences: Vec<_> = lines.iter().map(|line| line["sequence"].as_u64().unwrap()).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
    assert_eq!(lines[0]["metadata"], serde_json::json!({"lens": "wide", "gain": 1.5}));
    assert!(lines[0]["messages_per_s"].is_null() && lines[2]["messages_per_s"].as_f64().unwrap() > 0.0);
    let tensor = &lines[2]["tensors"][0];
    let facts = ["name", "dtype", "shape", "values", "min", "max", "mean"].map(|key| tensor[key].clone());
    let values = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5];
    assert_eq!(Json::from(facts.to_vec()), serde_json::json!(["tensor", "f32", [2, 3], values, 0.0, 2.5, 1.25]));

    let output = finish_while(session.spawn(&["echo", "ramp", "--count", "1"]), || publish_ramp(&publisher));
    let words = stdout(&output);
    assert!(words.contains("  lens=\"wide\"  gain=1.5\n"), "{words}");
    assert!(words.contains("f32 [2, 3]  [0 0.5 1 1.5 2 2.5]  min 0  max 2.5  mean 1.25\n"), "{words}");
}

#[test]
fn echo_waits_for_a_topic_and_does_not_make_it() {
    let session = Session::new();
    let bus = session.open();
    let mut echo = session.spawn(&["echo", "late", "--count", "1"]);
    let mut said = BufReader::new(echo.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("waiting for topic \"late\""), "{line}");
    assert_eq!(bus.topics().unwrap(), []);
    let publisher = bus.topic("late").depth(9).publisher().unwrap();
    let output = finish_while(echo, || publish_ramp(&publisher));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(publisher.settings().depth, 9);
}

#[test]
fn echo_ends_when_nothing_comes() {
    let session = Session::new();
    let output = session.run(&["echo", "none", "--timeout", "0.1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("nobody opened topic \"none\""), "{output:?}");

    let bus = session.open();
    let _publisher = bus.topic("quiet").slot_bytes(64).publisher().unwrap();
    let output = session.run(&["echo", "quiet", "--timeout", "0.1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("though it has 1 publisher"), "{output:?}");
    let output = session.run(&["echo", "none", "--timeout", "0.1"]);
    assert!(stderr(&output).contains("it has quiet"), "{output:?}");
}

#[test]
fn a_closed_output_ends_echo_without_a_word() {
    let session = Session::new();
    let bus = session.open();
    let publisher = bus.topic("ramp").publisher().unwrap();
    let mut echo = session.spawn(&["echo", "ramp"]);
    drop(echo.stdout.take());
    let output = finish_while(echo, || publish_ramp(&publisher));
    assert!(output.status.success() && !stderr(&output).contains("panicked"), "{output:?}");
}

#[test]
fn ctrl_c_ends_echo_and_leaves_nothing() {
    let session = Session::new();
    let bus = session.open();
    let publisher = bus.topic("ramp").publisher().unwrap();
    let mut echo = session.spawn(&["echo", "ramp"]);
    let mut lines = BufReader::new(echo.stdout.take().unwrap());
    let mut line = String::new();
    std::thread::scope(|scope| {
        let read = scope.spawn(|| lines.read_line(&mut line).unwrap());
        while !read.is_finished() {
            publish_ramp(&publisher);
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    assert!(line.starts_with('#'), "{line}");
    drop((publisher, bus));
    kill_process(Pid::from_child(&echo), Signal::INT).unwrap();
    let output = finish(echo);
    assert!(output.status.success(), "{output:?}");
    assert!(!session.is_there());
}
