//! Threads of one process share everything that a bus lets them share, and a second process takes part: for a checker of
//! data races to watch (`ci/tsan`). It checks that every message arrives whole and once (FR-005).
//!
//! What the checker can see are accesses by threads of one process to the same address: that each port of iceoryx2, whose
//! state is shared by counts that are not atomic, is used under one lock, and all that is kept beside it. Two sides of a queue
//! map it at two addresses: their order is iceoryx2's, and for the bells loom's (`models/`).
#![allow(clippy::unwrap_used, reason = "what fails here fails the run")]

#[path = "../node/sealed.rs"]
mod sealed;

use std::cell::UnsafeCell;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tensorbus::prelude::*;
use tensorbus::{LoanError, ReceiveError, RequestLoanError, RingClient, RingWorker, TakeError};

const PATIENCE: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_millis(1);
/// Messages that each publishing thread sends. `TENSORBUS_ROUNDS` sets another number.
const ROUNDS: usize = 400;
/// Threads that share a port.
const SHARING: usize = 2;
/// Publishers: two here, whose threads share them, and one in the other process.
const PUBLISHED: usize = 2 * SHARING + 1;
/// One in so many requests to a ring is withdrawn.
const WITHDRAWN: usize = 16;
/// Subscribers: two here, one in the other process.
const SUBSCRIBERS: usize = 3;
/// Numbers in a tensor at most.
const LEN: usize = 300;

fn main() {
    let rounds = std::env::var("TENSORBUS_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    match std::env::args().nth(1).as_deref() {
        None => stress(rounds),
        Some("peer") => peer(rounds),
        Some("planted") => planted(),
        Some(other) => panic!("no role {other}"),
    }
}

