//! Which subscribers have opened their side of a publisher's connections.
//!
//! A message is delivered when it lies in a subscriber's queue. But a subscriber that has not opened its side of the
//! connection, and mapped the pool, when the publisher goes does not find either any more. iceoryx2 tells a publisher
//! nothing of the pool, so subscribers say it themselves: in a word of the connection that iceoryx2 has for channels of
//! requests, and that means nothing between publishers and subscribers as long as it is not `u64::MAX`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use iceoryx2_cal::zero_copy_connection::{ChannelId, ZeroCopyPortDetails};

use super::dead::remove_dead;
use super::sender::{SendFailure, Sender};
use super::shield::shield;
use crate::os::Deadline;

/// Value of the word before and after.
const CLOSED: u64 = 0;
const OPEN: u64 = 1;
/// Longest pause between two looks.
const LONGEST_NAP: Duration = Duration::from_millis(1);
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
    /// whether they are enough. A port that is in use all the time, by a publisher that is blocked, is as good as none.
    pub(crate) fn wait_for_sides(
        &self,
        bound: Duration,
        enough: impl Fn(SideCount) -> bool,
    ) -> Result<(SideCount, bool), SendFailure> {
        let deadline = Deadline::after(bound);
        let mut nap = Duration::from_micros(10);
        let mut last = SideCount::default();
        for look in 1.. {
            if let Some(count) = self.count_sides()? {
                last = count;
                if enough(count) {
                    return Ok((count, true));
                }
            }
            let Some(left) = deadline.left() else { break };
            // Subscribers of this bus, which may be in the very thread that waits here.
            self.tended.tend();
            if look % LOOKS_BETWEEN_CLEANING == 0 {
                let _ = remove_dead(self.ports.directory(), left.min(PATIENCE));
            }
            // Nothing tells a publisher that a subscriber has opened its side.
            std::thread::sleep(nap.min(left));
            nap = (2 * nap).min(LONGEST_NAP);
        }
        Ok((last, false))
    }

    /// `None` while another thread uses the port.
    fn count_sides(&self) -> Result<Option<SideCount>, SendFailure> {
        let Ok(mut ports) = self.ports.get()?.try_lock() else { return Ok(None) };
        self.check().map_err(SendFailure::Broken)?;
        // Lets go of subscribers that have left.
        if let Err(panicked) = shield(|| ports.look_at_connections()) {
            return Err(SendFailure::Broken(self.give_up(panicked)));
        }
        Ok(Some(ports.links.count()))
    }
}
