//! FR-013: the same cases on each backend. `across` runs them where sessions lie by default, in shared memory; here they run in
//! files, and in the session of one process and its children.
//!
//! Messages, layouts, history, many publishers (FR-005, FR-016, FR-019), overflow (FR-018), holds and lifetimes, waiting, weights.
#![allow(clippy::unwrap_used, reason = "a failure ends the test")]
#![allow(clippy::duplicate_mod, reason = "that is the point")]

mod file;
mod local;
