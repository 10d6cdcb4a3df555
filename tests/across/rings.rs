//! Request rings: what clients and workers get when others are killed, stopped, too many, or something else (FR-005, FR-009).

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tensorbus::prelude::*;
use tensorbus::{
    AnswerError, Batch, MAX_RING_ROWS, Pending, PoolError, RequestLoanError, RingBuilder, RingClient, RingError,
    RingFormatError, RingSpecError, RingWorker, RowCounts, TakeError,
};

use crate::support::{Node, PATIENCE, Session, eventually};

/// Numbers in an input and in an output, as in `tests/node/ring.rs`.
const LEN: usize = 256;
const ROWS: usize = 8;
const MOMENT: Duration = Duration::from_millis(1);

fn ring(bus: &Bus, policy: &str) -> RingBuilder {
    let ring = bus.ring("model").input("x", Dtype::U64, &[LEN]).output("y", Dtype::U64, &[LEN]);
    let ring = ring.rows(ROWS).credits(ROWS);
    if policy == "repeatable" { ring.repeatable() } else { ring }
}

fn worker_in_a_process(session: &Session, policy: &str) -> Node {
    let node = session.node("ring-worker", &["model", policy, &ROWS.to_string()]);
    node.expect("ready");
    node
}

fn client_in_a_process(session: &Session) -> Node {
    let node = session.node("ring-client", &["model"]);
    node.expect("ready");
    node
}

fn ask(node: &mut Node, order: &str, answer: &str) {
    node.tell(order);
    node.expect(answer);
}

/// A request whose answer is the number and one.
fn submit(client: &RingClient, number: u64) -> Pending {
    let mut request = client.loan(PATIENCE).unwrap();
    request.view_mut::<u64>("x").unwrap().fill(number);
    request.submit().unwrap()
}

fn take(worker: &mut RingWorker) -> Batch {
    worker.take(usize::MAX, PATIENCE).unwrap()
}

fn answer(mut batch: Batch) {
    let mut tensors = batch.tensors().unwrap();
    let (x, y) = (tensors.inputs[0].view::<u64>().unwrap(), tensors.outputs[0].view_mut::<u64>().unwrap());
    y.iter_mut().zip(x).for_each(|(y, x)| *y = x + 1);
    batch.finish();
}

fn is_answered(pending: Pending, number: u64) {
    assert_eq!(pending.wait(PATIENCE).unwrap().view::<u64>("y").unwrap(), [number + 1; LEN]);
}

fn signal(node: &Node, signal: Signal) {
    kill_process(Pid::from_raw(node.pid() as i32).unwrap(), signal).unwrap();
}

fn stop(node: &Node) {
    signal(node, Signal::STOP);
    let status = format!("/proc/{}/status", node.pid());
    eventually("it is stopped", || std::fs::read_to_string(&status).unwrap().contains("State:\tT"));
}

fn counts(client: &RingClient) -> [usize; 7] {
    let RowCounts { free, writing, ready, running, abandoned, done, failed, .. } = client.row_counts();
    [free, writing, ready, running, abandoned, done, failed]
}

#[test]
fn rows_are_counted_by_their_states() {
    let session = Session::new();
    let bus = session.bus();
    let (mut worker, client) = (ring(&bus, "once").worker().unwrap(), bus.ring("model").client().unwrap());
    let _writing = client.loan(MOMENT).unwrap();
    let (done, failed, withdrawn) = (submit(&client, 1), submit(&client, 2), submit(&client, 3));
    answer(worker.take(1, MOMENT).unwrap());
    worker.take(1, MOMENT).unwrap().fail("no");
    let running = worker.take(1, MOMENT).unwrap();
    drop(withdrawn);
    let _ready = submit(&client, 4);
    assert_eq!(counts(&client), [3, 1, 1, 0, 1, 1, 1]);
    assert_eq!(client.row_counts(), worker.row_counts());
    drop(running);
    is_answered(done, 1);
    assert!(matches!(failed.wait(MOMENT), Err(AnswerError::Failed { reason, .. }) if reason == "no"));
    assert_eq!(counts(&client), [6, 1, 1, 0, 0, 0, 0]);
}

