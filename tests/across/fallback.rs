//! FR-006, FR-013: where a session's files lie, and that the bus works wherever it is.

use tensorbus::prelude::*;
use tensorbus::{Backend, BackendError, Capabilities, ChosenBy, NotChosen, SessionError};

use crate::namespace::{self, UNUSABLE};
use crate::support::Session;

/// Two real processes, in a mount namespace where shared memory cannot be used.
#[test]
fn without_shared_memory_processes_meet_in_files_and_say_why() {
    for (name, setup, reason) in UNUSABLE {
        let session = Session::new();
        let Some(mut command) = namespace::command(setup, env!("CARGO_BIN_EXE_node")) else { return };
        command.args(["pair", "50"]).env("TENSORBUS_SESSION", &session.name).env("TMPDIR", "/tmp");
        let node = session.start(command);
        assert_eq!(node.line(), format!("backend: file in /tmp, {reason}"), "{name}");
        node.expect("exchanged");
        assert!(node.end().success(), "{name}");
        let user = rustix::process::geteuid().as_raw();
        let left = format!("/tmp/tb-{user}-{}", session.name);
        assert!(!std::path::Path::new(&left).exists(), "{name}: {left} is left behind");
    }
}

#[test]
fn a_directory_for_temporary_files_that_is_too_long_gives_way_to_tmp() {
    let session = Session::new();
    let base = tempfile::tempdir().unwrap();
    let long = base.path().join("d".repeat(60));
    std::fs::create_dir(&long).unwrap();
    let Some(mut command) = namespace::command(UNUSABLE[1].1, env!("CARGO_BIN_EXE_node")) else { return };
    command.args(["pair", "1"]).env("TENSORBUS_SESSION", &session.name).env("TMPDIR", &long);
    let node = session.start(command);
    assert_eq!(node.line(), format!("backend: file in /tmp, {}", UNUSABLE[1].2));
    node.expect("exchanged");
    assert!(node.end().success());
}

/// FR-005 on each backend: what a subscriber receives lies in a mapping that it cannot write to.
#[test]
fn subscribers_map_payloads_read_only_on_each_backend() {
    for backend in [Backend::Shm, Backend::File, Backend::Local] {
        let session = Session::new();
        let bus = match Bus::builder().session(&session.name).backend(backend).open() {
            Ok(bus) => bus,
            Err(SessionError::Backend(BackendError::Unusable { reason, .. })) => {
                let here = Capabilities::detect().backend.unwrap();
                assert_eq!(here.passed_over[0].reason, reason, "it was refused for another reason than detected");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!((bus.backend().backend, bus.backend().chosen_by), (backend, ChosenBy::Program));
        let publisher = bus.topic("numbers").publisher().unwrap();
        let mut command = session.command("maps", &[]);
        command.env("TENSORBUS_SESSION", bus.session()).env("TENSORBUS_BACKEND", backend.to_string());
        let node = session.start(command);
        node.expect("ready");
        publisher.publish_copy(&[1u32; 100], &[100]).unwrap();
        let mapping = node.line();
        assert!(mapping.contains(" r--s ") && mapping.contains(".pool"), "{backend}: {mapping}");
        assert!(mapping.contains(bus.directory().to_str().unwrap()), "{backend}: {mapping}");
        assert!(node.end().success());
        let directory = bus.directory().to_owned();
        drop((publisher, bus));
        assert!(!directory.exists(), "{backend}: {} is left behind", directory.display());
    }
}

#[test]
fn a_local_session_is_that_of_one_process_and_of_whom_it_tells() {
    let session = Session::new();
    let local = || Bus::builder().session(&session.name).backend(Backend::Local).open().unwrap();
    let (bus, same) = (local(), local());
    assert_eq!(bus.session(), same.session());
    let join = |name: &str| {
        let mut command = session.command("join", &[]);
        command.env("TENSORBUS_SESSION", name).env("TENSORBUS_BACKEND", "local");
        let node = session.start(command);
        node.expect("joined");
        node
    };
    let stranger = join(&session.name);
    assert!(!bus.members().unwrap().0.contains(&stranger.pid()), "another process came in by the name alone");
    let child = join(bus.session());
    assert!(bus.members().unwrap().0.contains(&child.pid()), "a child that was told the whole name did not get in");
    assert!(stranger.end().success() && child.end().success());
}

#[test]
fn a_program_that_names_none_gets_what_is_detected() {
    let session = Session::new();
    let bus = session.bus();
    assert_eq!(*bus.backend(), Capabilities::detect().backend.unwrap());
    assert_eq!(bus.backend().passed_over.len(), 2, "each other one is told with its reason");
    if bus.backend().chosen_by == ChosenBy::Default {
        let local = &bus.backend().passed_over[1];
        assert_eq!((local.backend, &local.reason), (Backend::Local, &NotChosen::OnlyWhenAsked));
    }
}
