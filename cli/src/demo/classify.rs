//! Classify: runs the model on each batch where it lies.

use std::sync::Arc;

use anyhow::Context;
use rten::{Model, RunOptions, ThreadPool, ValueView};
use tensorbus::{Bus, Dtype, Measured, ModelRegistry, TensorSpec};

use super::digits::{CLASSES, MODEL};
use super::lifeline::Lifeline;
use super::node::NodeOptions;
use super::pipeline::{self, Tag};
use super::scene;
use super::tally::Tally;

pub(super) fn run(options: &NodeOptions, lifeline: &Lifeline) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    // `tensorbus models` shows it while the demo runs.
    let registry = ModelRegistry::global();
    let _announcing = registry.announce(&bus)?;
    let load = || Model::load_static_slice(MODEL).map(|model| Measured::new(model, MODEL.len() as u64));
    let model = registry.get_or_load_blocking("digits/1", load).context("the model in this program")?;
    // So small a model is done before a second thread has woken up.
    let run_options = RunOptions::default().with_thread_pool(Some(Arc::new(ThreadPool::with_num_threads(1))));
    let batches = pipeline::batches(&bus, &options.demo).subscriber()?;
    let slot_bytes = scene::DIGITS * CLASSES * size_of::<f32>();
    let logits = pipeline::logits(&bus, &options.demo).slot_bytes(slot_bytes).publisher()?;
    let mut tally = Tally::new(bus.directory());

    if !lifeline.ready() {
        return Ok(());
    }
    while let Some(message) = lifeline.recv(&batches)? {
        tally.hop(&message)?;
        let tag = Tag::of(&message)?;
        let images = message.tensor("images")?;
        // A view: the model reads the slot that preprocess wrote.
        let input = ValueView::from_shape(images.shape(), images.view::<f32>()?)?;
        let output = model.run_one(input.into(), Some(run_options.clone())).context("the model failed")?;
        let (shape, values) = output.into_shape_vec::<f32, 2>()?;
        // The runtime makes its output in a buffer of its own. Here the logits come into being on the bus: this is how
        // they are produced, not a copy on their way from node to node.
        let mut result = logits.loan_message(&[TensorSpec::new("logits", Dtype::F32, &shape)])?;
        result.tensor_mut("logits")?.view_mut()?.copy_from_slice(&values);
        tag.put(result.metadata_mut());
        result.publish()?;
        tally.frame_done();
        lifeline.progress(tag.frame + 1);
        if tag.last {
            lifeline.report(tally.finish(&[&batches], Some(&logits)));
            break;
        }
    }
    Ok(())
}
