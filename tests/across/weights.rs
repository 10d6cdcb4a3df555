//! Weights that lie in a session, or in a file, once for all processes (US1, SC-001), whoever is killed.

use std::path::Path;
use std::time::Duration;

use tensorbus::{
    AttachWeightsError, BlobError, Bus, OpenWeightsError, PoolError, PublishWeightsError, SharedWeights, TensorView,
    WeightsFormatError,
};

use super::support::{Node, Random, Session, eventually};

const MIB: u64 = 1 << 20;

fn publish(bus: &Bus, name: &str, values: &[u32]) -> Result<SharedWeights, PublishWeightsError> {
    SharedWeights::publish(bus, name, [("w", TensorView::new(values, &[values.len()], &[1]).unwrap())])
}

fn files(bus: &Bus) -> usize {
    std::fs::read_dir(bus.directory().join("blobs")).map_or(0, Iterator::count)
}

/// Not at once: other tests start processes meanwhile, and one that is just being started shares our files until it runs.
fn nothing_is_left(bus: &Bus) {
    eventually("the weights are removed", || {
        bus.remove_dead().unwrap();
        files(bus) == 0
    });
}

fn right(node: &mut Node) {
    node.tell("?");
    node.expect("right");
}

#[test]
fn weights_survive_their_publisher_and_go_with_their_last_user() {
    let session = Session::new();
    let bus = session.bus();
    let mut publisher = session.node("weights-publish", &["llm/7b.v1", "1", "8"]);
    publisher.expect("ready");
    publisher.tell("go");
    let digest = publisher.line();
    let mut user = session.node("weights-attach", &["llm/7b.v1"]);
    user.expect(&digest);
    publisher.kill();
    bus.remove_dead().unwrap();
    right(&mut user);
    let mine = SharedWeights::attach(&bus, "llm/7b.v1").unwrap();
    assert_eq!(mine.digest().to_string(), digest);
    mine.verify().unwrap();
    assert_eq!(files(&bus), 1);
    user.kill();
    bus.remove_dead().unwrap();
    let tensor = mine.tensor("layer.3").unwrap().clone();
    drop(mine);
    assert_eq!(tensor.view::<u32>().unwrap().len(), 1 << 18);
    assert_eq!(files(&bus), 1, "a tensor keeps all");
    drop(tensor);
    nothing_is_left(&bus);
    let refused = SharedWeights::attach(&bus, "llm/7b.v1").unwrap_err();
    assert!(matches!(refused, AttachWeightsError::Blob(BlobError::NotThere { .. })), "{refused}");
}

#[test]
fn weights_keep_the_session() {
    let session = Session::new();
    let weights = publish(&session.bus(), "w", &[7; 5000]).unwrap();
    assert!(session.directory().exists(), "the bus was dropped, the weights keep it");
    weights.verify().unwrap();
}

#[test]
fn a_service_thread_removes_what_the_last_user_left() {
    let session = Session::new();
    let bus = session.builder().service_thread(Duration::from_millis(10)).open().unwrap();
    let mut publisher = session.node("weights-publish", &["w", "1", "1"]);
    publisher.expect("ready");
    publisher.tell("go");
    publisher.line();
    assert_eq!(files(&bus), 1);
    publisher.kill();
    eventually("the thread removes the weights", || files(&bus) == 0);
}

#[test]
fn processes_that_publish_the_same_at_once_get_one_copy() {
    let session = Session::new();
    let bus = session.bus();
    for round in 0..5 {
        let seed = round.to_string();
        let mut nodes: Vec<_> = (0..4).map(|_| session.node("weights-publish", &["same", &seed, "4"])).collect();
        nodes.iter().for_each(|node| node.expect("ready"));
        nodes.iter_mut().for_each(|node| node.tell("go"));
        let digests: Vec<_> = nodes.iter().map(Node::line).collect();
        assert!(digests.iter().all(|digest| *digest == digests[0]));
        assert_eq!(bus.blobs().unwrap().len(), 1);
        let bytes = bus.blobs().unwrap()[0].bytes;
        assert!((4 * MIB..5 * MIB).contains(&bytes), "{bytes}");
        for node in nodes {
            assert!(node.end().success());
        }
        nothing_is_left(&bus);
    }
}

