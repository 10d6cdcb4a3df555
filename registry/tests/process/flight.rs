//! FR-001: concurrent requests load once; errors, panics and cancellation reach or harm nobody wrongly.

use std::future::pending;
use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use tensorbus_registry::{KeepAlive, KeyError, LoadError, Measured, ModelRegistry, ModelState};

use crate::support::{Maker, Noted, PATIENCE, until};

type Number = Measured<u64>;

fn number(value: u64) -> Result<Number, Error> {
    Ok(Measured::new(value, 8))
}

#[test]
fn threads_that_ask_at_once_load_once_and_get_one_instance() {
    const THREADS: usize = 32;
    let registry = ModelRegistry::new();
    let (maker, _told) = Maker::new();
    let barrier = Barrier::new(THREADS);
    let addresses: Vec<usize> = std::thread::scope(|scope| {
        let ask = || {
            barrier.wait();
            let load = || {
                until("all wait", || registry.metrics().waits == THREADS as u64 - 1);
                maker.make("m", 10)
            };
            let handle = registry.get_or_load_blocking("m", load).unwrap();
            std::ptr::from_ref::<Noted>(&handle).addr()
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(maker.made(), 1);
    assert!(addresses.iter().all(|address| *address == addresses[0]));
    let metrics = registry.metrics();
    assert_eq!((metrics.loads, metrics.misses, metrics.waits, metrics.hits), (1, 1, THREADS as u64 - 1, 0));
    assert_eq!(registry.list()[0].uses, THREADS as u64);
}

/// FR-003: any thread, any runtime.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_and_threads_share_one_load() {
    let registry = ModelRegistry::new();
    let loads = Arc::new(AtomicUsize::new(0));
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let loader = {
        let (registry, loads) = (registry.clone(), loads.clone());
        tokio::spawn(async move {
            let load = || async move {
                loads.fetch_add(1, Ordering::SeqCst);
                released.await.unwrap();
                number(7)
            };
            registry.get_or_load::<Number, _, _, _>("n", load).await
        })
    };
    until("the load begins", || registry.metrics().misses == 1);
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let registry = registry.clone();
            tokio::spawn(async move { registry.get_or_load::<Number, _, _, _>("n", || async { number(0) }).await })
        })
        .collect();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let registry = registry.clone();
            std::thread::spawn(move || registry.get_or_load_blocking::<Number, _, _>("n", || number(0)))
        })
        .collect();
    until("all wait", || registry.metrics().waits == 58);
    release.send(()).unwrap();
    assert_eq!(**loader.await.unwrap().unwrap(), 7);
    for task in tasks {
        assert_eq!(**task.await.unwrap().unwrap(), 7);
    }
    for thread in threads {
        assert_eq!(**thread.join().unwrap().unwrap(), 7);
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[test]
fn an_error_reaches_all_who_wait_and_the_key_can_be_tried_at_once() {
    let registry = ModelRegistry::new();
    let fail = || {
        until("one waits", || registry.metrics().waits == 1);
        Err::<Number, _>(Error::new(ErrorKind::NotFound, "no such file"))
    };
    std::thread::scope(|scope| {
        let loader = scope.spawn(|| registry.get_or_load_blocking("n", fail).unwrap_err());
        until("the load begins", || registry.metrics().misses == 1);
        let waiter = scope.spawn(|| registry.get_or_load_blocking("n", || number(1)).unwrap_err());
        for error in [loader.join().unwrap(), waiter.join().unwrap()] {
            let LoadError::Failed { key, reason } = &error else { panic!("{error}") };
            assert_eq!(key, "n");
            assert_eq!(reason.downcast_ref::<Error>().unwrap().kind(), ErrorKind::NotFound);
        }
    });
    let failed = &registry.list()[0];
    assert_eq!(failed.state, ModelState::Failed);
    assert!(failed.failure.as_ref().unwrap().contains("no such file"));
    assert_eq!(**registry.get_or_load_blocking("n", || number(2)).unwrap(), 2);
    assert_eq!(registry.list()[0].failure, None);
}

#[test]
fn a_panic_reaches_all_who_wait_and_the_key_can_be_tried_at_once() {
    let registry = ModelRegistry::new();
    let fail = || -> Result<Number, Error> {
        until("one waits", || registry.metrics().waits == 1);
        panic!("out of luck")
    };
    std::thread::scope(|scope| {
        let loader = scope.spawn(|| registry.get_or_load_blocking("n", fail).unwrap_err());
        until("the load begins", || registry.metrics().misses == 1);
        let waiter = scope.spawn(|| registry.get_or_load_blocking("n", || number(1)).unwrap_err());
        for error in [loader.join().unwrap(), waiter.join().unwrap()] {
            assert!(matches!(&error, LoadError::Panicked { message, .. } if message == "out of luck"), "{error}");
        }
    });
    assert_eq!(**registry.get_or_load_blocking("n", || number(2)).unwrap(), 2);
}

#[tokio::test]
async fn an_async_panic_is_an_error() {
    let registry = ModelRegistry::new();
    let load = || async { if true { panic!("at {}", 1) } else { number(1) } };
    let error = registry.get_or_load::<Number, _, _, _>("n", load).await.unwrap_err();
    assert!(matches!(&error, LoadError::Panicked { message, .. } if message == "at 1"), "{error}");
    assert_eq!(registry.metrics().failures, 1);
}

#[tokio::test]
async fn a_load_that_is_cancelled_is_taken_over_by_one_who_waits() {
    let registry = ModelRegistry::new();
    let loader = {
        let registry = registry.clone();
        tokio::spawn(async move {
            let load = || async {
                pending::<()>().await;
                number(0)
            };
            registry.get_or_load::<Number, _, _, _>("n", load).await
        })
    };
    while registry.metrics().misses == 0 {
        tokio::task::yield_now().await;
    }
    let waiters: Vec<_> = (1..=5)
        .map(|value| {
            let registry = registry.clone();
            tokio::spawn(
                async move { registry.get_or_load::<Number, _, _, _>("n", || async move { number(value) }).await },
            )
        })
        .collect();
    while registry.metrics().waits < 5 {
        tokio::task::yield_now().await;
    }
    loader.abort();
    let mut values = Vec::new();
    for waiter in waiters {
        values.push(**waiter.await.unwrap().unwrap());
    }
    assert!(values.iter().all(|value| *value == values[0] && *value > 0), "{values:?}");
    let metrics = registry.metrics();
    assert_eq!((metrics.cancelled, metrics.loads), (1, 1));
}

#[tokio::test]
async fn a_waiter_that_is_cancelled_harms_nobody() {
    let registry = ModelRegistry::new();
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let load = || async {
        released.await.unwrap();
        number(3)
    };
    let loader = registry.get_or_load::<Number, _, _, _>("n", load);
    let waiters = async {
        let waiter = || registry.get_or_load::<Number, _, _, _>("n", || async { number(0) });
        let gave_up = tokio::time::timeout(Duration::from_millis(10), waiter()).await;
        assert!(gave_up.is_err());
        let (patient, ()) = tokio::join!(waiter(), async { release.send(()).unwrap() });
        **patient.unwrap()
    };
    let (loaded, waited) = tokio::join!(loader, waiters);
    assert_eq!((**loaded.unwrap(), waited), (3, 3));
    assert_eq!(registry.metrics().loads, 1);
}

/// Even if it is to go with its last handle: who waited gets the model that they waited for.
#[test]
fn who_waits_gets_the_model_however_soon_it_would_go() {
    let registry = ModelRegistry::builder().ttl(Duration::ZERO).build();
    let (maker, told) = Maker::new();
    let waiting = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let ask = || {
            let load = || {
                until("all wait", || registry.metrics().waits == 7);
                maker.make("m", 1)
            };
            waiting.fetch_add(1, Ordering::SeqCst);
            drop(registry.get_or_load_blocking("m", load).unwrap());
        };
        (0..8).for_each(|_| drop(scope.spawn(ask)));
    });
    assert_eq!(maker.made(), 1);
    assert_eq!(told.recv_timeout(PATIENCE), Ok("m"), "unloaded with its last handle");
}

