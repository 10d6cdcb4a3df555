//! The `tensorbus` command.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod daemon;
mod demo;
mod doctor;
mod echo;
mod models;
mod output;
mod ps;
mod session;
mod stop;
mod topics;

#[derive(Debug, Parser)]
#[command(name = "tensorbus", version, about = "Tensors from process to process in shared memory, without a copy")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// One variant and one line in [`run`] for each command.
#[derive(Debug, Subcommand)]
enum Command {
    Daemon(daemon::Args),
    Demo(demo::Options),
    #[command(hide = true)]
    DemoNode(demo::NodeOptions),
    Doctor(doctor::Args),
    Ps(ps::Args),
    Topics(topics::Args),
    Echo(echo::Args),
    Models(models::Args),
}

/// Runs the command that `args` give, the program's name first. Returns its exit code.
///
/// Errors go to stderr, and make an exit code that is not zero.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed terminal is no reason to end otherwise.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    run(cli.command).unwrap_or_else(|error| {
        // A closed stderr is no reason to end otherwise.
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Daemon(args) => daemon::run(args),
        Command::Demo(options) => demo::run(&options),
        Command::DemoNode(options) => demo::run_node(&options),
        Command::Doctor(args) => doctor::run(args),
        Command::Ps(args) => ps::run(args),
        Command::Topics(args) => topics::run(args),
        Command::Echo(args) => echo::run(args),
        Command::Models(args) => models::run(args),
    }
}
