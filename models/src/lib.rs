//! Models of the code that threads and processes run at the same time: loom runs each of them through all interleavings that
//! its bound allows. `bell` is of `transport/src/ring`, `registry` of `registry/src/shell`.
//!
//! Each model counts the outcomes it has seen and asserts that each interesting one was among them, and has a twin with a
//! planted bug, which must fail.
#![cfg(tensorbus_loom)]
#![allow(unreachable_pub, dead_code, unused_imports)]

#[cfg(test)]
mod bell;
#[path = "../../registry/src/cache/mod.rs"]
mod cache;
#[path = "../../registry/src/error.rs"]
mod error;
#[path = "../../registry/src/model.rs"]
mod model;
mod mortal;
#[cfg(test)]
mod registry;
#[path = "../../transport/src/ring/mod.rs"]
mod ring;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod seen;
#[path = "../../registry/src/shell/mod.rs"]
mod shell;
mod stand_in;
mod sync;
