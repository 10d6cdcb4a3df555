//! Roles around slots that grow.

use anyhow::ensure;
use tensorbus::LoanError;
use tensorbus::prelude::*;

use crate::{PATIENCE, pattern, say, told};

/// Receives `count` messages and checks that they come in order, each with the content of its number.
pub(crate) fn check(count: usize) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let subscriber = bus.topic("numbers").subscriber()?;
    say("ready");
    for sequence in 0..count {
        let message = subscriber.recv(PATIENCE)?;
        let numbers = message.first().view::<u32>()?;
        ensure!(
            message.metadata().get("n").and_then(|n| n.as_int()) == Some(sequence as i64),
            "out of order: {sequence} is awaited"
        );
        ensure!(numbers == pattern(sequence, numbers.len()), "the content of {sequence} is not its own");
    }
    say("checked");
    told();
    Ok(())
}

/// Publishes large and small messages and gives memory back, until it is killed.
pub(crate) fn grow_for_ever() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    say("ready");
    loop {
        let subscriber = bus.topic("numbers").subscriber()?;
        let publisher = bus.topic("numbers").slots(12).max_slot_bytes(1 << 20).publisher()?;
        for sequence in 0..50 {
            publisher
                .publish_copy(&pattern(sequence, (sequence * 7919) % (1 << 18)), &[(sequence * 7919) % (1 << 18)])?;
            let _ = subscriber.try_recv()?;
            if sequence % 9 == 0 {
                publisher.release_unused()?;
            }
        }
    }
}

/// Holds larger and larger messages in a small file system until a loan is refused, then goes on with small ones.
pub(crate) fn grow_until_full(directory: &str) -> anyhow::Result<()> {
    let bus = Bus::builder().directory(directory).session("grow").open()?;
    let topic = || bus.topic("numbers").depth(16).max_borrowed(16);
    let subscriber = topic().subscriber()?;
    let publisher = topic().slots(20).max_slot_bytes(64 << 20).publisher()?;
    let mut held = Vec::new();
    let refused = loop {
        ensure!(held.len() < 16, "nothing was refused");
        let sequence = held.len();
        let values = pattern(sequence, 1 << 18);
        match publisher.loan(Dtype::U32, &[values.len()]) {
            Ok(mut tensor) => {
                tensor.view_mut::<u32>()?.copy_from_slice(&values);
                tensor.publish()?;
                held.push(subscriber.recv(PATIENCE)?);
            }
            Err(error) => break error,
        }
    };
    ensure!(matches!(refused, LoanError::Pool(_)), "{refused:?}");
    say(format!("error after {}: {refused}", held.len()));
    for sequence in 0..100 {
        publisher.publish_copy(&pattern(sequence, 100), &[100])?;
        ensure!(subscriber.recv(PATIENCE)?.first().view::<u32>()? == pattern(sequence, 100), "{sequence}");
    }
    for (sequence, message) in held.iter().enumerate() {
        ensure!(message.first().view::<u32>()? == pattern(sequence, 1 << 18), "what is held has changed");
    }
    say("small ones go through");
    drop(held);
    publisher.release_unused()?;
    publisher.publish_copy(&pattern(0, 1 << 20), &[1 << 20])?;
    ensure!(subscriber.recv(PATIENCE)?.first().view::<u32>()? == pattern(0, 1 << 20), "after the memory came back");
    say("large ones again");
    Ok(())
}
