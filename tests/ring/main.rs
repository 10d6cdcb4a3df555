//! SIGKILL and SIGSTOP at random points of everything that clients and workers of a request ring do, under load: entering, loaning, writing,
//! submitting, waiting, reading, withdrawing, taking, running, finishing, leaving, burying the dead. After each round a checker states that
//! no byte is torn, every request has ended in its own answer or in an error that is due, none that may not be repeated was run twice, every
//! row is free again, and nothing is leaked (FR-005, FR-009).
//!
//! `TENSORBUS_KILLS` sets the number of kills, `TENSORBUS_SEED` repeats the choices of a run. A test program of its own:
//! it counts the descriptors of the whole process.
#![allow(clippy::unwrap_used, reason = "a failure ends the test")]
#![expect(unreachable_pub, reason = "shared with a fuzz target")]

mod hostile;
#[path = "../node/sealed.rs"]
mod sealed;
mod seeds;
#[path = "../across/support.rs"]
#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod support;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tensorbus::prelude::*;
use tensorbus::{AnswerError, RingClient};

use crate::support::{Node, PATIENCE, Random, Session, eventually};

/// The sessions lie where they do by default.
fn backend() -> Option<tensorbus::Backend> {
    None
}

/// In all sessions together; the heavy case has as many as clients beside them.
const KILLS: u64 = 300;
const KILLS_A_SESSION: u64 = 50;
const CLIENTS: usize = 6;
const WORKERS: usize = 3;
const MANY_CLIENTS: usize = 100;
const MANY_KILLS: u64 = 25;
const RING: &str = "model/of-the.tests";

/// What is asked for while others are killed.
#[derive(Clone, Copy, Debug)]
struct Scene {
    /// What a worker ran when it died is run again.
    may_repeat: bool,
    /// Each client's data lies in a file of its own.
    isolated: bool,
    /// One worker is neither stopped nor killed: no request is without one.
    one_stays: bool,
    clients: usize,
    /// Clients leave, and come again.
    come_and_go: bool,
    rows: usize,
    credits: usize,
    /// Then the load ends, and the checker looks.
    kills_a_round: u64,
}

/// Tests of this file run one after the other: they count descriptors.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn whoever_is_killed_or_stopped_whenever_each_request_ends_and_nothing_is_left() {
    let _alone = alone();
    let kills = std::env::var("TENSORBUS_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let mut random = Random::seeded();
    let mut killed = 0;
    // Each session has a watchdog, which is not to end a long run that goes well.
    for number in 0.. {
        if killed >= kills {
            break;
        }
        let scene = Scene {
            may_repeat: number % 2 == 0,
            isolated: number % 3 == 2,
            one_stays: number % 4 < 2,
            clients: CLIENTS,
            come_and_go: true,
            rows: [16, 70][number as usize % 2],
            credits: 5,
            kills_a_round: 10,
        };
        killed += kill_in_a_session(scene, KILLS_A_SESSION.min(kills - killed), &mut random);
    }
    println!("{killed} kills");
}

#[test]
fn a_hundred_clients_and_three_workers_are_killed_and_stopped() {
    let _alone = alone();
    let mut random = Random::seeded();
    // They stay: to come and to leave is done one at a time, and so many who do nothing else would wait for each other.
    let (clients, come_and_go) = (MANY_CLIENTS, false);
    let (rows, credits, kills_a_round) = (128, 5, MANY_KILLS);
    let scene = Scene {
        may_repeat: true,
        isolated: false,
        one_stays: true,
        clients,
        come_and_go,
        rows,
        credits,
        kills_a_round,
    };
    kill_in_a_session(scene, MANY_KILLS, &mut random);
}

