//! Some tensors through a session of its own.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tensorbus::{Bus, Dtype};

use super::check::{Check, Status};

/// Messages that are sent: enough for a mean that the first one does not decide.
const MESSAGES: u32 = 100;
/// Far longer than one message takes on a machine that works.
const BOUND: Duration = Duration::from_secs(5);

/// How long it took.
struct Times {
    /// Until session, topic, publisher and subscriber were there.
    ready: Duration,
    /// From loan to received, on average.
    message: Duration,
}

pub(super) fn check() -> Check {
    const NAME: &str = "self-test";
    match publish_and_receive() {
        Ok(times) => Check::ok(
            NAME,
            format!(
                "published and received {MESSAGES} tensors, {:.1?} each; {:.1?} to open session and topic",
                times.message, times.ready
            ),
        ),
        Err(error) => Check::ok(NAME, error.to_string())
            .but(Status::Fail, "do what the other lines say; if they say nothing, report this one as a bug"),
    }
}

fn publish_and_receive() -> anyhow::Result<Times> {
    let begin = Instant::now();
    let bus = Bus::builder().session(&format!("doctor-{}", std::process::id())).open()?;
    let subscriber = bus.topic("self-test").subscriber()?;
    let publisher = bus.topic("self-test").slot_bytes(4096).publisher()?;
    let ready = begin.elapsed();

    let begin = Instant::now();
    for number in 0..MESSAGES {
        let mut tensor = publisher.loan(Dtype::U32, &[16, 16])?;
        tensor.view_mut::<u32>()?.fill(number);
        tensor.publish()?;
        let message = subscriber.recv(BOUND).context("a tensor was published, but did not arrive")?;
        let tensor = message.first();
        let intact = tensor.view::<u32>()?.iter().all(|&value| value == number);
        ensure!(tensor.shape() == [16, 16] && intact, "the tensor that arrived is not the one that was published");
    }
    Ok(Times { ready, message: begin.elapsed() / MESSAGES })
}
