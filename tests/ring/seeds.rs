//! FR-020: a ring's file as a hostile process of the same user could write it: an error or an answer, never a panic.
//!
//! Runs are made at random here, and by a fuzzer from the seeds in `fuzz/seeds/ring`, which are replayed here too.
//! `TENSORBUS_WRITE_GOLDEN=1` writes the seeds made here; a file that the fuzzer found may be put beside them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use tensorbus::Bus;

use crate::hostile::Run;

/// `PROPTEST_CASES` sets another number.
const CASES: u32 = 128;

fn bus(name: &str) -> Bus {
    Bus::builder().session(&format!("ring-{}-{name}", std::process::id())).open().unwrap()
}

#[test]
fn whatever_stands_in_a_rings_file_nobody_panics() {
    let _alone = crate::alone();
    let bus = bus("random");
    let regressions = concat!(env!("CARGO_MANIFEST_DIR"), "/ring/regressions.txt");
    let persistence = FileFailurePersistence::Direct(regressions);
    let cases = std::env::var_os("PROPTEST_CASES").map_or(CASES, |_| Config::default().cases);
    let config = Config { cases, failure_persistence: Some(Box::new(persistence)), ..Config::default() };
    let result = TestRunner::new(config).run(&(any::<u8>(), vec(any::<[u8; 8]>(), 0..60)), |(first, steps)| {
        Run::from_bytes(&[&[first], steps.as_flattened()].concat()).check(&bus);
        Ok(())
    });
    let directory = bus.directory().to_owned();
    drop(bus);
    result.unwrap();
    assert!(!directory.exists(), "the session is left behind");
}

// The first byte of a step; the second picks one of several, the next two a row or a place, the last four are a value.
const HEADER: u8 = 1;
const WORD: u8 = 2;
const BELL: u8 = 3;
const BITS: u8 = 4;
const WANTING: u8 = 5;
const COUNTS: u8 = 6;
const WORKER_PLACE: u8 = 7;
const CLIENT_PLACE: u8 = 8;
const TEXT: u8 = 9;
const LAYOUT: u8 = 10;
const LOAN: u8 = 11;
const SUBMIT: u8 = 14;
const WAIT: u8 = 17;
const WITHDRAW: u8 = 20;
const TAKE: u8 = 23;
const FINISH: u8 = 26;
const CLIENTS: u8 = 28;
const WORKERS: u8 = 29;
const LOOK: u8 = 30;
const SLOTS: u8 = 31;
/// Instead of coming.
const GO: u8 = 200;

type Step = (u8, u8, u16, u32);

