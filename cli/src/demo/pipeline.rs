//! The topics of the demo, from node to node:
//!
//! ```text
//! camera --frames--> preprocess --batches--> 4 x classify --logits--> sink
//!                                      \-------------------------------^  (the labels, to compare with)
//! ```

use std::time::Duration;

use anyhow::Context;
use tensorbus::{Bus, Message, Overflow, TopicBuilder};

use super::classify::NODES;

/// Messages that wait for a node. Few, so that the camera's slots of 6 MB take little memory.
const DEPTH: usize = 2;
/// Messages that a node works on at a time: one, and the next one while the one before is on its way out.
const MAX_BORROWED: usize = 2;
/// Room for whoever wants to watch with `tensorbus echo`.
const WATCHERS: usize = 3;
/// A node that does not keep up holds back those before it, so that nothing is lost. Longer than the supervisor waits
/// for progress: it is the one to find out which node it is.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

const FRAME: &str = "frame";
const LAST: &str = "last";

/// `frame` u8 `[HEIGHT, WIDTH, CHANNELS]` and `labels` u8 `[DIGITS]`, from the camera.
pub(super) fn frames(bus: &Bus, demo: &str) -> TopicBuilder {
    topic(bus, demo, "frames").max_publishers(1).max_subscribers(1 + WATCHERS)
}

/// `images` f32 `[DIGITS, 1, SIDE, SIDE]` and `labels` u8 `[DIGITS]`, from preprocess.
pub(super) fn batches(bus: &Bus, demo: &str) -> TopicBuilder {
    // The classify nodes and the sink.
    topic(bus, demo, "batches").max_publishers(1).max_subscribers(NODES as usize + 1 + WATCHERS)
}

/// `logits` f32 `[DIGITS, CLASSES]`, from each classify node, for every fourth batch.
pub(super) fn logits(bus: &Bus, demo: &str) -> TopicBuilder {
    topic(bus, demo, "logits").max_publishers(NODES as usize).max_subscribers(1 + WATCHERS)
}

fn topic(bus: &Bus, demo: &str, name: &str) -> TopicBuilder {
    bus.topic(&format!("{demo}/{name}")).depth(DEPTH).max_borrowed(MAX_BORROWED).overflow(Overflow::Block(LONGEST_WAIT))
}

/// What goes with each message: which frame it is about, and whether that is the last one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tag {
    pub(super) frame: u32,
    pub(super) last: bool,
}

impl Tag {
    pub(super) fn of(message: &Message) -> anyhow::Result<Self> {
        let frame = message.metadata().get(FRAME).and_then(|value| value.as_int());
        let frame = frame.and_then(|frame| u32::try_from(frame).ok()).context("a message without a frame number")?;
        Ok(Self { frame, last: message.metadata().get(LAST).is_some() })
    }

    pub(super) fn put(self, metadata: &mut tensorbus::Metadata) {
        metadata.set(FRAME, self.frame);
        if self.last {
            metadata.set(LAST, true);
        }
    }
}
