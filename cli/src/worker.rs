//! `tensorbus worker`: a model for other processes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, ensure};
use tensorbus_worker::{Model, RtenModel, Serving};

use crate::session::SessionArg;

/// How often it is looked whether to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Serve a model to other processes of the session, until it is told to stop
///
/// Loads an ONNX model, whose weights are shared with other workers of it, and answers requests to its name. Workers of one name share
/// the requests. At SIGTERM and SIGINT what was taken is answered, and no more taken.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    session: SessionArg,
    /// The ONNX model
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Name that clients ask for; of the file, if none is given
    #[arg(long = "name", value_name = "NAME")]
    model_name: Option<String>,
    /// The first dimension of the model's inputs and outputs counts requests that have nothing to do with each other: run them together
    #[arg(long)]
    batched: bool,
    /// Most requests that are run together
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    max_batch: u16,
    /// Requests that can wait, run or be read at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    rows: u16,
    /// Threads that run the model, each a batch at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    instances: u16,
    /// Threads that the model computes with
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// How large an input with free dimensions can be, as NAME=SIZE,SIZE: of one request, so without the dimension of the batch
    #[arg(long, value_name = "NAME=SHAPE", value_parser = shape)]
    max_shape: Vec<(String, Vec<usize>)>,
}

fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, sizes) = text.split_once('=').ok_or("is not NAME=SIZE,SIZE")?;
    let sizes = sizes.split(',').filter(|size| !size.is_empty()).map(str::parse).collect::<Result<_, _>>();
    Ok((name.to_owned(), sizes.map_err(|error| format!("a size is no number: {error}"))?))
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Before anything is there that a signal could leave behind.
    let stop = crate::stop::on_signals()?;
    let name = match &args.model_name {
        Some(name) => name.clone(),
        None => args
            .model
            .file_stem()
            .and_then(|stem| stem.to_str())
            .context("the file has no name; give --name")?
            .to_owned(),
    };
    let bus = args.session.builder().open()?;
    let mut builder = RtenModel::builder().threads(args.threads.into());
    if args.batched {
        builder = builder.batched();
    }
    let model = builder.load(&args.model).with_context(|| args.model.display().to_string())?;
    let signature = model.signature().to_string();
    let mut serving = Serving::builder(&bus, &name, Arc::new(model)).rows(args.rows.into());
    serving = serving.max_batch(args.max_batch.into()).instances(args.instances.into());
    for (name, shape) in &args.max_shape {
        serving = serving.max_shape(name, shape);
    }
    let serving = serving.start()?;
    crate::output::note(&format!("serving {name}: {signature}"));
    while !stop.load(Ordering::Relaxed) && serving.is_serving() {
        std::thread::sleep(LOOK);
    }
    let stats = serving.stats();
    let ended = serving.stop();
    crate::output::note(&format!(
        "answered {} requests in {} batches, {} failed",
        stats.requests, stats.batches, stats.failed
    ));
    ensure!(ended.is_empty(), "an instance of the model ended: {}", ended[0]);
    Ok(ExitCode::SUCCESS)
}
