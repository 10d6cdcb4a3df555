//! Models of a process: one instance of each, whoever asks for it.
#![forbid(unsafe_code)]

mod model;

pub use model::{Device, Measured, Model};