/// Kills so many. Returns how many.
fn kill_in_a_session(scene: Scene, kills: u64, random: &mut Random) -> u64 {
    println!("{scene:?}");
    let session = Session::new();
    let bus = session.bus();
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("runs");
    // What a bus makes once, for its first ring.
    drop(bus.ring(RING).input("x", Dtype::U8, &[1]).output("y", Dtype::U8, &[1]).worker().unwrap());
    let before = Footprint::of(&session);
    let (mut killed, mut marks_left, mut totals) = (0, 0, Totals::default());
    while killed < kills {
        let (mut load, client) = Load::start(&session, &bus, scene, &log, random);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let survivor = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    request(&client, scene);
                }
            });
            for _ in 0..scene.kills_a_round.min(kills - killed) {
                // The survivor's panic is told by `join`, and not waited for here.
                if !survivor.is_finished() {
                    load.hurt_somebody(&session, random);
                }
                killed += 1;
            }
            over.store(true, Ordering::Relaxed);
            survivor.join().unwrap();
        });
        totals.add(&load.end());
        all_rows_are_free(&client, &load);
        // Of this process, of its data, and of the worker that stays.
        marks_left += marks(&session) - 1 - usize::from(scene.isolated) - usize::from(load.stays.is_some());
        // Who is left goes, and the ring with its last user.
        load.end_the_one_that_stays();
        drop(client);
        before.is_there_again(&session, &bus);
        if !scene.may_repeat {
            each_runs_once(&log);
        }
    }
    println!("{killed} kills: {totals:?}, {marks_left} files of nobody until their place is taken again");
    assert!(totals.answered > 0, "nobody was answered");
    assert!(marks_left as u64 <= 2 + killed / 50, "{marks_left} files of parties that are gone");
    killed
}

/// One request of the parent's own.
fn request(client: &RingClient, scene: Scene) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let seed = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut request = client.loan(PATIENCE).unwrap();
    sealed::seal(request.view_mut("x").unwrap(), seed);
    match request.submit().unwrap().wait(PATIENCE) {
        Ok(answer) => {
            let right = seed.rotate_left(17) ^ 0x5851_f42d_4c95_7f2d;
            assert_eq!(sealed::opened(answer.view("y").unwrap()), Some(right), "a torn answer, or another's");
        }
        Err(AnswerError::Failed { .. }) => {}
        Err(AnswerError::WorkerDied { .. }) if !scene.may_repeat => {}
        Err(AnswerError::NoWorker { .. }) if !scene.one_stays => {}
        Err(error) => panic!("{error}"),
    }
}

/// Nobody is left but this process, and perhaps a worker that has nothing to do.
fn all_rows_are_free(client: &RingClient, load: &Load) {
    let (scene, workers) = (load.scene, load.stays.iter().map(Node::pid).collect::<Vec<_>>());
    eventually("every row is free", || {
        // A worker that stays looks for the dead in its sleep. Otherwise whoever waits does: here, for a worker that never comes.
        if !scene.one_stays {
            client.loan(PATIENCE).unwrap().submit().unwrap().wait(PATIENCE).unwrap_err();
        }
        let counts = client.row_counts();
        assert_eq!(counts.damaged, 0, "{counts:?}");
        counts.free == scene.rows && client.workers() == workers
    });
    let all: Vec<_> = (0..scene.credits).map(|_| client.loan(Duration::ZERO).unwrap()).collect();
    assert_eq!(all.iter().map(|request| request.row()).collect::<BTreeSet<_>>().len(), scene.credits);
    let counts = client.row_counts();
    assert_eq!((counts.writing, counts.free), (scene.credits, scene.rows - scene.credits));
}

/// No request was begun twice.
fn each_runs_once(log: &Path) {
    let bytes = std::fs::read(log).unwrap();
    let (seeds, rest) = bytes.as_chunks::<8>();
    assert!(rest.is_empty(), "half a number");
    let mut seeds: Vec<_> = seeds.iter().map(|&seed| u64::from_ne_bytes(seed)).collect();
    let count = seeds.len();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), count, "requests that may not be repeated were run twice");
}

