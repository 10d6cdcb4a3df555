//! The bus across processes: real processes, real SIGKILL. Each test has a session of its own and a watchdog.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod namespace;
#[path = "../node/onnx_model.rs"]
mod onnx_model;
mod support;

mod control;
mod death;
mod fallback;
mod fork;
mod growing;
mod hostile;
mod isolated_rings;
mod isolation;
mod layouts;
mod life;
mod lifetimes;
mod limits;
mod messages;
mod models;
mod onnx;
mod overflow;
mod policies;
mod pools;
mod promises;
mod quota;
mod rings;
mod waiting;
mod weights;

/// The sessions lie where they do by default.
fn backend() -> Option<tensorbus::Backend> {
    None
}
