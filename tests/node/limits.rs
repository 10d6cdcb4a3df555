//! What happens when descriptors are few.

use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use tensorbus::prelude::*;

use super::{PATIENCE, say, told};

fn descriptors() -> std::io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

/// It can be raised again.
fn limit_descriptors(number: usize) -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(number as u64);
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Opens topics with so few file descriptors that it must fail, and prints how.
pub(crate) fn few_descriptors(limit: usize) -> anyhow::Result<()> {
    // What iceoryx2 opened in the parent for other tests came along: it does not close its files at exec.
    let limit = limit + descriptors()?;
    let bus = Bus::open()?;
    limit_descriptors(limit)?;
    let mut kept = Vec::new();
    for number in 0..limit {
        let topic = bus.topic(&format!("topic-{number}"));
        match topic.clone().publisher().and_then(|publisher| Ok((publisher, topic.subscriber()?))) {
            Ok(ports) => kept.push(ports),
            Err(error) => {
                say(format!("error: {error}"));
                return Ok(());
            }
        }
    }
    say("no error");
    Ok(())
}

/// Publishes and receives on so many topics at the same time, under a limit of 1024 descriptors; prints how many each takes.
pub(crate) fn many_topics(topics: usize) -> anyhow::Result<()> {
    // A parent that runs many tests at a time hands descriptors of iceoryx2 down.
    limit_descriptors(1024 + descriptors()?)?;
    let bus = Bus::open()?;
    let before = descriptors()?;
    let mut ports = Vec::new();
    for number in 0..topics {
        let topic = bus.topic(&format!("topic-{number}"));
        let publisher = topic.clone().slot_bytes(64).publisher()?;
        ports.push((publisher, topic.subscriber()?));
    }
    for (number, (publisher, subscriber)) in ports.iter().enumerate() {
        publisher.publish_copy(&[number as u64], &[1])?;
        anyhow::ensure!(subscriber.recv(Duration::from_secs(10))?.first().view::<u64>()? == [number as u64]);
    }
    say((descriptors()? - before) as f64 / topics as f64);
    Ok(())
}

/// Subscribes, has no descriptor left when a publisher comes, and gets its messages when there are some again.
pub(crate) fn starve_receiving() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let subscriber = bus.topic("numbers").subscriber()?;
    limit_descriptors(3)?;
    say("starving");
    told();
    for _ in 0..100 {
        anyhow::ensure!(subscriber.try_recv()?.is_none(), "a connection was opened without descriptors");
    }
    say("nothing");
    told();
    limit_descriptors(1024)?;
    for _ in 0..2 {
        let message = subscriber.recv(PATIENCE)?;
        say(message.first().view::<u32>()?[0]);
    }
    told();
    Ok(())
}

/// Publishes, has no descriptor left when a subscriber comes, and reaches it when there are some again.
pub(crate) fn starve_sending() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let publisher = bus.topic("numbers").slot_bytes(64).publisher()?;
    limit_descriptors(3)?;
    say("starving");
    told();
    anyhow::ensure!(publisher.publish_copy(&[0u32], &[1])? == 0, "a connection was opened without descriptors");
    say("nobody");
    told();
    limit_descriptors(1024)?;
    while publisher.publish_copy(&[1u32], &[1])? == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    say("somebody");
    told();
    Ok(())
}
