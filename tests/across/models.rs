//! FR-015: the models of every process, as anyone on the bus sees them; those of the dead disappear on their own.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tensorbus::{
    Directory, Measured, ModelInfo, ModelRegistry, ModelState, ProcessModels, RemoteUnloadError, unload_remotely,
};

use crate::support::{Node, PATIENCE, Random, Session};

fn tell(node: &mut Node, line: &str) {
    node.tell(line);
    node.expect("done");
}

fn of<'a>(processes: &'a [ProcessModels], node: &Node) -> Option<&'a ProcessModels> {
    processes.iter().find(|process| process.pid == node.pid())
}

fn model<'a>(processes: &'a [ProcessModels], node: &Node, key: &str) -> Option<&'a ModelInfo> {
    of(processes, node)?.models.iter().find(|model| model.key == key)
}

fn is(processes: &[ProcessModels], node: &Node, key: &str, state: ModelState) -> bool {
    model(processes, node, key).is_some_and(|model| model.state == state)
}

#[test]
fn each_state_of_a_model_is_seen_by_others() {
    let session = Session::new();
    let bus = session.bus();
    let mut directory = Directory::open(&bus).unwrap();
    let mut node = session.node("models", &[]);
    node.expect("ready");
    directory.wait_for(PATIENCE, |seen| of(seen, &node).is_some()).unwrap();

    tell(&mut node, "load resnet 1000");
    directory.wait_for(PATIENCE, |seen| is(seen, &node, "resnet", ModelState::InUse)).unwrap();
    let seen = directory.processes();
    let resnet = model(&seen, &node, "resnet").unwrap();
    assert_eq!((resnet.bytes, resnet.handles, resnet.device.as_str()), (1000, 1, "cpu"));
    assert!(resnet.loaded_at.is_some());
    assert_eq!(of(&seen, &node).unwrap().program, "node");

    tell(&mut node, "load resnet 1000");
    let handles = |seen: &[ProcessModels]| model(seen, &node, "resnet").map(|model| model.handles);
    directory.wait_for(PATIENCE, |seen| handles(seen) == Some(2)).unwrap();
    tell(&mut node, "drop");
    directory.wait_for(PATIENCE, |seen| is(seen, &node, "resnet", ModelState::Idle)).unwrap();
    tell(&mut node, "fail bert");
    directory.wait_for(PATIENCE, |seen| is(seen, &node, "bert", ModelState::Failed)).unwrap();
    let seen = directory.processes();
    assert!(model(&seen, &node, "bert").unwrap().failure.as_ref().unwrap().contains("no weights"));
    tell(&mut node, "hang llama");
    directory.wait_for(PATIENCE, |seen| is(seen, &node, "llama", ModelState::Loading)).unwrap();
    assert_eq!(model(&directory.processes(), &node, "llama").unwrap().bytes, 77, "what is reserved");
    node.kill();
}

#[test]
fn who_comes_late_is_told_everything() {
    let session = Session::new();
    let bus = session.bus();
    let mut nodes: Vec<_> = (0..3).map(|_| session.node("models", &[])).collect();
    for (number, node) in nodes.iter_mut().enumerate() {
        node.expect("ready");
        tell(node, &format!("load model-{number} {}", number + 1));
    }
    let mut directory = Directory::open(&bus).unwrap();
    assert_eq!(directory.complete(PATIENCE).unwrap(), 0);
    let ours = |seen: &[ProcessModels]| {
        nodes.iter().enumerate().all(|(number, node)| is(seen, node, &format!("model-{number}"), ModelState::InUse))
    };
    directory.wait_for(PATIENCE, ours).unwrap();
    assert_eq!(directory.processes().len(), 3);
    assert_eq!(directory.rejected().0, 0);
    nodes.iter_mut().for_each(|node| assert!(!node.kill().success()));
}

