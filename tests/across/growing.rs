//! Slots that grow with their messages, and give memory back.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use tensorbus::prelude::*;
use tensorbus::{LoanError, PoolError, TopicError};

use crate::support::{PATIENCE, Random, Session, eventually};

/// Bytes that the pools of a session take.
fn committed(bus: &Bus) -> u64 {
    let entries = std::fs::read_dir(bus.directory()).unwrap().map(|entry| entry.unwrap());
    entries
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "pool"))
        .map(|entry| entry.metadata().unwrap().blocks() * 512)
        .sum()
}

/// As the child checks it.
fn pattern(sequence: usize, len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| i.wrapping_mul(2_654_435_761).wrapping_add(sequence as u32)).collect()
}

fn publish(publisher: &Publisher, sequence: usize, len: usize) {
    let mut tensor = publisher.loan(Dtype::U32, &[len]).unwrap();
    tensor.view_mut::<u32>().unwrap().copy_from_slice(&pattern(sequence, len));
    tensor.metadata_mut().set("n", sequence as i64);
    tensor.publish().unwrap();
}

#[test]
fn messages_of_all_sizes_arrive_whole_and_in_order() {
    const COUNT: usize = 300;
    let mut random = Random::seeded();
    let session = Session::new();
    let bus = session.bus();
    let topic = bus.topic("numbers").overflow(Overflow::Block(PATIENCE));
    let publisher = topic.slot_bytes(1000).max_slot_bytes(4 << 20).publisher().unwrap();
    let node = session.node("check", &[&COUNT.to_string()]);
    node.expect("ready");
    for sequence in 0..COUNT {
        // As many small ones as large ones.
        let len = 1 << random.below(20);
        publish(&publisher, sequence, len + random.below(len as u64) as usize - len / 2);
        if random.below(10) == 0 {
            publisher.release_unused().unwrap();
        }
    }
    node.expect("checked");
    assert!(node.end().success());
}

#[test]
fn memory_comes_with_large_messages_and_goes_when_it_is_given_back() {
    let session = Session::new();
    let bus = session.bus();
    let publisher = bus.topic("numbers").slots(8).slot_bytes(64 << 10).max_slot_bytes(64 << 20).publisher().unwrap();
    let at_first = committed(&bus);
    assert!((512 << 10..1 << 20).contains(&at_first), "{at_first}");
    publish(&publisher, 0, (64 << 10) / 4);
    assert_eq!(committed(&bus), at_first, "the message fits what is there");
    publish(&publisher, 1, (10 << 20) / 4);
    let grown = committed(&bus) - at_first;
    assert!((9 << 20..11 << 20).contains(&grown), "{grown}");
    publish(&publisher, 2, (10 << 20) / 4);
    assert_eq!(committed(&bus) - at_first, grown, "the same slot again");
    assert_eq!(publisher.release_unused().unwrap(), grown);
    assert_eq!(committed(&bus), at_first);
    assert_eq!(publisher.release_unused().unwrap(), 0);
    let refused = publisher.loan(Dtype::U8, &[65 << 20]);
    assert!(matches!(refused, Err(LoanError::TooLarge { .. })));
    publish(&publisher, 3, (64 << 20) / 4);
    assert!(committed(&bus) >= 64 << 20);
}

#[test]
fn what_is_queued_held_or_history_keeps_its_memory() {
    let session = Session::new();
    let bus = session.bus();
    let topic = || bus.topic("numbers").history(2);
    let publisher = topic().slots(8).max_slot_bytes(4 << 20).publisher().unwrap();
    let subscriber = topic().subscriber().unwrap();
    for sequence in 0..4 {
        publish(&publisher, sequence, (sequence + 1) << 17);
    }
    let held = subscriber.recv(PATIENCE).unwrap();
    publisher.release_unused().unwrap();
    assert_eq!(held.first().view::<u32>().unwrap(), pattern(0, 1 << 17));
    for sequence in 1..4 {
        let message = subscriber.recv(PATIENCE).unwrap();
        assert_eq!(message.first().view::<u32>().unwrap(), pattern(sequence, (sequence + 1) << 17));
    }
    let late = topic().subscriber().unwrap();
    publish(&publisher, 4, 1 << 18);
    for sequence in 2..5 {
        let len = if sequence == 4 { 1 << 18 } else { (sequence + 1) << 17 };
        assert_eq!(late.recv(PATIENCE).unwrap().first().view::<u32>().unwrap(), pattern(sequence, len));
    }
}

