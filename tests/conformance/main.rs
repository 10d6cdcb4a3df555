//! The same cases wherever a session lies. `across` runs them in memory, where sessions are by default; here they run
//! on a disk, and in a directory that nobody else knows.
//!
//! Messages, layouts, history, many publishers (FR-005, FR-016, FR-019), overflow (FR-018), holds and lifetimes, waiting.
#![allow(clippy::unwrap_used, reason = "a failure ends the test")]
#![allow(clippy::duplicate_mod, reason = "that is the point")]

mod disk;
mod private;