#[test]
fn the_models_of_a_killed_process_are_gone() {
    let session = Session::new();
    let bus = session.bus();
    let mut directory = Directory::open(&bus).unwrap();
    let (mut dies, mut lives) = (session.node("models", &[]), session.node("models", &[]));
    for node in [&mut dies, &mut lives] {
        node.expect("ready");
        tell(node, "load m 5");
        tell(node, "hang n");
    }
    let there = |seen: &[ProcessModels], node: &Node| {
        is(seen, node, "m", ModelState::InUse) && is(seen, node, "n", ModelState::Loading)
    };
    directory.wait_for(PATIENCE, |seen| there(seen, &dies) && there(seen, &lives)).unwrap();
    dies.kill();
    // At once: nobody has to clean first.
    directory.refresh().unwrap();
    let seen = directory.processes();
    assert!(of(&seen, &dies).is_none() && there(&seen, &lives), "{seen:?}");
    lives.kill();
    directory.refresh().unwrap();
    assert!(directory.processes().is_empty());
}

#[test]
fn a_process_that_hangs_is_shown_as_stale() {
    let session = Session::new();
    let bus = session.bus();
    let mut directory = Directory::open(&bus).unwrap();
    let mut node = session.node("models", &[]);
    node.expect("ready");
    tell(&mut node, "load m 5");
    directory.wait_for(PATIENCE, |seen| is(seen, &node, "m", ModelState::InUse)).unwrap();
    assert!(!of(&directory.processes(), &node).unwrap().is_stale);
    let pid = Pid::from_raw(node.pid() as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let stale = |seen: &[ProcessModels]| of(seen, &node).is_some_and(|process| process.is_stale);
    directory.wait_for(PATIENCE, stale).unwrap();
    assert!(is(&directory.processes(), &node, "m", ModelState::InUse), "what it said last is kept");
    let mut late = Directory::open(&bus).unwrap();
    assert_eq!(
        late.complete(Duration::from_millis(300)).unwrap(),
        1,
        "one that comes late knows that somebody is silent"
    );
    kill_process(pid, Signal::CONT).unwrap();
    directory.wait_for(PATIENCE, |seen| !stale(seen)).unwrap();
    node.kill();
}

#[test]
fn a_registry_that_ends_says_so() {
    let session = Session::new();
    let bus = session.bus();
    let mut directory = Directory::open(&bus).unwrap();
    let mut node = session.node("models", &[]);
    node.expect("ready");
    tell(&mut node, "load m 5");
    directory.wait_for(PATIENCE, |seen| of(seen, &node).is_some()).unwrap();
    node.tell("end");
    node.expect("left");
    directory.wait_for(PATIENCE, <[ProcessModels]>::is_empty).unwrap();
    assert!(bus.members().unwrap().0.contains(&node.pid()), "it lives");
    assert!(node.end().success());
}

#[test]
fn a_model_is_unloaded_from_another_process() {
    let session = Session::new();
    let bus = session.bus();
    let mut directory = Directory::open(&bus).unwrap();
    let mut node = session.node("models", &[]);
    node.expect("ready");
    tell(&mut node, "load m 5");
    directory.wait_for(PATIENCE, |seen| is(seen, &node, "m", ModelState::InUse)).unwrap();
    let process = of(&directory.processes(), &node).unwrap().clone();
    let unload = |key: &str| unload_remotely(&bus, &process, key, PATIENCE);
    let refused = unload("m").unwrap_err();
    assert!(refused.to_string().contains("in use by 1 handles"), "{refused}");
    let unknown = unload("other").unwrap_err();
    assert!(unknown.to_string().contains("no model \"other\" is loaded"), "{unknown}");
    assert!(matches!(unload(""), Err(RemoteUnloadError::Key(_))));
    assert!(matches!(unload(&"k".repeat(4096)), Err(RemoteUnloadError::Key(_))));
    tell(&mut node, "drop");
    unload("m").unwrap();
    directory.wait_for(PATIENCE, |seen| model(seen, &node, "m").is_none()).unwrap();
    node.kill();
    let gone = unload("m").unwrap_err();
    assert!(matches!(gone, RemoteUnloadError::Call { .. }), "{gone}");
}

/// FR-020: what is no announcement is counted and skipped.
#[test]
fn what_is_no_announcement_is_skipped() {
    let session = Session::new();
    let bus = session.bus();
    let mut directory = Directory::open(&bus).unwrap();
    let registry = ModelRegistry::new();
    let announcing = registry.announce(&bus).unwrap();
    let publisher = bus.topic(tensorbus::MODELS_TOPIC).slot_bytes(4096).publisher().unwrap();
    publisher.publish_copy(&[0_u8; 100], &[100]).unwrap();
    publisher.publish_copy(&[1.0_f32; 8], &[8]).unwrap();
    let mut other_version = b"TBMD\x02\x00\x01\x00".to_vec();
    other_version.resize(64, 0);
    directory.refresh().unwrap();
    publisher.publish_copy(&other_version, &[64]).unwrap();
    directory.refresh().unwrap();
    assert_eq!(directory.rejected().0, 3);
    assert!(directory.rejected().1.unwrap().to_string().contains("version 2"));
    let held = registry.get_or_load_blocking("m", || std::io::Result::Ok(Measured::new((), 1))).unwrap();
    directory.wait_for(PATIENCE, |seen| seen.len() == 1 && seen[0].models.len() == 1).unwrap();
    drop((held, announcing));
}

#[test]
fn registries_of_one_process_are_told_apart() {
    let session = Session::new();
    let bus = session.bus();
    let mut directory = Directory::open(&bus).unwrap();
    let registries = [ModelRegistry::new(), ModelRegistry::builder().memory_budget(9).build()];
    let announcing: Vec<_> = registries.iter().map(|registry| registry.announce(&bus).unwrap()).collect();
    directory.wait_for(PATIENCE, |seen| seen.len() == 2).unwrap();
    let mut incarnations: Vec<_> = announcing.iter().map(|announcing| announcing.incarnation()).collect();
    let seen = directory.processes();
    incarnations.sort_unstable();
    assert_eq!(seen.iter().map(|process| process.incarnation).collect::<Vec<_>>(), incarnations);
    assert!(seen.iter().all(|process| process.pid == std::process::id()));
    assert!(seen.iter().any(|process| process.memory_budget == Some(9)));
    drop(announcing);
    directory.wait_for(PATIENCE, <[ProcessModels]>::is_empty).unwrap();
}

/// Killed at any point of loading, announcing, joining and leaving: the others see what is true, and nothing is left.
#[test]
fn a_process_may_be_killed_at_any_point() {
    let mut random = Random::seeded();
    let session = Session::new();
    let bus = session.bus();
    let mut directory = Directory::open(&bus).unwrap();
    let mut lives = session.node("models", &[]);
    lives.expect("ready");
    tell(&mut lives, "load m 5");
    for round in 0..25 {
        let mut dies = session.node("models-for-ever", &[]);
        dies.expect("ready");
        std::thread::sleep(Duration::from_micros(random.below(150_000)));
        dies.kill();
        directory.refresh().unwrap();
        assert!(of(&directory.processes(), &dies).is_none(), "round {round}: the dead one is still there");
        directory.wait_for(PATIENCE, |seen| is(seen, &lives, "m", ModelState::InUse)).unwrap();
        if round % 5 == 4 {
            bus.remove_dead().unwrap();
            assert!(bus.members().unwrap().1.is_empty(), "round {round}: dead members are left");
            let mut late = Directory::open(&bus).unwrap();
            assert_eq!(late.complete(PATIENCE).unwrap(), 0, "round {round}: publishers of the dead are left");
            assert_eq!(late.processes().len(), 1);
        }
    }
    assert_eq!(directory.rejected().0, 0, "no half announcement was heard");
    let process = of(&directory.processes(), &lives).unwrap().clone();
    tell(&mut lives, "drop");
    unload_remotely(&bus, &process, "m", PATIENCE).unwrap();
    lives.kill();
}

/// Memory of the session's files.
fn bytes_of(session: &Session) -> u64 {
    use std::os::unix::fs::MetadataExt;
    session.files().iter().map(|path| std::fs::metadata(path).unwrap().blocks() * 512).sum()
}

/// Each process that announces its models has a control service, and a publisher whose slots grow: together they take less of the
/// session's memory than one small image.
#[test]
fn announcing_takes_little_memory() {
    let session = Session::new();
    let bus = session.bus();
    let before = bytes_of(&session);
    let registry = ModelRegistry::new();
    let _announcing = registry.announce(&bus).unwrap();
    let mut directory = Directory::open(&bus).unwrap();
    directory.wait_for(PATIENCE, |seen| !seen.is_empty()).unwrap();
    let taken = bytes_of(&session) - before;
    println!("an announcing registry takes {taken} bytes");
    assert!(taken < 192 << 10, "{taken} bytes");
}
