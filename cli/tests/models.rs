//! `tensorbus models` and `ps` as a user runs them: the real binary, against registries of this process.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use tensorbus::{Bus, KeepAlive, Measured, ModelHandle, ModelRegistry, SESSION_VARIABLE};

type Model = Measured<Vec<u8>>;

struct Session(String);

impl Session {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(format!("cm{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    fn open(&self) -> Bus {
        Bus::builder().session(&self.0).open().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        // Whoever hangs is ended.
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "60", env!("CARGO_BIN_EXE_tensorbus")]).args(args);
        command.env(SESSION_VARIABLE, &self.0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Json {
        let output = self.run(args);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }
}

fn load(registry: &ModelRegistry, key: &str, bytes: u64) -> ModelHandle<Model> {
    let load = || std::io::Result::Ok(Measured::new(vec![1; bytes as usize], bytes));
    registry.entry(key).keep_alive(KeepAlive::Forever).get_or_load_blocking(load).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn models_are_listed_with_their_handles() {
    let session = Session::new();
    let bus = session.open();
    let registry = ModelRegistry::builder().memory_budget(1 << 20).build();
    let _announcing = registry.announce(&bus).unwrap();
    let used = load(&registry, "resnet50/1", 2048);
    let _second = used.clone();
    drop(load(&registry, "bert", 1024));
    registry.get_or_load_blocking::<Model, _, _>("broken", || Err("no weights")).unwrap_err();

    let report = session.json(&["models", "--json"]);
    assert_eq!((&report["session"], &report["silent"]), (&session.0.as_str().into(), &0.into()));
    let process = &report["processes"][0];
    assert_eq!(process["pid"], std::process::id());
    assert_eq!((&process["memory_budget"], &process["stale"]), (&(1 << 20).into(), &false.into()));
    let facts = |index: usize| {
        let model = &process["models"][index];
        ["key", "state", "bytes", "handles", "device", "keep_alive_s"].map(|key| model[key].clone()).to_vec()
    };
    assert_eq!(Json::from(facts(0)), serde_json::json!(["bert", "loaded", 1024, 0, "cpu", null]));
    assert_eq!(facts(1)[..2], ["broken", "failed"]);
    assert_eq!(Json::from(facts(2)), serde_json::json!(["resnet50/1", "in use", 2048, 2, "cpu", null]));

    let words = text(&session.run(&["models"]).stdout);
    let line = words.lines().find(|line| line.starts_with("resnet50/1")).unwrap();
    assert!(line.contains("in use") && line.contains("2.00 KiB") && line.contains("for ever"), "{words}");
}

#[test]
fn a_session_without_models_says_so() {
    let session = Session::new();
    let words = text(&session.run(&["models"]).stdout);
    assert!(words.contains("no models in session"), "{words}");
    assert_eq!(session.json(&["models", "--json"])["processes"], serde_json::json!([]));
    assert!(
        !Bus::sessions().unwrap().iter().any(|facts| facts.name == session.0),
        "the command left the session behind"
    );
}

#[test]
fn models_are_unloaded_where_nobody_uses_them() {
    let session = Session::new();
    let bus = session.open();
    let registry = ModelRegistry::new();
    let _announcing = registry.announce(&bus).unwrap();
    let used = load(&registry, "m", 64);
    let output = session.run(&["models", "unload", "m"]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("in use by 1 handles"), "{output:?}");
    drop(used);
    let pid = std::process::id().to_string();
    let output = session.run(&["models", "unload", "m", "--process", &pid]);
    assert!(output.status.success() && text(&output.stdout).contains("unloaded m"), "{output:?}");
    assert!(registry.list().is_empty());
    let output = session.run(&["models", "unload", "m"]);
    assert!(!output.status.success() && text(&output.stderr).contains("has model \"m\""), "{output:?}");
}

#[test]
fn watch_prints_what_changes_until_it_is_told_to_stop() {
    let session = Session::new();
    let bus = session.open();
    let registry = ModelRegistry::new();
    let _announcing = registry.announce(&bus).unwrap();
    let mut watch = Command::new(env!("CARGO_BIN_EXE_tensorbus"));
    watch.args(["models", "watch", "--json"]).env(SESSION_VARIABLE, &session.0).stdout(Stdio::piped());
    let mut watch = watch.spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut until = |what: &str, holds: &dyn Fn(&Json) -> bool| {
        let begun = Instant::now();
        loop {
            let line: Json = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            if holds(&line["processes"][0]["models"]) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "never {what}: {line}");
        }
    };
    until("empty", &|models| *models == serde_json::json!([]));
    let used = load(&registry, "m", 64);
    until("in use", &|models| models[0]["state"] == "in use");
    drop(used);
    until("loaded", &|models| models[0]["state"] == "loaded");
    kill_process(Pid::from_raw(watch.id() as i32).unwrap(), Signal::TERM).unwrap();
    assert!(watch.wait().unwrap().success());
}

#[test]
fn processes_are_listed() {
    let session = Session::new();
    let _bus = session.open();
    let report = session.json(&["ps", "--json"]);
    let [process] = &report["processes"].as_array().unwrap()[..] else { panic!("{report}") };
    assert_eq!(process["pid"], std::process::id());
    assert!(process["resident_bytes"].as_u64().unwrap() > 0);
    let words = text(&session.run(&["ps"]).stdout);
    assert!(words.contains(&std::process::id().to_string()), "{words}");
}
