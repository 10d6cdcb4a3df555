//! FR-018: every policy with every kind of receiver that does not keep up. `docs/policies.md` has the table; each cell is
//! one test here.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tensorbus::prelude::*;
use tensorbus::{PublishError, Subscriber};

use crate::support::{Node, PATIENCE, Session, eventually};

/// Messages that wait for a receiver.
const DEPTH: u64 = 2;
const HELD: u64 = 2;
const SLOTS: usize = 8;
/// Messages that are sent to a receiver which does not read: more than its queue has room for.
const SENT: u64 = 5;
/// Of those, the ones that find its queue full.
const MISSED: u64 = SENT - DEPTH;
const BLOCK: Duration = Duration::from_millis(30);

macro_rules! cells {
    ($($policy:ident: $overflow:expr;)*) => {
        $(
        mod $policy {
            use super::*;

            #[test]
            fn receiver_reads_slowly() {
                reads_slowly($overflow);
            }

            #[test]
            fn receiver_holds_all_it_may() {
                holds_all_it_may($overflow);
            }

            #[test]
            fn receiver_is_stopped() {
                is_stopped($overflow);
            }

            #[test]
            fn receiver_is_killed() {
                is_killed($overflow);
            }

            #[test]
            fn receiver_is_killed_and_cleaned_up() {
                is_killed_and_cleaned_up($overflow);
            }
        }
    )*

        const POLICIES: &[&str] = &[$(stringify!($policy)),*];
    };
}

cells! {
    drop_oldest: Overflow::DropOldest;
    drop_newest: Overflow::DropNewest;
    block: Overflow::Block(BLOCK);
    error: Overflow::Error;
}

#[test]
fn the_table_names_a_test_in_each_cell() {
    let table = include_str!("../../docs/policies.md");
    let states = ["reads_slowly", "holds_all_it_may", "is_stopped", "is_killed", "is_killed_and_cleaned_up"];
    for (policy, state) in POLICIES.iter().flat_map(|policy| states.map(|state| (policy, state))) {
        let name = format!("`{policy}::receiver_{state}`");
        assert_eq!(table.matches(&name).count(), 1, "{name}");
    }
}

/// A publisher, a receiver in another process, and a witness that always keeps up. All are connected, nothing is queued.
struct Scene {
    node: Node,
    witness: Subscriber,
    publisher: Publisher,
    overflow: Overflow,
    bus: Bus,
    _session: Session,
}

impl Scene {
    fn new(overflow: Overflow) -> Self {
        let session = Session::new();
        let bus = session.bus();
        let topic = || bus.topic("numbers").depth(DEPTH as usize).max_borrowed(HELD as usize).overflow(overflow);
        let publisher = topic().slots(SLOTS).slot_bytes(8).publisher().unwrap();
        let witness = topic().subscriber().unwrap();
        let node = session.node("reader", &[]);
        node.expect("ready");
        let mut scene = Self { node, witness, publisher, overflow, bus, _session: session };
        assert_eq!(scene.publish(0).unwrap(), 2);
        scene.ask("read", "0 lost 0");
        scene
    }

    /// Publishes a message, which the witness gets in any case.
    fn publish(&self, number: u64) -> Result<usize, PublishError> {
        let outcome = self.publisher.publish_copy(&[number], &[1]);
        let message = self.witness.recv(PATIENCE).unwrap();
        assert_eq!((message.sequence(), message.lost()), (number, 0), "the witness missed something");
        outcome
    }

    fn ask(&mut self, order: &str, answer: &str) {
        self.node.tell(order);
        self.node.expect(answer);
    }

    /// Publishes `SENT` messages from `first` on to a receiver whose queue is empty, and which reads none of them. Checks what
    /// the publisher is told and counts.
    fn publish_past_a_full_queue(&self, first: u64) {
        let before = self.publisher.stats();
        for number in first..first + SENT {
            let start = Instant::now();
            let outcome = self.publish(number);
            let took = start.elapsed();
            let has_room = number < first + DEPTH;
            match (self.overflow, outcome) {
                (Overflow::DropOldest, Ok(2)) => {}
                (_, Ok(2)) if has_room => {}
                (Overflow::DropNewest, Ok(1)) if !has_room => {}
                (Overflow::Error, Err(PublishError::Undelivered { delivered: 1, missed: 1, .. })) if !has_room => {}
                (Overflow::Block(bound), Err(PublishError::Undelivered { delivered: 1, missed: 1, .. }))
                    if !has_room =>
                {
                    assert!(took >= bound, "it gave up after {took:?}");
                }
                (_, outcome) => panic!("number {number}: {outcome:?}"),
            }
        }
        let stats = self.publisher.stats();
        let (refused, failed) = match self.overflow {
            Overflow::DropOldest => (0, 0),
            Overflow::DropNewest => (MISSED, 0),
            _ => (MISSED, MISSED),
        };
        assert_eq!((stats.refused - before.refused, stats.failed - before.failed), (refused, failed));
        assert_eq!(stats.published - before.published, SENT - failed);
    }

