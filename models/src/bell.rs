//! A sleeper and senders: nobody sleeps while a message waits, with senders that die at any point.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize as LoomUsize, Ordering, fence};

use crate::ring::Bell;

/// What a sender does wrong in a planted twin.
#[derive(Clone, Copy, PartialEq)]
enum Bug {
    None,
    /// Looks at the bell before its message is in the queue.
    LooksFirst,
    /// Does not order the message before the look.
    NoFence,
    /// Says that it has rung before it has sent the datagram, and dies in between.
    SaysFirst,
}

/// Outcomes over all interleavings.
#[derive(Default)]
struct Seen {
    found: AtomicUsize,
    slept: AtomicUsize,
    rung: AtomicUsize,
    quiet: AtomicUsize,
}

struct World {
    bell: Bell,
    /// Messages in the queue.
    queue: LoomUsize,
    /// Datagrams in the socket: the kernel orders its own, as read-modify-write does here.
    socket: LoomUsize,
}

/// Sends one message; dies after `steps` of its steps.
fn send(world: &World, bug: Bug, steps: usize, seen: &Seen) {
    let mut left = steps;
    let mut dies = || {
        left = left.wrapping_sub(1);
        left == usize::MAX
    };
    if dies() {
        return;
    }
    if bug != Bug::LooksFirst {
        world.queue.fetch_add(1, Ordering::Release);
    }
    if dies() {
        return;
    }
    if bug != Bug::NoFence {
        Bell::order();
    }
    let sleeper = world.bell.sleeper();
    if bug == Bug::LooksFirst {
        world.queue.fetch_add(1, Ordering::Release);
    }
    let Some(ring) = sleeper else {
        seen.quiet.fetch_add(1, Relaxed);
        return;
    };
    if dies() {
        return;
    }
    if bug == Bug::SaysFirst {
        world.bell.rung(ring);
        if !dies() {
            world.socket.fetch_add(1, Ordering::SeqCst);
        }
        return;
    }
    world.socket.fetch_add(1, Ordering::SeqCst);
    seen.rung.fetch_add(1, Relaxed);
    if dies() {
        return;
    }
    world.bell.rung(ring);
}

/// Lies down, looks, and would sleep: a message that it has not found must have a datagram, or a sender that still rings.
fn model(bug: Bug, deaths: std::ops::Range<usize>, senders: usize) -> std::sync::Arc<Seen> {
    let seen = std::sync::Arc::new(Seen::default());
    for steps in deaths {
        let seen = seen.clone();
        loom::model(move || {
            let world = Arc::new(World { bell: Bell::default(), queue: LoomUsize::new(0), socket: LoomUsize::new(0) });
            let threads: Vec<_> = (0..senders)
                .map(|number| {
                    let (world, seen) = (world.clone(), seen.clone());
                    // The first may die, the others live.
                    let steps = if number == 0 { steps } else { usize::MAX - 1 };
                    loom::thread::spawn(move || send(&world, bug, steps, &seen))
                })
                .collect();
            world.bell.lie_down();
            let found = world.queue.load(Ordering::Relaxed);
            for thread in threads {
                thread.join().unwrap();
            }
            fence(Ordering::SeqCst);
            // All senders are done or dead. Who found nothing goes to sleep, and must be woken if a living sender has sent.
            if found == 0 {
                seen.slept.fetch_add(1, Relaxed);
                let living_sent = senders > 1 || steps > 4;
                let woken = world.socket.load(Ordering::SeqCst) > 0;
                let others_ring = world.bell.sleeper().is_some();
                assert!(woken || !living_sent, "a message waits, and its receiver sleeps");
                assert!(woken || others_ring, "nobody will ever ring again");
            } else {
                seen.found.fetch_add(1, Relaxed);
            }
        });
    }
    seen
}

const ALIVE: std::ops::Range<usize> = 9..10;
const EACH_DEATH: std::ops::Range<usize> = 0..6;

#[test]
fn a_sender_and_a_sleeper_do_not_miss_each_other() {
    let seen = model(Bug::None, ALIVE, 1);
    for (outcome, name) in
        [(&seen.found, "found"), (&seen.slept, "slept"), (&seen.rung, "rung"), (&seen.quiet, "quiet")]
    {
        assert!(outcome.load(Relaxed) > 0, "never {name}");
    }
}

