//! Threads that ask for models, drop handles, evict and unload: a model is loaded once, never handed out once it is
//! closed, never closed while somebody has it, and nobody sleeps through the end of a load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use loom::thread;

use crate::cache::{KeepAlive, Policy, Settings, Wish};
use crate::error::{LoadError, UnloadError};
use crate::model::{Device, Model};
use crate::seen::Seen;
use crate::shell::{Begin, Landed, ModelHandle, Shell};
use crate::stand_in::{Bug, plant};

/// A model that knows whether it was dropped.
struct Weights {
    dropped: Arc<AtomicUsize>,
}

impl Model for Weights {
    fn memory_bytes(&self) -> u64 {
        60
    }
}

impl Drop for Weights {
    fn drop(&mut self) {
        assert_eq!(self.dropped.fetch_add(1, SeqCst), 0, "dropped twice");
    }
}

fn shell(policy: Policy, ttl: Duration) -> Arc<Shell> {
    Arc::new(Shell::new(Settings { policy, budget: Some(100), ttl }))
}

const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Loads a model, or says who else does.
fn load(shell: &Arc<Shell>, key: &str) -> (ModelHandle<Weights>, Arc<AtomicUsize>) {
    let Ok(Begin::Load(loading)) = shell.begin::<Weights>(key, Wish { bytes: Some(60), ..Wish::default() }, None)
    else {
        panic!("nobody else is here")
    };
    let dropped = Arc::new(AtomicUsize::new(0));
    let handle = loading.land(Weights { dropped: dropped.clone() }, 60, Device::CPU).unwrap();
    (handle, dropped)
}

/// Uses a handle: the model must be there.
fn use_it(handle: &ModelHandle<Weights>) {
    assert_eq!(handle.dropped.load(SeqCst), 0, "in use, and dropped");
}

/// One asks for a model that another one unloads.
fn hit_and_unload(bug: Bug) -> Seen {
    plant(bug);
    let seen = Seen::default();
    let counted = seen.clone();
    loom::model(move || {
        let (shell, seen) = (shell(Policy::Lru, FOREVER), counted.clone());
        let (handle, dropped) = load(&shell, "m");
        drop(handle);
        let asks = {
            let (shell, seen) = (shell.clone(), seen.clone());
            thread::spawn(move || match shell.get::<Weights>("m").unwrap() {
                Some(handle) => {
                    use_it(&handle);
                    thread::yield_now();
                    use_it(&handle);
                    true
                }
                None => {
                    seen.note("missed");
                    false
                }
            })
        };
        let unloaded = shell.unload("m");
        let dropped_before = dropped.load(SeqCst);
        let hit = asks.join().unwrap();
        match unloaded {
            Ok(()) => {
                assert_eq!(dropped_before, 1);
                seen.note(if hit { "used, then unloaded" } else { "unloaded" });
                assert!(shell.get::<Weights>("m").unwrap().is_none());
            }
            Err(UnloadError::InUse { handles, .. }) => {
                assert_eq!((handles, hit), (1, true));
                seen.note("in use");
                assert_eq!(shell.unload("m"), Ok(()), "it is not for ever");
            }
            Err(error) => panic!("{error}"),
        }
        assert_eq!(dropped.load(SeqCst), 1);
    });
    seen
}

#[test]
fn who_has_a_model_keeps_it() {
    hit_and_unload(Bug::None).all(&["missed", "used, then unloaded", "unloaded", "in use"]);
}

#[test]
#[should_panic(expected = "closed")]
fn planted_closing_in_two_steps_is_found() {
    hit_and_unload(Bug::LooksThenCloses);
}