/// All at the same time, on one bus.
fn stress(rounds: usize) {
    let session = format!("stress-{}", std::process::id());
    let bus = Bus::builder().session(&session).service_thread(SHORT).open().unwrap();
    let mut other = Command::new(std::env::current_exe().unwrap())
        .arg("peer")
        .env("TENSORBUS_SESSION", &session)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(other.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let busy = [
            scope.spawn(|| messages(&bus, rounds)),
            scope.spawn(|| (0..SHARING).for_each(|_| come_and_go(&bus, rounds / 20))),
            scope.spawn(|| come_and_go(&bus, rounds / 20)),
            scope.spawn(|| ping_pong(&bus, rounds)),
            scope.spawn(|| questions(&bus, rounds)),
            scope.spawn(|| rings(&bus, rounds)),
        ];
        scope.spawn(|| look_around(&bus, &done));
        let ended = busy.map(|thread| thread.join());
        done.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    assert!(other.wait().unwrap().success(), "the other process failed");
    let directory = bus.directory().to_owned();
    drop(bus);
    assert!(!directory.exists(), "{} is left behind", directory.display());
    println!("{} messages arrived whole at each of {SUBSCRIBERS} subscribers", PUBLISHED * rounds);
}

/// The other process: one subscriber and one publisher more.
fn peer(rounds: usize) {
    let bus = Bus::open().unwrap();
    let subscriber = numbers(&bus).subscriber().unwrap();
    let publisher = numbers(&bus).slot_bytes(LEN * 8).publisher().unwrap();
    println!("ready");
    std::thread::scope(|scope| {
        scope.spawn(|| publish(&publisher, rounds));
        receive_all(&subscriber, PUBLISHED * rounds);
    });
    publisher.drain(PATIENCE).unwrap();
}

fn numbers(bus: &Bus) -> tensorbus::TopicBuilder {
    bus.topic("numbers").overflow(Overflow::Block(PATIENCE)).depth(4).max_borrowed(8).slots(64)
}

/// Publishers and subscribers that threads share; what is received goes to another thread, which looks at it and drops it.
fn messages(bus: &Bus, rounds: usize) {
    let subscribers = [numbers(bus).subscriber().unwrap(), numbers(bus).spin(Duration::ZERO).subscriber().unwrap()];
    let fixed = numbers(bus).slot_bytes(LEN * 8).publisher().unwrap();
    let growing = numbers(bus).max_slot_bytes(LEN * 8).publisher().unwrap();
    std::thread::scope(|scope| {
        for publisher in [&fixed, &growing] {
            (0..SHARING).for_each(|_| drop(scope.spawn(|| publish(publisher, rounds))));
        }
        for subscriber in &subscribers {
            scope.spawn(|| receive_all(subscriber, PUBLISHED * rounds));
        }
    });
    for publisher in [&fixed, &growing] {
        let stats = publisher.stats();
        assert_eq!((stats.published, stats.failed, stats.refused), ((SHARING * rounds) as u64, 0, 0));
    }
}

fn publish(publisher: &Publisher, rounds: usize) {
    publisher.wait_for_subscribers(SUBSCRIBERS, PATIENCE).unwrap();
    for number in 0..rounds {
        let mut tensor = loop {
            match publisher.loan(Dtype::U64, &[2 + number % (LEN - 2)]) {
                Ok(tensor) => break tensor,
                Err(LoanError::NoFreeSlot { .. }) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        sealed::seal(tensor.view_mut().unwrap(), number as u64);
        tensor.metadata_mut().set("number", number as i64);
        assert_eq!(tensor.publish().unwrap(), SUBSCRIBERS);
        if number % 50 == 49 {
            publisher.release_unused().unwrap();
        }
    }
}

/// Two threads take messages, a third has clones of their tensors longer than they do.
fn receive_all(subscriber: &Subscriber, count: usize) {
    let received = AtomicUsize::new(0);
    let (sender, tensors) = sync_channel::<Tensor>(2);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for tensor in tensors {
                let number = sealed::opened(tensor.view().unwrap()).expect("a torn message");
                assert_eq!(tensor.message().metadata().get("number"), Some(&(number as i64).into()));
            }
        });
        for sender in [sender.clone(), sender] {
            let received = &received;
            scope.spawn(move || {
                while received.load(Ordering::Relaxed) < count {
                    match subscriber.recv(SHORT) {
                        Ok(message) => {
                            received.fetch_add(1, Ordering::Relaxed);
                            sender.send(message.first().clone()).unwrap();
                            assert!(sealed::opened(message.first().view().unwrap()).is_some(), "a torn message");
                        }
                        Err(ReceiveError::Timeout { .. } | ReceiveError::TooManyHeld { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let stats = subscriber.stats();
    assert_eq!((stats.received, stats.lost, stats.rejected), (count as u64, 0, 0));
}

/// Ports are made and dropped, tensors outlive them.
fn come_and_go(bus: &Bus, rounds: usize) {
    let mut kept = None;
    for number in 0..rounds as u64 {
        let topic = || bus.topic("come-and-go").history(1);
        let subscriber = topic().subscriber().unwrap();
        let publisher = topic().slot_bytes(8).publisher().unwrap();
        publisher.publish_copy(&[number], &[1]).unwrap();
        let message = subscriber.recv(PATIENCE).unwrap();
        drop((subscriber, publisher));
        kept = Some(message.first().clone());
    }
    assert_eq!(kept.map(|tensor| tensor.shape().to_vec()), Some(vec![1]));
}

/// Two threads that sleep until the other one wakes them.
fn ping_pong(bus: &Bus, rounds: usize) {
    let topic = |name| bus.topic(name).spin(Duration::ZERO).slot_bytes(8);
    let (ping, pong) = (topic("ping").publisher().unwrap(), topic("pong").publisher().unwrap());
    let (heard, answered) = (topic("ping").subscriber().unwrap(), topic("pong").subscriber().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..rounds {
                let message = heard.recv(PATIENCE).unwrap();
                pong.publish_copy::<u64>(message.first().view().unwrap(), &[1]).unwrap();
            }
        });
        for number in 0..rounds as u64 {
            ping.publish_copy(&[number], &[1]).unwrap();
            assert_eq!(answered.recv(PATIENCE).unwrap().first().view::<u64>().unwrap(), [number]);
        }
    });
}

/// A server that two threads share, and a client for each of two others.
fn questions(bus: &Bus, rounds: usize) {
    let server = bus.service("questions").server().unwrap();
    let asked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..SHARING {
            scope.spawn(|| {
                while asked.load(Ordering::Relaxed) < SHARING {
                    if let Ok(request) = server.recv(SHORT) {
                        let bytes = request.bytes().to_vec();
                        request.reply(&bytes).unwrap();
                    }
                }
            });
            scope.spawn(|| {
                let mut client = bus.service("questions").client().unwrap();
                for number in 0..rounds {
                    let question = number.to_string().into_bytes();
                    assert_eq!(client.call(&question, PATIENCE).unwrap(), question);
                }
                asked.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
}

/// Two clients that threads share, and workers of one ring, of which some come and go. Requests are written, answered, withdrawn and read by
/// other threads than those that loaned them.
fn rings(bus: &Bus, rounds: usize) {
    let ring = |spin| {
        let ring = bus.ring("ring").input("x", Dtype::U64, &[LEN]).output("y", Dtype::U64, &[LEN]).repeatable();
        ring.rows(12).credits(8).spin(spin)
    };
    let mut staying = ring(Duration::ZERO).worker().unwrap();
    let clients = [ring(SHORT).client().unwrap(), ring(Duration::ZERO).client().unwrap()];
    let (answered, start) = (AtomicUsize::new(0), Instant::now());
    let total = clients.len() * SHARING * (rounds - rounds.div_ceil(WITHDRAWN));
    let is_asked = || answered.load(Ordering::Relaxed) < total && start.elapsed() < PATIENCE;
    std::thread::scope(|scope| {
        for client in &clients {
            let (sender, requests) = sync_channel(2);
            for thread in 0..SHARING {
                let sender = sender.clone();
                scope.spawn(move || ask_ring(client, thread * rounds, rounds, sender));
            }
            let answered = &answered;
            scope.spawn(move || {
                for (request, number) in requests {
                    let request: tensorbus::Pending = request;
                    let answer = request.wait(PATIENCE).unwrap();
                    assert_eq!(sealed::opened(answer.view("y").unwrap()), Some(number + 1), "a torn answer");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            while is_asked() {
                serve_ring(&mut staying, 4);
            }
        });
        // Others leave what they have taken to those who stay.
        scope.spawn(|| {
            while is_asked() {
                let mut worker = ring(SHORT).worker().unwrap();
                (0..20).for_each(|_| serve_ring(&mut worker, 3));
                if let Ok(batch) = worker.take(2, SHORT) {
                    batch.give_back();
                }
            }
        });
        scope.spawn(|| {
            while is_asked() {
                let counts = clients[0].row_counts();
                assert_eq!(counts.damaged, 0);
                assert!(!clients[0].workers().is_empty());
            }
        });
    });
    assert_eq!((answered.into_inner(), clients[0].row_counts().free), (total, 12));
}

/// So many requests, one after the other; some are withdrawn.
fn ask_ring(client: &RingClient, first: usize, rounds: usize, sender: SyncSender<(tensorbus::Pending, u64)>) {
    for number in 0..rounds {
        let mut request = loop {
            match client.loan(PATIENCE) {
                Ok(request) => break request,
                Err(RequestLoanError::NoCredits { .. }) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        let seed = (first + number) as u64;
        sealed::seal(request.view_mut("x").unwrap(), seed);
        let request = request.submit().unwrap();
        if number % WITHDRAWN == 0 {
            drop(request);
        } else {
            sender.send((request, seed)).unwrap();
        }
    }
}

fn serve_ring(worker: &mut RingWorker, max: usize) {
    let mut batch = match worker.take(max, SHORT) {
        Ok(batch) => batch,
        Err(TakeError::Timeout { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    let mut tensors = batch.tensors().unwrap();
    let (x, y) = (tensors.inputs[0].view::<u64>().unwrap(), tensors.outputs[0].view_mut::<u64>().unwrap());
    for (x, y) in x.chunks(LEN).zip(y.chunks_mut(LEN)) {
        sealed::seal(y, sealed::opened(x).expect("a torn request") + 1);
    }
    batch.finish();
}

/// What a janitor and a monitor do.
fn look_around(bus: &Bus, done: &AtomicBool) {
    let mut deaths = bus.deaths().unwrap();
    while !done.load(Ordering::Relaxed) {
        bus.remove_dead().unwrap();
        assert!(bus.topics().unwrap().iter().all(|topic| !topic.name.is_empty()));
        assert!(!bus.members().unwrap().0.is_empty());
        assert!(deaths.recv(SHORT).unwrap().is_none(), "nobody dies here");
    }
}

/// A number that two threads change without a lock: a checker that does not find this finds nothing.
struct Unguarded(UnsafeCell<usize>);

// SAFETY: none. This is the race that must be found.
unsafe impl Sync for Unguarded {}

fn planted() {
    let (number, together) = (Unguarded(UnsafeCell::new(0)), Barrier::new(2));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let Unguarded(number) = &number;
                together.wait();
                for _ in 0..1000 {
                    // SAFETY: the pointer is valid; that two threads write is the race that must be found.
                    unsafe { *number.get() += 1 };
                }
            });
        }
    });
    println!("{}", number.0.into_inner());
}
