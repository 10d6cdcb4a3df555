//! The `tensorbus` command.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::process::{Resource, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

mod daemon;
mod demo;
mod doctor;
mod echo;
mod infer;
mod models;
mod output;
mod ps;
mod session;
mod stop;
mod topics;
mod weights;
mod worker;

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
    Worker(worker::Args),
    Infer(infer::Args),
    Weights(weights::Args),
}

/// What is logged to stderr if `RUST_LOG` does not say otherwise.
const LOG: &str = "off,tensorbus_cli=warn,tensorbus_registry=warn,tensorbus_serve=info,tensorbus_transport=warn,tensorbus_worker=warn";

/// Runs the command that `args` give, the program's name not among them. Returns its exit code.
///
/// Errors go to stderr, and make an exit code that is not zero. `program` is the command line that starts this program
/// again, without arguments: some commands start processes of their own.
pub fn main(program: &[OsString], args: impl IntoIterator<Item = OsString>) -> u8 {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG));
    // Where the process logs already, it goes on as it does.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    raise_open_files();
    let cli = match Cli::try_parse_from(std::iter::once("tensorbus".into()).chain(args)) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed terminal is no reason to end otherwise.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let code = run(cli.command, program).unwrap_or_else(|error| {
        // A closed stderr is no reason to end otherwise.
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    });
    u8::from(code != ExitCode::SUCCESS)
}

fn run(command: Command, program: &[OsString]) -> anyhow::Result<ExitCode> {
    match command {
        Command::Daemon(args) => daemon::run(args),
        Command::Demo(options) => demo::run(&options, program),
        Command::DemoNode(options) => demo::run_node(&options),
        Command::Doctor(args) => doctor::run(args),
        Command::Ps(args) => ps::run(args),
        Command::Topics(args) => topics::run(args),
        Command::Echo(args) => echo::run(args),
        Command::Models(args) => models::run(args),
        Command::Worker(args) => worker::run(args),
        Command::Infer(args) => infer::run(args),
        Command::Weights(args) => weights::run(&args),
    }
}

/// Each connection of a topic holds a few file descriptors: allow as many as the system lets us.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it is refused, the limit stays as it is.
    let _ = setrlimit(Resource::Nofile, limit);
}
