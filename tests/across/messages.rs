//! What goes in comes out: dtypes, layouts, several tensors, metadata, numbers and times.

use std::time::Duration;

use tensorbus::prelude::*;
use tensorbus::{DEFAULT_TENSOR_NAME, ViewError};

use super::support::{PATIENCE, Session};

/// FR-016: every dtype, and shapes at the edges.
#[test]
fn every_dtype_and_shape_arrives_as_it_was_sent() {
    let session = Session::new();
    let bus = session.bus();
    let subscriber = bus.topic("numbers").subscriber().unwrap();
    let publisher = bus.topic("numbers").slot_bytes(64 * 1024).publisher().unwrap();
    let shapes: [&[usize]; 5] = [&[], &[0], &[3, 0, 2], &[17], &[2, 3, 5, 7]];
    for &dtype in Dtype::ALL {
        for shape in shapes {
            let mut tensor = publisher.loan(dtype, shape).unwrap();
            for (byte, number) in tensor.bytes_mut().unwrap().iter_mut().zip(1..) {
                *byte = (number % 251) as u8;
            }
            tensor.publish().unwrap();
            let received = subscriber.recv(PATIENCE).unwrap().first().clone();
            assert_eq!((received.dtype(), received.shape()), (dtype, shape));
            assert_eq!(received.name(), DEFAULT_TENSOR_NAME);
            let elements: usize = shape.iter().product();
            assert_eq!(received.bytes().len(), dtype.bytes_for(elements).unwrap());
            assert_eq!(received.bytes().as_ptr() as usize % 64, 0, "aligned to a cache line");
            assert!(received.bytes().iter().zip(1..).all(|(&byte, number)| byte == (number % 251) as u8));
        }
    }
}

/// FR-016: row- and column-major both survive the trip; FR-017: several tensors, metadata, times.
#[test]
fn several_tensors_of_different_order_and_metadata_in_one_message() {
    let session = Session::new();
    let bus = session.bus();
    let subscriber = bus.topic("numbers").subscriber().unwrap();
    let publisher = bus.topic("numbers").publisher().unwrap();
    let mut message = publisher
        .loan_message(&[
            TensorSpec::new("rows", Dtype::F32, &[2, 3]),
            TensorSpec::new("columns", Dtype::F32, &[2, 3]).column_major(),
            TensorSpec::new("broadcast", Dtype::U8, &[1000]).strides(&[0]),
        ])
        .unwrap();
    let [mut rows, mut columns, mut broadcast] = message.tensors_mut().unwrap();
    for (row, column) in (0..2).flat_map(|row| (0..3).map(move |column| (row, column))) {
        rows.array_view_mut::<f32>().unwrap()[[row, column]] = (10 * row + column) as f32;
        columns.array_view_mut::<f32>().unwrap()[[row, column]] = (10 * row + column) as f32;
    }
    assert!(matches!(broadcast.array_view_mut::<u8>(), Err(ViewError::SharedElements { .. })));
    broadcast.bytes_mut()[0] = 5;
    message.metadata_mut().set("camera", "left").set("gain", 0.5);
    message.set_source_time_ns(1_700_000_000_000_000_000);
    message.publish().unwrap();

    let message = subscriber.recv(PATIENCE).unwrap();
    assert_eq!(message.tensors().len(), 3);
    let (rows, columns) = (message.tensor("rows").unwrap(), message.tensor("columns").unwrap());
    assert_eq!(rows.array_view::<f32>().unwrap(), columns.array_view::<f32>().unwrap());
    assert_eq!(rows.view::<f32>().unwrap(), [0.0, 1.0, 2.0, 10.0, 11.0, 12.0]);
    assert!(matches!(columns.view::<f32>(), Err(ViewError::NotRowMajor { .. })));
    assert_eq!(columns.strides(), [1, 2]);
    let broadcast = message.tensor("broadcast").unwrap();
    assert_eq!(broadcast.bytes(), [5]);
    assert!(broadcast.array_view::<u8>().unwrap().iter().all(|&byte| byte == 5));
    assert!(matches!(rows.view::<u8>(), Err(ViewError::Dtype { .. })));
    assert!(matches!(message.tensor("none"), Err(ViewError::NoSuchTensor { .. })));
    assert_eq!(message.metadata().get("camera").and_then(|value| value.as_str()), Some("left"));
    assert_eq!(message.source_time_ns(), Some(1_700_000_000_000_000_000));
    assert!(message.age() < PATIENCE);
}