#[test]
fn what_a_killed_worker_ran_is_an_error_if_it_may_not_be_repeated() {
    let session = Session::new();
    let bus = session.bus();
    let mut node = worker_in_a_process(&session, "once");
    let client = bus.ring("model").client().unwrap();
    let began = submit(&client, 1);
    ask(&mut node, "take", "took 1");
    let waits = submit(&client, 2);
    node.kill();
    // Nobody else looks for the dead: the client finds out by itself, and it was the only worker.
    let error = began.wait(PATIENCE).unwrap_err();
    assert!(matches!(error, AnswerError::WorkerDied { .. }), "{error:?}");
    let error = waits.wait(PATIENCE).unwrap_err();
    assert!(matches!(error, AnswerError::NoWorker { .. }), "{error:?}");
    assert_eq!((counts(&client)[0], client.workers()), (ROWS, vec![]));
}

#[test]
fn what_a_killed_worker_ran_is_run_again_if_it_may_be_repeated() {
    let session = Session::new();
    let bus = session.bus();
    let mut node = worker_in_a_process(&session, "repeatable");
    let client = bus.ring("model").client().unwrap();
    let (first, second) = (submit(&client, 1), submit(&client, 2));
    ask(&mut node, "take", "took 2");
    let mut other = ring(&bus, "repeatable").worker().unwrap();
    assert!(matches!(other.take(1, MOMENT), Err(TakeError::Timeout { .. })), "they have a worker");
    node.kill();
    // The other one looks for the dead in its sleep.
    let batch = take(&mut other);
    assert_eq!(batch.len(), 2);
    answer(batch);
    is_answered(first, 1);
    is_answered(second, 2);
}

#[test]
fn nothing_is_taken_from_a_stopped_worker_and_its_clients_get_an_error_in_time() {
    let session = Session::new();
    let bus = session.bus();
    let mut node = worker_in_a_process(&session, "repeatable");
    let client = bus.ring("model").client().unwrap();
    let (patient, impatient) = (submit(&client, 1), submit(&client, 2));
    ask(&mut node, "take", "took 2");
    stop(&node);
    let mut other = ring(&bus, "repeatable").worker().unwrap();
    let error = impatient.wait(Duration::from_millis(300)).unwrap_err();
    assert!(matches!(error, AnswerError::Timeout { .. }), "{error:?}");
    assert!(matches!(other.take(1, 300 * MOMENT), Err(TakeError::Timeout { .. })), "who is stopped is alive");
    assert_eq!(counts(&client), [6, 0, 0, 1, 1, 0, 0]);
    // Meanwhile others go on.
    let more = submit(&client, 3);
    answer(take(&mut other));
    is_answered(more, 3);
    signal(&node, Signal::CONT);
    ask(&mut node, "finish", "finished");
    is_answered(patient, 1);
    assert_eq!(counts(&client)[0], ROWS, "the row that nobody waited for is free");
}

#[test]
fn a_stopped_client_holds_no_more_than_its_credits() {
    let session = Session::new();
    let bus = session.bus();
    let mut worker = ring(&bus, "once").credits(3).worker().unwrap();
    let mut node = client_in_a_process(&session);
    for _ in 0..3 {
        ask(&mut node, "loan", "loaned");
    }
    node.tell("loan");
    assert!(node.line().contains("as many as \"model\" allows"), "no more than its credits");
    stop(&node);
    let clients = [bus.ring("model").client().unwrap(), bus.ring("model").client().unwrap()];
    let pending: Vec<_> = (0..5).map(|number| submit(&clients[number as usize % 2], number)).collect();
    let error = clients[1].loan(300 * MOMENT).unwrap_err();
    assert!(matches!(error, RequestLoanError::Overloaded { rows: ROWS, .. }), "{error:?}");
    // Rows that lie among those of the stopped one are answered.
    while worker.waiting() > 0 {
        answer(take(&mut worker));
    }
    (0..).zip(pending).for_each(|(number, pending)| is_answered(pending, number));
    assert_eq!(counts(&clients[0]), [5, 3, 0, 0, 0, 0, 0]);
    signal(&node, Signal::CONT);
    ask(&mut node, "submit", "submitted");
    assert_eq!(counts(&clients[0]), [5, 0, 3, 0, 0, 0, 0], "it goes on where it was");
}

