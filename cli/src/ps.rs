//! `tensorbus ps`: the processes of a session.

use std::io::{self, Write};
use std::process::ExitCode;

use indicatif::HumanBytes;
use serde::Serialize;

use crate::output;
use crate::session::SessionArg;

/// List the processes of a session
///
/// With what the kernel says of each: whether it runs, sleeps or is stopped, and how much memory it has. Those that died
/// without leaving are shown until somebody cleans up after them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    session: SessionArg,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    session: &'a str,
    processes: Vec<Process>,
}

#[derive(Serialize)]
struct Process {
    pid: u32,
    /// As the kernel has it: at most 15 bytes.
    program: Option<String>,
    /// `running`, `sleeping`, `stopped`, `dead`, or what else the kernel says.
    state: String,
    /// Resident memory, pages that others share included.
    resident_bytes: Option<u64>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    output::until_closed(list(&args))
}

fn list(args: &Args) -> anyhow::Result<ExitCode> {
    let bus = args.session.open()?;
    let (living, dead) = bus.members()?;
    let others = living.into_iter().filter(|&pid| pid != std::process::id());
    let mut processes: Vec<Process> = others.map(Process::living).chain(dead.into_iter().map(Process::dead)).collect();
    processes.sort_by_key(|process| process.pid);
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&Report { session: bus.session(), processes })?)?;
    } else if processes.is_empty() {
        writeln!(out, "nobody in session {:?} but this command", bus.session())?;
    } else {
        let head = ["PROCESS", "PROGRAM", "STATE", "RESIDENT"].map(str::to_owned).to_vec();
        let rows: Vec<_> = std::iter::once(head).chain(processes.iter().map(Process::row)).collect();
        writeln!(out, "session {}", bus.session())?;
        write!(out, "{}", output::table(&rows, &[0, 3]))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Process {
    fn living(pid: u32) -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
        let status = read("status").unwrap_or_default();
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.map(|value| value.trim().to_owned())
        };
        let resident = field("VmRSS").and_then(|kib| kib.trim_end_matches(" kB").parse::<u64>().ok());
        let state = match field("State").and_then(|state| state.chars().next()) {
            Some('R') => "running".to_owned(),
            Some('S' | 'D' | 'I') => "sleeping".to_owned(),
            Some('T' | 't') => "stopped".to_owned(),
            Some('Z' | 'X') => "dead".to_owned(),
            Some(other) => other.to_string(),
            None => "unknown".to_owned(),
        };
        Self { pid, program: field("Name"), state, resident_bytes: resident.map(|kib| kib * 1024) }
    }

    fn dead(pid: u32) -> Self {
        Self { pid, program: None, state: "dead".to_owned(), resident_bytes: None }
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.pid.to_string(),
            self.program.clone().unwrap_or("-".to_owned()),
            self.state.clone(),
            self.resident_bytes.map_or("-".to_owned(), |bytes| HumanBytes(bytes).to_string()),
        ]
    }
}
