//! Who looks after a session while it lives: the service thread, deaths told to all, history, and the handshake between
//! publishers and subscribers. FR-009, FR-019.

use std::time::Duration;

use tensorbus::prelude::*;
use tensorbus::{Death, DrainError, WaitError};

use crate::support::{PATIENCE, Session, eventually, is_readable};

const TICK: Duration = Duration::from_millis(5);
/// Long enough for what should not happen to happen.
const A_WHILE: Duration = Duration::from_millis(50);

fn tended(session: &Session) -> Bus {
    Bus::builder().session(&session.name).service_thread(TICK).open().unwrap()
}

fn pids(deaths: impl IntoIterator<Item = Option<Death>>) -> Vec<u32> {
    deaths.into_iter().flatten().map(|death| death.pid).collect()
}

/// FR-009: nobody asks for it, and the dead are removed, and all are told, in this process and in another.
#[test]
fn the_service_thread_removes_the_dead_and_tells_all_of_it_once() {
    let session = Session::new();
    let bus = tended(&session);
    let onlooker = session.bus();
    let (mut deaths, mut elsewhere) = (bus.deaths().unwrap(), onlooker.deaths().unwrap());
    let follower = session.node("follow-deaths", &[]);
    follower.expect("following");
    let mut nodes: Vec<_> = (0..2).map(|_| session.node("publish", &["1", "1000"])).collect();
    for node in &mut nodes {
        node.expect("ready");
    }
    for node in &mut nodes {
        node.kill();
        let pid = node.pid();
        assert_eq!(pids([deaths.recv(PATIENCE).unwrap()]), [pid]);
        assert_eq!(pids([elsewhere.recv(PATIENCE).unwrap()]), [pid]);
        follower.expect(&pid.to_string());
    }
    eventually("all that the dead left is gone", || {
        bus.members().unwrap().1.is_empty() && bus.topics().unwrap().iter().all(|topic| topic.publishers() == 0)
    });
    let ticks = bus.service_thread().unwrap().ticks();
    eventually("three more ticks", || bus.service_thread().unwrap().ticks() > ticks + 3);
    onlooker.remove_dead().unwrap();
    assert_eq!((deaths.try_recv().unwrap(), elsewhere.try_recv().unwrap()), (None, None));
    assert_eq!((deaths.missed(), elsewhere.missed()), (0, 0));
    assert!(follower.end().success());
}

/// FR-009: nobody asks for it, and there is no service thread.
#[test]
fn whoever_opens_a_topic_or_leaves_removes_the_dead() {
    let session = Session::new();
    let bus = session.bus();
    let kill_one = || {
        let mut node = session.node("join", &[]);
        node.expect("joined");
        node.kill();
        eventually("the death shows", || bus.members().unwrap().1 == [node.pid()]);
    };
    kill_one();
    let topic = bus.topic("numbers").subscriber().unwrap();
    assert!(bus.members().unwrap().1.is_empty());
    let leaving = session.bus();
    kill_one();
    drop((topic, leaving));
    assert!(bus.members().unwrap().1.is_empty());
}

