//! FR-001, FR-002, FR-010: the cache decides exactly what a naive model of it says, whatever happens, and the budget is
//! never exceeded.
//!
//! Runs are made at random here, and by a fuzzer from the seeds in `fuzz/seeds/cache`, which are replayed here too.
//! `TENSORBUS_WRITE_GOLDEN=1` writes the seeds made here; a file that the fuzzer found may be put beside them.
#![allow(clippy::unwrap_used, reason = "a failure ends the test")]
#![expect(unreachable_pub, reason = "shared with a fuzz target")]

mod model;
mod run;

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

use crate::run::Run;

/// `PROPTEST_CASES` sets another number.
const CASES: u32 = 2000;

#[test]
fn the_cache_does_what_its_model_says() {
    let regressions = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/model/regressions.txt");
    let persistence = FileFailurePersistence::Direct(regressions);
    let cases = std::env::var_os("PROPTEST_CASES").map_or(CASES, |_| Config::default().cases);
    let config = Config { cases, failure_persistence: Some(Box::new(persistence)), ..Config::default() };
    let run = (any::<[u8; 3]>(), vec(any::<[u8; 3]>(), 0..150));
    let result = TestRunner::new(config).run(&run, |(settings, steps)| {
        Run::from_bytes(&[&settings[..], steps.as_flattened()].concat()).check();
        Ok(())
    });
    result.unwrap();
}

// The first byte of a step.
const REQUEST_OF_SIZE: u8 = 1;
const REQUEST_PINNED: u8 = 2;
const TAKE: u8 = 4;
const DROP: u8 = 5;
const LAND: u8 = 6;
const FAIL: u8 = 7;
const ABANDON: u8 = 8;
const UNLOAD: u8 = 9;
const SWEEP: u8 = 14;
const WAIT: u8 = 15;

/// Runs that each show one thing, by name.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let load = |key, bytes| [[REQUEST_OF_SIZE, key, bytes], [LAND, key, bytes], [DROP, key, 0]].concat();
    let three = [load(0, 32), load(1, 32), load(2, 32)].concat();
    vec![
        ("lru", [vec![0, 100, 25], three.clone(), load(3, 40)].concat()),
        ("lru-used-again", [vec![0, 100, 25], three.clone(), vec![TAKE, 0, 0, DROP, 0, 0], load(3, 40)].concat()),
        ("lfu", [vec![1, 100, 25], three.clone(), load(0, 32), load(3, 64)].concat()),
        ("ttl", [vec![2, 100, 25], three.clone(), load(3, 40), vec![WAIT, 0, 25], load(3, 40)].concat()),
        ("manual", [vec![3, 100, 25], three, load(3, 40), vec![UNLOAD, 0, 0], load(3, 32)].concat()),
        ("taken-when-evicted", [vec![0, 64, 25], load(0, 32), load(1, 32), load(2, 31)].concat()),
        ("corrected", [vec![0, 100, 25], load(0, 60), vec![REQUEST_OF_SIZE, 1, 4, LAND, 1, 80]].concat()),
        ("corrected-in-vain", vec![0, 100, 25, REQUEST_PINNED, 0, 0, LAND, 0, 60, REQUEST_OF_SIZE, 1, 4, LAND, 1, 80]),
        ("fails", vec![0, 100, 25, REQUEST_OF_SIZE, 0, 50, FAIL, 0, 0, REQUEST_OF_SIZE, 0, 50, ABANDON, 0, 0]),
        ("expires", [vec![0, 0, 1], load(0, 1), vec![WAIT, 0, 1, SWEEP, 0, 0]].concat()),
    ]
}

#[test]
fn the_seeds_of_the_fuzzer_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/cache");
    for (name, bytes) in seeds() {
        let path = folder.join(name);
        if std::env::var_os("TENSORBUS_WRITE_GOLDEN").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), bytes, "{name} is not the seed that is made here");
    }
    for file in fs::read_dir(&folder).unwrap() {
        Run::from_bytes(&fs::read(file.unwrap().path()).unwrap()).check();
    }
}
