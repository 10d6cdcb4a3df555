//! FR-006, FR-013: the commands where /dev/shm cannot be used.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "../../tests/across/namespace.rs"]
mod namespace;

use std::process::{Command, Output, Stdio};

use serde_json::Value as Json;

use namespace::UNUSABLE;

const TENSORBUS: &str = env!("CARGO_BIN_EXE_tensorbus");

fn run(mut command: Command) -> Output {
    command.stdin(Stdio::null()).env("TMPDIR", "/tmp").output().unwrap()
}

fn json(output: &Output) -> Json {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn doctor_says_which_backend_there_is_and_why() {
    for (name, setup, reason) in UNUSABLE {
        let Some(mut command) = namespace::command(setup, TENSORBUS) else { return };
        command.args(["doctor", "--json", "--session", "none"]);
        let output = run(command);
        assert!(output.status.success(), "{name}: {output:?}");
        let report = json(&output);
        assert_eq!((&report["ok"], &report["backend"]), (&true.into(), &"file".into()), "{name}");
        let check = &report["checks"][0];
        assert_eq!(check["fact"], format!("file in /tmp, {reason}"), "{name}");
        assert_eq!((&check["name"], &check["status"]), (&"backend".into(), &"warn".into()), "{name}");
        assert!(check["advice"].as_str().unwrap().contains("/dev/shm") || name == "64 KiB large", "{name}: {check}");

        let mut command = namespace::command(setup, TENSORBUS).unwrap();
        command.args(["doctor", "--session", "none"]);
        let words = run(command);
        let text = String::from_utf8_lossy(&words.stdout);
        assert!(text.contains(&format!("file in /tmp, {reason}")), "{name}: {text}");
    }
}

#[test]
fn the_demo_completes_in_files_and_says_so() {
    for (number, (name, setup, reason)) in UNUSABLE.into_iter().enumerate() {
        let Some(mut command) = namespace::command(setup, "timeout") else { return };
        command.args(["120", TENSORBUS, "demo", "--frames", "20", "--json"]);
        command.env("TENSORBUS_SESSION", format!("f{}-{number}", std::process::id()));
        let output = run(command);
        assert!(output.status.success(), "{name}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with("tensors lie in files") && said.contains(reason), "{name}: {said}");
        let report = json(&output);
        assert_eq!((&report["frames"], &report["lost"]), (&20.into(), &0.into()), "{name}");
        assert_eq!(report["tensor_bytes_copied"], 0, "{name}: files are mapped, not copied");
    }
}

#[test]
fn a_backend_that_there_is_not_is_refused_by_name() {
    let mut command = Command::new(TENSORBUS);
    command.args(["doctor", "--json", "--session", "none"]).env("TENSORBUS_BACKEND", "ram");
    let output = run(command);
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert_eq!(report["checks"][0]["fact"], "TENSORBUS_BACKEND is \"ram\"; it can be shm, file or local");
}
