//! A session on a disk: the page cache is its memory. Where /var/tmp is a tmpfs, the cases pass too, and prove less.

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
    Some(tempfile::Builder::new().prefix("tb-").rand_bytes(5).tempdir_in("/var/tmp").unwrap())
}
