//! Sessions are borders, and what others wrote cannot be written.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use tensorbus::prelude::*;

use crate::support::{PATIENCE, Session};

#[test]
fn sessions_do_not_see_each_other() {
    let (left, right) = (Session::new(), Session::new());
    let (left_bus, right_bus) = (left.bus(), right.bus());
    let publisher = left_bus.topic("numbers").publisher().unwrap();
    let subscriber = right_bus.topic("numbers").subscriber().unwrap();
    assert_eq!(publisher.publish_copy(&[1u8], &[1]).unwrap(), 0);
    assert!(subscriber.try_recv().unwrap().is_none());
    assert_eq!(left_bus.members().unwrap().0, [std::process::id()]);
}

#[test]
fn everything_lies_in_one_private_directory_that_goes_with_the_last_member() {
    let session = Session::new();
    let before: Vec<_> = shared_memory_entries().collect();
    let bus = session.bus();
    let _publisher = bus.topic("numbers").slot_bytes(64).publisher().unwrap();
    let _subscriber = bus.topic("numbers").subscriber().unwrap();
    let mode = std::fs::metadata(bus.directory()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
    let others = shared_memory_entries().filter(|name| !name.starts_with("tb-") && !before.contains(name));
    assert_eq!(others.count(), 0, "objects outside the session's directory");
}

fn shared_memory_entries() -> impl Iterator<Item = String> {
    std::fs::read_dir(Bus::default_directory())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// Whoever may act as another user shows what that one sees; others cannot.
#[test]
fn another_user_sees_nothing_of_a_session() {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return println!("not root: nobody else can be asked");
    }
    let session = Session::new();
    let bus = session.bus();
    let _publisher = bus.topic("numbers").slot_bytes(64).publisher().unwrap();
    let pool = session.files().into_iter().find(|path| path.extension().is_some_and(|ending| ending == "pool"));
    for path in [session.directory(), session.directory().join(".lock"), pool.unwrap()] {
        let ask = |user| Command::new("ls").arg("-d").arg(path.join(".")).uid(user).gid(user).output().unwrap();
        let read = |user| Command::new("head").arg("-c1").arg(&path).uid(user).gid(user).output().unwrap();
        for asked in [ask(NOBODY), read(NOBODY)] {
            let said = String::from_utf8(asked.stderr).unwrap();
            assert!(!asked.status.success() && said.contains("Permission denied"), "{}: {said}", path.display());
        }
        assert!(ask(0).status.success() || read(0).status.success(), "{} can be read by its user", path.display());
    }
}

/// A write through a received tensor ends the writer, and harms nobody else.
#[test]
fn a_subscriber_maps_tensors_read_only() {
    let session = Session::new();
    let bus = session.bus();
    let publisher = bus.topic("numbers").publisher().unwrap();
    let node = session.node("maps", &[]);
    node.expect("ready");
    publisher.publish_copy(&[1u32; 100], &[100]).unwrap();
    let mapping = node.line();
    assert!(mapping.contains(" r--s ") && mapping.contains(".pool"), "{mapping}");
    assert!(mapping.contains(&session.name), "{mapping}");
}

/// Files that configure iceoryx2 for a user's other programs have no say here.
#[test]
fn configuration_files_of_iceoryx2_are_not_read() {
    let session = Session::new();
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("config")).unwrap();
    std::fs::write(directory.path().join("config/iceoryx2.toml"), "this is not = = toml").unwrap();
    let mut command = session.command("join", &[]);
    command.current_dir(directory.path()).env("HOME", directory.path());
    let node = session.start(command);
    node.expect("joined");
    assert!(session.directory().exists());
    assert!(node.end().success());
}

#[test]
fn signal_handlers_stay_as_they_were() {
    let session = Session::new();
    let node = session.node("signals", &[]);
    node.expect("as before");
    assert!(node.end().success());
}

/// A program that is started by a member does not get the session's files, nor keep a pool's memory.
#[test]
fn started_programs_inherit_no_file_of_the_session() {
    let session = Session::new();
    let bus = session.bus();
    let subscriber = bus.topic("numbers").subscriber().unwrap();
    let publisher = bus.topic("numbers").slot_bytes(64).publisher().unwrap();
    publisher.publish_copy(&[1u8], &[1]).unwrap();
    let _held = subscriber.recv(PATIENCE).unwrap();
    let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", sleeper.id()))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|target| target.starts_with(session.directory()))
        .collect();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert!(open.is_empty(), "{open:?}");
}
