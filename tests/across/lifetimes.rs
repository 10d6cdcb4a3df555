//! How long the bytes of a tensor stay.

use std::time::Duration;

use tensorbus::prelude::*;
use tensorbus::{ReceiveError, Subscriber};

use super::support::{PATIENCE, Session};

/// FR-005, and what the README promises: a received tensor outlives publisher, subscriber and bus.
#[test]
fn a_tensor_outlives_its_killed_publisher_its_subscriber_and_its_bus() {
    let session = Session::new();
    let bus = session.bus();
    let subscriber = bus.topic("numbers").overflow(Overflow::Block(PATIENCE)).subscriber().unwrap();
    let mut node = session.node("publish", &["3", "100000"]);
    node.expect("ready");
    node.tell("go");
    let tensor = subscriber.recv(PATIENCE).unwrap().first().clone();
    node.expect("published");
    node.kill();
    bus.remove_dead().unwrap();
    let expected: Vec<u32> = (0..100_000u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
    assert_eq!(tensor.view::<u32>().unwrap(), expected);
    drop(subscriber);
    drop(bus);
    assert_eq!(tensor.view::<u32>().unwrap(), expected);
    let elsewhere = tensor.clone();
    drop(tensor);
    std::thread::spawn(move || assert_eq!(elsewhere.view::<u32>().unwrap(), expected)).join().unwrap();
}

/// What a killed publisher has sent is still received.
#[test]
fn messages_queued_by_a_killed_publisher_arrive() {
    let session = Session::new();
    let bus = session.bus();
    let subscriber = bus.topic("numbers").overflow(Overflow::Block(PATIENCE)).subscriber().unwrap();
    let mut node = session.node("publish", &["4", "10"]);
    node.expect("ready");
    // The connection is open on both sides before anything is sent.
    assert!(subscriber.try_recv().unwrap().is_none());
    node.tell("go");
    node.expect("published");
    node.kill();
    for sequence in 0..4 {
        assert_eq!(subscriber.recv(PATIENCE).unwrap().sequence(), sequence);
    }
}

/// iceoryx2 gives a borrowed slot away once its subscriber is gone: the tensor keeps it registered.
#[test]
fn a_held_tensor_is_not_overwritten_after_its_subscriber_was_dropped() {
    let session = Session::new();
    let bus = session.bus();
    let publisher = bus.topic("numbers").publisher().unwrap();
    let subscriber = bus.topic("numbers").subscriber().unwrap();
    publisher.publish_copy(&[11u32; 64], &[64]).unwrap();
    let held = subscriber.recv(PATIENCE).unwrap().first().clone();
    drop(subscriber);
    let other = bus.topic("numbers").subscriber().unwrap();
    for number in 0..200u32 {
        publisher.publish_copy(&[number; 64], &[64]).unwrap();
        assert_eq!(other.recv(PATIENCE).unwrap().first().view::<u32>().unwrap(), [number; 64]);
    }
    assert_eq!(held.view::<u32>().unwrap(), [11; 64]);
    assert_eq!(bus.topics().unwrap()[0].subscribers, 2, "the held tensor keeps its subscriber registered");
    drop(held);
    assert_eq!(bus.topics().unwrap()[0].subscribers, 1);
}

#[test]
fn holding_too_many_is_an_error_that_loses_nothing() {
    let session = Session::new();
    let bus = session.bus();
    let topic = || bus.topic("numbers").max_borrowed(2).depth(4).overflow(Overflow::Error);
    let (subscriber, publisher) = (topic().subscriber().unwrap(), topic().publisher().unwrap());
    for number in 0..3u32 {
        publisher.publish_copy(&[number], &[1]).unwrap();
    }
    let first = subscriber.recv(PATIENCE).unwrap();
    let second = subscriber.recv(PATIENCE).unwrap();
    assert!(matches!(subscriber.try_recv(), Err(ReceiveError::TooManyHeld { limit: 2, .. })));
    assert!(matches!(subscriber.recv(Duration::from_millis(1)), Err(ReceiveError::TooManyHeld { .. })));
    let clone = second.clone();
    drop((first, second));
    let third = subscriber.recv(PATIENCE).unwrap();
    assert_eq!((third.sequence(), third.lost()), (2, 0));
    assert_eq!(clone.sequence(), 1);
}

/// iceoryx2's default allows 128 publishers that are gone while messages of theirs are held; then it panics.
#[test]
fn messages_of_many_departed_publishers_can_be_held() {
    let session = Session::new();
    let bus = session.bus();
    let subscriber: Subscriber = bus.topic("numbers").subscriber().unwrap();
    let held: Vec<_> = (0..300u32)
        .map(|number| {
            let publisher = bus.topic("numbers").slots(1).slot_bytes(4).publisher().unwrap();
            publisher.publish_copy(&[number], &[1]).unwrap();
            subscriber.recv(PATIENCE).unwrap().first().clone()
        })
        .collect();
    for (number, tensor) in (0u32..).zip(&held) {
        assert_eq!(tensor.view::<u32>().unwrap(), [number]);
    }
}

/// Tensors and messages may go anywhere; compiled, not run.
#[test]
fn tensors_are_clone_send_sync_and_static() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    fn check_send<T: Send + 'static>() {}
    fn check_shared<T: Send + Sync + 'static>() {}
    check::<Tensor>();
    check::<Message>();
    check::<Bus>();
    check::<Publisher>();
    check_shared::<Subscriber>();
    check_send::<TensorMut>();
    check_send::<MessageMut>();
}
