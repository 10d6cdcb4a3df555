//! Processes that share weights.

use anyhow::{Context, ensure};
use tensorbus::prelude::*;
use tensorbus::{SharedWeights, TensorView};

use super::{say, told};

/// Tensors of the weights that the tests use, and numbers that `mib` mebibytes of them have together.
const TENSORS: usize = 8;

/// Weights whose numbers follow from `seed`, `mib` mebibytes of them.
fn values(seed: u32, mib: usize) -> Vec<Vec<u32>> {
    let len = (mib << 20) / 4 / TENSORS;
    let number = |tensor: usize, i: usize| ((tensor * len + i) as u32).wrapping_mul(2_654_435_761) ^ seed;
    (0..TENSORS).map(|tensor| (0..len).map(|i| number(tensor, i)).collect()).collect()
}

fn publish_values(bus: &Bus, name: &str, values: &[Vec<u32>]) -> anyhow::Result<SharedWeights> {
    let views = values.iter().map(|values| TensorView::new(values, &[values.len()], &[1]));
    let views = views.collect::<Result<Vec<_>, _>>()?;
    let names = (0..values.len()).map(|index| format!("layer.{index}"));
    Ok(SharedWeights::publish(bus, name, names.zip(views))?)
}

/// Publishes when told, says the digest, and holds until told.
pub(super) fn publish(name: &str, seed: u32, mib: usize) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let values = values(seed, mib);
    say("ready");
    told();
    let weights = publish_values(&bus, name, &values)?;
    drop(values);
    hold(&weights)
}

/// Publishes weights that others may be publishing too, drops them, and again, until it is killed.
pub(super) fn publish_for_ever(mib: usize) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let both = [values(1, mib), values(2, mib)];
    say("ready");
    told();
    loop {
        for values in &both {
            publish_values(&bus, "contested", values)?.verify()?;
        }
    }
}

/// Attaches, says the digest, and holds until told.
pub(super) fn attach(name: &str) -> anyhow::Result<()> {
    let bus = Bus::open()?;
    hold(&SharedWeights::attach(&bus, name)?)
}

/// The same with a file that is mapped.
pub(super) fn map(path: &str) -> anyhow::Result<()> {
    hold(&SharedWeights::open(path)?)
}

/// Reads all bytes, says their digest, and when told whether they are still the same; then holds until the end.
fn hold(weights: &SharedWeights) -> anyhow::Result<()> {
    weights.verify()?;
    say(weights.digest());
    while told() {
        weights.verify()?;
        let first = weights.tensors().next().context("a tensor")?;
        ensure!(first.view::<u32>()?.len() == first.shape()[0], "a tensor of another length");
        say("right");
    }
    Ok(())
}
