//! The sink: compares what the model saw with what the camera drew.

use std::collections::BTreeMap;

use anyhow::ensure;
use tensorbus::Bus;

use super::digits::CLASSES;
use super::lifeline::Lifeline;
use super::node::NodeOptions;
use super::pipeline::{self, Tag};
use super::tally::Tally;

pub(super) fn run(options: &NodeOptions, lifeline: &Lifeline) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    // The labels come from preprocess, as the second subscriber of its batches: the model has no use for them.
    let batches = pipeline::batches(&bus, &options.demo).subscriber()?;
    let logits = pipeline::logits(&bus, &options.demo).subscriber()?;
    let mut tally = Tally::new(bus.directory());

    if !lifeline.ready() {
        return Ok(());
    }
    // Labels of frames whose logits have not come: the classify nodes take turns, and may overtake each other.
    let mut labels: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let (mut done, mut total) = (0, None);
    while total != Some(done) {
        let Some(result) = lifeline.recv(&logits)? else { break };
        tally.hop(&result)?;
        let frame = Tag::of(&result)?.frame;
        while !labels.contains_key(&frame) {
            let Some(batch) = lifeline.recv(&batches)? else { return Ok(()) };
            tally.received(&batch)?;
            let shown = Tag::of(&batch)?;
            ensure!(shown.frame <= frame, "the labels of frame {frame} did not come, but those of {}", shown.frame);
            labels.insert(shown.frame, batch.tensor("labels")?.view::<u8>()?.to_vec());
            if shown.last {
                total = Some(shown.frame + 1);
            }
        }
        let labels = labels.remove(&frame).unwrap_or_default();
        let result = result.tensor("logits")?;
        let values = result.view::<f32>()?;
        ensure!(values.len() == labels.len() * CLASSES, "{} logits for {} labels", values.len(), labels.len());
        tally.compared(labels.len(), recognised(values, &labels));
        tally.frame_done();
        done += 1;
        lifeline.progress(done);
    }
    if total == Some(done) {
        lifeline.report(tally.finish(&[&batches, &logits], None));
    }
    Ok(())
}

/// How many digits have the greatest of their logits where their label says.
fn recognised(logits: &[f32], labels: &[u8]) -> usize {
    let pairs = logits.as_chunks::<CLASSES>().0.iter().zip(labels);
    pairs.filter(|(values, label)| greatest(*values) == Some(usize::from(**label))).count()
}

fn greatest(values: &[f32]) -> Option<usize> {
    let (index, _) = values.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    Some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_was_recognised() {
        let mut logits = [0.0; 3 * CLASSES];
        logits[7] = 1.0;
        logits[CLASSES + 2] = -1.0;
        logits[CLASSES + 3] = 0.5;
        logits[2 * CLASSES + 9] = 2.0;
        assert_eq!(recognised(&logits, &[7, 2, 9]), 2);
        assert_eq!(recognised(&[], &[]), 0);
    }
}
