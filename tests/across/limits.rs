//! Every limit is an error that says what to do.

use tensorbus::TopicError;
use tensorbus::prelude::*;

use crate::support::{PATIENCE, Session};

#[test]
fn ports_beyond_the_limit_are_refused_by_name() {
    let session = Session::new();
    let bus = session.bus();
    let topic = || bus.topic("numbers").max_publishers(2).max_subscribers(2);
    let _publishers: Vec<_> = (0..2).map(|_| topic().slot_bytes(64).publisher().unwrap()).collect();
    let _subscribers: Vec<_> = (0..2).map(|_| topic().subscriber().unwrap()).collect();
    let publisher = topic().slot_bytes(64).publisher();
    assert!(matches!(publisher, Err(TopicError::TooManyPublishers { limit: 2, .. })), "{publisher:?}");
    let subscriber = topic().subscriber();
    assert!(matches!(subscriber, Err(TopicError::TooManySubscribers { limit: 2, .. })), "{subscriber:?}");
}

/// The defaults hold more than iceoryx2's 8 subscribers.
#[test]
fn sixteen_subscribers_and_eight_publishers_fit_by_default() {
    let session = Session::new();
    let bus = session.bus();
    let subscribers: Vec<_> = (0..16).map(|_| bus.topic("numbers").subscriber().unwrap()).collect();
    let publishers: Vec<_> = (0..8).map(|_| bus.topic("numbers").slot_bytes(8).publisher().unwrap()).collect();
    for (number, publisher) in (0u64..).zip(&publishers) {
        assert_eq!(publisher.publish_copy(&[number], &[1]).unwrap(), 16);
        for subscriber in &subscribers {
            let message = subscriber.try_recv().unwrap().unwrap();
            assert_eq!(message.first().view::<u64>().unwrap(), [number]);
        }
    }
}

#[test]
fn settings_that_differ_name_both_sides() {
    let session = Session::new();
    let bus = session.bus();
    let _subscriber = bus.topic("numbers").depth(8).subscriber().unwrap();
    let error = bus.topic("numbers").depth(9).publisher().unwrap_err();
    let TopicError::Mismatch { setting: "depth", existing, requested, .. } = &error else { panic!("{error:?}") };
    assert_eq!((existing.as_str(), requested.as_str()), ("8", "9"));
    let error = bus.topic("numbers").overflow(Overflow::Error).publisher().unwrap_err();
    assert!(matches!(error, TopicError::Mismatch { setting: "overflow", .. }), "{error:?}");
    let publisher = bus.topic("numbers").publisher().unwrap();
    assert_eq!(publisher.settings().depth, 8, "what is left open is taken as it is");
}

#[test]
fn too_few_file_descriptors_are_an_error() {
    let session = Session::new();
    let node = session.node("few-descriptors", &["60"]);
    let line = node.line();
    assert!(line.starts_with("error: topic"), "{line}");
    assert!(node.end().success());
}

/// iceoryx2 tries to open a connection once. What was sent meanwhile lies in the queue.
#[test]
fn a_receiver_without_descriptors_gets_its_messages_later() {
    let session = Session::new();
    let bus = session.bus();
    let mut node = session.node("starve-receiving", &[]);
    node.expect("starving");
    let publisher = bus.topic("numbers").slot_bytes(64).publisher().unwrap();
    assert_eq!(publisher.publish_copy(&[1u32], &[1]).unwrap(), 1);
    node.tell("look");
    node.expect("nothing");
    assert_eq!(publisher.publish_copy(&[2u32], &[1]).unwrap(), 1);
    node.tell("go on");
    node.expect("1");
    node.expect("2");
    assert!(node.end().success());
}

#[test]
fn a_publisher_without_descriptors_reaches_its_subscribers_later() {
    let session = Session::new();
    let bus = session.bus();
    let mut node = session.node("starve-sending", &[]);
    node.expect("starving");
    let subscriber = bus.topic("numbers").subscriber().unwrap();
    node.tell("publish");
    node.expect("nobody");
    node.tell("go on");
    node.expect("somebody");
    assert_eq!(subscriber.recv(PATIENCE).unwrap().first().view::<u32>().unwrap(), [1]);
    assert!(node.end().success());
}

/// A node that publishes and receives on a hundred topics runs under the usual limit of 1024 descriptors.
#[test]
fn a_hundred_topics_fit_into_the_usual_limit_of_descriptors() {
    let session = Session::new();
    let node = session.node("many-topics", &["100"]);
    let each: f64 = node.line().parse().unwrap();
    println!("{each} descriptors for a publisher and a subscriber of a topic");
    assert!(each <= 9.0, "{each}");
    assert!(node.end().success());
}

#[test]
fn a_session_whose_path_is_too_long_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let long = base.path().join("d".repeat(60));
    std::fs::create_dir(&long).unwrap();
    let error = Bus::builder().directory(&long).session("s").open().unwrap_err();
    assert!(matches!(error, tensorbus::SessionError::PathTooLong { .. }), "{error:?}");
    assert_eq!(std::fs::read_dir(&long).unwrap().count(), 0);
}
