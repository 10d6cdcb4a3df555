use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::party::Party;
use crate::os::Deadline;
use crate::port::wake::{self, Socket};
use crate::ring::Sleeper;

/// Who sleeps looks again after this time: what they wait for may be the business of one who died before ringing, or is stopped.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Looks between two looks at the clock.
const LOOKS: u32 = 32;

/// Looks again and again for a short while.
#[inline]
pub(super) fn spin<T>(bound: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        for _ in 0..LOOKS {
            if let found @ Some(_) = look() {
                return found;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() >= bound {
            return None;
        }
    }
}

/// Sleeps until `look` finds something, or the time is over. After each tick the dead are looked for, and `give_up` is asked.
pub(super) fn sleep_until<T>(
    party: &Party,
    sleeper: &Sleeper,
    socket: &Socket,
    deadline: &Deadline,
    mut look: impl FnMut() -> Option<T>,
    mut give_up: impl FnMut() -> Option<T>,
) -> Result<Option<T>, Errno> {
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
            return Ok(given_up);
        }
    }
}
