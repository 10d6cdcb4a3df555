use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::party::Party;
use crate::os::Deadline;
use crate::port::wake::{self, Socket};
use crate::ring::Sleeper;
use crate::sync::{AtomicU32, Ordering};

/// Who sleeps looks again after this time: what they wait for may be the business of one who died before ringing, or is stopped.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Looks between two looks at the clock.
const LOOKS: u32 = 32;

/// Looks before it sleeps, as long as that helps: where many share few cores, or what is waited for takes long, it only takes time
/// from others.
#[derive(Debug)]
pub(super) struct Spin {
    bound: Duration,
    /// Waits in a row in which looking has found nothing.
    in_vain: AtomicU32,
}

/// Waits in vain after which most do not spin any more.
const HOPE: u32 = 4;
/// Then one of so many still does, to see whether it helps again.
const PROBE: u32 = 8;

impl Spin {
    pub(super) fn new(bound: Duration) -> Self {
        Self { bound, in_vain: AtomicU32::new(0) }
    }

    /// Looks again and again for a short while, no longer than `timeout`. What is there soon is found without a look at the clock.
    #[inline]
    pub(super) fn look<T>(&self, timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        let in_vain = self.in_vain.load(Ordering::Relaxed);
        let mut some_looks = || {
            for _ in 0..LOOKS {
                if let found @ Some(_) = look() {
                    return found;
                }
                std::hint::spin_loop();
            }
            None
        };
        let found = some_looks().or_else(|| {
            let bound = if in_vain < HOPE || in_vain.is_multiple_of(PROBE) { self.bound } else { Duration::ZERO };
            let (start, bound) = (Instant::now(), bound.min(timeout));
            while start.elapsed() < bound {
                if let found @ Some(_) = some_looks() {
                    return found;
                }
            }
            None
        });
        if found.is_none() {
            self.in_vain.store(in_vain.wrapping_add(1), Ordering::Relaxed);
        } else if in_vain != 0 {
            self.in_vain.store(0, Ordering::Relaxed);
        }
        found
    }
}

/// Sleeps until `look` finds something, or the time is over, which begins now. After each tick the dead are looked for, and `give_up` is asked.
pub(super) fn sleep_until<T>(
    party: &Party,
    sleeper: &Sleeper,
    socket: &Socket,
    timeout: Duration,
    mut look: impl FnMut() -> Option<T>,
    mut give_up: impl FnMut() -> Option<T>,
) -> Result<Option<T>, Errno> {
    let deadline = Deadline::after(timeout);
    loop {
        sleeper.lie_down(socket.number());
        let found = look();
        let left = deadline.left();
        let (None, Some(left)) = (&found, left) else {
            sleeper.get_up();
            return Ok(found);
        };
        let woken = wake::wait(socket.as_fd(), left.min(TICK));
        sleeper.get_up();
        let is_rung = woken?;
        socket.drain()?;
        if let found @ Some(_) = look() {
            return Ok(found);
        }
        if !is_rung {
            party.look_for_dead();
        }
        if let given_up @ Some(_) = give_up() {
            // What is waited for may have come between the last look and the reason to give up: a worker that left, or was buried just now,
            // has answered before, and so has whoever buried it.
            return Ok(look().or(given_up));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_spins_in_vain_stops_and_tries_again() {
        let spin = Spin::new(Duration::from_millis(1));
        let looks = || {
            let mut looks = 0;
            spin.look(Duration::MAX, || {
                looks += 1;
                None::<()>
            });
            looks > LOOKS
        };
        let spins: Vec<_> = (0..17).map(|_| looks()).collect();
        let expected: Vec<_> = (0..17).map(|wait| wait < 4 || wait == 8 || wait == 16).collect();
        assert_eq!(spins, expected);
        assert_eq!(spin.look(Duration::MAX, || Some(1)), Some(1));
        assert!(looks(), "it helped");
    }
}