#[test]
fn a_sender_that_dies_at_any_step_silences_nobody() {
    let seen = model(Bug::None, EACH_DEATH, 2);
    assert!(seen.slept.load(Relaxed) > 0 && seen.rung.load(Relaxed) > 0 && seen.found.load(Relaxed) > 0);
}

/// A ring that comes after the sleeper got up and lay down again must not count for the new sleep.
#[test]
fn a_late_ring_is_not_taken_for_the_next_one() {
    let late = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = late.clone();
    loom::model(move || {
        let bell = Arc::new(Bell::default());
        bell.lie_down();
        let sender = {
            let bell = bell.clone();
            loom::thread::spawn(move || {
                let ring = bell.sleeper()?;
                bell.rung(ring);
                Some(())
            })
        };
        bell.get_up();
        bell.lie_down();
        let rang = sender.join().unwrap();
        // Either the sender saw the second sleep, and rang for it, or the bell is still to be rung.
        if rang.is_some() && bell.sleeper().is_some() {
            counted.fetch_add(1, Relaxed);
        }
    });
    assert!(late.load(Relaxed) > 0, "no ring came late");
}

/// A place changes hands: the one before is dead, and its socket with it. Whoever finds the new one asleep must find its
/// socket too.
fn place_with_a_new_receiver(moves_in_late: bool) {
    const DEAD: usize = 0;
    const LIVING: usize = 1;
    let (quiet, rung) = (std::sync::Arc::new(AtomicUsize::new(0)), std::sync::Arc::new(AtomicUsize::new(0)));
    let counts = (quiet.clone(), rung.clone());
    loom::model(move || {
        let world = Arc::new(World { bell: Bell::default(), queue: LoomUsize::new(0), socket: LoomUsize::new(0) });
        let address = Arc::new(LoomUsize::new(DEAD));
        // The dead one was asleep.
        world.bell.lie_down();
        let sender = {
            let (world, address, counts) = (world.clone(), address.clone(), counts.clone());
            loom::thread::spawn(move || {
                world.queue.fetch_add(1, Ordering::Release);
                Bell::order();
                let Some(ring) = world.bell.sleeper() else {
                    counts.0.fetch_add(1, Relaxed);
                    return;
                };
                if address.load(Ordering::Relaxed) == LIVING {
                    world.socket.fetch_add(1, Ordering::SeqCst);
                    counts.1.fetch_add(1, Relaxed);
                }
                world.bell.rung(ring);
            })
        };
        // As `Ear::new` in `port/wake.rs`, and the first wait of its receiver.
        world.bell.get_up();
        if !moves_in_late {
            address.store(LIVING, Ordering::Relaxed);
        }
        world.bell.lie_down();
        if moves_in_late {
            address.store(LIVING, Ordering::Relaxed);
        }
        let found = world.queue.load(Ordering::Relaxed);
        sender.join().unwrap();
        let woken = world.socket.load(Ordering::SeqCst) > 0;
        assert!(found > 0 || woken || world.bell.sleeper().is_some(), "the dead was rung, its successor sleeps");
        assert!(found > 0 || woken, "a message waits, and its receiver sleeps");
    });
    assert!(quiet.load(Relaxed) > 0, "the new receiver was never awake");
    assert!(rung.load(Relaxed) > 0, "the new receiver was never rung");
}

#[test]
fn the_next_receiver_in_a_place_is_rung_and_not_the_dead_one() {
    place_with_a_new_receiver(false);
}

#[test]
#[should_panic(expected = "sleeps")]
fn planted_moving_in_after_lying_down_is_found() {
    place_with_a_new_receiver(true);
}

#[test]
#[should_panic(expected = "its receiver sleeps")]
fn planted_looking_before_sending_is_found() {
    model(Bug::LooksFirst, ALIVE, 1);
}

#[test]
#[should_panic(expected = "its receiver sleeps")]
fn planted_missing_order_is_found() {
    model(Bug::NoFence, ALIVE, 1);
}

#[test]
#[should_panic(expected = "sleep")]
fn planted_saying_before_ringing_is_found() {
    model(Bug::SaysFirst, EACH_DEATH, 2);
}
