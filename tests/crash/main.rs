//! SIGKILL at random points of everything that a member of a session does: joining, opening topics, making pools,
//! loaning, writing, publishing, receiving, holding, sharing weights, clearing up after the dead. After each round a checker states that
//! the survivors work, no byte is torn, no message is lost, and nothing is leaked (FR-005, FR-009).
//!
//! `TENSORBUS_KILLS` sets the number of kills, `TENSORBUS_SEED` repeats the choices of a run. A test program of its own:
//! it counts the descriptors of the whole process.
#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

#[path = "../node/sealed.rs"]
mod sealed;
#[path = "../across/support.rs"]
#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod support;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use tensorbus::SharedWeights;
use tensorbus::prelude::*;

use crate::support::{Node, PATIENCE, Random, Session, eventually};

/// The sessions lie where they do by default.
fn backend() -> Option<tensorbus::Backend> {
    None
}

const KILLS: u64 = 300;
const KILLS_A_SESSION: u64 = 100;
const JOBS: [&str; 10] = ["join", "open", "pool", "loan", "write", "publish", "receive", "hold", "clean-up", "weights"];
/// Children at a time.
const MOST_AT_ONCE: u64 = 3;
/// Numbers in an answer: 8 KiB.
const ANSWER: usize = 1024;
const ANSWER_SLOTS: usize = 12;

#[test]
fn whoever_is_killed_whenever_the_others_go_on_and_nothing_is_left() {
    let kills = std::env::var("TENSORBUS_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let mut random = Random::seeded();
    let (mut killed, mut left) = (0, 0);
    // Each session has a watchdog, which is not to end a long run that goes well.
    while killed < kills {
        let (more, stranded) = kill_in_a_session(KILLS_A_SESSION.min(kills - killed), &mut random);
        killed += more;
        left += stranded;
    }
    println!("{killed} kills, {left} connections that nobody is in");
    assert!(left as u64 <= 2 + killed / 100, "{left} connections that nobody is in");
}

/// Kills so many or two more. Returns how many, and the number of connections that nobody is in.
fn kill_in_a_session(kills: u64, random: &mut Random) -> (u64, usize) {
    let session = Session::new();
    let mut survivor = Survivor::new(&session);
    survivor.work();
    let before = Footprint::of(&session);
    let mut killed = 0;
    while killed < kills {
        let jobs: Vec<_> =
            (0..1 + random.below(MOST_AT_ONCE)).map(|_| JOBS[random.below(JOBS.len() as u64) as usize]).collect();
        let mut children: Vec<_> = jobs.iter().map(|job| session.node("crash", &[job])).collect();
        // Some are killed while they start, and never told to begin.
        if random.below(4) > 0 {
            children.iter().for_each(|child| child.expect("ready"));
            survivor.work();
            children.iter_mut().for_each(|child| child.tell("go"));
        }
        for (child, job) in children.iter_mut().zip(&jobs) {
            survivor.work_for(Duration::from_micros(random.below(15_000)));
            let status = child.kill();
            assert_eq!(status.signal(), Some(9), "{job} ended by itself after {killed} kills: {status}");
            killed += 1;
        }
        survivor.clear_up();
        survivor.check_published(&children);
        drop(children);
        before.expect_again(&session, &mut survivor, &format!("after {killed} kills, the last of {jobs:?}"));
    }
    let stranded = stranded(&session);
    drop(survivor);
    (killed, stranded)
}

/// The parent's own ports: they see all deaths, and work at all times.
struct Survivor {
    bus: Bus,
    numbers: Subscriber,
    answers: Publisher,
    answers_back: Subscriber,
    /// Weights of its own, beside those that the children publish.
    weights: SharedWeights,
    /// Next number of each child's messages, by process.
    next: BTreeMap<u64, u64>,
    /// The last message of a child: its bytes stay, whatever becomes of the child.
    held: Option<Message>,
    answered: u64,
}

impl Survivor {
    fn new(session: &Session) -> Self {
        let bus = session.bus();
        let numbers = bus.topic("numbers").overflow(Overflow::Block(PATIENCE)).subscriber().unwrap();
        let answers = || bus.topic("answers").depth(4).max_borrowed(4);
        let answers_back = answers().subscriber().unwrap();
        let answers = answers().slots(ANSWER_SLOTS * 2).slot_bytes(ANSWER * 8).publisher().unwrap();
        let tensor = TensorView::new(&[7_u32; 5000], &[5000], &[1]).unwrap();
        let weights = SharedWeights::publish(&bus, "mine", [("w", tensor)]).unwrap();
        Self { numbers, answers, answers_back, weights, bus, next: BTreeMap::new(), held: None, answered: 0 }
    }

    fn work_for(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.work();
        }
    }

    /// Receives all that has come, and sends one message to everybody.
    fn work(&mut self) {
        while let Some(message) = self.numbers.try_recv().unwrap() {
            let process = sealed::opened(message.first().view().unwrap()).expect("a torn message");
            let next = self.next.entry(process).or_default();
            assert_eq!((message.sequence(), message.lost()), (*next, 0), "number and loss of process {process}");
            *next += 1;
            self.held = Some(message);
        }
        if let Some(held) = &self.held {
            assert!(sealed::opened(held.first().view().unwrap()).is_some(), "a held message changed");
        }
        let mut answer = self.answers.loan(Dtype::U64, &[ANSWER]).unwrap();
        sealed::seal(answer.view_mut().unwrap(), self.answered);
        answer.publish().unwrap();
        let back = self.answers_back.recv(PATIENCE).unwrap();
        assert_eq!(sealed::opened(back.first().view().unwrap()), Some(self.answered));
        assert_eq!((back.sequence(), back.lost()), (self.answered, 0));
        self.answered += 1;
    }

    /// Removes the dead; then nobody but this process is left, every slot is there, and everything can be opened.
    fn clear_up(&mut self) {
        let me = (vec![std::process::id()], vec![]);
        eventually("the dead are removed", || {
            self.bus.remove_dead().unwrap();
            self.bus.members().unwrap() == me && self.bus.blobs().unwrap().len() == 1
        });
        self.weights.verify().unwrap();
        self.work();
        let topics = self.bus.topics().unwrap();
        let names: Vec<_> = topics.iter().map(|topic| (&*topic.name, topic.publishers(), topic.subscribers)).collect();
        assert_eq!(names, [("answers", 1, 1), ("numbers", 0, 1)]);
        let slots = 2 * ANSWER_SLOTS;
        let all: Vec<_> = (0..slots).map(|_| self.answers.loan(Dtype::U64, &[ANSWER]).unwrap()).collect();
        drop(all);
        let publisher = self.bus.topic("numbers").slot_bytes(64).publisher().unwrap();
        let mut hello = publisher.loan(Dtype::U64, &[2]).unwrap();
        sealed::seal(hello.view_mut().unwrap(), u64::MAX);
        assert_eq!(hello.publish().unwrap(), 1);
        self.next.insert(u64::MAX, 0);
        self.work();
        assert_eq!(self.next[&u64::MAX], 1, "a new publisher is heard");
        self.held = None;
    }

    /// All that the children said they had published was received, and at most one message more.
    fn check_published(&mut self, children: &[Node]) {
        for child in children {
            let said = child.last_lines().iter().filter(|line| *line == "published").count() as u64;
            let received = self.next.remove(&u64::from(child.pid())).unwrap_or(0);
            assert!((said..=said + 1).contains(&received), "{received} of {said} messages were received");
        }
    }
}

