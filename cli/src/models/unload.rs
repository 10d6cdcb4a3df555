//! `tensorbus models unload`: a model leaves the memory of whoever has it.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use tensorbus::{ProcessModels, unload_remotely};

use super::look;
use crate::session::SessionArg;

/// Longest wait for each process.
const ANSWER: Duration = Duration::from_secs(5);

/// Unload a model where nobody uses it
///
/// Every process of the session that has the model is asked, or the one named. A process refuses while the model is in use,
/// pinned or being loaded; the command then fails, and says who.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Key of the model
    key: String,
    /// Only in this process
    #[arg(long, value_name = "PID")]
    process: Option<u32>,
    #[command(flatten)]
    session: SessionArg,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let bus = args.session.open()?;
    let (processes, _) = look(&bus)?;
    let has = |process: &ProcessModels| {
        args.process.is_none_or(|pid| pid == process.pid) && process.models.iter().any(|model| model.key == args.key)
    };
    let processes: Vec<_> = processes.into_iter().filter(has).collect();
    if processes.is_empty() {
        let whose = args.process.map_or("no process".to_owned(), |pid| format!("process {pid} does not exist, or it"));
        bail!("{whose} has model {:?} in session {:?}; `tensorbus models` lists them", args.key, bus.session());
    }
    let mut failed = false;
    let mut out = io::stdout().lock();
    for process in processes {
        match unload_remotely(&bus, &process, &args.key, ANSWER) {
            Ok(()) => writeln!(out, "process {}: unloaded {}", process.pid, args.key)?,
            Err(error) => {
                failed = true;
                crate::output::note(&format!("error: {error}"));
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
