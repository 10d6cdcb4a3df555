//! Nodes of one process share one model: loaded once, one instance, a hit in well under a microsecond.
//! `cargo run --release --example share_model`

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rten::{Model, ValueView};
use tensorbus::{Measured, ModelHandle, ModelRegistry};

type Digits = Measured<Model>;

/// A small network that reads handwritten digits.
const ONNX: &[u8] = include_bytes!("digits/digits.onnx");
const NODES: [&str; 3] = ["classify", "verify", "archive"];

fn load() -> anyhow::Result<Digits> {
    let bytes = ONNX.len() as u64; // nearly all of it is weights
    Ok(Measured::new(Model::load(ONNX.to_vec())?, bytes))
}

/// What a node does: asks for the model, and uses it.
fn node(name: &str) -> anyhow::Result<ModelHandle<Digits>> {
    let begun = Instant::now();
    let model = ModelRegistry::global().get_or_load_blocking("digits/1", load)?;
    let took = begun.elapsed();
    let image = [0.5_f32; 64];
    let output = model.run_one(ValueView::from_shape(&[1, 1, 8, 8], &image)?.into(), None)?;
    let (_, logits) = output.into_shape_vec::<f32, 2>()?;
    println!("{name}: has the model after {took:?}, at {:p}, {} logits", &raw const **model, logits.len());
    Ok(model)
}

fn main() -> anyhow::Result<()> {
    if let [_, how, nodes] = &std::env::args().collect::<Vec<_>>()[..] {
        return measure(how, nodes.parse()?);
    }
    let handles = std::thread::scope(|scope| {
        let nodes: Vec<_> = NODES.map(|name| scope.spawn(move || node(name))).into();
        nodes.into_iter().map(|node| node.join().expect("a node panicked")).collect::<anyhow::Result<Vec<_>>>()
    })?;
    let metrics = ModelRegistry::global().metrics();
    let one = &**handles[0];
    ensure!(handles.iter().all(|handle| std::ptr::eq(one, &***handle)) && metrics.loads == 1, "several instances");
    println!("loads: {}, handles: {}, same instance: yes", metrics.loads, metrics.handles);
    println!("hit, a handle taken and dropped: median {:?}", median_hit()?);

    drop(handles);
    println!("after the last handle: {}", ModelRegistry::global().list()[0].state);

    // So small a model is a few pages, and one more or less shows: measured with more nodes than the three.
    let nodes = 10;
    let (private, shared) = (in_a_process_of_its_own("private", nodes)?, in_a_process_of_its_own("shared", nodes)?);
    let saved = 100.0 * (1.0 - shared as f64 / private as f64);
    println!("memory (PSS) of {nodes} nodes: {private} KiB with a model each, {shared} KiB shared: {saved:.0} % less");
    Ok(())
}

fn median_hit() -> anyhow::Result<Duration> {
    const HITS: u32 = 100;
    let mut batches = Vec::new();
    for _ in 0..2000 {
        let begun = Instant::now();
        for _ in 0..HITS {
            ModelRegistry::global().get::<Digits>("digits/1")?.context("the model is gone")?;
        }
        batches.push(begun.elapsed() / HITS);
    }
    batches.sort();
    Ok(batches[batches.len() / 2])
}

/// What the models of all nodes take, measured where nothing else was loaded before.
fn in_a_process_of_its_own(how: &str, nodes: usize) -> anyhow::Result<u64> {
    let output = Command::new(std::env::current_exe()?).args([how, &nodes.to_string()]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

fn measure(how: &str, nodes: usize) -> anyhow::Result<()> {
    // What comes once for all is not the models': threads, tables, pages of the program. Kept, so that nobody gets its memory.
    let registry = ModelRegistry::new();
    let _first = registry.get_or_load_blocking("first", load)?;
    pss_kib()?;
    let before = pss_kib()?;
    let mut held: Vec<Box<dyn std::any::Any>> = Vec::new();
    for _ in 0..nodes {
        match how {
            "private" => held.push(Box::new(load()?)),
            _ => held.push(Box::new(registry.get_or_load_blocking("digits/1", load)?)),
        }
    }
    println!("{}", pss_kib()?.saturating_sub(before));
    Ok(())
}

fn pss_kib() -> anyhow::Result<u64> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss in smaps_rollup")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