/// FR-009: iceoryx2 may forget a dead node and leave a port of it registered, which would keep a place and slots of its topic.
#[test]
fn the_service_thread_removes_ports_whose_node_is_gone() {
    let session = Session::new();
    let bus = tended(&session);
    let mut other = session.node("never-looks", &[]);
    other.expect("ready");
    let publisher = bus.topic("numbers").slot_bytes(64).publisher().unwrap();
    let before = session.files();
    let mut forgotten = session.node("never-looks", &[]);
    forgotten.expect("ready");
    assert_eq!(publisher.publish_copy(&[1u32], &[1]).unwrap(), 2);
    session.remove_node_since(&before);
    forgotten.kill();
    let mut deaths = bus.deaths().unwrap();
    other.kill();
    eventually("nobody is there to hear", || publisher.publish_copy(&[2u32], &[1]).unwrap() == 0);
    assert_eq!(pids(std::iter::from_fn(|| Some(deaths.try_recv().unwrap())).take(2)), [other.pid()]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_death_makes_an_armed_follower_readable() {
    let session = Session::new();
    let bus = session.bus();
    let mut deaths = bus.deaths().unwrap();
    let mut node = session.node("join-twice", &[]);
    node.expect("joined");
    deaths.arm().unwrap();
    assert_eq!(deaths.try_recv().unwrap(), None);
    assert!(!is_readable(&deaths, Duration::ZERO));
    node.kill();
    eventually("the dead one is removed", || bus.remove_dead().unwrap().removed > 0);
    assert!(is_readable(&deaths, PATIENCE));
    assert_eq!(pids([deaths.try_recv().unwrap()]), [node.pid()]);
}

/// FR-009: without a service thread, whoever cleans tells; a process that was a member twice dies once.
#[test]
fn a_death_found_by_hand_is_told_once() {
    let session = Session::new();
    let (bus, other) = (session.bus(), session.bus());
    let (mut deaths, mut elsewhere) = (bus.deaths().unwrap(), other.deaths().unwrap());
    let mut node = session.node("join-twice", &[]);
    node.expect("joined");
    node.kill();
    assert_eq!(deaths.recv(A_WHILE).unwrap(), None, "nobody has looked");
    eventually("the dead one is removed", || bus.remove_dead().unwrap().removed > 0);
    other.remove_dead().unwrap();
    assert_eq!(pids([deaths.try_recv().unwrap(), deaths.try_recv().unwrap()]), [node.pid()]);
    assert_eq!(pids([elsewhere.recv(PATIENCE).unwrap(), elsewhere.recv(A_WHILE).unwrap()]), [node.pid()]);
    // One that leaves in order is no death.
    let node = session.node("join", &[]);
    node.expect("joined");
    assert!(node.end().success());
    bus.remove_dead().unwrap();
    assert_eq!(deaths.recv(A_WHILE).unwrap(), None);
}

/// FR-009: all that a dead process left in a session in use goes, whoever opens it next.
#[test]
fn pools_and_connections_of_the_dead_are_removed_by_the_next_one_to_open_the_session() {
    let session = Session::new();
    let bus = session.bus();
    let subscriber = bus.topic("numbers").overflow(Overflow::Block(PATIENCE)).subscriber().unwrap();
    let before = session.files();
    let mut node = session.node("publish", &["1", "1000"]);
    node.expect("ready");
    node.tell("go");
    node.expect("published");
    assert_eq!(subscriber.recv(PATIENCE).unwrap().sequence(), 0);
    node.kill();
    let left: Vec<_> = session.files().difference(&before).cloned().collect();
    println!("{left:#?}");
    let is_there = |ending: &str| left.iter().any(|path| path.to_string_lossy().ends_with(ending));
    assert!(is_there(".pool") && is_there(".connection"), "{left:?}");
    eventually("nothing is left", || {
        drop(session.bus());
        let _ = subscriber.try_recv().unwrap();
        session.files() == before
    });
}

/// While a publisher waits for room, the session is looked after all the same.
#[test]
fn a_blocked_publisher_does_not_keep_the_service_thread_from_its_work() {
    let session = Session::new();
    let bus = tended(&session);
    let topic = || bus.topic("numbers").depth(1).overflow(Overflow::Block(PATIENCE));
    let subscriber = topic().subscriber().unwrap();
    let publisher = topic().slot_bytes(4).publisher().unwrap();
    publisher.publish_copy(&[0u32], &[1]).unwrap();
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| publisher.publish_copy(&[1u32], &[1]));
        let mut deaths = bus.deaths().unwrap();
        let mut node = session.node("join", &[]);
        node.expect("joined");
        node.kill();
        assert_eq!(pids([deaths.recv(PATIENCE).unwrap()]), [node.pid()]);
        assert!(!blocked.is_finished());
        for sequence in 0..2 {
            assert_eq!(subscriber.recv(PATIENCE).unwrap().sequence(), sequence);
        }
        blocked.join().unwrap().unwrap();
    });
}

/// FR-019: where the publisher's process runs a service thread, a late joiner needs no further message.
#[test]
fn a_late_joiner_gets_the_history_within_a_tick_of_the_publishers_service_thread() {
    let session = Session::new();
    let bus = session.bus();
    let node = session.node("latch", &[]);
    node.expect("published");
    let late = bus.topic("numbers").subscriber().unwrap();
    for number in [2u32, 3] {
        let message = late.recv(PATIENCE).unwrap();
        assert_eq!(message.first().view::<u32>().unwrap(), [number]);
    }
    assert!(late.try_recv().unwrap().is_none());
    assert!(node.end().success());
}

