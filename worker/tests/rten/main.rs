//! ONNX models by rten: what they take and give, what is copied, and what is refused or computed in another way because rten would
//! do it wrongly.
#![cfg(feature = "rten")]
#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod digits;
mod onnx;
mod refused;
mod rewritten;
mod values;
