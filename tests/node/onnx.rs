//! Processes that import and run an ONNX model.

use anyhow::Context;
use rten::{Model, ValueView};
use tensorbus::ModelCache;

use super::{say, told};

/// Loads the graph, mapping its weights, runs it, says the sum of what comes out, and holds the model until told.
pub(super) fn run(graph: &str, n: usize) -> anyhow::Result<()> {
    // SAFETY: the files are the test's own, and nobody changes them.
    let model = unsafe { Model::load_mmap(graph) }?;
    let ones = vec![1_f32; n];
    let input = ValueView::from_shape([1, n], &ones[..])?;
    let output = model.run_one(input.into(), None)?;
    let (_, numbers) = output.into_shape_vec::<f32, 2>()?;
    say(numbers.iter().sum::<f32>());
    told();
    drop(model);
    Ok(())
}

/// Imports models into a cache, again and again, until it is killed.
pub(super) fn import_for_ever(cache: &str, models: &[String]) -> anyhow::Result<()> {
    let cache = ModelCache::at(cache);
    say("ready");
    told();
    loop {
        for model in models {
            let imported = cache.import(model)?;
            imported.verify()?;
            // It is made anew at once, here or elsewhere, or another one has removed it.
            let _ = std::fs::remove_dir_all(imported.graph.parent().context("a directory")?);
        }
    }
}
