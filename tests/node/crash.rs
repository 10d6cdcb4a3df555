//! Those who are killed: each does one kind of thing over and over, and says what it has done. Whatever goes wrong for
//! them, others' deaths included, ends them with an error, which the parent notices.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, ensure};
use tensorbus::SharedWeights;
use tensorbus::prelude::*;

use super::{PATIENCE, say, sealed, told};

/// Numbers in a tensor: 32 KiB.
const LEN: usize = 4096;

pub(crate) fn run(job: &str) -> anyhow::Result<()> {
    match job {
        "join" => join(),
        "open" => open(),
        "pool" => pool(),
        "loan" => loan(),
        "write" => write(),
        "publish" => publish(),
        "receive" => receive(1),
        "hold" => receive(4),
        "clean-up" => clean_up(),
        "weights" => weights(),
        other => anyhow::bail!("no job {other}"),
    }
}

fn ready() {
    say("ready");
    told();
}

/// Joins the session and leaves.
fn join() -> anyhow::Result<()> {
    ready();
    loop {
        drop(Bus::open()?);
    }
}

/// Makes topics and ports on them, and drops them.
fn open() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    ready();
    for number in 0u64.. {
        let topic = || bus.topic(&format!("new-{}-{}", std::process::id(), number % 3)).history(1);
        let subscriber = topic().subscriber()?;
        let publisher = topic().slot_bytes(64).publisher()?;
        publisher.publish_copy(&[number], &[1])?;
        let message = subscriber.recv(PATIENCE)?;
        drop((publisher, subscriber));
        ensure!(message.first().view::<u64>()? == [number], "another message");
    }
    Ok(())
}

/// Makes pools of 2 MiB on the topic that all use.
fn pool() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    ready();
    loop {
        drop(bus.topic("numbers").slots(8).slot_bytes(256 * 1024).publisher()?);
    }
}

/// Publishes weights that others may be publishing too, attaches what there is, reads it all, and lets go.
fn weights() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let values: Vec<Vec<u64>> = (0..3).map(|number| vec![number; 64 * LEN]).collect();
    ready();
    loop {
        for values in &values {
            let tensor = TensorView::new(values, &[values.len()], &[1])?;
            let published = SharedWeights::publish(&bus, "contested", [("w", tensor)])?;
            let attached = SharedWeights::attach(&bus, "contested")?;
            published.verify()?;
            attached.verify()?;
            drop(published);
            let read = attached.tensor("w")?.view::<u64>()?;
            ensure!(read.iter().all(|&number| number == read[0]), "two publishers' bytes in one");
        }
    }
}

fn publisher(bus: &Bus) -> anyhow::Result<Publisher> {
    Ok(bus.topic("numbers").slot_bytes(LEN * size_of::<u64>()).publisher()?)
}

/// Takes slots and gives them back.
fn loan() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let publisher = publisher(&bus)?;
    ready();
    loop {
        let loans: Vec<_> = (0..3).map(|_| publisher.loan(Dtype::U64, &[LEN])).collect::<Result<_, _>>()?;
        drop(loans);
    }
}

/// Writes into slots and gives them back; every 16th is published.
fn write() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let publisher = publisher(&bus)?;
    ready();
    for number in 0u64.. {
        let mut tensor = publisher.loan(Dtype::U64, &[LEN])?;
        sealed::seal(tensor.view_mut::<u64>()?, number);
        if number % 16 == 0 {
            sealed::seal(tensor.view_mut::<u64>()?, u64::from(std::process::id()));
            tensor.publish()?;
            say("published");
        }
    }
    Ok(())
}

fn publish() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let publisher = publisher(&bus)?;
    ready();
    for number in 0.. {
        let mut tensor = publisher.loan(Dtype::U64, &[2 + number % (LEN - 2)])?;
        sealed::seal(tensor.view_mut::<u64>()?, u64::from(std::process::id()));
        tensor.publish()?;
        say("published");
    }
    Ok(())
}

/// Receives what the parent publishes, and holds the last `held` of it.
fn receive(held: usize) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let subscriber = bus.topic("answers").subscriber()?;
    ready();
    let mut last: VecDeque<Message> = VecDeque::new();
    loop {
        if last.len() == held {
            last.pop_front();
        }
        match subscriber.recv(Duration::from_millis(1)) {
            Ok(message) => last.push_back(message),
            Err(tensorbus::ReceiveError::Timeout { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        for message in &last {
            sealed::opened(message.first().view::<u64>()?).context("a torn message")?;
        }
    }
}

/// Clears up after others that are killed, until it is killed itself.
fn clean_up() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    ready();
    loop {
        bus.remove_dead()?;
    }
}
