//! FR-015, FR-020: whatever is lost, late or doubled, a directory becomes what its registries say; whatever bytes come, they are
//! taken for what they are or refused. Runs on the seeds of the fuzz targets too; `TENSORBUS_WRITE_GOLDEN=1` writes those
//! that are made here.
#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

#[path = "../../../fuzz/src/directory.rs"]
#[expect(unreachable_pub, reason = "a library where the fuzz targets use it")]
mod checks;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tensorbus_registry::directory::Known;
use tensorbus_registry::directory::wire::{
    AnnouncedModel, Announcement, Answer, Command, DirectoryDecodeError, GET, Heard, LIST, Page, Query, UNLOAD, WATCH,
    cut, decode_announcement, decode_command, encode_announcement, encode_answer, encode_command, encode_page,
    encode_query,
};

fn model(key: &str, state: u8) -> AnnouncedModel {
    AnnouncedModel {
        key: key.to_owned(),
        state,
        pinned: false,
        device: "cuda:0".to_owned(),
        bytes: 1 << 30,
        handles: 2,
        uses: 17,
        keep_alive_ms: 30_000,
        loaded_at_ms: 1_700_000_000_000,
        last_used_ms: 1_700_000_001_000,
        failure: String::new(),
    }
}

fn announcement(pid: u32, process: u64, incarnation: u64, revision: u64) -> Announcement {
    Announcement {
        pid,
        process,
        incarnation,
        revision,
        farewell: false,
        program: "camera".to_owned(),
        budget: 0,
        omitted: 0,
        models: vec![model("bert", revision as u8 % 5), model("resnet", 2)],
    }
}

/// Registries: a process id, which of the processes that had it, and how many announcements it made.
type World = Vec<(u32, u64, u64)>;

proptest! {
    /// Of each registry some announcements come, in their order, mixed with those of others, of the dead too. When those that
    /// live have been heard once more, the directory is what they say.
    #[test]
    fn a_directory_becomes_what_the_living_say(
        world in vec((1..4_u32, 0..3_u64, 1..5_u64), 1..8),
        noise in vec(any::<Index>(), 0..60),
        looks in vec(any::<bool>(), 60),
    ) {
        let world: World = world;
        let mut known = Known::default();
        let mut told = vec![0; world.len()];
        for (registry, look) in noise.iter().map(|index| index.index(world.len())).zip(looks) {
            let (pid, process, announcements) = world[registry];
            // Doubled when there are no more.
            told[registry] = (told[registry] + 1).min(announcements);
            known.heard(announcement(pid, process, registry as u64, told[registry]), Duration::ZERO);
            if look {
                known.living(&[1, 2, 3]);
            }
        }
        // Of the processes that had the ids 1 and 2 the latest lives, the one with 3 is dead.
        let living = |pid: u32| world.iter().filter(|other| other.0 == pid).map(|other| other.1).max();
        let is_alive = |&(_, (pid, process, _)): &(usize, (u32, u64, u64))| pid < 3 && living(pid) == Some(process);
        let alive: Vec<_> = world.iter().copied().enumerate().filter(is_alive).collect();
        for &(registry, (pid, process, announcements)) in &alive {
            let heard_at = Duration::from_secs(registry as u64);
            known.heard(announcement(pid, process, registry as u64, announcements + 1), heard_at);
        }
        known.living(&[1, 2]);
        let mut expected: Vec<_> = alive.iter().map(|&(registry, (pid, _, said))| (pid, registry as u64, said + 1)).collect();
        expected.sort_unstable();
        let now = Duration::from_secs(5);
        let seen = known.processes(now);
        let actual: Vec<_> = seen.iter().map(|process| (process.pid, process.incarnation, process.revision)).collect();
        prop_assert_eq!(actual, expected);
        for process in seen {
            prop_assert_eq!(process.silent_for, now - Duration::from_secs(process.incarnation).min(now));
            prop_assert_eq!(process.is_stale, process.silent_for >= Duration::from_secs(3));
        }
    }

    #[test]
    fn announcements_come_back_as_they_were(
        keys in proptest::collection::btree_set("[a-z/:0-9]{1,40}", 0..20),
        numbers in any::<[u64; 6]>(),
        state in 0..5_u8,
        text in "\\PC{0,60}",
    ) {
        let models = keys.iter().map(|key| AnnouncedModel {
            bytes: numbers[0],
            handles: numbers[1],
            keep_alive_ms: numbers[2],
            failure: text.clone(),
            ..model(key, state)
        });
        let announcement = Announcement {
            models: models.collect(),
            budget: numbers[3],
            program: cut(&text, 64),
            ..announcement(numbers[4] as u32, numbers[5], 1, 1)
        };
        prop_assert_eq!(decode_announcement(&encode_announcement(&announcement)), Ok(announcement));
    }
}

#[test]
fn a_farewell_removes_one_registry() {
    let mut known = Known::default();
    known.heard(announcement(1, 7, 10, 1), Duration::ZERO);
    known.heard(announcement(1, 7, 11, 1), Duration::ZERO);
    let farewell = Announcement { farewell: true, models: Vec::new(), ..announcement(1, 7, 10, 2) };
    assert!(known.heard(farewell.clone(), Duration::ZERO));
    assert!(!known.heard(farewell, Duration::ZERO));
    assert_eq!(known.processes(Duration::ZERO)[0].incarnation, 11);
}