#[test]
fn metadata_finds_room_behind_a_message_of_any_size() {
    let session = Session::new();
    let bus = session.bus();
    let subscriber = bus.topic("numbers").subscriber().unwrap();
    let publisher = bus.topic("numbers").max_slot_bytes(1 << 20).publisher().unwrap();
    for bytes in [1, 4000, 4096, 100_000, 1 << 20] {
        let mut tensor = publisher.loan(Dtype::U8, &[bytes]).unwrap();
        tensor.metadata_mut().set("text", "x".repeat(3000));
        tensor.publish().unwrap();
        let message = subscriber.recv(PATIENCE).unwrap();
        assert_eq!(message.metadata().get("text").unwrap().as_str().unwrap().len(), 3000);
    }
}

/// FR-011: the quota bounds what grows, too, and counts what was given back no more.
#[test]
fn a_quota_bounds_growth() {
    let session = Session::new();
    let bus = Bus::builder().session(&session.name).quota_bytes(4 << 20).open().unwrap();
    let publisher = bus.topic("numbers").slots(4).max_slot_bytes(64 << 20).publisher().unwrap();
    publish(&publisher, 0, (3 << 20) / 4);
    let Err(refused) = publisher.loan(Dtype::U8, &[8 << 20]) else { panic!("it is more than the quota") };
    assert!(matches!(refused, LoanError::Pool(PoolError::Quota { .. })), "{refused:?}");
    assert_eq!(publisher.stats().loans_refused, 1);
    publish(&publisher, 1, 100);
    let full = bus.topic("more").slots(1).slot_bytes(2 << 20);
    assert!(matches!(full.clone().publisher(), Err(TopicError::Pool(PoolError::Quota { .. }))));
    publisher.release_unused().unwrap();
    let more = full.publisher().unwrap();
    assert!(matches!(publisher.loan(Dtype::U8, &[3 << 20]), Err(LoanError::Pool(PoolError::Quota { .. }))));
    drop(more);
    publish(&publisher, 2, (3 << 20) / 4);
}

#[test]
fn a_full_file_system_refuses_the_loan_and_the_publisher_goes_on() {
    let session = Session::new();
    let base = tempfile::Builder::new().prefix("tb").rand_bytes(5).tempdir_in("/tmp").unwrap();
    let path = base.path().to_str().unwrap();
    let mount = format!("mount -t tmpfs -o size=8m tmpfs {path}");
    let unshare = |script: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
        command
    };
    if !unshare(&mount).status().is_ok_and(|status| status.success()) {
        println!("skipped: this machine lets nobody mount a tmpfs in a user namespace");
        return;
    }
    let child = session.start(unshare(&format!("{mount} && {} grow-until-full {path}", env!("CARGO_BIN_EXE_node"))));
    let refused = child.line();
    assert!(refused.starts_with("error after ") && refused.contains("missing"), "{refused}");
    let held: usize = refused.split([' ', ':']).nth(2).unwrap().parse().unwrap();
    assert!((4..8).contains(&held), "{refused}");
    child.expect("small ones go through");
    child.expect("large ones again");
    assert!(child.end().success());
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let session = Session::new();
    let bus = session.bus();
    let refused = bus.topic("numbers").slot_bytes(2).max_slot_bytes(1).publisher();
    assert!(matches!(refused, Err(TopicError::Setting { setting: "slot_bytes", value: 2, max: 1, .. })));
    let refused = bus.topic("numbers").max_slot_bytes(usize::MAX).publisher();
    assert!(matches!(refused, Err(TopicError::Pool(PoolError::Size { .. }))));
}

/// Killed while it grows, gives back, or makes its pool: others go on, and the use of the quota is right.
#[test]
fn kills_while_slots_grow_leave_the_use_right() {
    let mut random = Random::seeded();
    let session = Session::new();
    let bus = Bus::builder().session(&session.name).quota_bytes(64 << 20).open().unwrap();
    let nap = bus.topic("waited").subscriber().unwrap();
    for round in 0..20 {
        let mut node = session.node("grow-for-ever", &[]);
        node.expect("ready");
        assert!(nap.recv(Duration::from_micros(random.below(50_000))).is_err());
        node.kill();
        eventually("what was used is given back", || bus.quota().unwrap().unwrap().used == 0);
        let publisher = bus.topic("numbers").max_slot_bytes(1 << 20).publisher().unwrap();
        publish(&publisher, round, 1 << 16);
    }
}