#[test]
fn what_a_killed_client_had_is_free_whatever_it_was_for() {
    let session = Session::new();
    let bus = session.bus();
    let mut worker = ring(&bus, "repeatable").worker().unwrap();
    let client = bus.ring("model").client().unwrap();
    // Answered and read, running, ready, being written.
    let mut node = client_in_a_process(&session);
    ask(&mut node, "loan", "loaned");
    ask(&mut node, "submit", "submitted");
    node.tell("wait");
    let mut batch = take(&mut worker);
    batch.output_bytes_mut(0).unwrap().fill(7);
    batch.finish();
    node.expect("answered");
    ask(&mut node, "loan", "loaned");
    ask(&mut node, "submit", "submitted");
    let running = take(&mut worker);
    ask(&mut node, "loan", "loaned");
    ask(&mut node, "submit", "submitted");
    ask(&mut node, "loan", "loaned");
    assert_eq!(counts(&client), [4, 1, 1, 1, 0, 1, 0]);
    node.kill();
    eventually("the dead client is buried", || {
        // Whoever sleeps looks for the dead.
        let _ = worker.take(1, 150 * MOMENT).map(drop);
        counts(&client) == [7, 0, 0, 0, 1, 0, 0]
    });
    running.finish();
    assert_eq!(counts(&client)[0], ROWS);
    assert_eq!(worker.clients(), [std::process::id()]);
}

#[test]
fn who_finds_all_rows_taken_waits_no_longer_than_it_said() {
    let session = Session::new();
    let bus = session.bus();
    let _worker = ring(&bus, "once").worker().unwrap();
    let (greedy, other) = (bus.ring("model").client().unwrap(), bus.ring("model").client().unwrap());
    let mut all: Vec<_> = (0..ROWS).map(|_| greedy.loan(MOMENT).unwrap()).collect();
    assert!(matches!(greedy.loan(PATIENCE), Err(RequestLoanError::NoCredits { credits: ROWS, .. })));
    for bound in [Duration::ZERO, MOMENT, 250 * MOMENT] {
        let start = Instant::now();
        let error = other.loan(bound).unwrap_err();
        assert!(matches!(error, RequestLoanError::Overloaded { waited, .. } if waited == bound), "{error:?}");
        assert!(start.elapsed() >= bound, "it gave up too early");
    }
    // A row that is given back wakes who sleeps for it, several threads of one client too.
    std::thread::scope(|scope| {
        let waiting = [(); 3].map(|()| scope.spawn(|| other.loan(PATIENCE)));
        for left in (ROWS - 3..ROWS).rev() {
            // Most often they sleep by then; it is right either way.
            std::thread::sleep(20 * MOMENT);
            all.truncate(left);
        }
        let requests = waiting.map(|thread| thread.join().unwrap().unwrap());
        let rows = requests.each_ref().map(|request| request.row());
        assert_eq!(std::collections::BTreeSet::from(rows).len(), 3, "each has a row of its own");
    });
}

#[test]
fn a_row_of_a_killed_client_goes_to_who_waits_for_one() {
    let session = Session::new();
    let bus = session.bus();
    let _worker = ring(&bus, "once").worker().unwrap();
    let mut node = client_in_a_process(&session);
    for _ in 0..ROWS {
        ask(&mut node, "loan", "loaned");
    }
    let client = bus.ring("model").client().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.loan(PATIENCE));
        node.kill();
        drop(waiting.join().unwrap().unwrap());
    });
}

#[test]
fn rings_of_two_sessions_have_nothing_in_common() {
    let sessions = [Session::new(), Session::new()];
    let buses = [sessions[0].bus(), sessions[1].bus()];
    let mut workers = [0, 1].map(|index| ring(&buses[index], "once").worker().unwrap());
    let clients = [0, 1].map(|index| buses[index].ring("model").client().unwrap());
    let pending = submit(&clients[0], 1);
    assert!(matches!(workers[1].take(1, MOMENT), Err(TakeError::Timeout { .. })), "another session's request");
    assert_eq!(counts(&clients[1])[0], ROWS);
    answer(take(&mut workers[0]));
    is_answered(pending, 1);
}