#[test]
fn a_heartbeat_is_no_news() {
    let mut known = Known::default();
    assert!(known.heard(announcement(1, 7, 10, 1), Duration::ZERO));
    assert!(!known.heard(announcement(1, 7, 10, 1), Duration::from_secs(9)), "an old one does not say that it lives");
    assert!(known.processes(Duration::from_secs(9))[0].is_stale);
    assert!(!known.heard(announcement(1, 7, 10, 6), Duration::from_secs(9)));
    assert!(!known.processes(Duration::from_secs(9))[0].is_stale);
}

#[test]
fn what_breaks_a_rule_is_refused() {
    let refused = |announcement: &Announcement| decode_announcement(&encode_announcement(announcement)).unwrap_err();
    let with = |models: Vec<AnnouncedModel>| Announcement { models, ..announcement(1, 1, 1, 1) };
    let key = "k".repeat(4096);
    assert!(matches!(refused(&with(vec![model(&key, 0)])), DirectoryDecodeError::Key(_)));
    assert!(matches!(refused(&with(vec![model("", 0)])), DirectoryDecodeError::Key(_)));
    assert!(matches!(refused(&with(vec![model("a", 5)])), DirectoryDecodeError::Meaning { field: "state", value: 5 }));
    assert!(matches!(refused(&with(vec![model("b", 0), model("a", 0)])), DirectoryDecodeError::Meaning { .. }));
    assert!(matches!(refused(&with(vec![model("a", 0), model("a", 0)])), DirectoryDecodeError::Meaning { .. }));
    let many = (0..600).map(|number| model(&format!("{number:04}"), 0)).collect();
    assert!(matches!(refused(&with(many)), DirectoryDecodeError::Limit { value: 600, .. }));
    let good = encode_announcement(&announcement(1, 1, 1, 1));
    assert!(matches!(decode_command(&good), Err(DirectoryDecodeError::Kind { kind: 1, expected: 2 })));
    assert!(matches!(decode_announcement(&good[..good.len() - 1]), Err(DirectoryDecodeError::Length { .. })));
    let mut other_version = good.clone();
    other_version[4] = 2;
    assert_eq!(decode_announcement(&other_version), Err(DirectoryDecodeError::OtherVersion { version: 2 }));
    // A key that is not UTF-8.
    let mut not_text = good.clone();
    let at = not_text.windows(6).position(|window| window == b"resnet").unwrap();
    not_text[at + 1] = 0x80;
    assert!(matches!(decode_announcement(&not_text), Err(DirectoryDecodeError::Archive { .. })));
}

type Seeds = BTreeMap<&'static str, Vec<u8>>;

#[test]
fn announcements_keep_their_promises() {
    let good = encode_announcement(&announcement(1, 2, 3, 4));
    let empty = Announcement { models: Vec::new(), farewell: true, ..announcement(1, 2, 3, 5) };
    let seeds = Seeds::from([
        ("two-models", good.clone()),
        ("farewell", encode_announcement(&empty)),
        ("bad-empty", Vec::new()),
        ("bad-truncated", good[..good.len() - 1].to_vec()),
        ("bad-command", encode_command(&Command { what: UNLOAD, key: "m".to_owned() })),
    ]);
    replay("decode_announcement", &seeds, checks::announcement);
}

#[test]
fn commands_keep_their_promises() {
    let good = encode_command(&Command { what: UNLOAD, key: "resnet50/1".to_owned() });
    let seeds = Seeds::from([
        ("bad-truncated", good[..good.len() - 1].to_vec()),
        ("unload", good),
        ("done", encode_answer(&Answer { refusal: String::new() })),
        ("refused", encode_answer(&Answer { refusal: "it is in use".to_owned() })),
        ("bad-what", encode_command(&Command { what: 9, key: "m".to_owned() })),
        ("bad-key", encode_command(&Command { what: UNLOAD, key: String::new() })),
        ("list", encode_query(&Query { what: LIST, key: "resnet".to_owned(), registry: 3, ..Query::default() })),
        ("get", encode_query(&Query { what: GET, key: "resnet".to_owned(), ..Query::default() })),
        ("watch", encode_query(&Query { what: WATCH, seen: 7, patience_ms: 1000, ..Query::default() })),
        ("bad-query", encode_query(&Query { what: 4, ..Query::default() })),
        ("bad-query-key", encode_query(&Query { what: GET, key: "k".repeat(300), ..Query::default() })),
        ("page", encode_page(&page(announcement(1, 2, 3, 4)))),
        ("bad-page", encode_page(&page(Announcement { program: "p".repeat(100), ..announcement(1, 2, 3, 4) }))),
    ]);
    replay("decode_command", &seeds, checks::command);
}

fn page(announcement: Announcement) -> Page {
    Page { generation: 5, silent: 1, more: true, registries: vec![Heard { announcement, silent_ms: 20 }] }
}

/// Checks all seeds of a target, and every one-bit change to them.
fn replay(target: &str, made_here: &Seeds, check: fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    if std::env::var_os("TENSORBUS_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(&folder).unwrap();
        made_here.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
    }
    for (name, bytes) in made_here {
        assert_eq!(&fs::read(folder.join(name)).unwrap(), bytes, "seed {target}/{name} is not what this build writes");
    }
    for file in fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()) {
        println!("{}", file.display());
        let bytes = fs::read(&file).unwrap();
        let is_bad = file.file_name().unwrap().to_str().unwrap().starts_with("bad-");
        assert_eq!(check(&bytes), !is_bad, "{}", file.display());
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            check(&changed);
        }
    }
}
