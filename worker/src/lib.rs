//! Models that one process owns and many use.
//!
//! A [`Model`] has named inputs and outputs. [`RtenModel`] runs an ONNX model, [`FunctionModel`] a function; [`run`] asks one of
//! them, and checks what goes in and comes out. Which requests are run together a [`Batcher`](batch::Batcher) decides.
#![deny(unsafe_code)]

pub mod batch;
mod call;
mod compare;
mod error;
mod function;
mod golden;
mod model;
#[cfg(feature = "rten")]
mod onnx;
#[cfg(feature = "rten")]
mod rten;
mod run;
mod signature;

pub use call::{Call, Output};
pub use error::InferError;
pub use function::FunctionModel;
pub use golden::{Golden, GoldenError};
pub use model::Model;
#[cfg(feature = "rten")]
pub use rten::{RtenBuilder, RtenLoadError, RtenModel};
pub use run::{Outcome, probe, run};
pub use signature::{Dim, Signature, SignatureError, TensorInfo};

/// The programs of `docs/workers.md` are compiled with the documentation's examples.
#[cfg(all(doctest, feature = "rten"))]
#[doc = include_str!("../../docs/workers.md")]
struct Workers;
