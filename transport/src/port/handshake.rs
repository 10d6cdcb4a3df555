//! Which subscribers have opened their side of a publisher's connections.
//!
//! A message is delivered when it lies in a subscriber's queue. But a subscriber that has not opened its side of the
//! connection, and mapped the pool, when the publisher goes does not find either any more. iceoryx2 tells a publisher
//! nothing of the pool, so subscribers say it themselves: in a word of the connection that iceoryx2 has for channels of
//! requests, and that means nothing between publishers and subscribers as long as it is not `u64::MAX`.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use iceoryx2_cal::zero_copy_connection::{ChannelId, ZeroCopyPortDetails};

use super::dead::remove_dead;
use super::naps::Naps;
use super::sender::Sender;
use super::sending::SendFailure;
use super::shield::shield;

/// Value of the word before and after.
const CLOSED: u64 = 0;
const OPEN: u64 = 1;
/// So many looks, then those that never will open their side, because they are dead, are removed.
const LOOKS_BETWEEN_CLEANING: u32 = 32;
/// Longest wait for the turn to do so.
const PATIENCE: Duration = Duration::from_millis(50);

/// The subscriber has opened the connection and mapped the pool: both stay usable whatever the publisher does.
pub(super) fn say_open(connection: &impl ZeroCopyPortDetails) {
    let word = connection.__internal_get_channel_state(ChannelId::new(0));
    let _ = word.compare_exchange(CLOSED, OPEN, Ordering::AcqRel, Ordering::Relaxed);
}

/// Whether it has.
pub(super) fn has_opened(connection: &impl ZeroCopyPortDetails) -> bool {
    connection.__internal_get_channel_state(ChannelId::new(0)).load(Ordering::Acquire) != CLOSED
}

/// How many subscribers a publisher is connected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SideCount {
    /// Those that have opened their side.
    pub(crate) open: usize,
    /// Those that have not.
    pub(crate) closed: usize,
}

impl Sender {
    /// Waits until enough subscribers have opened their side. Returns those that have and have not at the end, and
    /// whether they are enough.
    pub(crate) fn wait_for_sides(
        &self,
        bound: Duration,
        enough: impl Fn(SideCount) -> bool,
    ) -> Result<(SideCount, bool), SendFailure> {
        let mut naps = Naps::begin();
        let mut looks = 0u32;
        loop {
            let count = self.count_sides()?;
            let Some(left) = bound.checked_sub(naps.waited()).filter(|_| !enough(count)) else {
                return Ok((count, enough(count)));
            };
            // Subscribers of this bus, which may be in the very thread that waits here.
            self.tended.tend();
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS_BETWEEN_CLEANING) {
                let _ = remove_dead(self.ports.directory(), left.min(PATIENCE));
            }
            naps.take(left);
        }
    }

    fn count_sides(&self) -> Result<SideCount, SendFailure> {
        let mut ports = self.ports.get()?.lock().unwrap_or_else(PoisonError::into_inner);
        self.check().map_err(SendFailure::Broken)?;
        // Lets go of subscribers that have left.
        if let Err(panicked) = shield(|| ports.look_at_connections()) {
            return Err(SendFailure::Broken(self.give_up(panicked)));
        }
        Ok(ports.links.count())
    }
}