/// What another one is writing is waited for, not asked room for.
#[test]
fn a_copy_that_is_just_being_made_needs_no_room() {
    let session = Session::new();
    let bus = session.builder().quota_bytes(6 * MIB).open().unwrap();
    for _ in 0..5 {
        let mut nodes: Vec<_> = (0..4).map(|_| session.node("weights-publish", &["same", "1", "5"])).collect();
        nodes.iter().for_each(|node| node.expect("ready"));
        nodes.iter_mut().for_each(|node| node.tell("go"));
        let digests: Vec<_> = nodes.iter().map(Node::line).collect();
        assert!(digests.iter().all(|digest| *digest == digests[0]));
        drop(nodes);
        nothing_is_left(&bus);
    }
}

#[test]
fn changed_weights_are_others() {
    let session = Session::new();
    let bus = session.bus();
    let attached = || SharedWeights::attach(&bus, "w").unwrap().tensor("w").unwrap().view::<u32>().unwrap()[0];
    let old = publish(&bus, "w", &[1; 3000]).unwrap();
    let new = publish(&bus, "w", &[2; 3000]).unwrap();
    assert_eq!((attached(), bus.blobs().unwrap().len()), (2, 2));
    assert_eq!(old.tensor("w").unwrap().view::<u32>().unwrap()[0], 1);
    let again = publish(&bus, "w", &[1; 3000]).unwrap();
    assert_eq!((attached(), bus.blobs().unwrap().len(), again.digest() == old.digest()), (1, 2, true));
    drop((old, again));
    eventually("the old ones go", || bus.blobs().unwrap().len() == 1);
    assert_eq!(attached(), 2);
    drop(new);
    nothing_is_left(&bus);
}

/// FR-011: what weights take counts as pools do, and is given back.
#[test]
fn weights_count_against_the_quota() {
    let session = Session::new();
    let bus = session.builder().quota_bytes(8 * MIB).open().unwrap();
    let mut node = session.node("weights-publish", &["w", "1", "5"]);
    node.expect("ready");
    node.tell("go");
    node.line();
    let used = || bus.quota().unwrap().unwrap().used;
    assert!((5 * MIB..6 * MIB).contains(&used()), "{}", used());
    let refused = publish(&bus, "mine", &vec![7; MIB as usize]).unwrap_err();
    assert!(matches!(refused, PublishWeightsError::Blob(BlobError::Pool(PoolError::Quota { .. }))), "{refused}");
    let pool = bus.topic("numbers").slots(4).slot_bytes(1 << 20).publisher();
    assert!(pool.is_err(), "pools and weights share the quota");
    assert_eq!(files(&bus), 1, "nothing is left of what was refused");
    // A dead one's weights make room at once.
    node.kill();
    eventually("the kernel has let go of the killed one's memory", || used() == 0);
    let mine = publish(&bus, "mine", &vec![7; MIB as usize]).unwrap();
    assert!(used() >= 4 * MIB);
    drop(mine);
    eventually("given back", || used() == 0);
}

#[test]
fn more_than_there_is_room_for_is_refused() {
    let session = Session::new();
    let bus = session.bus();
    let all = bus.publish_blob("all", [0; 32], u64::MAX / 2, |_| unreachable!());
    assert!(matches!(all, Err(BlobError::Pool(PoolError::FilesystemFull { .. } | PoolError::MemoryShort { .. }))));
    let short = bus.publish_blob("short", [0; 32], 100, |file| file.write_all(b"less"));
    assert!(matches!(short, Err(BlobError::Length { announced: 100, written: 4, .. })));
    let failing = bus.publish_blob("failing", [0; 32], 100, |_| Err(std::io::ErrorKind::Other.into()));
    assert!(matches!(failing, Err(BlobError::Io { .. })));
    assert!(matches!(bus.publish_blob("empty", [0; 32], 0, |_| Ok(())), Err(BlobError::Empty { .. })));
    assert_eq!(files(&bus), 0);
}

