//! The other process of a benchmark: this program again, told by lines on its standard input what to do.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;

/// Looks at the other side that come to nothing before it is given up; about a minute.
const GIVE_UP: u64 = 1 << 30;

/// The other process. It ends when this is dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts this program with `arguments`, which make it call [`serve`].
    ///
    /// # Errors
    /// If it cannot be started, or does not say that it is ready.
    pub fn start<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the other process")?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("its output is piped")?);
        let mut peer = Self { child, orders, answers };
        peer.hear()?;
        Ok(peer)
    }

    /// Gives an order.
    ///
    /// # Errors
    /// If the other process is gone.
    pub fn tell(&mut self, order: &str) -> Result<()> {
        let mut orders = self.orders.as_ref().context("the other process is gone")?;
        Ok(orders.write_all(format!("{order}\n").as_bytes())?)
    }

    /// Waits until the last order is carried out.
    ///
    /// # Errors
    /// If the other process failed.
    pub fn hear(&mut self) -> Result<()> {
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        ensure!(answer == "done\n", "the other process failed: {answer:?}");
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.wait();
    }
}

/// The life of the other process: says that it is ready, then carries out each order and says so.
///
/// # Errors
/// Those of the orders.
pub fn serve(mut carry_out: impl FnMut(&str) -> Result<()>) -> Result<()> {
    println!("done");
    for order in std::io::stdin().lines() {
        carry_out(&order?)?;
        println!("done");
    }
    Ok(())
}

/// Ends this process as soon as the one that started it does.
///
/// # Errors
/// If the kernel refuses.
pub fn die_with_parent() -> Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// A directory for everything that the processes of a run share: in memory where there is some.
///
/// # Errors
/// If it cannot be made.
pub fn scratch() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    Ok(tempfile::Builder::new().prefix("bench-").tempdir_in(base)?)
}

/// Keeps this thread on the `n`th of the cores that it may use. A process that it starts later may use that one only.
///
/// # Errors
/// If there is only one: two sides that spin need two.
pub fn pin(n: usize) -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let cores: Vec<_> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
    ensure!(cores.len() >= 2, "this benchmark needs two cores");
    let mut one = CpuSet::new();
    one.set(cores[n % cores.len()]);
    Ok(sched_setaffinity(None, &one)?)
}

/// Looks without sleeping until there is something.
///
/// # Errors
/// Those of `look`, or if nothing comes for very long.
#[inline]
pub fn spin<T>(mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    for _ in 0..GIVE_UP {
        if let Some(found) = look()? {
            return Ok(found);
        }
        std::hint::spin_loop();
    }
    anyhow::bail!("the other process is silent")
}
