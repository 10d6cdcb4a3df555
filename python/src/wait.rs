use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::error;

/// Signals are looked for so often: Ctrl-C ends a wait within this time.
const SLICE: Duration = Duration::from_millis(100);

/// Seconds as Python gives them; `None` waits for ever.
pub(crate) fn timeout(py: Python<'_>, seconds: Option<f64>) -> PyResult<Option<Duration>> {
    seconds.map(|seconds| duration(py, "timeout", seconds)).transpose()
}

pub(crate) fn duration(py: Python<'_>, name: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| error::invalid(py, format!("{name} of {seconds} s is not a time; give seconds from 0 up")))
}

/// Calls `step` with bounded times until it gives something, the time is over (`None`), or a signal's handler raises.
///
/// `step` lets other Python threads run while it waits.
pub(crate) fn wait<T>(
    py: Python<'_>,
    timeout: Option<Duration>,
    mut step: impl FnMut(Python<'_>, Duration) -> Option<T>,
) -> PyResult<Option<T>> {
    let begin = Instant::now();
    loop {
        let left = timeout.map(|timeout| timeout.saturating_sub(begin.elapsed()));
        let bound = left.map_or(SLICE, |left| left.min(SLICE));
        if let Some(found) = step(py, bound) {
            return Ok(Some(found));
        }
        py.check_signals()?;
        if timeout.is_some_and(|timeout| begin.elapsed() >= timeout) {
            return Ok(None);
        }
    }
}
