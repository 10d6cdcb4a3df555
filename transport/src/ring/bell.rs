use crate::sync::{AtomicU32, Ordering, fence};

/// Whether somebody sleeps, so that who has something for them knows whether to wake them: a word in shared memory.
///
/// A sleeper waits for a datagram, since that is what event loops can wait for. To send one costs microseconds, to look at
/// this word nanoseconds: while the sleeper is awake, nobody sends.
///
/// ```text
/// bits 0-1   state
/// bits 2-31  turn: counts how often the sleeper lay down, so that a ring that comes late is not taken for the next one
///
/// state      who leaves it, and how
/// AWAKE      the sleeper lies down                       -> ASLEEP, turn + 1
/// ASLEEP     somebody has sent a datagram                -> RUNG, same turn
///            the sleeper gets up                         -> AWAKE
/// RUNG       the sleeper gets up                         -> AWAKE
/// ```
///
/// Only the sleeper stores; all others compare and exchange. In this order nobody sleeps through a message:
///
/// - the sleeper lies down, *then* looks for messages, then waits for a datagram;
/// - a sender puts its message into the queue, *then* looks at the bell; if it has to ring, it sends the datagram first and says so
///   in the word afterwards. A sender that is killed in between has rung, or others will still ring.
///
/// Between the two steps each side has a sequentially consistent fence: of the sleeper's word and the sender's message, at
/// least one is seen.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Bell(AtomicU32);

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const RUNG: u32 = 2;
const STATE: u32 = 0b11;
const TURN: u32 = 0b100;

/// A sleeper that was found asleep, and has to be sent a datagram.
#[derive(Debug)]
#[must_use]
pub(crate) struct Ring(u32);

impl Bell {
    /// The sleeper lies down: from here on it has to look for messages once more before it waits.
    pub(crate) fn lie_down(&self) {
        let turn = self.0.load(Ordering::Relaxed) & !STATE;
        self.0.store(turn.wrapping_add(TURN) | ASLEEP, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The sleeper is awake again. A datagram may still be on its way.
    pub(crate) fn get_up(&self) {
        let turn = self.0.load(Ordering::Relaxed) & !STATE;
        self.0.store(turn | AWAKE, Ordering::Relaxed);
    }

    /// After something was put into the sleeper's queue, and a [`Bell::order`]: whether it has to be sent a datagram.
    #[inline]
    pub(crate) fn sleeper(&self) -> Option<Ring> {
        let word = self.0.load(Ordering::Relaxed);
        (word & STATE == ASLEEP).then_some(Ring(word))
    }

    /// Puts what a sender did before (its message) before what it does after (looking at bells). Once for any number of bells.
    #[inline]
    pub(crate) fn order() {
        fence(Ordering::SeqCst);
    }

    /// After the datagram was sent: others need not send one.
    pub(crate) fn rung(&self, ring: Ring) {
        // Where it fails the sleeper is up already, or down again, and does not know this ring.
        let _ = self.0.compare_exchange(ring.0, ring.0 & !STATE | RUNG, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(tensorbus_loom)))]
mod tests {
    use super::*;

    #[test]
    fn who_is_awake_is_not_rung() {
        let bell = Bell::default();
        assert!(bell.sleeper().is_none());
        bell.lie_down();
        let ring = bell.sleeper().unwrap();
        bell.rung(ring);
        assert!(bell.sleeper().is_none(), "one datagram is enough");
        bell.get_up();
        assert!(bell.sleeper().is_none());
        bell.lie_down();
        assert!(bell.sleeper().is_some());
    }

    #[test]
    fn a_late_ring_does_not_silence_the_next_ones() {
        let bell = Bell::default();
        bell.lie_down();
        let late = bell.sleeper().unwrap();
        bell.get_up();
        bell.lie_down();
        bell.rung(late);
        assert!(bell.sleeper().is_some());
    }

    #[test]
    fn turns_wrap_around() {
        let bell = Bell(AtomicU32::new(!STATE));
        bell.lie_down();
        assert!(bell.sleeper().is_some());
        bell.get_up();
        assert!(bell.sleeper().is_none());
    }
}
