//! Who waits is woken, nobody waits for ever, and no wake-up is lost.

use std::time::{Duration, Instant};

use tensorbus::ReceiveError;
use tensorbus::prelude::*;

use super::support::{PATIENCE, Session};

#[test]
fn a_sleeping_process_is_woken_by_each_message() {
    const COUNT: u64 = 2000;
    let session = Session::new();
    let bus = session.bus();
    let pong = bus.topic("pong").spin(Duration::ZERO).subscriber().unwrap();
    let node = session.node("echo", &[&COUNT.to_string()]);
    node.expect("ready");
    let ping = bus.topic("ping").slot_bytes(8).publisher().unwrap();
    for number in 0..COUNT {
        assert_eq!(ping.publish_copy(&[number], &[1]).unwrap(), 1);
        let answer = pong.recv(PATIENCE).unwrap();
        assert_eq!(answer.first().view::<u64>().unwrap(), [number]);
    }
    assert!(node.end().success());
}

#[test]
fn waiting_ends_when_it_was_said_to() {
    let session = Session::new();
    let bus = session.bus();
    let subscriber = bus.topic("numbers").subscriber().unwrap();
    for wait in [Duration::ZERO, Duration::from_micros(5), Duration::from_millis(120)] {
        let start = Instant::now();
        let error = subscriber.recv(wait).unwrap_err();
        assert!(matches!(error, ReceiveError::Timeout { .. }), "{error:?}");
        assert!(start.elapsed() >= wait);
    }
}

/// "Clear readiness, then look" hangs after some 100,000 notifications; so does every lost wake-up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn awaiting_loses_no_wake_up() {
    const COUNT: u64 = 30_000;
    let session = Session::new();
    let bus = session.bus();
    let topic = || bus.topic("numbers").depth(16).overflow(Overflow::Block(PATIENCE));
    let mut subscriber = topic().subscriber().unwrap().into_async().unwrap();
    let publisher = topic().slots(32).slot_bytes(8).publisher().unwrap();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let publisher = publisher.clone();
            std::thread::spawn(move || {
                for number in 0..COUNT {
                    publisher.publish_copy(&[number], &[1]).unwrap();
                }
            })
        })
        .collect();
    for sequence in 0..2 * COUNT {
        let message = tokio::time::timeout(PATIENCE, subscriber.recv()).await.expect("a wake-up was lost").unwrap();
        assert_eq!(message.sequence(), sequence);
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[tokio::test]
async fn a_cancelled_wait_takes_no_message_along() {
    let session = Session::new();
    let bus = session.bus();
    let mut subscriber = bus.topic("numbers").subscriber().unwrap().into_async().unwrap();
    let publisher = bus.topic("numbers").publisher().unwrap();
    for number in 0..50u64 {
        assert!(tokio::time::timeout(Duration::from_micros(200), subscriber.recv()).await.is_err());
        publisher.publish_copy(&[number], &[1]).unwrap();
        let message = tokio::time::timeout(PATIENCE, subscriber.recv()).await.unwrap().unwrap();
        assert_eq!(message.first().view::<u64>().unwrap(), [number]);
    }
}
