//! Isolated request rings: each client's data in a file of its own, and shapes that differ from request to request.

use std::time::Duration;

use tensorbus::prelude::*;
use tensorbus::{AnswerError, Dtype, Pending, RequestLoanError, TakeError};

use crate::support::{PATIENCE, Session};

const ROWS: usize = 8;
const CREDITS: usize = 4;

fn worker(bus: &Bus) -> RingWorker {
    let ring = bus.ring("sums").input("x", Dtype::I32, &[4, 64]).output("sums", Dtype::I32, &[4]);
    ring.rows(ROWS).credits(CREDITS).isolated().worker().unwrap()
}

fn submit(client: &RingClient, shape: [usize; 2], value: i32) -> Pending {
    let mut request = client.loan(PATIENCE).unwrap();
    request.set_shape(0, &shape).unwrap();
    request.view_mut::<i32>("x").unwrap().fill(value);
    request.submit().unwrap()
}

/// Answers one batch: the sum of each of the first dimension's parts. Shapes of the inputs.
fn serve(worker: &mut RingWorker) -> Vec<usize> {
    let mut batch = worker.take(ROWS, PATIENCE).unwrap();
    let shape = batch.tensors().unwrap().inputs[0].layout().shape.clone();
    batch.set_output_shape(0, &shape[1..2]).unwrap();
    let mut tensors = batch.tensors().unwrap();
    assert_eq!(tensors.outputs[0].layout().shape, shape[..2]);
    let parts = tensors.inputs[0].view::<i32>().unwrap().chunks_exact(shape[2]);
    let sums = tensors.outputs[0].view_mut::<i32>().unwrap();
    parts.zip(sums).for_each(|(part, sum)| *sum = part.iter().sum());
    batch.finish();
    shape
}

fn answer(pending: Pending) -> Vec<i32> {
    pending.wait(PATIENCE).unwrap().view::<i32>("sums").unwrap().to_vec()
}

#[test]
fn shapes_are_never_mixed_in_a_batch() {
    let session = Session::new();
    let bus = session.bus();
    let mut worker = worker(&bus);
    let [one, other] = [0; 2].map(|_| bus.ring("sums").client().unwrap());
    let requests = [
        submit(&one, [2, 3], 1),
        submit(&other, [2, 3], 10),
        submit(&one, [4, 64], 2),
        submit(&other, [1, 64], 3),
        submit(&one, [1, 64], 4),
    ];
    assert_eq!(serve(&mut worker), [2, 2, 3]);
    assert_eq!(serve(&mut worker), [1, 4, 64]);
    assert_eq!(serve(&mut worker), [2, 1, 64]);
    assert_eq!(requests.map(answer), [vec![3; 2], vec![30; 2], vec![128; 4], vec![192], vec![256]]);
    let numbers = 2 * 6 + 4 * 64 + 2 * 64 + (2 * 2 + 4 + 2);
    assert_eq!(worker.copied_bytes(), 4 * numbers, "each number once, there and back");
}

#[test]
fn a_shape_that_does_not_fit_is_refused() {
    let session = Session::new();
    let bus = session.bus();
    let _worker = worker(&bus);
    let client = bus.ring("sums").client().unwrap();
    let mut request = client.loan(PATIENCE).unwrap();
    for shape in [&[4, 65][..], &[5, 1], &[4], &[4, 64, 1]] {
        let refused = request.set_shape(0, shape).unwrap_err();
        assert_eq!((refused.asked, refused.most), (shape.to_vec(), vec![4, 64]));
    }
    request.set_shape(0, &[0, 64]).unwrap();
    assert!(request.view_mut::<i32>("x").unwrap().is_empty());
}

/// FR-014, as far as one user's processes go: what one client has is not in the memory of another.
#[test]
fn clients_do_not_map_each_others_data() {
    let session = Session::new();
    let bus = session.bus();
    let mut worker = worker(&bus);
    let mut other = session.node("ring-idle", &["sums"]);
    other.expect("ready");
    let client = bus.ring("sums").client().unwrap();
    let secret = submit(&client, [1, 1], 0x005e_c2e7);
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", other.pid())).unwrap();
    let mapped: Vec<_> = maps.lines().filter(|line| line.contains("sums@")).collect();
    let data = mapped.iter().filter(|line| line.contains("sums@0.d")).count();
    assert_eq!(data, 1, "its own only: {mapped:?}");
    serve(&mut worker);
    assert_eq!(answer(secret), [0x005e_c2e7]);
    // Its data goes with it.
    other.kill();
    let files = || session.files().iter().filter(|path| path.to_string_lossy().contains("sums@0.d")).count();
    crate::support::eventually("the dead client's data goes", || {
        let timeout = worker.take(1, Duration::from_millis(150)).unwrap_err();
        assert!(matches!(timeout, TakeError::Timeout { .. }));
        files() == 1
    });
}

/// A worker that runs a request which was withdrawn writes its outputs into the slot that it has read.
#[test]
fn a_slot_that_a_worker_may_write_is_not_used_again() {
    let session = Session::new();
    let bus = session.bus();
    let mut worker = worker(&bus);
    let client = bus.ring("sums").client().unwrap();
    let withdrawn: Vec<_> = (0..CREDITS).map(|_| submit(&client, [1, 1], 1)).collect();
    let mut batch = worker.take(CREDITS, PATIENCE).unwrap();
    assert_eq!(batch.len(), CREDITS);
    for pending in withdrawn {
        assert!(matches!(pending.wait(Duration::ZERO), Err(AnswerError::Timeout { .. })));
    }
    let refused = client.loan(Duration::ZERO).unwrap_err();
    assert!(matches!(refused, RequestLoanError::Overloaded { .. }), "{refused}");
    let waiting = {
        let client = client.clone();
        std::thread::spawn(move || client.loan(PATIENCE).map(drop))
    };
    batch.tensors().unwrap().outputs[0].view_mut::<i32>().unwrap().fill(-1);
    batch.finish();
    waiting.join().unwrap().unwrap();
    let pending = submit(&client, [1, 2], 21);
    serve(&mut worker);
    assert_eq!(answer(pending), [42]);
}
