//! What tensorbus has on TCP. For now: the [`Daemon`] of a session, with its metrics and its health over HTTP.
#![forbid(unsafe_code)]

mod daemon;
mod exposition;
mod http;
mod watch;

pub use daemon::{DEFAULT_HTTP, Daemon, DaemonError, Holder};
