//! FR-002, SC-006: idle models go by themselves; a model in use never does.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use tensorbus_registry::{KeepAlive, Model, ModelRegistry, ModelState, Policy, UnloadError};

use crate::support::{Maker, Noted, PATIENCE, until};

#[test]
fn an_idle_model_is_unloaded_after_its_time() {
    let ttl = Duration::from_millis(200);
    let registry = ModelRegistry::builder().ttl(ttl).build();
    let (maker, told) = Maker::new();
    let handle = registry.get_or_load_blocking("m", || maker.make("m", 1)).unwrap();
    let second = handle.clone();
    drop(handle);
    assert!(told.recv_timeout(2 * ttl).is_err(), "in use");
    assert_eq!(registry.list()[0].state, ModelState::InUse);
    let released = std::time::Instant::now();
    drop(second);
    assert_eq!(registry.list()[0].state, ModelState::Idle);
    assert_eq!(told.recv_timeout(PATIENCE), Ok("m"));
    assert!(released.elapsed() >= ttl, "not before its time");
    assert!(registry.list().is_empty() && registry.get::<Noted>("m").unwrap().is_none());
    assert_eq!(registry.metrics().expired, 1);
}

#[test]
fn using_a_model_again_gives_it_its_time_again() {
    let registry = ModelRegistry::builder().ttl(Duration::from_secs(1)).build();
    let (maker, told) = Maker::new();
    drop(registry.get_or_load_blocking("m", || maker.make("m", 1)).unwrap());
    for _ in 0..4 {
        assert!(told.recv_timeout(Duration::from_millis(100)).is_err());
        drop(registry.get::<Noted>("m").unwrap().expect("still there"));
    }
    assert_eq!(told.recv_timeout(PATIENCE), Ok("m"));
    assert_eq!(maker.made(), 1);
}

#[test]
fn each_model_has_its_own_time() {
    let registry = ModelRegistry::builder().ttl(Duration::from_secs(3600)).build();
    let (maker, told) = Maker::new();
    let names = ["short", "long", "forever", "zero"];
    let times: [KeepAlive; 4] =
        [Duration::from_millis(50).into(), Duration::from_secs(3600).into(), KeepAlive::Forever, Duration::ZERO.into()];
    for (name, time) in names.into_iter().zip(times) {
        drop(registry.entry(name).keep_alive(time).get_or_load_blocking(|| maker.make(name, 1)).unwrap());
    }
    let mut gone = [told.recv_timeout(PATIENCE).unwrap(), told.recv_timeout(PATIENCE).unwrap()];
    gone.sort_unstable();
    assert_eq!(gone, ["short", "zero"]);
    assert!(registry.keep_alive("forever", Duration::ZERO));
    assert_eq!(told.recv_timeout(PATIENCE), Ok("forever"), "a new time holds at once");
    assert!(!registry.keep_alive("short", Duration::ZERO), "it is not there");
    assert_eq!(registry.list().len(), 1);
}

#[test]
fn a_pinned_model_stays_until_it_is_unpinned() {
    let registry = ModelRegistry::builder().ttl(Duration::from_millis(20)).build();
    let (maker, told) = Maker::new();
    drop(registry.entry("m").pinned().get_or_load_blocking(|| maker.make("m", 1)).unwrap());
    assert!(told.recv_timeout(Duration::from_millis(200)).is_err());
    assert_eq!(registry.unload("m"), Err(UnloadError::Pinned { key: "m".to_owned() }));
    assert_eq!((registry.clear(), registry.evict_expired()), (0, 0));
    assert!(registry.unpin("m"));
    assert_eq!(told.recv_timeout(PATIENCE), Ok("m"));
}

#[test]
fn times_without_end_are_no_trouble() {
    let registry = ModelRegistry::builder().ttl(Duration::MAX).build();
    let (maker, told) = Maker::new();
    let handle = registry.get_or_load_blocking("m", || maker.make("m", u64::MAX)).unwrap();
    let other = registry.get_or_load_blocking("n", || maker.make("n", u64::MAX)).unwrap();
    assert_eq!(registry.metrics().bytes, u64::MAX);
    drop((handle, other));
    assert!(registry.keep_alive("m", Duration::MAX));
    assert!(registry.keep_alive("n", Duration::ZERO));
    assert_eq!(told.recv_timeout(PATIENCE), Ok("n"));
    assert_eq!(registry.list().len(), 1);
}