/// Runs that each show one thing, by name.
fn seeds() -> BTreeMap<String, Vec<u8>> {
    let mut seeds = BTreeMap::new();
    let mut add = |name: &str, first: u8, steps: &[Step]| {
        let bytes = |&(what, which, position, value): &Step| {
            [&[what, which], &position.to_le_bytes()[..], &value.to_le_bytes()[..]].concat()
        };
        seeds.insert(name.to_owned(), [vec![first], steps.iter().flat_map(bytes).collect()].concat());
    };
    let (loan, submit, wait, look) = ((LOAN, 0, 0, 7), (SUBMIT, 0, 0, 0), (WAIT, 0, 0, 0), (LOOK, 0, 0, 0));
    let (take, finish, come, work) = ((TAKE, 0, 0, 8), (FINISH, 0, 3, 0), (CLIENTS, 0, 0, 0), (WORKERS, 0, 0, 0));
    add("answered", 3, &[loan, submit, take, finish, wait, look]);
    add("failed", 3, &[loan, submit, take, (FINISH, 0, 160, 0), wait]);
    add("given-back", 0x83, &[loan, submit, take, (FINISH, 0, 1, 0), take, finish, wait]);
    add("withdrawn", 3, &[loan, submit, take, (WITHDRAW, 0, 0, 0), look, finish, look]);
    add("batch-of-three", 69, &[loan, loan, loan, submit, submit, submit, take, finish, wait, wait, wait]);
    for (name, at) in [("magic", 0), ("version", 8), ("flags", 12), ("rows", 16), ("credits", 20), ("layouts", 24)] {
        add(
            &format!("header-{name}"),
            3,
            &[(HEADER, at, 0, 0x0102_0304), come, work, loan, submit, take, finish, wait],
        );
    }
    add("header-length", 3, &[(HEADER, 32, 0, u32::MAX), come, work]);
    add("layout", 3, &[(LAYOUT, 0, 40, 0x0bad_0bad), come, work]);
    for (name, word) in
        [("free", 0), ("writing", 1), ("running", 3), ("abandoned", 4), ("done", 5), ("failed", 6), ("none", 9)]
    {
        let lies =
            [(WORD, word, 0, u32::MAX), look, wait, take, finish, come, (WORKERS, GO, 0, 0), (CLIENTS, GO, 0, 0)];
        add(&format!("word-{name}"), 0x80, &[&[loan, submit][..], &lies].concat());
    }
    add("word-while-written", 1, &[loan, (WORD, 5, 0, 0), submit, wait, look]);
    add("word-while-it-runs", 1, &[loan, submit, take, (WORD, 2, 0, 0), take, finish, finish, wait]);
    add("bits-beyond-the-rows", 66, &[(BITS, 0, 8, u32::MAX), (BITS, 0, 12, u32::MAX), take, take, look]);
    add("bits-of-nobody", 5, &[(BITS, 0, 0, u32::MAX), take, loan, submit, take, finish, wait]);
    add("counts", 3, &[(COUNTS, 0, 0, u32::MAX), (COUNTS, 1, 0, u32::MAX), look, come, work, loan, submit, take]);
    add("looked-in-the-future", 3, &[(COUNTS, 3, 0, u32::MAX), loan, submit, wait]);
    let places =
        [(WORKER_PLACE, 0, 63, 1), (CLIENT_PLACE, 0, 1023, 1), (CLIENT_PLACE, 2, 1023, 1), (COUNTS, 0, 0, 2000)];
    add(
        "places",
        3,
        &[&places[..], &[(WANTING, 0, 124, u32::MAX), come, work, look, loan, submit, (WITHDRAW, 0, 0, 0)]].concat(),
    );
    add(
        "no-place",
        3,
        &[(WORKER_PLACE, 0, 0, 0), (CLIENT_PLACE, 0, 0, 0), come, work, look, loan, submit, take, finish, wait],
    );
    add("bells", 3, &[(BELL, 0, 0, 1), (BELL, 2, 0, 77), (WORKER_PLACE, 2, 0, 1), loan, submit, take, finish, wait]);
    add("text", 0, &[loan, submit, take, (FINISH, 0, 160, 0), (TEXT, 0, 0, 0xffff_ffff), wait]);
    // From 70 on a ring is isolated. Its clients' slots begin with the shapes of input and output.
    add("isolated", 73, &[loan, submit, take, finish, wait, look]);
    add("isolated-slot", 73, &[loan, (BELL, 6, 0, u32::MAX), (BELL, 4, 0, u32::MAX), submit, take, finish, wait]);
    for (name, at, size) in
        [("input", 0, u32::MAX), ("input-smaller", 0, 1), ("input-none", 0, 0), ("output", 4, u32::MAX)]
    {
        let lie = (SLOTS, 0, at, size);
        add(&format!("isolated-{name}"), 73, &[loan, lie, submit, lie, take, lie, finish, lie, wait]);
    }
    add(
        "isolated-and-gone",
        0xc9,
        &[loan, submit, take, (CLIENTS, GO, 0, 0), come, finish, (WITHDRAW, 0, 0, 0), come, look],
    );
    seeds
}

#[test]
fn the_seeds_of_the_fuzzer_hold() {
    let _alone = crate::alone();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/ring");
    let made_here = seeds();
    if std::env::var_os("TENSORBUS_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(&folder).unwrap();
        made_here.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
    }
    for (name, bytes) in &made_here {
        assert_eq!(&fs::read(folder.join(name)).unwrap(), bytes, "seed ring/{name} is not what this build writes");
    }
    let bus = bus("seeds");
    for file in fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()) {
        println!("{}", file.display());
        Run::from_bytes(&fs::read(&file).unwrap()).check(&bus);
    }
}
