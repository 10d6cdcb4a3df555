//! FR-005, FR-018, FR-019: a topic on a real bus does exactly what a naive model of it says, whatever is done to it:
//! every message's bytes, number and gap, every refusal, every count.
//!
//! Runs are made at random here, and by a fuzzer from the seeds in `fuzz/seeds/topic`, which are replayed here too.
//! `TENSORBUS_WRITE_GOLDEN=1` writes the seeds made here; a file that the fuzzer found may be put beside them.
#![allow(clippy::unwrap_used, reason = "a failure ends the test")]
#![expect(unreachable_pub, reason = "shared with a fuzz target")]

mod model;
mod run;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use tensorbus::Bus;

use crate::run::Run;

/// `PROPTEST_CASES` sets another number.
const CASES: u32 = 128;

fn bus(name: &str) -> Bus {
    Bus::builder().session(&format!("model-{}-{name}", std::process::id())).open().unwrap()
}

#[test]
fn a_topic_does_what_its_model_says() {
    let bus = bus("random");
    let regressions = concat!(env!("CARGO_MANIFEST_DIR"), "/model/regressions.txt");
    let persistence = FileFailurePersistence::Direct(regressions);
    let cases = std::env::var_os("PROPTEST_CASES").map_or(CASES, |_| Config::default().cases);
    let config = Config { cases, failure_persistence: Some(Box::new(persistence)), ..Config::default() };
    let run = (any::<[u8; 5]>(), vec(any::<[u8; 2]>(), 0..120));
    let result = TestRunner::new(config).run(&run, |(settings, steps)| {
        Run::from_bytes(&[&settings[..], steps.as_flattened()].concat()).check(&bus);
        Ok(())
    });
    let directory = bus.directory().to_owned();
    drop(bus);
    result.unwrap();
    assert!(!directory.exists(), "the session is left behind");
}

// The first byte of a step; the second picks the port.
const PUBLISH: u8 = 0;
const GIVE_UP: u8 = 4;
const RECEIVE: u8 = 5;
const HOLD: u8 = 8;
const RELEASE: u8 = 10;
const ADD_PUBLISHER: u8 = 12;
const DROP_PUBLISHER: u8 = 13;
const ADD_SUBSCRIBER: u8 = 14;
const DROP_SUBSCRIBER: u8 = 15;

/// Runs that each show one thing, by name. Settings: overflow, depth - 1, history, max_borrowed - 1, slots - 1.
fn seeds() -> BTreeMap<String, Vec<u8>> {
    let mut seeds = BTreeMap::new();
    let mut add = |name: &str, settings: [u8; 5], steps: &[(u8, u8)]| {
        let steps = steps.iter().flat_map(|&(step, port)| [step, port]);
        seeds.insert(name.to_owned(), settings.into_iter().chain(steps).collect());
    };
    let repeat = |step, times| std::iter::repeat_n(step, times);
    let full: Vec<_> =
        repeat((PUBLISH, 0), 5).chain(repeat((RECEIVE, 0), 3)).chain([(PUBLISH, 0), (RECEIVE, 0)]).collect();
    for (overflow, policy) in ["drop-oldest", "drop-newest", "error", "block"].into_iter().enumerate() {
        add(policy, [overflow as u8, 1, 0, 2, 15], &full);
    }
    let late: Vec<_> = repeat((PUBLISH, 0), 4)
        .chain([(ADD_SUBSCRIBER, 0), (RECEIVE, 1), (PUBLISH, 0)])
        .chain(repeat((RECEIVE, 1), 4))
        .collect();
    add("late-joiner", [0, 3, 2, 2, 15], &late);
    add("late-joiner-full", [1, 1, 2, 2, 15], &late);
    let holds = [(PUBLISH, 0), (PUBLISH, 0), (HOLD, 0), (HOLD, 0), (RELEASE, 0), (HOLD, 0)];
    add("too-many-held", [2, 3, 0, 0, 15], &holds);
    let slots =
        [(PUBLISH, 0), (HOLD, 0), (PUBLISH, 0), (PUBLISH, 0), (GIVE_UP, 0), (RELEASE, 0), (GIVE_UP, 0), (PUBLISH, 0)];
    add("no-free-slot", [0, 3, 0, 2, 1], &slots);
    let leaves =
        [(PUBLISH, 0), (PUBLISH, 0), (HOLD, 0), (DROP_SUBSCRIBER, 0), (PUBLISH, 0), (RELEASE, 0), (PUBLISH, 0)];
    add("subscriber-leaves-holding", [0, 3, 0, 2, 4], &leaves);
    let departs = [(PUBLISH, 0), (PUBLISH, 0), (HOLD, 0), (DROP_PUBLISHER, 0), (ADD_PUBLISHER, 0), (PUBLISH, 0)];
    add("publisher-departs", [0, 3, 1, 2, 15], &[&departs[..], &[(RECEIVE, 0), (RECEIVE, 0), (RECEIVE, 0)]].concat());
    let unseen = [(ADD_PUBLISHER, 0), (PUBLISH, 1), (DROP_PUBLISHER, 1), (RECEIVE, 0), (PUBLISH, 0), (RECEIVE, 0)];
    add("publisher-departs-unseen", [0, 3, 0, 2, 15], &unseen);
    let ports: Vec<_> = repeat((ADD_PUBLISHER, 0), 3).chain(repeat((ADD_SUBSCRIBER, 0), 3)).collect();
    add("too-many-ports", [0, 0, 0, 0, 0], &ports);
    let between = [(ADD_SUBSCRIBER, 0), (RECEIVE, 0), (PUBLISH, 0), (RECEIVE, 1)];
    add("subscriber-made-between-looks", [0, 0, 0, 0, 1], &between);
    seeds
}

#[test]
fn the_seeds_of_the_fuzzer_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/topic");
    let made_here = seeds();
    if std::env::var_os("TENSORBUS_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(&folder).unwrap();
        made_here.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
    }
    for (name, bytes) in &made_here {
        assert_eq!(&fs::read(folder.join(name)).unwrap(), bytes, "seed topic/{name} is not what this build writes");
    }
    let bus = bus("seeds");
    for file in fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()) {
        println!("{}", file.display());
        Run::from_bytes(&fs::read(&file).unwrap()).check(&bus);
    }
}
