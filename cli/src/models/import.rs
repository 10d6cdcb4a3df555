//! `tensorbus models import`: a model in a layout whose weights processes can share.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use indicatif::HumanBytes;
use serde::Serialize;
use tensorbus::{ImportedModel, ModelCache};

use crate::output;

/// Split an ONNX model into its graph and its weights, so that processes share the weights
///
/// Prints the path of the graph, which is what a runtime loads; the weights lie beside it. A model that was imported before
/// is found in the cache, unless it has changed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// Directory of imported models [default: tensorbus/models in the directory for caches]
    #[arg(long, value_name = "DIRECTORY", env = tensorbus::CACHE_VARIABLE)]
    cache: Option<PathBuf>,
    /// Read a model that is in the cache and compare it with what was imported
    #[arg(long)]
    verify: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    graph: &'a str,
    data: Option<&'a str>,
    data_bytes: u64,
    weights: usize,
    was_cached: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let cache = args.cache.as_ref().map_or_else(ModelCache::open, |directory| Ok(ModelCache::at(directory)))?;
    let imported = cache.import(&args.model)?;
    if args.verify {
        imported.verify()?;
    }
    let mut out = io::stdout().lock();
    if args.json {
        let (graph, data) =
            (imported.graph.to_string_lossy(), imported.data.as_ref().map(|data| data.to_string_lossy()));
        let ImportedModel { data_bytes, weights, was_cached, .. } = imported;
        let report = Report { graph: &graph, data: data.as_deref(), data_bytes, weights, was_cached };
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        output::note(&told(&imported));
        writeln!(out, "{}", imported.graph.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn told(imported: &ImportedModel) -> String {
    if imported.data.is_none() {
        return "the model has no weights that are worth sharing (1 KiB or more)".to_owned();
    }
    let (weights, bytes) = (output::count(imported.weights, "weight", "weights"), HumanBytes(imported.data_bytes));
    let when = if imported.was_cached { "were split off before" } else { "now lie in a file of their own" };
    format!("{weights}, {bytes}, {when}; load this graph with its weights mapped:")
}
