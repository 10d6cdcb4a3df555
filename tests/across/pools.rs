//! Memory for slots: as much as was asked for, there before it is used, or an error.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use tensorbus::prelude::*;
use tensorbus::{LoanError, PoolError, TopicError};

use crate::support::Session;

fn pool_file(bus: &Bus) -> PathBuf {
    std::fs::read_dir(bus.directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "pool"))
        .unwrap()
}

/// An alignment of 64 set on bytes would make each of them take 64; and nothing may be committed by surprise.
#[test]
fn a_pool_has_the_size_that_was_asked_for_and_is_committed_at_once() {
    let session = Session::new();
    let bus = session.bus();
    let _publisher = bus.topic("numbers").slots(5).slot_bytes(1 << 20).publisher().unwrap();
    let file = std::fs::metadata(pool_file(&bus)).unwrap();
    let asked = 5 << 20;
    assert!(file.len() >= asked && file.len() < asked + asked / 50, "{} bytes for {asked}", file.len());
    assert!(file.blocks() * 512 >= asked, "only {} bytes are committed", file.blocks() * 512);
}

#[test]
fn without_prefault_a_pool_costs_nothing_until_it_is_used() {
    let session = Session::new();
    let bus = session.bus();
    let publisher = bus.topic("numbers").slots(4).slot_bytes(4 << 20).prefault(false).publisher().unwrap();
    let committed = || std::fs::metadata(pool_file(&bus)).unwrap().blocks() * 512;
    assert!(committed() < 1 << 20, "{} bytes are committed", committed());
    publisher.loan(Dtype::U8, &[4 << 20]).unwrap().view_mut::<u8>().unwrap().fill(1);
    assert!((4 << 20..6 << 20).contains(&committed()), "{} bytes are committed", committed());
}

#[test]
fn without_a_size_the_first_message_decides() {
    let session = Session::new();
    let bus = session.bus();
    let publisher = bus.topic("numbers").publisher().unwrap();
    assert_eq!(bus.topics().unwrap()[0].publishers(), 0);
    drop(publisher.loan(Dtype::F32, &[1000]).unwrap());
    assert_eq!(bus.topics().unwrap()[0].publishers(), 1);
    assert!(publisher.loan(Dtype::F32, &[1000]).is_ok());
    let refused = publisher.loan(Dtype::F32, &[4000]);
    assert!(matches!(refused, Err(LoanError::TooLarge { .. })));
    assert_eq!(publisher.stats().loans_refused, 1);
}

/// Edge case of the requirements: a quota or a file system that is full is an error, and nothing is left behind.
#[test]
fn a_pool_larger_than_the_machine_is_refused() {
    let session = Session::new();
    let bus = session.bus();
    let used = || bus.topics().unwrap().len();
    for (slots, slot_bytes) in [(4, 1usize << 44), (1, 1 << 50)] {
        let refused = bus.topic("numbers").slots(slots).slot_bytes(slot_bytes).publisher();
        let Err(TopicError::Pool(error)) = refused else { panic!("{refused:?}") };
        assert!(matches!(error, PoolError::FilesystemFull { .. }), "{error:?}");
        assert!(error.to_string().contains("missing"), "{error}");
    }
    for (slots, slot_bytes) in [(0, 64), (usize::MAX, 64), (3, usize::MAX)] {
        let refused = bus.topic("numbers").slots(slots).slot_bytes(slot_bytes).publisher();
        assert!(matches!(refused, Err(TopicError::Pool(PoolError::Size { .. }))), "{refused:?}");
    }
    assert_eq!(used(), 0, "a topic is left");
    let entries = || std::fs::read_dir(bus.directory()).unwrap().map(|entry| entry.unwrap().path());
    assert!(entries().all(|path| path.extension().is_none_or(|extension| extension != "pool")), "a pool is left");
}

/// A /dev/shm of a container's size, filled by somebody else: an error that says what is missing, never SIGBUS.
#[test]
fn a_full_tmpfs_is_an_error_and_not_a_signal() {
    let session = Session::new();
    let base = tempfile::Builder::new().prefix("tb").rand_bytes(5).tempdir_in("/tmp").unwrap();
    let path = base.path().to_str().unwrap();
    let node = env!("CARGO_BIN_EXE_node");
    // In a mount namespace of its own, so that no rights are needed and nothing stays mounted.
    let script = format!(
        "mount -t tmpfs -o size=8m tmpfs {path} && {node} big-pool {path} 4 1048576 && {node} big-pool {path} 10 1048576 \
         && head -c 6000000 /dev/zero > {path}/filler && {node} big-pool {path} 4 1048576 \
         && head -c 2300000 /dev/zero >> {path}/filler && {node} big-pool {path} 1 64"
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    let possible = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &format!("mount -t tmpfs -o size=8m tmpfs {path}")])
        .status()
        .is_ok_and(|status| status.success());
    if !possible {
        println!("skipped: this machine lets nobody mount a tmpfs in a user namespace");
        return;
    }
    let child = session.start(command);
    child.expect("written");
    child.expect("left: 0");
    let too_large = child.line();
    assert!(too_large.contains("missing") && too_large.starts_with("error"), "{too_large}");
    child.expect("left: 0");
    // Filled up to where the slots do not fit, and then to where not even a topic's small files do.
    for _ in 0..2 {
        let filled = child.line();
        assert!(filled.contains("missing") && filled.starts_with("error"), "{filled}");
        child.expect("left: 1");
    }
    assert!(child.end().success());
}

#[test]
fn every_slot_can_be_loaned_and_comes_back() {
    let session = Session::new();
    let bus = session.bus();
    let publisher = bus.topic("numbers").slots(3).slot_bytes(64).publisher().unwrap();
    let loans: Vec<_> = (0..3).map(|_| publisher.loan(Dtype::U8, &[64]).unwrap()).collect();
    assert!(matches!(publisher.loan(Dtype::U8, &[64]), Err(LoanError::NoFreeSlot { slots: 3, .. })));
    drop(loans);
    for _ in 0..100 {
        assert_eq!(publisher.loan(Dtype::U8, &[64]).unwrap().publish().unwrap(), 0);
    }
    assert_eq!((publisher.stats().published, publisher.stats().unheard), (100, 100));
}
