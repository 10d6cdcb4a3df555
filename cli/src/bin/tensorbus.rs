//! The `tensorbus` command.

use std::process::ExitCode;

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

/// What is logged to stderr if `RUST_LOG` does not say otherwise.
const LOG: &str = "off,tensorbus_cli=warn,tensorbus_registry=warn,tensorbus_serve=info,tensorbus_transport=warn";

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    raise_open_files();
    tensorbus_cli::main(std::env::args_os())
}

/// Each connection of a topic holds a few file descriptors: allow as many as the system lets us.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it is refused, the limit stays as it is.
    let _ = setrlimit(Resource::Nofile, limit);
}
