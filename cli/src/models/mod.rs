//! `tensorbus models`: what is done with models.

use std::process::ExitCode;

use clap::Subcommand;

use crate::output;

mod import;

/// Prepare models for being shared
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Import(import::Args),
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    output::until_closed(match args.command {
        Command::Import(args) => import::run(&args),
    })
}
