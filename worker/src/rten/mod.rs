//! ONNX models run by `rten`, in Rust. The graph is checked before: what rten is known to compute wrongly is written in
//! another way, or refused.

mod builder;
mod check;
mod convert;
mod error;
mod known;
#[allow(unsafe_code, reason = "mapping a file: one call, which says why nobody changes the file")]
mod mapped;
mod model;
mod operators;
mod rewrite;

pub use builder::RtenBuilder;
pub use error::RtenLoadError;
pub use model::RtenModel;