/// The thread ends with the bus, whoever drops the last of it and where; nothing is left behind.
#[test]
fn a_bus_with_a_service_thread_can_be_dropped_anywhere() {
    let session = Session::new();
    for round in 0..20 {
        let bus = Bus::builder().session(&session.name).service_thread(Duration::ZERO).open().unwrap();
        let service = bus.service_thread().unwrap();
        assert!(service.is_running() && service.interval() > Duration::ZERO);
        let subscriber = bus.topic("numbers").subscriber().unwrap();
        let publisher = bus.topic("numbers").slot_bytes(4).publisher().unwrap();
        publisher.publish_copy(&[round], &[1]).unwrap();
        let tensor = subscriber.recv(PATIENCE).unwrap().first().clone();
        eventually("a tick", || service.ticks() > 0);
        let clone = bus.clone();
        let parts: [Box<dyn std::any::Any + Send>; 5] =
            [Box::new(bus), Box::new(subscriber), Box::new(publisher), Box::new(clone), Box::new(tensor)];
        for (number, part) in parts.into_iter().enumerate() {
            // Some here, some in threads of their own; the last one is the tensor.
            if number % 2 == 0 { std::thread::spawn(move || drop(part)).join().unwrap() } else { drop(part) }
        }
        assert!(!session.directory().exists(), "the last part took the session along");
    }
}

#[test]
fn a_forked_child_has_no_service_thread() {
    let session = Session::new();
    let node = session.node("fork-service", &[]);
    node.expect("parent goes on");
    assert!(node.end().success());
}

/// A subscriber is ready when it has opened its side, not when it is registered.
#[test]
fn a_publisher_can_wait_until_subscribers_are_ready() {
    let session = Session::new();
    let bus = session.bus();
    let mut node = session.node("read-when-told", &["1"]);
    node.expect("ready");
    let publisher = bus.topic("numbers").slot_bytes(64).publisher().unwrap();
    let too_few = publisher.wait_for_subscribers(1, A_WHILE);
    assert!(matches!(too_few, Err(WaitError::TooFew { wanted: 1, ready: 0, .. })), "{too_few:?}");
    node.tell("go");
    assert_eq!(publisher.wait_for_subscribers(1, PATIENCE).unwrap(), 1);
    // One that comes after the publisher is ready at once.
    let _second = bus.topic("numbers").subscriber().unwrap();
    assert_eq!(publisher.wait_for_subscribers(2, PATIENCE).unwrap(), 2);
    publisher.publish_copy(&[0u32], &[1]).unwrap();
    node.expect("0");
    let lazy = bus.topic("lazy").publisher().unwrap();
    assert!(matches!(lazy.wait_for_subscribers(1, PATIENCE), Err(WaitError::NoSlots { .. })));
}

/// What a publisher was told is delivered survives its end, though the subscriber has not looked once before.
#[test]
fn a_publisher_dropped_after_its_last_message_loses_nothing() {
    let session = Session::new();
    let bus = session.bus();
    let quiet = bus.topic("quiet").subscriber().unwrap();
    let mut node = session.node("read-when-told", &["4"]);
    node.expect("ready");
    let publisher = bus.topic("numbers").slot_bytes(64).publisher().unwrap();
    for number in 0..4u32 {
        assert_eq!(publisher.publish_copy(&[number], &[1]).unwrap(), 1);
    }
    let undrained = publisher.drain(Duration::ZERO);
    assert!(matches!(undrained, Err(DrainError::Unopened { subscribers: 1, .. })), "{undrained:?}");
    std::thread::scope(|scope| {
        scope.spawn(|| drop(publisher));
        // The publisher has time to go too early.
        assert!(quiet.recv(A_WHILE).is_err());
        node.tell("go");
    });
    for number in 0..4 {
        node.expect(&number.to_string());
    }
    assert!(node.end().success());
}

/// The subscriber is in the thread that drops the publisher, and cannot look meanwhile.
#[test]
fn a_subscriber_of_the_same_thread_is_opened_by_the_publisher_that_goes() {
    let session = Session::new();
    let bus = session.bus();
    let subscriber = bus.topic("numbers").subscriber().unwrap();
    let publisher = bus.topic("numbers").slot_bytes(64).publisher().unwrap();
    let mut last = publisher.loan(Dtype::U32, &[1]).unwrap();
    last.view_mut::<u32>().unwrap()[0] = 7;
    drop(publisher);
    assert_eq!(last.publish().unwrap(), 1);
    assert_eq!(subscriber.recv(PATIENCE).unwrap().first().view::<u32>().unwrap(), [7]);
}

/// Nobody waits for the dead: those that never will open their side are removed on the way.
#[test]
fn a_publisher_does_not_wait_for_a_killed_subscriber() {
    let session = Session::new();
    let bus = session.bus();
    let mut node = session.node("read-when-told", &["1"]);
    node.expect("ready");
    let publisher = bus.topic("numbers").slot_bytes(64).publisher().unwrap();
    assert_eq!(publisher.publish_copy(&[0u32], &[1]).unwrap(), 1);
    node.kill();
    publisher.drain(PATIENCE).unwrap();
    assert_eq!(bus.topics().unwrap()[0].subscribers, 0);
}
