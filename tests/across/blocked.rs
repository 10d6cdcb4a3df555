//! FR-018: what goes on while a publisher waits for room (`Overflow::Block`). A receiver in another process is stopped or killed by
//! real signals.

use std::path::Path;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tensorbus::prelude::*;
use tensorbus::{PublishError, Subscriber};

use super::support::{Node, PATIENCE, Session, eventually};

const DEPTH: u64 = 2;
const SLOTS: usize = 8;
/// Longer than any test may take: who waits so long hangs.
const FOR_EVER: Duration = Duration::from_secs(3 * PATIENCE.as_secs());

/// A publisher, a receiver in another process whose queue is full, and a witness that always has room.
struct Scene {
    node: Node,
    witness: Subscriber,
    publisher: Publisher,
    bus: Bus,
    _session: Session,
}

impl Scene {
    /// The receiver plays this role.
    fn new(role: &str, bound: Duration) -> Self {
        let session = Session::new();
        let bus = session.bus();
        let topic = || bus.topic("numbers").depth(DEPTH as usize).history(1).overflow(Overflow::Block(bound));
        let publisher = topic().slots(SLOTS).slot_bytes(8).publisher().unwrap();
        let witness = topic().subscriber().unwrap();
        let node = session.node(role, &[]);
        node.expect("ready");
        let scene = Self { node, witness, publisher, bus, _session: session };
        for number in 0..DEPTH {
            assert_eq!(scene.publisher.publish_copy(&[number], &[1]).unwrap(), 2);
            scene.witness_gets(number);
        }
        scene
    }

    /// With a receiver that has opened its side of the connection, and is stopped.
    fn stopped(bound: Duration) -> Self {
        let scene = Self::new("reader", bound);
        scene.signal(Signal::STOP);
        let status = format!("/proc/{}/status", scene.node.pid());
        eventually("the receiver is stopped", || std::fs::read_to_string(&status).unwrap().contains("State:\tT"));
        scene
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.node.pid() as i32).unwrap(), signal).unwrap();
    }

    fn witness_gets(&self, number: u64) {
        let message = self.witness.recv(PATIENCE).unwrap();
        assert_eq!((message.sequence(), message.lost()), (number, 0), "the witness missed something");
        assert_eq!(message.first().view::<u64>().unwrap(), [number]);
    }

    /// Starts a publish that has to wait for the receiver, and returns once it does.
    fn start_blocked(&self, number: u64) -> JoinHandle<Result<usize, PublishError>> {
        let publisher = self.publisher.clone();
        let (tell, thread) = channel();
        let blocked = std::thread::spawn(move || {
            tell.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
            publisher.publish_copy(&[number], &[1])
        });
        // By then the number is given, and whoever has room has the message.
        self.witness_gets(number);
        let status = Path::new("/proc").join(thread.recv().unwrap()).join("status");
        eventually("the publisher sleeps, or has given up", || {
            let sleeps = std::fs::read_to_string(&status).is_ok_and(|status| status.contains("State:\tS"));
            sleeps || blocked.is_finished()
        });
        blocked
    }

    fn receiver_gets(&mut self, number: u64) {
        self.node.tell("read");
        self.node.expect(&format!("{number} lost 0"));
    }
}

/// Cleaning goes on while a thread of the same process waits in `publish`, and ends the wait.
#[test]
fn a_blocked_publisher_does_not_block_the_janitor() {
    let mut scene = Scene::stopped(FOR_EVER);
    let blocked = scene.start_blocked(DEPTH);
    assert_eq!(scene.bus.remove_dead().unwrap().removed, 0);
    assert!(!blocked.is_finished(), "the receiver is stopped and its queue full: there is nothing to publish to");

    scene.node.kill();
    eventually("the dead receiver is removed", || scene.bus.remove_dead().unwrap().removed == 1);
    eventually("publish ends", || blocked.is_finished());
    assert_eq!(blocked.join().unwrap().unwrap(), 1, "the witness has it, and the dead one is no failure");
    assert_eq!(scene.publisher.stats().refused, 0);
}

#[test]
fn a_wait_for_a_receiver_that_never_looked_ends_when_it_is_cleaned_up() {
    let mut scene = Scene::new("never-looks", FOR_EVER);
    let blocked = scene.start_blocked(DEPTH);
    assert_eq!(scene.bus.remove_dead().unwrap().removed, 0);
    assert!(!blocked.is_finished(), "it is alive and its queue full");
    scene.node.kill();
    eventually("the dead receiver is removed", || scene.bus.remove_dead().unwrap().removed == 1);
    eventually("publish ends", || blocked.is_finished());
    assert_eq!(blocked.join().unwrap().unwrap(), 1);
}

