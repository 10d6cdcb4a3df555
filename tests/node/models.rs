//! A process with a model registry that it announces.

use std::io::BufRead;
use std::time::Duration;

use tensorbus::{Bus, KeepAlive, Measured, ModelHandle, ModelRegistry};

use crate::say;

type Model = Measured<Vec<u8>>;

/// Does what it is told, a line each: `load KEY BYTES`, `hang KEY`, `fail KEY`, `drop`, `end`.
pub(crate) fn run() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    let registry = ModelRegistry::builder().ttl(Duration::from_secs(3600)).build();
    let announcing = registry.announce(&bus)?;
    let mut held: Vec<ModelHandle<Model>> = Vec::new();
    say("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["load", key, bytes] => {
                let bytes = bytes.parse()?;
                let load = || anyhow::Ok(Measured::new(vec![1; bytes], bytes as u64));
                held.push(registry.entry(key).bytes(bytes as u64).get_or_load_blocking(load)?);
            }
            ["hang", key] => {
                let (registry, key) = (registry.clone(), key.to_owned());
                std::thread::spawn(move || {
                    registry.entry(&key).keep_alive(KeepAlive::Forever).bytes(77).get_or_load_blocking(
                        || -> anyhow::Result<Model> {
                            loop {
                                std::thread::park();
                            }
                        },
                    )
                });
            }
            ["fail", key] => {
                let fail = || -> anyhow::Result<Model> { anyhow::bail!("no weights") };
                anyhow::ensure!(registry.get_or_load_blocking(key, fail).is_err(), "it was loaded");
            }
            ["drop"] => held.clear(),
            ["end"] => break,
            _ => anyhow::bail!("what is {line:?}?"),
        }
        say("done");
    }
    drop(announcing);
    say("left");
    // The bus is open for as long as the parent wants.
    crate::told();
    Ok(())
}

/// Loads, drops, unloads and announces until it is killed.
pub(crate) fn run_for_ever() -> anyhow::Result<()> {
    let bus = Bus::open()?;
    say("ready");
    for round in 0_usize.. {
        let registry = ModelRegistry::builder().ttl(Duration::ZERO).memory_budget(1000).build();
        let announcing = registry.announce(&bus)?;
        for turn in 0..100 {
            let key = ["a", "b", "c", "d"][(round + turn) % 4];
            let bytes = 100 + (turn * 37) % 300;
            let load = || {
                std::thread::sleep(Duration::from_micros(500));
                anyhow::Ok(Measured::new(vec![1; bytes], bytes as u64))
            };
            let held = registry.get_or_load_blocking(key, load)?;
            anyhow::ensure!(held.len() >= 100, "another model");
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(announcing);
    }
    Ok(())
}
