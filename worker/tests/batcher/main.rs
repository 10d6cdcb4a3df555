//! FR-012: the batcher decides exactly what a naive model of it says, whatever happens; rows of two shapes are never mixed, none is
//! lost, run twice or too late, and none starves.
//!
//! Runs are made at random here, and by a fuzzer from the seeds in `fuzz/seeds/batcher`, which are replayed here too.
//! `TENSORBUS_WRITE_GOLDEN=1` writes the seeds made here; a file that the fuzzer found may be put beside them.
#![allow(clippy::unwrap_used, reason = "a failure ends the test")]
#![expect(unreachable_pub, reason = "shared with a fuzz target")]

mod model;
mod run;

use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use tensorbus_worker::batch::{Batch, Batcher, Next, Row, Settings};

use crate::run::Run;

/// `PROPTEST_CASES` sets another number.
const CASES: u32 = 2000;

#[test]
fn the_batcher_does_what_its_model_says() {
    let regressions = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/batcher/regressions.txt");
    let persistence = FileFailurePersistence::Direct(regressions);
    let cases = std::env::var_os("PROPTEST_CASES").map_or(CASES, |_| Config::default().cases);
    let config = Config { cases, failure_persistence: Some(Box::new(persistence)), ..Config::default() };
    let run = (any::<[u8; 4]>(), vec(any::<[u8; 3]>(), 0..150));
    let result = TestRunner::new(config).run(&run, |(settings, steps)| {
        Run::from_bytes(&[&settings[..], steps.as_flattened()].concat()).check();
        Ok(())
    });
    result.unwrap();
}

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

fn row(id: u64, client: u64) -> Row {
    Row { id, client, bucket: 0, priority: 0, deadline: None }
}

fn run(rows: &[u64]) -> Next {
    Next::Run(Batch { bucket: 0, rows: rows.to_vec() })
}

#[test]
fn clients_take_turns() {
    let mut batcher = Batcher::new(Settings { max_batch_size: 2, ..Settings::default() });
    for id in 0..6 {
        batcher.admit(row(id, 1), ms(0)).unwrap();
    }
    assert_eq!(batcher.next(ms(0)), run(&[0, 1]));
    for id in 10..12 {
        batcher.admit(row(id, 2), ms(1)).unwrap();
    }
    assert_eq!(
        batcher.next(ms(1)),
        run(&[10, 2]),
        "the other client begins with as many turns as the first one's last"
    );
    assert_eq!(batcher.next(ms(1)), run(&[11, 3]));
    assert_eq!(batcher.next(ms(1)), run(&[4, 5]));
}

#[test]
fn the_urgent_come_first_and_the_rest_is_not_forgotten() {
    let mut batcher = Batcher::new(Settings { max_batch_size: 1, ..Settings::default() });
    batcher.admit(Row { priority: 1, ..row(0, 1) }, ms(0)).unwrap();
    let mut order = Vec::new();
    for id in 1..6 {
        batcher.admit(row(id, 2), ms(id)).unwrap();
        let Next::Run(batch) = batcher.next(ms(id)) else { panic!("a row waits") };
        order.extend(batch.rows);
    }
    assert_eq!(order, [1, 2, 3, 0, 4], "the fourth batch is that of who waits for longest");
}

#[test]
fn a_row_waits_for_others_at_most_half_of_its_time() {
    let settings = Settings { max_batch_size: 8, max_delay: ms(10), preferred: vec![4], ..Settings::default() };
    let mut batcher = Batcher::new(settings);
    batcher.admit(row(0, 1), ms(0)).unwrap();
    assert_eq!(batcher.next(ms(0)), Next::Wait(Some(ms(10))));
    batcher.admit(Row { deadline: Some(ms(7)), ..row(1, 1) }, ms(1)).unwrap();
    assert_eq!(batcher.next(ms(1)), Next::Wait(Some(ms(4))));
    assert_eq!(batcher.next_deadline(), Some(ms(7)));
    assert_eq!(batcher.next(ms(4)), run(&[0, 1]));
    for id in 2..7 {
        batcher.admit(row(id, 1), ms(5)).unwrap();
    }
    assert_eq!(batcher.next(ms(5)), run(&[2, 3, 4, 5]), "a preferred size is run at once");
    batcher.admit(Row { deadline: Some(ms(6)), ..row(7, 1) }, ms(5)).unwrap();
    assert_eq!(batcher.next(ms(6)), Next::Expired(vec![7]));
}

#[test]
fn a_greedy_client_leaves_places() {
    let mut batcher = Batcher::new(Settings { max_waiting: 10, ..Settings::default() });
    let taken = (0..10).take_while(|&id| batcher.admit(row(id, 1), ms(0)).is_ok()).count();
    assert_eq!(taken, 5);
    let refused = batcher.admit(row(20, 1), ms(0)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "overloaded: 5 requests of this client wait and 5 places are left for all; wait for an answer, or ask later"
    );
    let others = (0..3).map(|client| batcher.admit(row(30 + client, 2 + client), ms(0)));
    assert!(others.into_iter().all(|admitted| admitted.is_ok()));
    assert_eq!(batcher.leave(1), [0, 1, 2, 3, 4]);
    assert!(batcher.cancel(30) && !batcher.cancel(30));
    assert_eq!(batcher.waiting(), 2);
}

/// Runs that each show one thing, by name.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    const ADMIT: u8 = 0;
    const CANCEL: u8 = 8;
    const LEAVE: u8 = 9;
    const EXPIRE: u8 = 10;
    const WAIT: u8 = 11;
    const NEXT: u8 = 15;
    let rows = |who: u8, count: usize| [ADMIT, who, 0].repeat(count);
    let next = |count: usize| [NEXT, 0, 0].repeat(count);
    vec![
        ("full", [vec![3, 10, 0, 200], rows(0, 9), next(3)].concat()),
        ("delay", [vec![7, 10, 0, 200], rows(0, 3), next(1), vec![WAIT, 0, 10], next(1)].concat()),
        ("preferred", [vec![7, 10, 3, 200], rows(0, 5), next(2)].concat()),
        ("two-preferred", [vec![7, 10, 7, 200], rows(0, 6), next(2)].concat()),
        ("two-buckets", [vec![3, 0, 0, 200], rows(0, 3), rows(4, 3), rows(0, 3), next(3)].concat()),
        ("fair", [vec![1, 0, 0, 200], rows(0, 8), next(1), rows(1, 2), rows(2, 2), next(6)].concat()),
        ("urgent", [vec![0, 0, 0, 200], rows(64, 4), rows(0, 6), next(10)].concat()),
        ("deadline", [vec![7, 31, 0, 200], vec![ADMIT, 0, 132, WAIT, 0, 4], next(2), vec![EXPIRE, 0, 0]].concat()),
        ("overloaded", [vec![3, 10, 0, 10], rows(0, 8), rows(1, 8), rows(2, 8), next(4)].concat()),
        ("given-up", [vec![7, 10, 0, 200], rows(0, 4), vec![CANCEL, 0, 2, LEAVE, 0, 0], rows(1, 1), next(1)].concat()),
    ]
}

#[test]
fn the_seeds_of_the_fuzzer_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/batcher");
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