#[test]
fn unloading_by_hand() {
    let registry = ModelRegistry::builder().policy(Policy::Manual).ttl(Duration::ZERO).build();
    let (maker, told) = Maker::new();
    let handle = registry.get_or_load_blocking("a", || maker.make("a", 1)).unwrap();
    drop(registry.get_or_load_blocking("b", || maker.make("b", 1)).unwrap());
    assert!(told.recv_timeout(Duration::from_millis(100)).is_err(), "nothing goes by itself");
    assert_eq!(registry.unload("a"), Err(UnloadError::InUse { key: "a".to_owned(), handles: 1 }));
    assert_eq!(registry.unload("c"), Err(UnloadError::NotLoaded { key: "c".to_owned() }));
    assert_eq!(registry.clear(), 1);
    assert_eq!(told.try_recv(), Ok("b"));
    drop(handle);
    assert_eq!(registry.unload("a"), Ok(()));
    assert_eq!(told.try_recv(), Ok("a"), "dropped when unload returns");
    assert_eq!(registry.metrics().unloaded, 2);
}

#[test]
fn handles_outlive_the_registry() {
    let registry = ModelRegistry::new();
    let (maker, told) = Maker::new();
    let handle = registry.get_or_load_blocking("used", || maker.make("used", 9)).unwrap();
    drop(registry.get_or_load_blocking("idle", || maker.make("idle", 9)).unwrap());
    drop(registry);
    assert_eq!(told.try_recv(), Ok("idle"));
    assert_eq!(handle.bytes, 9);
    drop(handle);
    assert_eq!(told.try_recv(), Ok("used"));
}

/// A destructor that waits until it is let go.
struct Slow(Mutex<mpsc::Receiver<()>>, mpsc::Sender<()>);

impl Model for Slow {
    fn memory_bytes(&self) -> u64 {
        1
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.1.send(());
        let _ = self.0.lock().unwrap().recv_timeout(PATIENCE);
    }
}

#[test]
fn a_slow_destructor_keeps_nobody_waiting() {
    let registry = ModelRegistry::new();
    let (maker, _told) = Maker::new();
    let ((go, let_go), (begun, has_begun)) = (mpsc::channel(), mpsc::channel());
    let make = || Ok::<_, std::io::Error>(Slow(Mutex::new(let_go), begun));
    drop(registry.get_or_load_blocking("slow", make).unwrap());
    std::thread::scope(|scope| {
        let unload = scope.spawn(|| registry.unload("slow"));
        has_begun.recv_timeout(PATIENCE).unwrap();
        drop(registry.get_or_load_blocking("m", || maker.make("m", 1)).unwrap());
        assert!(registry.get::<Noted>("m").unwrap().is_some());
        assert_eq!(registry.list().len(), 1);
        registry.unload("m").unwrap();
        go.send(()).unwrap();
        unload.join().unwrap().unwrap();
    });
}

struct Panics;

impl Model for Panics {
    fn memory_bytes(&self) -> u64 {
        1
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        panic!("in a destructor");
    }
}

#[test]
fn a_destructor_that_panics_is_counted() {
    let registry = ModelRegistry::builder().ttl(Duration::ZERO).build();
    let (maker, told) = Maker::new();
    drop(registry.get_or_load_blocking("panics", || Ok::<_, std::io::Error>(Panics)).unwrap());
    until("the timer unloads it", || registry.metrics().failed_drops == 1);
    drop(registry.get_or_load_blocking("m", || maker.make("m", 1)).unwrap());
    assert_eq!(told.recv_timeout(PATIENCE), Ok("m"), "the timer lives");
    assert_eq!(registry.metrics().bytes, 0);
}

/// A model that uses the registry that it is in, even when it is dropped.
struct Nested(ModelRegistry);

impl Model for Nested {
    fn memory_bytes(&self) -> u64 {
        self.0.metrics().bytes
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        self.0.clear();
        drop(self.0.list());
    }
}

#[test]
fn a_model_may_use_its_registry() {
    let registry = ModelRegistry::builder().ttl(Duration::ZERO).build();
    drop(registry.get_or_load_blocking("n", || Ok::<_, std::io::Error>(Nested(registry.clone()))).unwrap());
    until("it goes", || registry.list().is_empty());
}

#[test]
fn threads_that_take_drop_and_unload_agree() {
    let registry = ModelRegistry::builder().ttl(Duration::ZERO).memory_budget(2).build();
    let (maker, told) = Maker::new();
    std::thread::scope(|scope| {
        for seed in 0..4_usize {
            let (registry, maker) = (&registry, &maker);
            scope.spawn(move || {
                for turn in 0..2000_usize {
                    let key = ["a", "b", "c"][(seed + turn * 7) % 3];
                    match registry.entry(key).bytes(1).get_or_load_blocking(|| maker.make(key, 1)) {
                        Ok(handle) => assert_eq!(handle.name, key),
                        Err(tensorbus_registry::LoadError::OverBudget { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    match turn % 5 {
                        0 => drop(registry.unload(key)),
                        1 => drop(registry.get::<Noted>(key).unwrap()),
                        2 => drop(registry.clear()),
                        _ => {}
                    }
                }
            });
        }
    });
    registry.clear();
    until("all are gone", || registry.list().is_empty());
    drop(registry);
    let metrics_made = maker.made();
    drop(maker);
    assert_eq!(told.iter().count(), metrics_made, "each model was dropped once");
}
