//! A session in a directory of memory that only its members know.

#[path = "../across/lifetimes.rs"]
mod lifetimes;
#[path = "../across/messages.rs"]
mod messages;
#[path = "../across/overflow.rs"]
mod overflow;
#[path = "../across/support.rs"]
#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod support;
#[path = "../across/waiting.rs"]
mod waiting;

/// A directory of its own for each session. Short: a session's path has a limit.
fn base() -> Option<tempfile::TempDir> {
    let memory = tensorbus::Bus::default_directory();
    Some(tempfile::Builder::new().prefix("tb-").rand_bytes(5).tempdir_in(memory).unwrap())
}
