//! The camera: draws frames of handwritten digits straight into shared memory.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tensorbus::{Bus, Dtype, TensorSpec};

use super::digits::Digits;
use super::lifeline::Lifeline;
use super::node::NodeOptions;
use super::pipeline::{self, Tag};
use super::scene;
use super::tally::Tally;

pub(super) fn run(options: &NodeOptions, lifeline: &Lifeline) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let digits = Digits::load()?;
    let tensors = [
        TensorSpec::new("frame", Dtype::U8, &[scene::HEIGHT, scene::WIDTH, scene::CHANNELS]),
        TensorSpec::new("labels", Dtype::U8, &[scene::DIGITS]),
    ];
    // With a size, the slots are made and get their memory here, not at the first frame.
    let slot_bytes = scene::FRAME_BYTES + scene::DIGITS;
    let frames = pipeline::frames(&bus, &options.demo).slot_bytes(slot_bytes).publisher()?;
    let mut tally = Tally::new(bus.directory());
    let mut pace = Pace::new(options.fps);
    let mut painted = HashSet::new();

    if !lifeline.ready() {
        return Ok(());
    }
    for number in 0..options.frames {
        if !lifeline.wait_until(pace.next(Instant::now())) {
            return Ok(());
        }
        let mut message = frames.loan_message(&tensors)?;
        let [mut frame, mut labels] = message.tensors_mut()?;
        let frame = frame.bytes_mut();
        // A slot comes back with the frame that was last drawn into it: then only the digits are to be drawn.
        if painted.insert(frame.as_ptr()) {
            scene::paint_background(frame);
        }
        scene::draw_digits(frame, &digits, number.into());
        for (place, label) in labels.bytes_mut().iter_mut().enumerate() {
            *label = digits.label(scene::index_of(number.into(), place));
        }
        Tag { frame: number, last: number + 1 == options.frames }.put(message.metadata_mut());
        message.publish()?;
        tally.frame_done();
        lifeline.progress(number + 1);
    }
    lifeline.report(tally.finish(&[], Some(&frames)));
    Ok(())
}

/// When the frames are due. A camera that was held back goes on from there, and does not hurry to catch up.
pub(super) struct Pace {
    period: Duration,
    due: Option<Instant>,
}

impl Pace {
    /// `fps` of 0 is as fast as it goes.
    pub(super) fn new(fps: u32) -> Self {
        Self { period: Duration::from_secs(1).checked_div(fps).unwrap_or_default(), due: None }
    }

    /// When the next frame is due, asked at `now`.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        let due = self.due.map_or(now, |due| (due + self.period).max(now));
        self.due = Some(due);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn frames_are_due_at_the_rate_that_was_asked_for() {
        let (mut pace, start) = (Pace::new(20), Instant::now());
        assert_eq!(pace.next(start), start);
        assert_eq!(pace.next(start + 3 * MS), start + 50 * MS);
        assert_eq!(pace.next(start + 53 * MS), start + 100 * MS);
    }

    #[test]
    fn without_a_rate_each_is_due_at_once() {
        let (mut pace, start) = (Pace::new(0), Instant::now());
        assert_eq!(pace.next(start), start);
        assert_eq!(pace.next(start + MS), start + MS);
    }

    #[test]
    fn time_that_was_lost_is_not_caught_up() {
        let (mut pace, start) = (Pace::new(20), Instant::now());
        pace.next(start);
        assert_eq!(pace.next(start + 500 * MS), start + 500 * MS);
        assert_eq!(pace.next(start + 500 * MS), start + 550 * MS);
    }
}
