//! FR-018: what happens when a queue is full, and that every message that does not arrive is counted.

use std::time::{Duration, Instant};

use tensorbus::prelude::*;
use tensorbus::{PublishError, Subscriber};

use super::support::{PATIENCE, Session};

fn ports(bus: &Bus, overflow: Overflow) -> (Publisher, Subscriber) {
    let topic = || bus.topic("numbers").depth(2).overflow(overflow);
    let subscriber = topic().subscriber().unwrap();
    (topic().slot_bytes(8).publisher().unwrap(), subscriber)
}

fn drain(subscriber: &Subscriber) -> Vec<u64> {
    std::iter::from_fn(|| subscriber.try_recv().unwrap()).map(|message| message.sequence()).collect()
}

#[test]
fn drop_oldest_loses_the_oldest_and_the_subscriber_counts() {
    let session = Session::new();
    let bus = session.bus();
    let (publisher, subscriber) = ports(&bus, Overflow::DropOldest);
    publisher.publish_copy(&[0u64], &[1]).unwrap();
    assert_eq!(drain(&subscriber), [0]);
    for number in 1..6u64 {
        assert_eq!(publisher.publish_copy(&[number], &[1]).unwrap(), 1);
    }
    let message = subscriber.recv(PATIENCE).unwrap();
    assert_eq!((message.sequence(), message.lost()), (4, 3));
    drop(message);
    assert_eq!(drain(&subscriber), [5]);
    assert_eq!((subscriber.stats().received, subscriber.stats().lost), (3, 3));
}

#[test]
fn drop_newest_refuses_the_newest_and_both_sides_count() {
    let session = Session::new();
    let bus = session.bus();
    let (publisher, subscriber) = ports(&bus, Overflow::DropNewest);
    let receivers: Vec<_> = (0..5u64).map(|number| publisher.publish_copy(&[number], &[1]).unwrap()).collect();
    assert_eq!(receivers, [1, 1, 0, 0, 0]);
    assert_eq!((publisher.stats().refused, publisher.stats().published), (3, 5));
    assert_eq!(drain(&subscriber), [0, 1]);
    publisher.publish_copy(&[5u64], &[1]).unwrap();
    assert_eq!(subscriber.recv(PATIENCE).unwrap().lost(), 3);
}

#[test]
fn error_tells_the_publisher() {
    let session = Session::new();
    let bus = session.bus();
    let (publisher, subscriber) = ports(&bus, Overflow::Error);
    for number in 0..2u64 {
        publisher.publish_copy(&[number], &[1]).unwrap();
    }
    let refused = publisher.publish_copy(&[2u64], &[1]);
    assert!(matches!(refused, Err(PublishError::Undelivered { .. })), "{refused:?}");
    assert_eq!((publisher.stats().failed, publisher.stats().refused), (1, 1));
    assert_eq!(drain(&subscriber), [0, 1]);
    publisher.publish_copy(&[3u64], &[1]).unwrap();
    let message = subscriber.recv(PATIENCE).unwrap();
    assert_eq!((message.sequence(), message.lost()), (3, 1));
}

#[test]
fn block_waits_for_its_bound_and_no_longer() {
    let session = Session::new();
    let bus = session.bus();
    let bound = Duration::from_millis(30);
    let (publisher, subscriber) = ports(&bus, Overflow::Block(bound));
    for number in 0..2u64 {
        publisher.publish_copy(&[number], &[1]).unwrap();
    }
    let start = Instant::now();
    let refused = publisher.publish_copy(&[2u64], &[1]);
    assert!(matches!(refused, Err(PublishError::Undelivered { .. })), "{refused:?}");
    assert!(start.elapsed() >= bound, "it gave up before its bound");
    assert_eq!(drain(&subscriber), [0, 1]);
}

#[test]
fn block_loses_nothing_while_the_subscriber_reads() {
    let session = Session::new();
    let bus = session.bus();
    let (publisher, subscriber) = ports(&bus, Overflow::Block(PATIENCE));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..2000u64 {
                publisher.publish_copy(&[number], &[1]).unwrap();
            }
        });
        for number in 0..2000 {
            assert_eq!(subscriber.recv(PATIENCE).unwrap().sequence(), number);
        }
    });
    assert_eq!((subscriber.stats().lost, publisher.stats().refused), (0, 0));
}