#[test]
fn another_model_under_the_name_is_refused_while_a_worker_lives_and_takes_its_place_after() {
    let session = Session::new();
    let bus = session.bus();
    let mut node = worker_in_a_process(&session, "once");
    let client = bus.ring("model").client().unwrap();
    let others: [fn(&Bus) -> RingBuilder; 4] = [
        |bus| ring(bus, "repeatable"),
        |bus| ring(bus, "once").rows(ROWS + 1),
        |bus| ring(bus, "once").credits(1),
        |bus| ring(bus, "once").output("z", Dtype::U8, &[1]),
    ];
    for other in others {
        let error = other(&bus).worker().unwrap_err();
        assert!(matches!(&error, RingError::Differs { pids, .. } if *pids == [node.pid()]), "{error:?}");
        assert_eq!(worker_count(&client), 1, "the visit left nobody behind");
    }
    let pending = submit(&client, 1);
    node.kill();
    eventually("the name is given to another model", || match others[1](&bus).worker() {
        Ok(worker) => worker.rows() == ROWS + 1,
        // The kernel lets go of a killed process's memory in its own time.
        Err(RingError::Differs { .. }) => false,
        Err(error) => panic!("{error}"),
    });
    let error = pending.wait(PATIENCE).unwrap_err();
    assert!(matches!(error, AnswerError::NoWorker { .. }), "{error:?}");
}

fn worker_count(client: &RingClient) -> usize {
    client.workers().len()
}

#[test]
fn a_restarted_worker_answers_what_still_waits() {
    let session = Session::new();
    let bus = session.bus();
    for policy in ["once", "repeatable"] {
        let mut node = worker_in_a_process(&session, policy);
        let client = bus.ring("model").client().unwrap();
        let taken = submit(&client, 1);
        ask(&mut node, "take", "took 1");
        let waiting = [submit(&client, 2), submit(&client, 3)];
        node.kill();
        // To come buries the dead.
        let mut next = ring(&bus, policy).worker().unwrap();
        let mut answered = 0;
        let expected = if policy == "once" { 2 } else { 3 };
        while answered < expected {
            let batch = take(&mut next);
            answered += batch.len();
            answer(batch);
        }
        (2..).zip(waiting).for_each(|(number, pending)| is_answered(pending, number));
        match taken.wait(PATIENCE) {
            Ok(answer) => assert_eq!((policy, answer.view::<u64>("y").unwrap()), ("repeatable", &[2; LEN][..])),
            Err(error) => assert!(policy == "once" && matches!(error, AnswerError::WorkerDied { .. }), "{error:?}"),
        }
    }
}

#[test]
fn a_worker_that_leaves_has_its_answers_read() {
    let session = Session::new();
    let bus = session.bus();
    let mut worker = ring(&bus, "once").worker().unwrap();
    let client = bus.ring("model").client().unwrap();
    let pending = submit(&client, 1);
    answer(take(&mut worker));
    drop(worker);
    assert!(pending.has_ended());
    is_answered(pending, 1);
    let error = submit(&client, 2).wait(PATIENCE).unwrap_err();
    assert!(matches!(error, AnswerError::NoWorker { .. }), "{error:?}");
}

#[test]
fn a_ring_goes_with_its_last_user() {
    let session = Session::new();
    let bus = session.bus();
    let rings = || std::fs::read_dir(bus.directory().join("rings")).unwrap().count();
    let mut node = worker_in_a_process(&session, "once");
    let mut client = client_in_a_process(&session);
    assert_eq!(rings(), 3, "the ring, and a file for each who takes part");
    node.kill();
    ask(&mut client, "loan", "loaned");
    assert_eq!(bus.ring("model").client().unwrap().rows(), ROWS, "it is there as long as somebody uses it");
    client.kill();
    eventually("the ring is gone", || {
        bus.remove_dead().unwrap();
        // Any change of the session will do.
        drop(session.bus());
        rings() == 0
    });
    assert!(matches!(bus.ring("model").client(), Err(RingError::NotThere { .. })));
}

#[test]
fn a_forked_child_is_refused_and_its_end_changes_nothing() {
    let session = Session::new();
    let node = session.node("fork-ring", &[]);
    node.expect("parent goes on");
    assert!(node.end().success());
}

