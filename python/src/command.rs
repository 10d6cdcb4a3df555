use std::ffi::OsString;
use std::io::Write;

use pyo3::prelude::*;

/// Run the ``tensorbus`` command with these arguments, and return its exit code.
///
/// ``program`` is the command line that starts it again.
#[pyfunction]
pub(crate) fn command(py: Python<'_>, program: Vec<OsString>, args: Vec<OsString>) -> PyResult<u8> {
    // Python's handler of Ctrl-C waits for Python code to run, of which there is none any more.
    let signal = py.import("signal")?;
    signal.call_method1("signal", (signal.getattr("SIGINT")?, signal.getattr("SIG_DFL")?))?;
    let code = py.detach(|| {
        let code = tensorbus_cli::main(&program, args);
        // What a program that Rust itself ends does at its end.
        let _ = std::io::stdout().flush();
        code
    });
    Ok(code)
}