#[test]
fn names_are_checked() {
    let session = Session::new();
    let bus = session.bus();
    for bad in ["", "/a", "a/", "a b", "ä", "a@b", "a:b", "a\0", &"x".repeat(129), &"x".repeat(4096)] {
        assert!(matches!(publish(&bus, bad, &[1]), Err(PublishWeightsError::Blob(BlobError::Name { .. }))), "{bad}");
        let attached = SharedWeights::attach(&bus, bad);
        assert!(matches!(attached, Err(AttachWeightsError::Blob(BlobError::Name { .. }))), "{bad}");
    }
    for good in ["a", "../..", "a/b/c_d-1.0", &"x".repeat(128)] {
        let weights = publish(&bus, good, &[1]).unwrap();
        assert_eq!(SharedWeights::attach(&bus, good).unwrap().digest(), weights.digest());
        assert_eq!(files(&bus), 1, "{good}");
        drop(weights);
    }
}

/// Something else than weights under the name, put there by another program.
#[test]
fn what_are_no_weights_is_refused() {
    let session = Session::new();
    let bus = session.bus();
    let _blob = bus.publish_blob("w", [1; 32], 5, |file| file.write_all(b"bytes")).unwrap();
    let refused = SharedWeights::attach(&bus, "w").unwrap_err();
    assert!(
        matches!(&refused, AttachWeightsError::Format { reason: WeightsFormatError::Safetensors(_), .. }),
        "{refused}"
    );
}

/// Publishers are killed wherever they are: those that are left get right bytes, and nothing stays of what was begun.
#[test]
fn kills_at_random_points_of_publishing_leave_nothing() {
    let mut random = Random::seeded();
    let session = Session::new();
    let bus = session.builder().quota_bytes(256 * MIB).open().unwrap();
    let mine = publish(&bus, "mine", &[7; 100_000]).unwrap();
    let alone = bus.quota().unwrap().unwrap().used;
    for round in 0..20 {
        let mut nodes =
            [session.node("weights-publish-for-ever", &["4"]), session.node("weights-publish-for-ever", &["4"])];
        nodes.iter().for_each(|node| node.expect("ready"));
        nodes.iter_mut().for_each(|node| node.tell("go"));
        let nap = bus.topic("waited").subscriber().unwrap();
        for node in &mut nodes {
            assert!(nap.recv(Duration::from_micros(random.below(60_000))).is_err());
            if let Ok(theirs) = SharedWeights::attach(&bus, "contested") {
                theirs.verify().unwrap();
            }
            let status = node.kill();
            assert!(status.code().is_none(), "round {round}: ended by itself, {status}");
        }
        eventually("only my weights are left", || {
            bus.remove_dead().unwrap();
            files(&bus) == 1 && bus.quota().unwrap().unwrap().used == alone
        });
        mine.verify().unwrap();
    }
}

/// SC-001: four processes that have read every byte take the memory of at most 1.03 copies, in the session and from a file.
#[test]
fn all_processes_together_take_the_memory_of_one_copy() {
    let session = Session::new();
    let bus = session.bus();
    let len = (32 * MIB / 4) as usize;
    let values: Vec<u32> = (0..len as u32).collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.safetensors");
    let published = publish(&bus, "w", &values).unwrap();
    let blob = bus.directory().join("blobs");
    // The published bytes are those of a file.
    std::fs::copy(std::fs::read_dir(&blob).unwrap().next().unwrap().unwrap().path(), &path).unwrap();
    let digest = published.digest().to_string();
    drop(published);
    let first = publish(&bus, "w", &values).unwrap();
    let attached: Vec<_> = (0..4).map(|_| session.node("weights-attach", &["w"])).collect();
    attached.iter().for_each(|node| node.expect(&digest));
    drop(first);
    check_memory(&attached, &blob, len * 4);
    let mapped: Vec<_> = (0..4).map(|_| session.node("weights-map", &[path.to_str().unwrap()])).collect();
    mapped.iter().for_each(|node| node.expect(&digest));
    check_memory(&mapped, &path, len * 4);
}