/// What this process and its session take.
#[derive(PartialEq, Eq, Debug)]
struct Footprint {
    /// Without what is stranded.
    files: Vec<String>,
    /// Files of the session that are mapped, as often as they are, and those that are deleted marked as such.
    mappings: Vec<String>,
    descriptors: usize,
}

/// Files of connections that nobody is in, some 400 bytes each. iceoryx2 makes the file and enters it in two steps, and
/// never removes one whose maker was killed in between: it goes with the session.
fn stranded(session: &Session) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let paths = session.files().into_iter().map(|path| path.display().to_string());
    paths.filter(|path| path.ends_with(".connection") && !maps.contains(path)).count()
}

impl Footprint {
    fn of(session: &Session) -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let paths = maps.lines().filter_map(|line| Some(line[line.find('/')?..].to_owned()));
        let mut mappings: Vec<_> = paths.filter(|path| path.contains(&session.name)).collect();
        mappings.sort();
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let is_stranded = |path: &String| path.ends_with(".connection") && !mappings.contains(path);
        let all = session.files().iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        let files = all.into_iter().filter(|path| !is_stranded(path)).collect();
        Self { files, mappings, descriptors }
    }

    /// Threads that listened to the children close their pipes in their own time, and a subscriber lets go of departed
    /// publishers at one of its next looks.
    fn expect_again(&self, session: &Session, survivor: &mut Survivor, when: &str) {
        let start = Instant::now();
        let mut now = Self::of(session);
        while now != *self && start.elapsed() < Duration::from_secs(5) {
            survivor.work();
            now = Self::of(session);
        }
        let more = |now: &[String], before: &[String]| -> Vec<String> {
            now.iter().filter(|path| !before.contains(path)).cloned().collect()
        };
        assert!(
            now == *self,
            "left {when}: files {:?}, mappings {:?}, descriptors {} instead of {}; gone: files {:?}",
            more(&now.files, &self.files),
            more(&now.mappings, &self.mappings),
            now.descriptors,
            self.descriptors,
            more(&self.files, &now.files),
        );
    }
}
