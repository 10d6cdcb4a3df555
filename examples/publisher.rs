//! Publishes frames as a camera would, ten a second for 100 seconds. Run the example `subscriber` beside it:
//! `cargo run --release -p tensorbus --example publisher`

use std::{thread, time::Duration};
use tensorbus::prelude::*;

fn main() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let publisher = bus.topic("camera").slot_bytes(480 * 640 * 3).publisher()?;

    for number in 0..1000 {
        let mut frame = publisher.loan(Dtype::U8, &[480, 640, 3])?;
        // Written where subscribers read it: a gradient from left to right that moves with each frame.
        for (index, pixel) in frame.view_mut::<u8>()?.chunks_exact_mut(3).enumerate() {
            pixel.fill(((index % 640) * 127 / 640 + number % 128) as u8);
        }
        let subscribers = frame.publish()?;
        println!("frame {number}, subscribers: {subscribers}");
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