#[test]
fn metadata_that_does_not_fit_is_refused_and_nothing_is_sent() {
    let session = Session::new();
    let bus = session.bus();
    let subscriber = bus.topic("numbers").subscriber().unwrap();
    let publisher = bus.topic("numbers").slot_bytes(64).publisher().unwrap();
    let mut tensor = publisher.loan(Dtype::U8, &[64]).unwrap();
    tensor.metadata_mut().set("large", vec![0u8; 10_000]);
    assert!(tensor.publish().is_err());
    assert_eq!(publisher.stats().failed, 1);
    publisher.publish_copy(&[1u8], &[1]).unwrap();
    assert_eq!(subscriber.recv(PATIENCE).unwrap().first().view::<u8>().unwrap(), [1]);
}

/// Two processes publish at once: each one's messages arrive in order, whole, and none is lost.
#[test]
fn messages_of_two_processes_arrive_in_order() {
    const COUNT: u64 = 500;
    let session = Session::new();
    let bus = session.bus();
    let subscriber = bus.topic("numbers").overflow(Overflow::Block(PATIENCE)).subscriber().unwrap();
    let mut nodes: Vec<_> = (0..2).map(|_| session.node("publish", &["500", "1000"])).collect();
    for node in &mut nodes {
        node.expect("ready");
        node.tell("go");
    }
    let mut next = std::collections::HashMap::new();
    for _ in 0..2 * COUNT {
        let message = subscriber.recv(PATIENCE).unwrap();
        let expected: &mut u64 = next.entry(message.publisher()).or_default();
        assert_eq!((message.sequence(), message.lost()), (*expected, 0));
        assert_eq!(message.metadata().get("n").and_then(|value| value.as_int()), Some(*expected as i64));
        let tensor = message.first();
        for (i, &value) in (0u32..).zip(tensor.view::<u32>().unwrap()) {
            assert_eq!(value, i.wrapping_mul(2_654_435_761).wrapping_add(*expected as u32));
        }
        *expected += 1;
    }
    assert_eq!(next.into_values().collect::<Vec<_>>(), [COUNT, COUNT]);
    assert_eq!((subscriber.stats().received, subscriber.stats().lost), (2 * COUNT, 0));
    for node in nodes {
        assert!(node.end().success());
    }
}

/// FR-019, as far as the publisher's next message brings it.
#[test]
fn a_late_joiner_gets_the_history_with_the_next_message() {
    let session = Session::new();
    let bus = session.bus();
    let publisher = bus.topic("numbers").history(2).publisher().unwrap();
    for number in 0..5u32 {
        publisher.publish_copy(&[number], &[1]).unwrap();
    }
    let late = bus.topic("numbers").subscriber().unwrap();
    assert!(late.try_recv().unwrap().is_none());
    publisher.publish_copy(&[5u32], &[1]).unwrap();
    let numbers: Vec<_> =
        (0..3).map(|_| late.recv(Duration::from_secs(5)).unwrap().first().view::<u32>().unwrap()[0]).collect();
    assert_eq!(numbers, [3, 4, 5]);
    assert_eq!(late.stats().lost, 0);
}

/// Numbers are given in the order of sending even when threads share a publisher.
#[test]
fn threads_that_share_a_publisher_number_in_order() {
    let session = Session::new();
    let bus = session.bus();
    let topic = || bus.topic("numbers").depth(64).overflow(Overflow::Block(PATIENCE));
    let subscriber = topic().subscriber().unwrap();
    let publisher = topic().slot_bytes(8).slots(80).publisher().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let publisher = publisher.clone();
            scope.spawn(move || {
                for number in 0..1000u64 {
                    publisher.publish_copy(&[number], &[1]).unwrap();
                }
            });
        }
        for sequence in 0..4000 {
            let message = subscriber.recv(PATIENCE).unwrap();
            assert_eq!((message.sequence(), message.lost()), (sequence, 0));
        }
    });
}

/// A subscriber finds the connections that were made together with it, whoever receives in between and in whatever thread.
#[test]
fn a_message_is_seen_at_the_first_look_whoever_made_the_subscriber() {
    let session = Session::new();
    let bus = session.bus();
    let publisher = bus.topic("numbers").slot_bytes(4).publisher().unwrap();
    let first = bus.topic("numbers").subscriber().unwrap();
    let second = bus.topic("numbers").subscriber().unwrap();
    assert!(first.try_recv().unwrap().is_none());
    assert_eq!(publisher.publish_copy(&[1u32], &[1]).unwrap(), 2);
    assert!(second.try_recv().unwrap().is_some(), "another subscriber took its connection");
    std::thread::scope(|scope| {
        let third = scope.spawn(|| bus.topic("numbers").subscriber().unwrap()).join().unwrap();
        assert_eq!(publisher.publish_copy(&[2u32], &[1]).unwrap(), 3);
        assert!(third.try_recv().unwrap().is_some(), "its connection stayed with the thread that made it");
    });
}