    /// The receiver reads again, and finds what the policy left, the gap told and counted.
    fn reads_what_is_left(&mut self, first: u64) {
        let next = first + SENT;
        if self.overflow == Overflow::DropOldest {
            self.ask("read", &format!("{} lost {MISSED}", next - 2));
            self.ask("read", &format!("{} lost 0", next - 1));
            assert_eq!(self.publish(next).unwrap(), 2);
            self.ask("read", &format!("{next} lost 0"));
        } else {
            self.ask("read", &format!("{first} lost 0"));
            self.ask("read", &format!("{} lost 0", first + 1));
            assert_eq!(self.publish(next).unwrap(), 2);
            self.ask("read", &format!("{next} lost {MISSED}"));
        }
        self.ask("stats", &format!("{} received, {MISSED} lost", next + 1 - MISSED));
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.node.pid() as i32).unwrap(), signal).unwrap();
    }

    fn is_stopped(&self) {
        self.signal(Signal::STOP);
        let status = format!("/proc/{}/status", self.node.pid());
        eventually("the receiver is stopped", || std::fs::read_to_string(&status).unwrap().contains("State:\tT"));
    }

    fn clean_up(&self) {
        eventually("the dead receiver is removed", || self.bus.remove_dead().unwrap().removed == 1);
        assert_eq!(self.bus.topics().unwrap()[0].subscribers, 1, "only the witness is left");
    }
}

fn reads_slowly(overflow: Overflow) {
    let mut scene = Scene::new(overflow);
    scene.publish_past_a_full_queue(1);
    scene.reads_what_is_left(1);
}

fn holds_all_it_may(overflow: Overflow) {
    let mut scene = Scene::new(overflow);
    for number in 1..=HELD {
        assert_eq!(scene.publish(number).unwrap(), 2);
        scene.ask("hold", &format!("{number} lost 0"));
    }
    let first = HELD + 1;
    scene.publish_past_a_full_queue(first);
    scene.ask("look", &format!("{HELD} are held"));
    scene.ask("let go", "let go");
    scene.reads_what_is_left(first);
}

fn is_stopped(overflow: Overflow) {
    let mut scene = Scene::new(overflow);
    scene.is_stopped();
    scene.publish_past_a_full_queue(1);
    let cleaned = scene.bus.remove_dead().unwrap();
    assert_eq!((cleaned.removed, cleaned.failed), (0, 0), "who is stopped is alive");
    scene.signal(Signal::CONT);
    scene.reads_what_is_left(1);
}

fn is_killed(overflow: Overflow) {
    let mut scene = Scene::new(overflow);
    scene.node.kill();
    scene.publish_past_a_full_queue(1);
    assert_eq!(scene.bus.members().unwrap().1, [scene.node.pid()], "nobody has removed it meanwhile");
    scene.clean_up();
}

fn is_killed_and_cleaned_up(overflow: Overflow) {
    let mut scene = Scene::new(overflow);
    scene.ask("stats", "1 received, 0 lost");
    for number in 1..=HELD {
        assert_eq!(scene.publish(number).unwrap(), 2);
        scene.ask("hold", &format!("{number} lost 0"));
    }
    scene.node.kill();
    scene.clean_up();
    let before = scene.publisher.stats();
    for number in HELD + 1..=HELD + SENT {
        assert_eq!(scene.publish(number).unwrap(), 1);
    }
    let stats = scene.publisher.stats();
    assert_eq!((stats.refused, stats.failed), (before.refused, before.failed));
    let all: Vec<_> = (0..SLOTS).map(|_| scene.publisher.loan(Dtype::U64, &[1]).unwrap()).collect();
    assert_eq!(all.len(), SLOTS, "the slots that it held are back");
}

/// Who got a message and who missed it is told for this message alone.
#[test]
fn undelivered_counts_receivers() {
    let session = Session::new();
    let bus = session.bus();
    let topic = || bus.topic("numbers").depth(DEPTH as usize).overflow(Overflow::Error);
    let publisher = topic().slot_bytes(8).publisher().unwrap();
    let [reads, full, also_full] = [(); 3].map(|()| topic().subscriber().unwrap());
    for number in 0..DEPTH {
        assert_eq!(publisher.publish_copy(&[number], &[1]).unwrap(), 3);
        assert_eq!(reads.recv(PATIENCE).unwrap().sequence(), number);
    }
    for number in DEPTH..2 * DEPTH {
        let refused = publisher.publish_copy(&[number], &[1]).unwrap_err();
        let told = "2 of 3 subscribers of topic \"numbers\" did not get the message";
        assert!(refused.to_string().starts_with(told), "{refused}");
        assert!(matches!(refused, PublishError::Undelivered { delivered: 1, missed: 2, .. }), "{refused:?}");
        assert_eq!(reads.recv(PATIENCE).unwrap().sequence(), number);
    }
    drop(also_full);
    let refused = publisher.publish_copy(&[9u64], &[1]).unwrap_err();
    assert!(matches!(refused, PublishError::Undelivered { delivered: 1, missed: 1, .. }), "{refused:?}");
    drop((reads, full));
    assert_eq!(publisher.publish_copy(&[10u64], &[1]).unwrap(), 0, "nobody is there to miss it");
    assert_eq!(publisher.stats().refused, 2 * DEPTH + 1);
}
