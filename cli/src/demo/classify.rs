//! Classify: four nodes that run one model on the batches in turn, where they lie. Three of them are in one process and share the
//! model, the fourth is in another one and shares its weights.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use rten::{RunOptions, ThreadPool, ValueView};
use tensorbus::{Bus, Dtype, Message, ModelHandle, ModelRegistry, Publisher, Subscriber, TensorSpec};

use super::digits::{self, CLASSES};
use super::lifeline::Lifeline;
use super::node::NodeOptions;
use super::pipeline::{self, Tag};
use super::scene;
use super::tally::{NodeReport, Tally};

/// Nodes there are: each takes every fourth batch.
pub(super) const NODES: u32 = 4;
/// Those of them that are in one process.
pub(super) const TOGETHER: u32 = 3;

/// Runs those of the nodes that are in this process, each on a thread of its own.
pub(super) fn run(options: &NodeOptions, lifeline: &Lifeline, numbers: Range<u32>) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    // `tensorbus models` shows them while the demo runs.
    let _announcing = ModelRegistry::global().announce(&bus)?;
    let nodes = numbers.map(|number| Node::new(&bus, options, number)).collect::<anyhow::Result<Vec<_>>>()?;

    if !lifeline.ready() {
        return Ok(());
    }
    let reports = std::thread::scope(|scope| {
        let threads: Vec<_> = nodes.into_iter().map(|node| scope.spawn(|| node.run(lifeline))).collect();
        let joined =
            threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a classify node panicked"))?);
        joined.collect::<anyhow::Result<Vec<_>>>()
    })?;
    // None of a node that shall leave before it is done.
    if let Some(reports) = reports.into_iter().collect::<Option<Vec<_>>>() {
        lifeline.report(NodeReport::of_all(reports));
    }
    Ok(())
}

struct Node {
    number: u32,
    model: ModelHandle<digits::Model>,
    run_options: RunOptions,
    batches: Subscriber,
    logits: Publisher,
    tally: Tally,
}

impl Node {
    fn new(bus: &Bus, options: &NodeOptions, number: u32) -> anyhow::Result<Self> {
        // The first node of a process loads it; the weights are mapped, and in memory once for all processes.
        let model = ModelRegistry::global().get_or_load_blocking("digits/1", digits::load_shared);
        let slot_bytes = scene::DIGITS * CLASSES * size_of::<f32>();
        Ok(Self {
            number,
            model: model.context("the model in this program")?,
            // So small a model is done before a second thread has woken up.
            run_options: RunOptions::default().with_thread_pool(Some(Arc::new(ThreadPool::with_num_threads(1)))),
            batches: pipeline::batches(bus, &options.demo).subscriber()?,
            logits: pipeline::logits(bus, &options.demo).slot_bytes(slot_bytes).publisher()?,
            tally: Tally::new(bus.directory()),
        })
    }

    /// Takes its turns until the last frame; `None` if it shall leave before.
    fn run(mut self, lifeline: &Lifeline) -> anyhow::Result<Option<NodeReport>> {
        while let Some(message) = lifeline.recv(&self.batches)? {
            self.tally.hop(&message)?;
            let tag = Tag::of(&message)?;
            if tag.frame % NODES == self.number {
                self.classify(&message, tag)?;
                self.tally.frame_done();
            }
            lifeline.progress(tag.frame + 1);
            if tag.last {
                return Ok(Some(self.tally.finish(&[&self.batches], Some(&self.logits))));
            }
        }
        Ok(None)
    }

    fn classify(&self, message: &Message, tag: Tag) -> anyhow::Result<()> {
        let images = message.tensor("images")?;
        // A view: the model reads the slot that preprocess wrote.
        let input = ValueView::from_shape(images.shape(), images.view::<f32>()?)?;
        let output = self.model.run_one(input.into(), Some(self.run_options.clone())).context("the model failed")?;
        let (shape, values) = output.into_shape_vec::<f32, 2>()?;
        // The runtime makes its output in a buffer of its own. Here the logits come into being on the bus: this is how
        // they are produced, not a copy on their way from node to node.
        let mut result = self.logits.loan_message(&[TensorSpec::new("logits", Dtype::F32, &shape)])?;
        result.tensor_mut("logits")?.view_mut()?.copy_from_slice(&values);
        tag.put(result.metadata_mut());
        result.publish()?;
        Ok(())
    }
}
