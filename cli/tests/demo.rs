//! The demo as a user runs it, with the directory beside it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use tensorbus::{Bus, SESSION_VARIABLE};

/// Nothing that is tested here takes longer than this.
const BOUND: Duration = Duration::from_secs(60);
const TENSORBUS: &str = env!("CARGO_BIN_EXE_tensorbus");

/// A command that is ended when the test ends.
struct Running(Child);

impl Running {
    fn start(session: &str, args: &[&str]) -> Self {
        let mut command = Command::new(TENSORBUS);
        command.args(args).env(SESSION_VARIABLE, session).stdin(Stdio::null());
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Waits for its end; what it said.
    fn end(&mut self) -> (bool, String) {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < BOUND, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut said = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.success(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The supervisor's end is its nodes' end; so is that of the daemon, which leaves the session in order.
        if self.0.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
            let _ = self.0.wait();
        }
    }
}

fn session(name: &str) -> String {
    format!("demo{}-{name}", std::process::id())
}

/// What `tensorbus models --json` says: process, program's arguments not, and handles of each model.
fn models(session: &str) -> Vec<(u32, String, u64)> {
    let output = Command::new(TENSORBUS).args(["models", "--json"]).env(SESSION_VARIABLE, session).output().unwrap();
    let report: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let processes = report["processes"].as_array().unwrap();
    let of = |process: &Json| {
        let pid = process["pid"].as_u64().unwrap() as u32;
        let model =
            move |model: &Json| (pid, model["key"].as_str().unwrap().to_owned(), model["handles"].as_u64().unwrap());
        process["models"].as_array().unwrap().iter().map(model).collect::<Vec<_>>()
    };
    processes.iter().flat_map(of).collect()
}

fn until(session: &str, expected: impl Fn(&[(u32, String, u64)]) -> bool) -> Vec<(u32, String, u64)> {
    let begun = Instant::now();
    loop {
        let models = models(session);
        if expected(&models) {
            return models;
        }
        assert!(begun.elapsed() < BOUND, "{models:?}");
    }
}

/// US1: three nodes of one process have one model, and the process beside it has its own, of which both show; whoever is
/// killed is gone, with its models.
#[test]
fn the_directory_shows_the_models_of_the_demo() {
    let session = session("models");
    let _daemon = Running::start(&session, &["daemon", "--http", "127.0.0.1:0"]);
    let mut demo = Running::start(&session, &["demo", "--frames", "1000000"]);
    let handles = |models: &[(u32, String, u64)]| {
        let mut handles: Vec<_> = models.iter().map(|(_, _, handles)| *handles).collect();
        handles.sort_unstable();
        handles
    };
    let found = until(&session, |models| handles(models) == [1, 3]);
    assert!(found.iter().all(|(_, key, _)| key == "digits/1"), "{found:?}");
    let owner = found.iter().find(|(_, _, handles)| *handles == 3).unwrap().0;
    kill_process(Pid::from_raw(owner as i32).unwrap(), Signal::KILL).unwrap();
    until(&session, |models| models.iter().all(|(pid, ..)| *pid != owner));
    let (succeeded, said) = demo.end();
    assert!(!succeeded && said.contains("classify was killed"), "{said}");
    assert_eq!(models(&session), []);
}

/// SC-001: what is printed is measured, and sharing takes less.
#[test]
fn the_demo_says_what_its_models_take() {
    let session = session("memory");
    let (succeeded, said) = Running::start(&session, &["demo", "--frames", "20", "--fps", "0"]).end();
    assert!(succeeded, "{said}");
    let line = said.lines().find(|line| line.contains("(PSS)")).unwrap_or_else(|| panic!("{said}"));
    let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [3, 1, shared, private] = numbers[..] else { panic!("{line}") };
    assert!(0 < shared && shared < private, "{line}");
    assert!(said.contains("through 5 processes"), "{said}");
    let is_there = Bus::sessions().unwrap().iter().any(|facts| facts.name == session);
    assert!(!is_there, "the session is left");
}
