use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tensorbus::prelude::*;
use tensorbus::{AnswerError, Pending, RequestLoanError};

use crate::report::Report;
use crate::{DEPTH, NAME, Options, checksum, told_to_end};

/// A request on its way, and what the answer must be.
struct Sent {
    pending: Pending,
    answer: [u64; 2],
    at: Instant,
}

/// Sends requests of which each is different, and checks the answers.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let client = bus.ring(NAME).client()?;
    println!("ready");
    let told = told_to_end();
    let mut report = Report::default();
    let mut latencies = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
    let mut sent = VecDeque::new();
    let mut said = Instant::now();
    loop {
        let ends = told.load(Ordering::Relaxed);
        while sent.len() < DEPTH && !ends {
            match send(&client, options.number << 40 | report.submitted) {
                Ok(request) => sent.push_back(request),
                Err(RequestLoanError::Overloaded { .. }) => report.overloaded += 1,
                Err(error) => return Err(error.into()),
            }
            report.submitted += 1;
        }
        let Some(request) = sent.pop_front() else { break };
        match request.pending.wait(Duration::from_secs(5)) {
            Ok(answer) if answer.view::<u64>("answer")? == request.answer => {
                report.answered += 1;
                latencies.saturating_record(request.at.elapsed().as_nanos() as u64);
            }
            Ok(_) => report.wrong += 1,
            Err(AnswerError::WorkerDied { .. }) => report.worker_died += 1,
            Err(AnswerError::NoWorker { .. }) => report.no_worker += 1,
            Err(AnswerError::Timeout { .. }) => report.timeout += 1,
            Err(error) => return Err(error.into()),
        }
        if said.elapsed() > Duration::from_millis(20) {
            println!("{report}");
            said = Instant::now();
        }
    }
    report.copied_bytes = client.copied_bytes();
    report.latencies =
        latencies.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect();
    println!("{report}");
    Ok(())
}

fn send(client: &RingClient, id: u64) -> Result<Sent, RequestLoanError> {
    let mut request = client.loan(Duration::from_secs(5))?;
    let at = Instant::now();
    // Neither can fail in the process that made the client, and a request has such an input.
    let numbers = request.view_mut::<u64>("request").map_err(|_| RequestLoanError::Forked)?;
    for (index, number) in numbers.iter_mut().enumerate() {
        *number = id.wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    let answer = checksum(numbers);
    let pending = request.submit().map_err(|_| RequestLoanError::Forked)?;
    Ok(Sent { pending, answer, at })
}