/// Files of clients and workers, the living and those that were killed while they came or went.
fn marks(session: &Session) -> usize {
    // A ring's own file ends with its number.
    let is_mark = |path: &std::path::PathBuf| path.to_str().unwrap().rsplit_once('@').unwrap().1.contains('.');
    below(session, "rings").iter().filter(|path| is_mark(path)).count()
}

fn below(session: &Session, folder: &str) -> Vec<std::path::PathBuf> {
    let folder = session.directory().join(folder);
    session.files().into_iter().filter(|path| path.starts_with(&folder) && !path.is_dir()).collect()
}

/// What the clients say that became of their requests.
#[derive(Debug, Default)]
struct Totals {
    answered: u64,
    refused: u64,
    died: u64,
    no_worker: u64,
    withdrawn: u64,
    overloaded: u64,
}

impl Totals {
    fn add(&mut self, more: &Self) {
        self.answered += more.answered;
        self.refused += more.refused;
        self.died += more.died;
        self.no_worker += more.no_worker;
        self.withdrawn += more.withdrawn;
        self.overloaded += more.overloaded;
    }

    fn of(line: &str) -> Self {
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        let [answered, refused, died, no_worker, withdrawn, overloaded] = numbers[..] else { panic!("{line}") };
        Self { answered, refused, died, no_worker, withdrawn, overloaded }
    }
}

/// Clients and workers that go on until they are killed, or told to end.
struct Load {
    scene: Scene,
    log: String,
    stays: Option<Node>,
    nodes: Vec<(Part, Node)>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Part {
    Client,
    Worker,
}

impl Load {
    fn start(session: &Session, bus: &Bus, scene: Scene, log: &Path, random: &mut Random) -> (Self, RingClient) {
        let mut load = Self { scene, log: log.display().to_string(), stays: None, nodes: Vec::new() };
        // The first one makes the ring.
        let first = load.node(session, Part::Worker, scene.one_stays, random);
        first.expect("ready");
        // While it is there, so is the ring.
        let client = bus.ring(RING).client().unwrap();
        if scene.one_stays {
            load.stays = Some(first);
        } else {
            load.nodes.push((Part::Worker, first));
        }
        // Not a hundred at once: who comes waits for all who do, and not for ever.
        let numbers: Vec<_> = (1..WORKERS + scene.clients).collect();
        for group in numbers.chunks(CLIENTS + WORKERS) {
            let first = load.nodes.len();
            for &number in group {
                let part = if number < WORKERS { Part::Worker } else { Part::Client };
                let node = load.node(session, part, false, random);
                load.nodes.push((part, node));
            }
            load.nodes[first..].iter().for_each(|(_, node)| node.expect("ready"));
        }
        load.stays.iter_mut().chain(load.nodes.iter_mut().map(|(_, node)| node)).for_each(|node| node.tell("go"));
        (load, client)
    }

    fn node(&self, session: &Session, part: Part, stays: bool, random: &mut Random) -> Node {
        let seed = random.below(u64::MAX).to_string();
        let policy = match (self.scene.may_repeat, self.scene.isolated) {
            (true, false) => "repeatable",
            (true, true) => "repeatable,isolated",
            (false, false) => "once",
            (false, true) => "once,isolated",
        };
        let (rows, credits) = (self.scene.rows.to_string(), self.scene.credits.to_string());
        match part {
            Part::Client => {
                let workers = if self.scene.one_stays { "always" } else { "perhaps" };
                let stays = if self.scene.come_and_go { "goes" } else { "stays" };
                session.node("ring-client-for-ever", &[RING, &seed, policy, stays, workers])
            }
            Part::Worker => {
                let stays = if stays { "stays" } else { "goes" };
                session.node("ring-worker-for-ever", &[RING, &seed, policy, stays, &self.log, &rows, &credits])
            }
        }
    }

