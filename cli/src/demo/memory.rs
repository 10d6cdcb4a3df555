//! What the model takes with and without sharing, as the kernel counts it: processes that hold it and do nothing else.
//!
//! The same nodes as in the pipeline, three in one process and one in another, first with one model a process and the weights
//! mapped, then with a model of its own for each node.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use anyhow::Context;
use rten::{RunOptions, ValueView};
use tensorbus::{CACHE_VARIABLE, ModelRegistry};

use super::digits::{self, SIDE};
use super::lifeline::Lifeline;
use super::node::NodeOptions;
use super::tally::NodeReport;

/// Holds the models of so many nodes, each of which has answered once, and reports what they take.
pub(super) fn run(options: &NodeOptions, lifeline: &Lifeline, nodes: u32) -> anyhow::Result<()> {
    let registry = ModelRegistry::new();
    let load = if options.share { digits::load_shared } else { digits::load_private };
    let hold = |node: u32| {
        // Without sharing each node has a model of its own.
        let key = if options.share { "digits/1".to_owned() } else { format!("digits/1 of node {node}") };
        let model = registry.get_or_load_blocking(&key, load)?;
        answer(&model)?;
        anyhow::Ok(model)
    };
    // What comes once for all is not the models': threads, tables. Kept, so that nobody gets its memory.
    let first = registry.get_or_load_blocking("first", load)?;
    answer(&first)?;
    own_memory()?;
    let before = own_memory()?;
    let held = (0..nodes).map(hold).collect::<anyhow::Result<Vec<_>>>()?;
    // The other process holds its own by then.
    if !lifeline.ready() {
        return Ok(());
    }
    let model_bytes = own_memory()?.saturating_sub(before) + mapped_weights()?;
    lifeline.report(NodeReport { process: std::process::id(), model_bytes, ..NodeReport::default() });
    drop((held, first));
    Ok(())
}

fn answer(model: &rten::Model) -> anyhow::Result<()> {
    let image = [0.5_f32; SIDE * SIDE];
    let input = ValueView::from_shape([1, 1, SIDE, SIDE], &image[..])?;
    model.run_one(input.into(), Some(RunOptions::default())).context("the model failed")?;
    Ok(())
}

/// Memory that is this process's alone, whatever other processes do: what it allocated and touched.
fn own_memory() -> anyhow::Result<u64> {
    let rollup = fs::read("/proc/self/smaps_rollup").context("memory is read from /proc/self/smaps_rollup")?;
    field(&rollup, b"Pss_Anon:").context("no Pss_Anon in smaps_rollup")
}

/// This process's share of the pages of imported models: a page that N processes have mapped is one Nth in each.
fn mapped_weights() -> anyhow::Result<u64> {
    let cache = std::env::var_os(CACHE_VARIABLE).context("no cache of models")?;
    let smaps = fs::read("/proc/self/smaps").context("memory is read from /proc/self/smaps")?;
    let (mut bytes, mut is_ours) = (0, false);
    for line in smaps.split(|&byte| byte == b'\n') {
        // A mapping begins with its addresses and ends with its path; then come its fields, each with a colon.
        if line.first().is_some_and(|first| first.is_ascii_hexdigit() && !first.is_ascii_uppercase()) {
            is_ours = line.windows(cache.len()).any(|part| part == cache.as_bytes());
        } else if is_ours {
            bytes += field(line, b"Pss:").unwrap_or(0);
        }
    }
    Ok(bytes)
}

/// The value of the first field of this name, in bytes. A line is `Name:   number kB`.
fn field(text: &[u8], name: &[u8]) -> Option<u64> {
    let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = std::str::from_utf8(line).ok()?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let rollup = b"7f0-7f1 ---p 00000000 00:00 0 [rollup]\nRss:    12 kB\nPss:       5 kB\nPss_Anon:      3 kB\n";
        assert_eq!(field(rollup, b"Pss:"), Some(5 * 1024));
        assert_eq!(field(rollup, b"Pss_Anon:"), Some(3 * 1024));
        assert_eq!(field(rollup, b"Pss_Dirty:"), None);
    }
}
