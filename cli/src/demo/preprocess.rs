//! Preprocess: cuts the digits out of each frame where it lies, and makes a batch for the model of them.

use tensorbus::{Bus, Dtype, TensorSpec};

use super::digits::SIDE;
use super::lifeline::Lifeline;
use super::node::NodeOptions;
use super::pipeline::{self, Tag};
use super::scene;
use super::tally::Tally;

pub(super) fn run(options: &NodeOptions, lifeline: &Lifeline) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let frames = pipeline::frames(&bus, &options.demo).subscriber()?;
    let tensors = [
        TensorSpec::new("images", Dtype::F32, &[scene::DIGITS, 1, SIDE, SIDE]),
        TensorSpec::new("labels", Dtype::U8, &[scene::DIGITS]),
    ];
    let slot_bytes = scene::DIGITS * (SIDE * SIDE * size_of::<f32>() + 1);
    let batches = pipeline::batches(&bus, &options.demo).slot_bytes(slot_bytes).publisher()?;
    let mut tally = Tally::new(bus.directory());

    if !lifeline.ready() {
        return Ok(());
    }
    while let Some(message) = lifeline.recv(&frames)? {
        tally.hop(&message)?;
        let tag = Tag::of(&message)?;
        let mut batch = batches.loan_message(&tensors)?;
        let [mut images, mut labels] = batch.tensors_mut()?;
        let frame = message.tensor("frame")?;
        scene::cut_out_digits(frame.view()?, images.view_mut()?);
        // A label for each image, written anew as the images are: 32 bytes a frame, which the count of copies leaves out.
        labels.view_mut::<u8>()?.copy_from_slice(message.tensor("labels")?.view()?);
        tag.put(batch.metadata_mut());
        batch.publish()?;
        tally.frame_done();
        lifeline.progress(tag.frame + 1);
        if tag.last {
            lifeline.report(tally.finish(&[&frames], Some(&batches)));
            break;
        }
    }
    Ok(())
}
