//! `tensorbus weights`: the weights that the processes of a session share.

use std::io::{self, Write};
use std::process::ExitCode;

use indicatif::HumanBytes;
use serde::Serialize;
use tensorbus::{BlobInfo, Bus, Digest};

use crate::output;
use crate::session::SessionArg;

/// Digits of a digest that people are shown.
const DIGITS: usize = 12;

/// List the weights that the processes of a session share
///
/// Those that were published into the session, with their size and the processes that have them mapped. A name can be there several
/// times, with different contents: the current one is what is attached under it. Weights that are mapped from files of others
/// (safetensors, imported ONNX models) are not in the session.
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
    weights: Vec<Weights>,
}

#[derive(Serialize)]
struct Weights {
    name: String,
    /// BLAKE3 of the content.
    digest: String,
    bytes: u64,
    /// Whether this is what the name stands for now.
    current: bool,
    /// Ids of the processes of the session that have them mapped.
    processes: Vec<u32>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    output::until_closed(list(args))
}

fn list(args: &Args) -> anyhow::Result<ExitCode> {
    let bus = args.session.open()?;
    let weights = look(&bus)?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&Report { session: bus.session(), weights })?)?;
    } else if weights.is_empty() {
        writeln!(out, "no weights in session {:?}: nobody there has published any", bus.session())?;
    } else {
        let head = ["WEIGHTS", "DIGEST", "SIZE", "PROCESSES"].map(str::to_owned).to_vec();
        let rows: Vec<_> = std::iter::once(head).chain(weights.iter().map(Weights::row)).collect();
        writeln!(out, "session {}", bus.session())?;
        write!(out, "{}", output::table(&rows, &[2]))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn look(bus: &Bus) -> anyhow::Result<Vec<Weights>> {
    let blobs = bus.blobs()?;
    // What the kernel says that each process has mapped; of one that has just ended it says nothing.
    let maps = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mapped: Vec<_> = bus.members()?.0.iter().map(|pid| (*pid, maps(pid))).collect();
    let is_last = |index: usize| blobs.get(index + 1).is_none_or(|next: &BlobInfo| next.name != blobs[index].name);
    let of = |(index, blob): (usize, &BlobInfo)| {
        let digest = Digest::from(blob.digest).to_string();
        // The file's name ends so, but where it has lost its name already.
        let has = |maps: &str| maps.lines().any(|line| line.contains("/blobs/") && line.contains(&digest));
        let processes = mapped.iter().filter(|(_, maps)| has(maps)).map(|(pid, _)| *pid).collect();
        Weights { name: blob.name.clone(), digest, bytes: blob.bytes, current: is_last(index), processes }
    };
    Ok(blobs.iter().enumerate().map(of).collect())
}

impl Weights {
    fn row(&self) -> Vec<String> {
        let processes: Vec<_> = self.processes.iter().map(u32::to_string).collect();
        vec![
            if self.current { self.name.clone() } else { format!("{} (replaced)", self.name) },
            self.digest.chars().take(DIGITS).collect(),
            HumanBytes(self.bytes).to_string(),
            processes.join(", "),
        ]
    }
}
