//! The `tensorbus` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Not the name it was called by: that may lead to another program, or nowhere.
    let program = std::env::current_exe().map_or_else(|_| "tensorbus".into(), Into::into);
    tensorbus_cli::main(&[program], std::env::args_os().skip(1)).into()
}