#[test]
fn rings_count_against_the_quota() {
    let session = Session::new();
    let bus = Bus::builder().session(&session.name).quota_bytes(1 << 20).open().unwrap();
    let used = || bus.quota().unwrap().unwrap().used;
    assert_eq!(used(), 0);
    let refused = bus.ring("large").input("x", Dtype::U8, &[1 << 20]).output("y", Dtype::U8, &[1]).worker();
    assert!(matches!(refused, Err(RingError::Pool(PoolError::Quota { .. }))), "{refused:?}");
    assert_eq!(used(), 0, "nothing of what was refused is left");
    assert!(matches!(bus.ring("large").client(), Err(RingError::NotThere { present, .. }) if present.is_empty()));
    let worker = ring(&bus, "once").worker().unwrap();
    assert!(used() >= (2 * LEN * 8 * ROWS) as u64);
    drop(worker);
    // Other tests start processes meanwhile, and one that is just being started shares our files until it runs.
    eventually("the ring's memory is given back", || used() == 0);
}

#[test]
fn what_cannot_be_a_ring_is_refused() {
    let session = Session::new();
    let bus = session.bus();
    for name in ["", "/model", "model/", "a b", "a@1", "a:b", &"x".repeat(129)] {
        let named = || bus.ring(name).input("x", Dtype::U8, &[1]).output("y", Dtype::U8, &[1]);
        assert!(matches!(named().worker(), Err(RingError::Name { .. })), "{name}");
        assert!(matches!(named().client(), Err(RingError::Name { .. })), "{name}");
    }
    assert!(matches!(bus.ring("none").client(), Err(RingError::NotThere { .. })));
    let refused = |builder: RingBuilder| match builder.worker() {
        Err(RingError::Spec(error)) => error,
        other => panic!("{other:?}"),
    };
    let rows = MAX_RING_ROWS + 1;
    assert!(matches!(refused(ring(&bus, "once").rows(rows)), RingSpecError::Rows { rows: found } if found == rows));
    assert!(matches!(refused(ring(&bus, "once").credits(ROWS + 1)), RingSpecError::Credits { .. }));
    assert!(matches!(refused(bus.ring("none")), RingSpecError::Tensors { side: "inputs", .. }));
    let odd = bus.ring("none").input("x", Dtype::I4, &[3]).output("y", Dtype::U8, &[1]);
    assert!(matches!(refused(odd), RingSpecError::PartOfAByte { .. }));
}

/// Whatever stands in the file's first bytes, whoever comes gets an error that says so; a worker makes another ring.
#[test]
fn a_damaged_file_is_an_error_and_the_next_worker_makes_another_ring() {
    let session = Session::new();
    let bus = session.bus();
    type IsRight = fn(&RingFormatError) -> bool;
    let lies: [(u64, u32, IsRight); 8] = [
        (0, 0, |error| matches!(error, RingFormatError::Magic { .. })),
        (8, 2, |error| matches!(error, RingFormatError::Version { found: 2 })),
        (12, 6, |error| matches!(error, RingFormatError::Flags { found: 6 })),
        (16, 5000, |error| matches!(error, RingFormatError::Spec(RingSpecError::Rows { rows: 5000 }))),
        (20, 0, |error| matches!(error, RingFormatError::Spec(RingSpecError::Credits { credits: 0, .. }))),
        (24, 1, |error| matches!(error, RingFormatError::Description { side: "inputs", .. })),
        (28, u32::MAX, |error| matches!(error, RingFormatError::Description { side: "outputs", .. })),
        (32, 64, |error| matches!(error, RingFormatError::Length { stated: 64, .. })),
    ];
    for (number, (at, lie, is_right)) in lies.into_iter().enumerate() {
        let mut workers = vec![ring(&bus, "once").worker().unwrap()];
        let client = bus.ring("model").client().unwrap();
        let path = bus.directory().join("rings/model@0");
        std::fs::File::options().write(true).open(&path).unwrap().write_all_at(&lie.to_le_bytes(), at).unwrap();
        match bus.ring("model").client() {
            Err(RingError::Format { reason, path: found }) => {
                assert!(is_right(&reason), "{number}: {reason:?}");
                assert_eq!(found, path);
            }
            other => panic!("{number}: {other:?}"),
        }
        // Who had it before it was damaged goes on; the name means a new one.
        workers.push(ring(&bus, "once").worker().unwrap());
        let next = bus.ring("model").client().unwrap();
        for (client, worker) in [&client, &next].into_iter().zip(&mut workers) {
            let pending = submit(client, 1);
            answer(take(worker));
            is_answered(pending, 1);
        }
    }
}
