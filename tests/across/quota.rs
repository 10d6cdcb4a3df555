//! A quota for all pools of a session (FR-011), right after every death, and each session's own (FR-014).

use std::time::Duration;

use tensorbus::prelude::*;
use tensorbus::{PoolError, SessionError, TopicError};

use crate::support::{PATIENCE, Random, Session, eventually};

const MIB: u64 = 1 << 20;

fn bus_with_quota(session: &Session, bytes: u64) -> Bus {
    Bus::builder().session(&session.name).quota_bytes(bytes).open().unwrap()
}

fn used(bus: &Bus) -> u64 {
    bus.quota().unwrap().unwrap().used
}

/// Not at once: other tests start processes meanwhile, and one that is just being started shares our files until it runs.
fn falls_to(bus: &Bus, bytes: u64) {
    eventually("what was used is given back", || {
        assert!(used(bus) >= bytes, "{} are used, {bytes} at least", used(bus));
        used(bus) == bytes
    });
}

fn pool(bus: &Bus, topic: &str, slots: usize, slot_bytes: usize) -> Result<Publisher, TopicError> {
    bus.topic(topic).slots(slots).slot_bytes(slot_bytes).publisher()
}

#[test]
fn processes_of_a_session_share_its_quota() {
    let session = Session::new();
    let bus = bus_with_quota(&session, 8 * MIB);
    assert_eq!(used(&bus), 0);
    // Ten slots of half a megabyte, in a process that names no quota.
    let mut node = session.node("publish", &["1", "131072"]);
    node.expect("ready");
    let theirs = used(&bus);
    assert!((5 * MIB..6 * MIB).contains(&theirs), "{theirs}");
    let refused = pool(&bus, "mine", 3, 1 << 20);
    let Err(TopicError::Pool(PoolError::Quota { needed, used: found, quota, .. })) = refused else {
        panic!("{refused:?}")
    };
    assert!(needed >= 3 * MIB && found == theirs && quota == 8 * MIB, "{needed} {found} {quota}");
    assert_eq!(used(&bus), theirs, "nothing of what was refused is left");
    let small = pool(&bus, "mine", 1, 1 << 20).unwrap();
    assert!(used(&bus) >= theirs + MIB);
    // A killed publisher's pool does not count for the next one.
    let mine = used(&bus) - theirs;
    node.kill();
    falls_to(&bus, mine);
    let large = pool(&bus, "mine", 5, 1 << 20).unwrap();
    assert!((6 * MIB..=8 * MIB).contains(&used(&bus)), "{}", used(&bus));
    drop((small, large));
    falls_to(&bus, 0);
}

#[test]
fn the_first_quota_holds_and_another_one_is_refused() {
    let session = Session::new();
    let first = session.bus();
    assert_eq!(first.quota().unwrap(), None);
    let bus = bus_with_quota(&session, MIB);
    assert_eq!(first.quota().unwrap().unwrap().bytes, MIB);
    assert!(Bus::builder().session(&session.name).quota_bytes(MIB).open().is_ok());
    let refused = Bus::builder().session(&session.name).quota_bytes(2 * MIB).open().unwrap_err();
    assert!(matches!(refused, SessionError::Quota { existing: MIB, requested, .. } if requested == 2 * MIB));
    assert!(refused.to_string().contains("1048576") && refused.to_string().contains("2097152"), "{refused}");
    assert!(matches!(pool(&first, "numbers", 2, 1 << 20), Err(TopicError::Pool(PoolError::Quota { .. }))));
    drop((first, bus));
    // A new session of the same name starts anew.
    assert_eq!(session.bus().quota().unwrap(), None);
}

#[test]
fn a_tensor_of_a_departed_publisher_still_counts() {
    let session = Session::new();
    let bus = bus_with_quota(&session, 8 * MIB);
    let subscriber = bus.topic("numbers").overflow(Overflow::Block(PATIENCE)).subscriber().unwrap();
    let mut node = session.node("publish", &["1", "131072"]);
    node.expect("ready");
    node.tell("go");
    let message = subscriber.recv(PATIENCE).unwrap();
    let before = used(&bus);
    assert!(before >= 5 * MIB);
    assert!(node.end().success());
    assert_eq!(bus.topics().unwrap()[0].publishers(), 0);
    assert_eq!(used(&bus), before, "the pool is mapped");
    assert!(matches!(pool(&bus, "mine", 4, 1 << 20), Err(TopicError::Pool(PoolError::Quota { .. }))));
    drop(message);
    eventually("the subscriber lets go of the pool", || {
        assert!(subscriber.try_recv().unwrap().is_none());
        used(&bus) == 0
    });
    assert!(pool(&bus, "mine", 4, 1 << 20).is_ok());
}

#[test]
fn a_killed_subscriber_holds_nothing() {
    let session = Session::new();
    let bus = bus_with_quota(&session, 8 * MIB);
    let publisher = pool(&bus, "numbers", 6, 1 << 20).unwrap();
    let mut node = session.node("subscribe-and-hold", &[]);
    node.expect("ready");
    for number in 0..4u8 {
        publisher.publish_copy(&[number], &[1]).unwrap();
    }
    node.expect("holding");
    let before = used(&bus);
    drop(publisher);
    assert_eq!(used(&bus), before, "the other process maps it");
    node.kill();
    falls_to(&bus, 0);
}

/// FR-014: what one session uses is nothing to another one.
#[test]
fn sessions_do_not_use_each_others_quota() {
    let (one, other) = (Session::new(), Session::new());
    let (bus, others) = (bus_with_quota(&one, 2 * MIB), bus_with_quota(&other, 2 * MIB));
    let _full = pool(&bus, "numbers", 1, 3 << 19).unwrap();
    assert!(pool(&bus, "more", 1, 1 << 20).is_err());
    assert_eq!(used(&others), 0);
    assert!(pool(&others, "numbers", 1, 3 << 19).is_ok());
}

/// Publishers and subscribers are killed wherever they are: what is left counted is what lives.
#[test]
fn kills_at_random_points_leave_the_use_right() {
    let mut random = Random::seeded();
    let session = Session::new();
    let bus = bus_with_quota(&session, 64 * MIB);
    let _mine = pool(&bus, "mine", 2, 1 << 16).unwrap();
    let alone = used(&bus);
    let nap = bus.topic("waited").subscriber().unwrap();
    for round in 0..20 {
        let mut nodes = [session.node("publish-for-ever", &[]), session.node("publish-for-ever", &[])];
        for node in &nodes {
            node.expect("ready");
        }
        assert!(nap.recv(Duration::from_micros(random.below(30_000))).is_err());
        for node in &mut nodes {
            node.kill();
        }
        falls_to(&bus, alone);
        assert!(pool(&bus, "all", 1, (63 * MIB - alone) as usize).is_ok(), "round {round}");
        falls_to(&bus, alone);
    }
    assert_eq!(std::fs::read_dir(bus.directory().join(".kept")).unwrap().count(), 1);
}
