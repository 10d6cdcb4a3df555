//! Receives the frames of the example `publisher` and looks at each where it lies in shared memory:
//! `cargo run --release -p tensorbus --example subscriber`

use anyhow::Context;
use std::time::Duration;
use tensorbus::prelude::*;

fn main() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let subscriber = bus.topic("camera").subscriber()?;
    loop {
        let message = subscriber
            .recv(Duration::from_secs(10))
            .context("no frame came; is the example `publisher` running, in the same session?")?;
        let age = message.age().as_micros();
        let (number, frame, lost) = (message.sequence(), message.first(), message.lost());
        let pixels = frame.view::<u8>()?;
        let mean = pixels.iter().map(|&pixel| u64::from(pixel)).sum::<u64>() as f64 / pixels.len() as f64;
        println!("frame {number} {:?} mean {mean:.1} age {age} µs lost {lost}", frame.shape());
    }
}