    /// Somebody is killed, in the middle of anything, stopped before or not, and another one comes instead. Others are stopped meanwhile.
    fn hurt_somebody(&mut self, session: &Session, random: &mut Random) {
        std::thread::sleep(Duration::from_micros(random.below(15_000)));
        let stopped: Vec<usize> = (0..random.below(3)).map(|_| self.anybody(random)).collect();
        stopped.iter().for_each(|&index| signal(&self.nodes[index].1, Signal::STOP));
        std::thread::sleep(Duration::from_micros(random.below(15_000)));
        let victim = self.anybody(random);
        let (part, node) = &mut self.nodes[victim];
        let (part, status) = (*part, node.kill());
        assert_eq!(status.signal(), Some(9), "a {part:?} ended by itself: {status}");
        std::thread::sleep(Duration::from_micros(random.below(3000)));
        stopped.iter().filter(|&&index| index != victim).for_each(|&index| signal(&self.nodes[index].1, Signal::CONT));
        // Some are killed while they start; those still begin what they were told to.
        let mut next = self.node(session, part, false, random);
        next.tell("go");
        self.nodes[victim].1 = next;
    }

    /// A client or a worker, each as often.
    fn anybody(&self, random: &mut Random) -> usize {
        let part = if random.below(2) == 0 { Part::Client } else { Part::Worker };
        let those: Vec<_> = (0..self.nodes.len()).filter(|&index| self.nodes[index].0 == part).collect();
        those[random.below(those.len() as u64) as usize]
    }

    /// Tells all but the one that stays to end, and sees to it that they do.
    fn end(&mut self) -> Totals {
        let mut totals = Totals::default();
        // Workers last: a client's last request may need one.
        let (mut clients, workers): (Vec<_>, Vec<_>) =
            self.nodes.drain(..).partition(|(part, _)| *part == Part::Client);
        // Of many, most are killed: to leave is done one at a time, and a hundred who leave at once wait for each other.
        for (_, mut node) in clients.split_off(CLIENTS) {
            assert_eq!(node.kill().signal(), Some(9), "a client ended by itself");
        }
        for mut group in [clients, workers] {
            group.iter_mut().for_each(|(_, node)| node.tell_to_end());
            for (part, node) in &mut group {
                let status = node.wait_for_end();
                assert!(status.success(), "a {part:?} failed: {status}");
                if *part == Part::Client {
                    totals.add(&Totals::of(node.last_lines().last().unwrap()));
                }
            }
        }
        totals
    }

    fn end_the_one_that_stays(&mut self) {
        if let Some(stays) = self.stays.take() {
            assert!(stays.end().success(), "the worker that stays failed");
        }
    }
}

fn signal(node: &Node, signal: Signal) {
    kill_process(Pid::from_raw(node.pid() as i32).unwrap(), signal).unwrap();
}

/// What this process and the rings of its session take.
#[derive(PartialEq, Eq, Debug)]
struct Footprint {
    files: Vec<std::path::PathBuf>,
    /// Files of the session that are mapped, as often as they are, and those that are deleted marked as such.
    mappings: Vec<String>,
    descriptors: usize,
}

impl Footprint {
    fn of(session: &Session) -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let paths = maps.lines().filter_map(|line| Some(line[line.find('/')?..].to_owned()));
        let mut mappings: Vec<_> = paths.filter(|path| path.contains(&session.name)).collect();
        mappings.sort();
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        Self { files: [below(session, "rings"), below(session, "wake")].concat(), mappings, descriptors }
    }

    /// The sockets of the killed go when they are removed; threads that listened to the children close their pipes in their own time.
    fn is_there_again(&self, session: &Session, bus: &Bus) {
        let start = std::time::Instant::now();
        let mut now = Self::of(session);
        while now != *self && start.elapsed() < Duration::from_secs(10) {
            bus.remove_dead().unwrap();
            now = Self::of(session);
        }
        assert_eq!(now, *self, "something is left");
    }
}
