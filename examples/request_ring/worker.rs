use std::sync::atomic::Ordering;
use std::time::Duration;

use tensorbus::TakeError;
use tensorbus::prelude::*;

use crate::{BATCH, DEPTH, NAME, Options, checksum, told_to_end};

/// Answers requests with their checksums, from where the clients wrote them.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let numbers = (options.bytes / 8) as usize;
    let rows = (2 * DEPTH * options.clients as usize).clamp(BATCH, tensorbus::MAX_RING_ROWS);
    let ring = bus.ring(NAME).input("request", Dtype::U64, &[numbers]).output("answer", Dtype::U64, &[2]);
    let mut worker = ring.rows(rows).credits(DEPTH).repeatable().worker()?;
    println!("ready");
    let told = told_to_end();
    while !told.load(Ordering::Relaxed) {
        let mut batch = match worker.take(BATCH, Duration::from_millis(200)) {
            Ok(batch) => batch,
            Err(TakeError::Timeout { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut tensors = batch.tensors()?; // [n, numbers] -> [n, 2]
        let (requests, answers) = (tensors.inputs[0].view::<u64>()?, tensors.outputs[0].view_mut::<u64>()?);
        for (request, answer) in requests.chunks_exact(numbers).zip(answers.chunks_exact_mut(2)) {
            answer.copy_from_slice(&checksum(request));
        }
        batch.finish();
    }
    Ok(())
}