/// One takes a model whose room another one needs.
fn hit_and_evict(bug: Bug) -> Seen {
    plant(bug);
    let seen = Seen::default();
    let counted = seen.clone();
    loom::model(move || {
        let (shell, seen) = (shell(Policy::Lru, FOREVER), counted.clone());
        let (handle, dropped) = load(&shell, "old");
        drop(handle);
        let taken = {
            let shell = shell.clone();
            thread::spawn(move || shell.get::<Weights>("old").unwrap().inspect(use_it))
        };
        let begun = shell.begin::<Weights>("new", Wish { bytes: Some(60), ..Wish::default() }, None);
        let taken = taken.join().unwrap();
        match begun {
            Ok(Begin::Load(_)) => {
                assert!(taken.is_none(), "both have room");
                assert_eq!(dropped.load(SeqCst), 1, "the room is there before the load");
                seen.note("evicted");
            }
            Err(LoadError::OverBudget { source, .. }) => {
                assert_eq!(source.pinned, 60);
                use_it(taken.as_ref().expect("only who has it keeps its room"));
                seen.note("in use");
            }
            _ => panic!("neither room nor none"),
        }
    });
    seen
}

#[test]
fn room_is_made_only_of_what_nobody_has() {
    hit_and_evict(Bug::None).all(&["evicted", "in use"]);
}

#[test]
#[should_panic(expected = "closed")]
fn planted_evicting_in_two_steps_is_found() {
    hit_and_evict(Bug::LooksThenCloses);
}

/// Two ask for a model that is not there; it goes with its last handle, and the timer looks at any time.
fn single_flight(bug: Bug, asks_the_shelf: bool) -> Seen {
    plant(bug);
    let seen = Seen::default();
    let counted = seen.clone();
    loom::model(move || {
        let (shell, seen) = (shell(Policy::Lru, Duration::ZERO), counted.clone());
        let loads = Arc::new(AtomicUsize::new(0));
        let ask = {
            let (shell, seen, loads) = (shell.clone(), seen.clone(), loads.clone());
            move || match shell.begin::<Weights>("m", Wish::default(), None).unwrap_or_else(|error| panic!("{error}")) {
                Begin::Have(handle) => {
                    use_it(&handle);
                    seen.note("hit");
                }
                Begin::Wait(flight) => {
                    let Landed::Loaded(handle) = flight.wait::<Weights>() else { panic!("it was loaded") };
                    let handle = if asks_the_shelf {
                        drop(handle);
                        drop(flight);
                        shell.get::<Weights>("m").unwrap().expect("what was waited for is gone")
                    } else {
                        handle
                    };
                    use_it(&handle);
                    seen.note("waited");
                }
                Begin::Load(loading) => {
                    loads.fetch_add(1, SeqCst);
                    let weights = Weights { dropped: Arc::default() };
                    let handle = loading.land(weights, 60, Device::CPU).unwrap();
                    use_it(&handle);
                    seen.note("loaded");
                }
            }
        };
        let other = thread::spawn(ask.clone());
        ask();
        shell.sweep();
        other.join().unwrap();
        match loads.load(SeqCst) {
            1 => seen.note("one load"),
            // It was gone before the second asked.
            loads => assert_eq!(loads, 2),
        }
        assert!(shell.alarm().has_rung() || shell.seen().models.is_empty(), "nobody will look at the idle model");
        shell.sweep();
        assert!(shell.seen().models.is_empty());
    });
    seen
}

#[test]
fn a_model_is_loaded_once_for_all_who_wait() {
    single_flight(Bug::None, false).all(&["loaded", "hit", "waited", "one load"]);
}

#[test]
#[should_panic(expected = "slept through the event")]
fn planted_listening_late_is_found() {
    single_flight(Bug::ListensLate, false);
}

#[test]
#[should_panic(expected = "what was waited for is gone")]
fn planted_looking_for_what_was_waited_for_is_found() {
    single_flight(Bug::None, true);
}