fn check_memory(nodes: &[Node], path: &Path, bytes: usize) {
    let kib: usize = nodes.iter().map(|node| pss_kib(node.pid(), path)).sum();
    let copies = (kib << 10) as f64 / bytes as f64;
    println!("{}: {copies:.3} copies", path.display());
    assert!((0.97..=1.03).contains(&copies), "{copies} copies for {} processes", nodes.len());
}

/// Proportional set size of the process's mappings of files at or below a path, in KiB (proc_pid_smaps(5)); of all its memory
/// for an empty path.
pub(crate) fn pss_kib(pid: u32, path: &Path) -> usize {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let (mut counts, mut kib) = (false, 0);
    for line in smaps.lines() {
        if let Some(pss) = line.strip_prefix("Pss:") {
            let number = pss.trim().strip_suffix("kB").unwrap().trim();
            kib += if counts { number.parse::<usize>().unwrap() } else { 0 };
        } else if line.split_ascii_whitespace().next().is_some_and(|first| !first.ends_with(':')) {
            counts = line.contains(path.to_str().unwrap());
        }
    }
    kib
}

#[test]
fn a_file_that_is_replaced_keeps_its_readers() {
    let session = Session::new();
    let bus = session.bus();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.safetensors");
    let write = |value: u32| {
        let name = format!("source{value}");
        let weights = publish(&bus, &name, &[value; 2000]).unwrap();
        let new = directory.path().join("new");
        let blob = bus.directory().join("blobs").join(format!("{name}@0@{}", weights.digest()));
        std::fs::copy(blob, &new).unwrap();
        std::fs::rename(new, &path).unwrap();
        weights.digest()
    };
    let first = write(1);
    let old = SharedWeights::open(&path).unwrap();
    let second = write(2);
    let new = SharedWeights::open(&path).unwrap();
    assert_eq!((old.digest(), new.digest()), (first, second));
    old.verify().unwrap();
    let copy = new.publish_copy(&bus, "copy").unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(copy.tensor("w").unwrap().view::<u32>().unwrap(), [2; 2000]);
    assert_eq!(copy.digest(), second, "a copy of the same tensors is the same");
}

/// What `docs/safety.md` says of a file that its owner writes into.
#[test]
fn a_file_that_is_written_into_changes_and_is_found_out() {
    let session = Session::new();
    let bus = session.bus();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.safetensors");
    let source = publish(&bus, "source", &[7; 2000]).unwrap();
    std::fs::copy(bus.directory().join(format!("blobs/source@0@{}", source.digest())), &path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mapped = SharedWeights::open(&path).unwrap();
    assert_eq!(mapped.digest(), source.digest());
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let end = file.metadata().unwrap().len();
    std::os::unix::fs::FileExt::write_all_at(&file, &9u32.to_le_bytes(), end - 4).unwrap();
    assert_eq!(mapped.tensor("w").unwrap().view::<u32>().unwrap().last(), Some(&9), "what lies there is what is read");
    assert!(mapped.verify().is_err());
    source.verify().unwrap();
}

/// What `docs/safety.md` says of a file that its owner cuts off: a reader ends with SIGBUS, those of a copy go on.
#[test]
fn a_file_that_is_cut_off_ends_its_readers_and_a_copy_does_not() {
    let session = Session::new();
    let bus = session.bus();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.safetensors");
    let values = vec![7; 100_000];
    let source = publish(&bus, "source", &values).unwrap();
    let blob = format!("blobs/source@0@{}", source.digest());
    std::fs::copy(bus.directory().join(blob), &path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    drop(source);
    let mapped = SharedWeights::open(&path).unwrap();
    let copy = mapped.publish_copy(&bus, "copy").unwrap();
    let mut reader = session.node("weights-map", &[path.to_str().unwrap()]);
    reader.expect(&copy.digest().to_string());
    std::fs::File::options().write(true).open(&path).unwrap().set_len(8192).unwrap();
    reader.tell("?");
    let status = reader.end();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(rustix::process::Signal::BUS.as_raw()));
    copy.verify().unwrap();
    assert_eq!(copy.tensor("w").unwrap().view::<u32>().unwrap(), values);
    assert!(matches!(SharedWeights::open(&path), Err(OpenWeightsError::Format { .. })), "truncated");
}
