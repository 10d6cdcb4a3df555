//! `tensorbus demo`: a camera, two processing steps and a sink, in processes of their own, with frames of 6 MB between
//! them that nobody copies, and nodes that share a model. It is also the example of how to write such nodes: start reading at
//! [`camera`].

mod baseline;
mod camera;
mod classify;
mod digits;
mod lifeline;
mod memory;
mod node;
mod pipeline;
mod preprocess;
mod report;
mod residency;
mod scene;
mod sink;
mod supervisor;
mod tally;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tensorbus::{Backend, Capabilities};

pub(crate) use node::{NodeOptions, run_node};

use node::Role;
use report::Summary;
use supervisor::Supervisor;
use tally::NodeReport;

use crate::output;

/// The nodes, from the first to the last one that a frame comes to.
const PIPELINE: [Role; 5] = [Role::Camera, Role::Preprocess, Role::Classify, Role::Classify2, Role::Sink];
/// Those that hold the models which the pipeline's classify nodes have.
const MODELS: [Role; 2] = [Role::ThreeModels, Role::OneModel];
const BASELINE: [Role; 2] = [Role::SocketWriter, Role::SocketReader];
/// Frames that go through the socket at most.
const BASELINE_FRAMES: u32 = 100;

/// Read handwritten digits in a video stream, with five processes that share memory
///
/// A camera draws frames of 1920 x 1080 pixels with handwritten digits into shared memory; preprocess cuts the digits
/// out of them where they lie; four classify nodes in turn run a small neural network on the batch where it lies; a sink compares
/// the result with the true labels. Three of the classify nodes are in one process and share one model, the fourth is in another one and
/// shares its weights. Then the camera's frames go through a Unix-domain socket, for comparison, and what the models take is
/// measured with and without sharing.
///
/// A tensor counts as copied if a node receives it anywhere but in the session's shared memory, or if it was published
/// with a call that copies. What a node makes of what it received is not: preprocess writes scaled images and their
/// labels, and classify puts on the bus what the network made in memory of its own.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Frames to show
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    frames: u32,
    /// Frames a second; 0 is as fast as it goes
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(..=10_000))]
    fps: u32,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs the demo and prints what it found. `program` is the command line that starts this program again.
pub(crate) fn run(options: &Options, program: &[OsString]) -> anyhow::Result<ExitCode> {
    let choice = Capabilities::detect().backend?;
    ensure!(choice.backend != Backend::Local, "nodes that find each other by name need the backend shm or file");
    if choice.backend != Backend::Shm {
        output::note(&format!("tensors lie in files instead of shared memory: backend {choice}"));
    }
    let summary = run_stages(options, program)?;
    let text = if options.json { summary.json()? + "\n" } else { summary.table() };
    output::until_closed(print(&text))?;

    ensure!(summary.frames == u64::from(options.frames), "{} of {} frames came", summary.frames, options.frames);
    ensure!(summary.lost == 0 && summary.rejected == 0, "messages were lost");
    ensure!(summary.tensor_bytes_copied == 0, "tensors were copied");
    ensure!(summary.accuracy() >= 0.95, "too few digits were recognised");
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn run_stages(options: &Options, program: &[OsString]) -> anyhow::Result<Summary> {
    let mut supervisor = Supervisor::new(program)?;
    let nodes = run_stage(&mut supervisor, options, &PIPELINE, options.frames, "shared memory")?;
    let baseline = run_stage(&mut supervisor, options, &BASELINE, options.frames.min(BASELINE_FRAMES), "socket")?;
    let shared = run_models(&mut supervisor, options, true)?;
    let private = run_models(&mut supervisor, options, false)?;
    let nodes: &[NodeReport; 5] = nodes.as_slice().try_into().context("a node did not report")?;
    Ok(Summary::new(nodes, baseline.last().context("the baseline did not report")?, shared, private))
}

fn run_stage(
    supervisor: &mut Supervisor,
    options: &Options,
    roles: &[Role],
    frames: u32,
    name: &'static str,
) -> anyhow::Result<Vec<NodeReport>> {
    // Two demos at the same time do not meet.
    let demo = format!("demo/{}", std::process::id());
    let nodes: Vec<_> = roles
        .iter()
        .map(|&role| NodeOptions { role, demo: demo.clone(), frames, fps: options.fps, share: false })
        .collect();
    let bar = progress_bar(frames, name);
    let reports = supervisor.run(&nodes, |frames| bar.set_position(frames.into()));
    bar.finish_and_clear();
    reports
}

/// Bytes that the models of all classify nodes take.
fn run_models(supervisor: &mut Supervisor, options: &Options, share: bool) -> anyhow::Result<u64> {
    let of = |role| NodeOptions { role, demo: String::from("demo"), frames: 0, fps: options.fps, share };
    let reports = supervisor.run(&MODELS.map(of), |_| {})?;
    Ok(reports.iter().map(|report| report.model_bytes).sum())
}

/// Shown on stderr if that is a terminal.
fn progress_bar(frames: u32, name: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(frames.into()).with_message(name);
    match ProgressStyle::with_template("{msg:>13} {bar:40} {pos}/{len} frames") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