/// Other threads loan, give back, ask and publish to those that have room: each of these calls would take as long as the wait if it
/// had to wait for it.
#[test]
fn a_blocked_publisher_leaves_the_port_to_other_threads() {
    let mut scene = Scene::stopped(FOR_EVER);
    let blocked = scene.start_blocked(DEPTH);
    // Two are queued for the receiver, one waits.
    let loans: Vec<_> =
        (0..SLOTS as u64 - DEPTH - 1).map(|_| scene.publisher.loan(Dtype::U64, &[1]).unwrap()).collect();
    let refused = scene.publisher.loan(Dtype::U64, &[1]).map(drop).unwrap_err();
    assert!(matches!(refused, tensorbus::LoanError::NoFreeSlot { slots: SLOTS, .. }), "{refused}");
    drop(loans);
    assert_eq!(scene.publisher.release_unused().unwrap(), 0);
    assert_eq!(scene.publisher.wait_for_subscribers(2, PATIENCE).unwrap(), 2);
    scene.publisher.drain(PATIENCE).unwrap();
    let stats = scene.publisher.stats();
    assert_eq!((stats.published, stats.failed), (DEPTH, 0), "what waits is not published yet");

    let late = scene.bus.topic("numbers").subscriber().unwrap();
    assert_eq!(scene.publisher.wait_for_subscribers(3, PATIENCE).unwrap(), 3);
    assert_eq!(late.recv(PATIENCE).unwrap().sequence(), DEPTH, "the history, of which what waits is a part");
    assert!(!blocked.is_finished());

    scene.signal(Signal::CONT);
    (0..=DEPTH).for_each(|number| scene.receiver_gets(number));
    assert_eq!(blocked.join().unwrap().unwrap(), 2, "of the two that were there");
    assert_eq!((scene.publisher.stats().published, scene.publisher.stats().refused), (DEPTH + 1, 0));
}

/// Threads that publish while another one waits get higher numbers, and each receiver gets them in that order.
#[test]
fn messages_of_threads_that_wait_arrive_in_the_order_of_their_numbers() {
    let mut scene = Scene::stopped(FOR_EVER);
    let end = SLOTS as u64 - 1;
    let waiting: Vec<_> = (DEPTH..end).map(|number| scene.start_blocked(number)).collect();
    assert!(!waiting.iter().any(|thread| thread.is_finished()));
    scene.signal(Signal::CONT);
    (0..end).for_each(|number| scene.receiver_gets(number));
    for thread in waiting {
        assert_eq!(thread.join().unwrap().unwrap(), 2);
    }
    let stats = scene.publisher.stats();
    assert_eq!((stats.published, stats.refused, stats.failed), (end, 0, 0));
}

/// Who gives up leaves its place to those that came after it; the receiver sees the gap.
#[test]
fn each_of_several_that_wait_has_its_own_time() {
    let bound = Duration::from_millis(300);
    let mut scene = Scene::stopped(bound);
    let start = Instant::now();
    let waiting: Vec<_> = (DEPTH..DEPTH + 3).map(|number| scene.start_blocked(number)).collect();
    for thread in waiting {
        let refused = thread.join().unwrap().unwrap_err();
        assert!(matches!(refused, PublishError::Undelivered { delivered: 1, missed: 1, .. }), "{refused:?}");
        assert!(start.elapsed() >= bound, "it gave up before its bound");
    }
    let stats = scene.publisher.stats();
    assert_eq!((stats.published, stats.refused, stats.failed), (DEPTH, 3, 3));
    // Two are queued for the receiver, one is the history.
    let free = SLOTS - DEPTH as usize - 1;
    let all: Vec<_> = (0..free).map(|_| scene.publisher.loan(Dtype::U64, &[1]).unwrap()).collect();
    assert_eq!(all.len(), free, "their slots are back");
    drop(all);

    scene.signal(Signal::CONT);
    (0..DEPTH).for_each(|number| scene.receiver_gets(number));
    assert_eq!(scene.publisher.publish_copy(&[DEPTH + 3], &[1]).unwrap(), 2);
    scene.node.tell("read");
    scene.node.expect(&format!("{} lost 3", DEPTH + 3));
}

/// Threads that share a publisher, and receivers of which now one and now the other falls behind: nothing is lost, and
/// everything in order.
#[test]
fn threads_that_share_a_publisher_lose_nothing_and_keep_the_order() {
    const THREADS: u64 = 4;
    const EACH: u64 = 500;
    let session = Session::new();
    let bus = session.bus();
    let topic = || bus.topic("numbers").depth(DEPTH as usize).overflow(Overflow::Block(FOR_EVER));
    let publisher = topic().slots(2 * SLOTS).slot_bytes(16).publisher().unwrap();
    let receivers = [topic().subscriber().unwrap(), topic().subscriber().unwrap()];
    publisher.wait_for_subscribers(2, PATIENCE).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let publisher = &publisher;
            scope.spawn(move || {
                for number in 0..EACH {
                    assert_eq!(publisher.publish_copy(&[thread, number], &[2]).unwrap(), 2);
                }
            });
        }
        for (receiver, pause) in receivers.iter().zip([64, 100]) {
            scope.spawn(move || {
                let mut next = [0; THREADS as usize];
                for sequence in 0..THREADS * EACH {
                    if sequence % pause == 0 {
                        std::thread::yield_now();
                    }
                    let message = receiver.recv(PATIENCE).unwrap();
                    assert_eq!((message.sequence(), message.lost()), (sequence, 0));
                    let &[thread, number] = message.first().view::<u64>().unwrap() else { panic!("two numbers") };
                    assert_eq!(number, next[thread as usize], "of thread {thread}");
                    next[thread as usize] += 1;
                }
            });
        }
    });
    let stats = publisher.stats();
    assert_eq!((stats.published, stats.refused, stats.failed), (THREADS * EACH, 0, 0));
}
