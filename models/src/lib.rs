//! Models of the lock-free code in `transport/src/ring`: loom runs each of them through all interleavings that its bound allows.
//!
//! Each model counts the outcomes it has seen and asserts that each interesting one was among them, and has a twin with a
//! planted bug, which must fail.
#![cfg(tensorbus_loom)]

#[cfg(test)]
mod bell;
#[path = "../../transport/src/ring/mod.rs"]
#[allow(dead_code, unused_imports)]
mod ring;
#[path = "../../transport/src/sync.rs"]
mod sync;