/// Who loads gives up; another one asks at any time.
#[test]
fn a_load_that_is_given_up_is_taken_over() {
    plant(Bug::None);
    let seen = Seen::default();
    let counted = seen.clone();
    loom::model(move || {
        let (shell, seen) = (shell(Policy::Lru, FOREVER), counted.clone());
        let Ok(Begin::Load(loading)) = shell.begin::<Weights>("m", Wish::default(), None) else { panic!("alone") };
        let other = {
            let (shell, seen) = (shell.clone(), seen.clone());
            thread::spawn(move || {
                loop {
                    match shell.begin::<Weights>("m", Wish::default(), None).unwrap_or_else(|error| panic!("{error}")) {
                        Begin::Have(_) => panic!("nobody has loaded it"),
                        Begin::Wait(flight) => {
                            assert!(matches!(flight.wait::<Weights>(), Landed::Abandoned));
                            seen.note("waited");
                        }
                        Begin::Load(loading) => {
                            let weights = Weights { dropped: Arc::default() };
                            break drop(loading.land(weights, 60, Device::CPU).unwrap());
                        }
                    }
                }
            })
        };
        drop(loading);
        other.join().unwrap();
        seen.note("taken over");
        assert_eq!(shell.seen().counts.loads, 1);
        assert_eq!(shell.seen().counts.abandoned, 1);
    });
    seen.all(&["waited", "taken over"]);
}

/// Two drop the last handles at once: one of them tells the timer.
#[test]
fn the_last_handle_tells_the_timer() {
    plant(Bug::None);
    let seen = Seen::default();
    let counted = seen.clone();
    loom::model(move || {
        let (shell, seen) = (shell(Policy::Lru, Duration::ZERO), counted.clone());
        let (first, _) = load(&shell, "m");
        let second = first.clone();
        let other = thread::spawn(move || drop(first));
        drop(second);
        if shell.alarm().has_rung() {
            seen.note("rung by the first thread");
            other.join().unwrap();
        } else {
            other.join().unwrap();
            assert!(shell.alarm().has_rung(), "nobody tells the timer");
            seen.note("rung by the second thread");
        }
        assert_eq!(shell.sweep(), (1, None));
    });
    seen.all(&["rung by the first thread", "rung by the second thread"]);
}

/// The twin: each looks whether its share is the last before it gives it back.
#[test]
#[should_panic(expected = "nobody tells the timer")]
fn planted_looking_before_giving_back_is_found() {
    plant(Bug::None);
    loom::model(|| {
        let owner = crate::stand_in::Arc::new(());
        let rung = Arc::new(AtomicBool::new(false));
        let give_back = |share: crate::stand_in::Arc<()>, rung: &AtomicBool| {
            if crate::stand_in::Arc::strong_count(&share) == 2 {
                rung.store(true, SeqCst);
            }
            drop(share);
        };
        let (first, second, theirs) = (owner.clone(), owner.clone(), rung.clone());
        let other = thread::spawn(move || give_back(first, &theirs));
        give_back(second, &rung);
        other.join().unwrap();
        assert!(rung.load(SeqCst), "nobody tells the timer");
    });
}

/// Whoever sees that a model is idle sees since when: it is not unloaded before its time.
fn idle_since(bug: Bug) -> Seen {
    plant(bug);
    let seen = Seen::default();
    let counted = seen.clone();
    loom::model(move || {
        let (shell, seen) = (shell(Policy::Lru, FOREVER), counted.clone());
        let (handle, _) = load(&shell, "m");
        let loaded_at = shell.seen().now;
        while shell.seen().now == loaded_at {}
        let user = thread::spawn(move || drop(handle));
        for (entry, _) in shell.seen().models {
            let crate::cache::Phase::Resident { usage, .. } = entry.phase else { panic!("loaded") };
            if usage.handles == 0 {
                assert!(usage.idle_since > loaded_at, "idle, and since before it was used");
                seen.note("idle");
            } else {
                seen.note("in use");
            }
        }
        user.join().unwrap();
    });
    seen
}

#[test]
fn who_sees_it_idle_sees_since_when() {
    idle_since(Bug::None).all(&["idle", "in use"]);
}

#[test]
#[should_panic(expected = "since before it was used")]
fn planted_missing_fence_is_found() {
    idle_since(Bug::NoFence);
}
