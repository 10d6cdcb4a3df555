//! `tensorbus models`: which models are loaded where.

mod import;
mod report;
mod unload;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tensorbus::{Bus, Directory, DirectoryClient, ProcessModels};

use crate::output;
use crate::session::SessionArg;
use crate::stop;

/// Longest wait for what the registries of a session say. Those that live say it within a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest wait for the daemon.
const ANSWER: Duration = Duration::from_millis(500);
/// How often what changes by time alone is printed, and a wish to stop is seen.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// List the models that the processes of a session have loaded
///
/// Programs that announce their model registry are shown, with what each of their models is at: loading, loaded (to stay), in
/// use, idle, or failed.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print the list again whenever it changes
    Watch(ListArgs),
    Unload(unload::Args),
    Import(import::Args),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    session: SessionArg,
    /// Print JSON instead of a table: one object; with `watch` one a line
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    output::until_closed(match args.action {
        None => list(&args.list),
        Some(Action::Watch(list)) => watch(&list),
        Some(Action::Unload(unload)) => unload::run(&unload),
        Some(Action::Import(import)) => import::run(&import),
    })
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let bus = args.session.open()?;
    let (processes, silent) = look(&bus)?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report::Report::of(bus.session(), &processes, silent))?)?;
    } else {
        write!(out, "{}", report::text(bus.session(), &processes, silent))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn watch(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let stop = stop::on_signals()?;
    let bus = args.session.open()?;
    let (mut directory, silent) = listen(&bus)?;
    let mut out = io::stdout().lock();
    let mut printed = None;
    while !stop.load(Ordering::Relaxed) {
        let processes = directory.processes();
        let text = if args.json {
            serde_json::to_string(&report::Report::of(bus.session(), &processes, silent))? + "\n"
        } else {
            report::text(bus.session(), &processes, silent) + "\n"
        };
        // Times go on in every line: what is looked at is whether anything else has changed.
        let changed = Some(report::without_times(&processes));
        if changed != printed {
            out.write_all(text.as_bytes())?;
            out.flush()?;
            printed = changed;
        }
        directory.changed(LOOK_EVERY)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The registries of a session, and how many of them say nothing: the daemon knows at once, else it takes a moment to hear all.
fn look(bus: &Bus) -> anyhow::Result<(Vec<ProcessModels>, usize)> {
    let asked = DirectoryClient::open(bus).and_then(|mut client| client.list(ANSWER));
    // Else there is none, or an older one; or it has just begun, or some process hangs.
    if let Ok(listing) = asked
        && listing.silent == 0
    {
        return Ok((listing.processes, 0));
    }
    let (mut directory, silent) = listen(bus)?;
    directory.refresh()?;
    Ok((directory.processes(), silent))
}

/// A directory that has heard everybody, and how many registries say nothing.
fn listen(bus: &Bus) -> anyhow::Result<(Directory, usize)> {
    let mut directory = Directory::open(bus)?;
    let silent = directory.complete(PATIENCE)?;
    if let (rejected @ 1.., Some(reason)) = directory.rejected() {
        let rejected = output::count(rejected as usize, "announcement was", "announcements were");
        output::note(&format!("{rejected} not understood: {reason}"));
    }
    Ok((directory, silent))
}
