//! How fast a topic's publishers send, from two looks at what they count. Pure.

use std::time::Duration;

use tensorbus::{PoolInfo, TopicInfo};

/// What a topic's publishers send a second.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Rates {
    pub(super) messages: f64,
    /// Bytes of tensors.
    pub(super) bytes: f64,
}

impl Rates {
    /// Those of a topic that was looked at twice, `between` apart. A publisher that came in between has sent all its messages
    /// since; one that has left is not counted.
    pub(super) fn of(topic: &TopicInfo, before: &[TopicInfo], between: Duration) -> Self {
        let pools_before =
            before.iter().find(|earlier| earlier.name == topic.name).map_or(&[][..], |earlier| &earlier.pools);
        // What is counted lies in shared memory, and may be any number.
        let (mut messages, mut bytes) = (0_u64, 0_u64);
        for pool in &topic.pools {
            let earlier = pools_before.iter().find(|earlier| earlier.publisher == pool.publisher);
            let since = |count: fn(&PoolInfo) -> u64| count(pool).saturating_sub(earlier.map_or(0, count));
            messages = messages.saturating_add(since(|pool| pool.messages));
            bytes = bytes.saturating_add(since(|pool| pool.bytes));
        }
        let seconds = between.as_secs_f64();
        Self { messages: messages as f64 / seconds, bytes: bytes as f64 / seconds }
    }
}
