//! SIGKILL at chosen points. At random ones: `tests/crash`.

use tensorbus::LoanError;
use tensorbus::prelude::*;

use crate::support::{PATIENCE, Session, eventually};

#[test]
fn a_publisher_killed_with_a_loan_shows_nobody_half_a_message() {
    let session = Session::new();
    let bus = session.bus();
    let subscriber = bus.topic("numbers").subscriber().unwrap();
    let mut node = session.node("hold-loan", &[]);
    node.expect("holding");
    let message = subscriber.recv(PATIENCE).unwrap();
    node.kill();
    bus.remove_dead().unwrap();
    assert_eq!(message.first().view::<u32>().unwrap(), [1, 2, 3]);
    drop(message);
    assert!(subscriber.try_recv().unwrap().is_none());
    assert_eq!(bus.topics().unwrap()[0].publishers(), 0, "its registration is gone");
    assert_eq!(bus.members().unwrap(), (vec![std::process::id()], vec![]));
}

#[test]
fn slots_held_by_a_killed_subscriber_come_back() {
    let session = Session::new();
    let bus = session.bus();
    let publisher = bus.topic("numbers").slots(6).slot_bytes(64).publisher().unwrap();
    let mut node = session.node("subscribe-and-hold", &[]);
    node.expect("ready");
    for number in 0..4u8 {
        publisher.publish_copy(&[number], &[1]).unwrap();
    }
    node.expect("holding");
    node.kill();
    eventually("the dead subscriber is removed", || {
        bus.remove_dead().unwrap();
        bus.topics().unwrap()[0].subscribers == 0
    });
    publisher.publish_copy(&[9u8], &[1]).unwrap();
    let all: Vec<_> = (0..6).map(|_| publisher.loan(Dtype::U8, &[64]).unwrap()).collect();
    assert_eq!(all.len(), 6);
}

/// FR-009: a publisher all of whose slots are held by the dead gets them back without a message of its own.
#[test]
fn a_publisher_without_a_free_slot_gets_those_of_the_dead() {
    let session = Session::new();
    let bus = session.bus();
    let publisher = bus.topic("numbers").slots(4).slot_bytes(64).publisher().unwrap();
    let mut node = session.node("subscribe-and-hold", &[]);
    node.expect("ready");
    for number in 0..4u8 {
        publisher.publish_copy(&[number], &[1]).unwrap();
    }
    node.expect("holding");
    assert!(matches!(publisher.loan(Dtype::U8, &[64]), Err(LoanError::NoFreeSlot { slots: 4, .. })));
    node.kill();
    eventually("the dead subscriber is removed", || {
        bus.remove_dead().unwrap();
        bus.topics().unwrap()[0].subscribers == 0
    });
    let all: Vec<_> = (0..4).map(|_| publisher.loan(Dtype::U8, &[64]).unwrap()).collect();
    assert_eq!(all.len(), 4);
}

/// A publisher whose subscriber is killed goes on: what it sends to the dead one is no error.
#[test]
fn a_publisher_outlives_its_subscriber() {
    let session = Session::new();
    let bus = session.bus();
    let publisher = bus.topic("numbers").slot_bytes(64).publisher().unwrap();
    let mut node = session.node("subscribe-and-hold", &[]);
    node.expect("ready");
    for number in 0..4u8 {
        publisher.publish_copy(&[number], &[1]).unwrap();
    }
    node.expect("holding");
    node.kill();
    for number in 0..100u8 {
        publisher.publish_copy(&[number], &[1]).unwrap();
    }
}

#[test]
fn a_session_of_the_dead_is_cleared_by_the_next_member() {
    let session = Session::new();
    let mut nodes: Vec<_> = (0..3).map(|_| session.node("publish", &["1", "1000"])).collect();
    for node in &nodes {
        node.expect("ready");
    }
    for node in &mut nodes {
        node.kill();
    }
    let left = std::fs::read_dir(session.directory()).unwrap().count();
    assert!(left > 1, "nobody was there to clean up");
    let bus = session.bus();
    assert!(bus.topics().unwrap().is_empty());
    assert!(bus.topic("numbers").depth(7).publisher().is_ok(), "the dead ones' settings are gone too");
}

#[test]
fn members_are_listed_and_the_dead_are_told_apart() {
    let session = Session::new();
    let bus = session.bus();
    let mut node = session.node("join", &[]);
    node.expect("joined");
    let pid = node.pid();
    let (mut alive, dead) = bus.members().unwrap();
    alive.sort_unstable();
    let mut expected = vec![std::process::id(), pid];
    expected.sort_unstable();
    assert_eq!((alive, dead), (expected, vec![]));
    node.kill();
    eventually("the killed one is seen as dead", || bus.members().unwrap().1 == [pid]);
    assert_eq!(bus.remove_dead().unwrap().removed, 1);
    assert_eq!(bus.members().unwrap(), (vec![std::process::id()], vec![]));
}