#[test]
fn a_key_has_one_type() {
    let registry = ModelRegistry::new();
    let held = registry.get_or_load_blocking("n", || number(1)).unwrap();
    let other = || Ok::<_, Error>(Measured::new("text", 4));
    let error = registry.get_or_load_blocking("n", other).unwrap_err();
    assert!(matches!(&error, LoadError::WrongType(wrong) if wrong.loaded.contains("u64")), "{error}");
    assert!(registry.get::<Measured<&str>>("n").is_err());
    assert!(registry.get::<Number>("n").unwrap().is_some());
    drop(held);
    registry.unload("n").unwrap();
    assert_eq!(**registry.get_or_load_blocking("n", other).unwrap(), "text", "once it is gone the key is free");
}

#[test]
fn a_key_that_is_being_loaded_has_one_type() {
    let registry = ModelRegistry::new();
    let (release, released) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let load = move || {
            released.recv_timeout(PATIENCE).unwrap();
            number(1)
        };
        let asked = &registry;
        let loader = scope.spawn(move || asked.get_or_load_blocking("n", load));
        until("the load begins", || registry.metrics().misses == 1);
        let error = registry.get_or_load_blocking("n", || Ok::<_, Error>(Measured::new("text", 4))).unwrap_err();
        assert!(matches!(error, LoadError::WrongType(_)), "{error}");
        release.send(()).unwrap();
        assert_eq!(**loader.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn a_loader_that_asks_for_its_own_model_is_told() {
    let registry = ModelRegistry::new();
    let load = || registry.get_or_load_blocking("n", || number(1)).map(|inner| Measured::new(**inner, 8));
    let error = registry.get_or_load_blocking::<Number, _, _>("n", load).unwrap_err();
    assert!(error.to_string().contains("asks for the same model"), "{error}");
    let nested = || {
        let inner = registry.get_or_load_blocking("inner", || number(5))?;
        Ok::<_, LoadError>(Measured::new(**inner + 1, 8))
    };
    assert_eq!(**registry.get_or_load_blocking("outer", nested).unwrap(), 6, "another model is no recursion");
}

#[test]
fn keys_that_are_not_legal_are_refused() {
    let registry = ModelRegistry::new();
    let ask = |key: &str| registry.get_or_load_blocking(key, || number(1)).map(drop);
    assert!(matches!(ask(""), Err(LoadError::Key(KeyError::Empty))));
    assert!(matches!(ask(&"k".repeat(4096)), Err(LoadError::Key(KeyError::TooLong { bytes: 4096 }))));
    assert!(matches!(ask("a\nb"), Err(LoadError::Key(KeyError::Control { character: '\n' }))));
    assert!(ask("modèle/1:fp16").is_ok());
    assert_eq!(registry.metrics().misses, 1);
}

#[test]
fn a_threads_wait_takes_no_processor_time() {
    let registry = ModelRegistry::new();
    let (release, released) = mpsc::channel::<()>();
    let wait = Duration::from_millis(300);
    std::thread::scope(|scope| {
        let load = move || {
            released.recv_timeout(PATIENCE).unwrap();
            number(1)
        };
        let asked = &registry;
        let loader = scope.spawn(move || asked.get_or_load_blocking("n", load).map(drop));
        until("the load begins", || registry.metrics().misses == 1);
        let waiter = scope.spawn(|| {
            let time = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            let before = time();
            drop(registry.get_or_load_blocking("n", || number(0)).unwrap());
            let after = time();
            Duration::new((after.tv_sec - before.tv_sec) as u64, 0) + Duration::from_nanos(after.tv_nsec as u64)
                - Duration::from_nanos(before.tv_nsec as u64)
        });
        until("one waits", || registry.metrics().waits == 1);
        std::thread::sleep(wait);
        release.send(()).unwrap();
        let used = waiter.join().unwrap();
        assert!(used < wait / 10, "a wait of {wait:?} took {used:?} of processor time");
        loader.join().unwrap().unwrap();
    });
}

#[test]
fn keep_alive_can_be_given_with_the_request() {
    let registry = ModelRegistry::new();
    let entry = registry.entry("n").keep_alive(KeepAlive::Forever).pinned();
    drop(entry.get_or_load_blocking(|| number(1)).unwrap());
    let info = &registry.list()[0];
    assert_eq!((info.state, info.keep_alive, info.pinned), (ModelState::Loaded, KeepAlive::Forever, true));
}

#[test]
fn a_wait_can_have_a_bound() {
    let registry = ModelRegistry::new();
    let (release, released) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let load = move || {
            released.recv_timeout(PATIENCE).unwrap();
            number(1)
        };
        let asked = &registry;
        let loader = scope.spawn(move || asked.get_or_load_blocking("n", load).map(drop));
        until("the load begins", || registry.metrics().misses == 1);
        let bound = |time| registry.entry("n").wait_at_most(time);
        let error = bound(Duration::from_millis(20)).get_or_load_blocking(|| number(0)).unwrap_err();
        assert!(matches!(error, LoadError::Timeout { .. }), "{error}");
        release.send(()).unwrap();
        assert_eq!(**bound(Duration::MAX).get_or_load_blocking(|| number(0)).unwrap(), 1);
        loader.join().unwrap().unwrap();
    });
}

/// An error that asks the registry that it came from.
#[derive(Debug)]
struct Curious(ModelRegistry);

impl std::fmt::Display for Curious {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} misses", self.0.metrics().misses)
    }
}

impl std::error::Error for Curious {}

#[test]
fn an_error_may_use_its_registry() {
    let registry = ModelRegistry::new();
    let fail = || Err::<Number, _>(Curious(registry.clone()));
    let error = registry.get_or_load_blocking("n", fail).unwrap_err();
    assert!(error.to_string().ends_with("1 misses"), "{error}");
}
