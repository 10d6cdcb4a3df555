use std::path::PathBuf;

use tensorbus_registry::ImportError;

use crate::signature::SignatureError;

/// Why a model is not loaded by rten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RtenLoadError {
    /// It is no ONNX model, or cannot be put into the cache.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A message in the graph cannot be read.
    #[error("{}: no whole ONNX graph: {reason}; export the model again", path.display())]
    Graph {
        /// The model.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An input or output is no tensor, or one of a type that rten has not.
    #[error(
        "{what} {name:?} is {found}; rten takes tensors of f32, i8, u8, i32, i64 and bool: export the model with one of those"
    )]
    Dtype {
        /// `input` or `output`.
        what: &'static str,
        /// The input or output.
        name: String,
        /// What it is.
        found: String,
    },
    /// An operator that this backend has not.
    #[error(
        "operator {operator} of {domain} (opset {opset}), used by node {node}, is not there in rten; use another backend, or export the model without it"
    )]
    NoOperator {
        /// The operator.
        operator: String,
        /// Its domain; `ai.onnx` is that of the standard.
        domain: String,
        /// Version of the domain's operators that the model is written for; 0 if it does not say.
        opset: i64,
        /// The node: its name, or its first output.
        node: String,
    },
    /// An operator that rten has, but in a form that it computes wrongly or not at all.
    #[error(
        "operator {operator} of {domain} (opset {opset}), used by node {node}, is not run: {reason}; use another backend, or export the model without it"
    )]
    Refused {
        /// The operator.
        operator: String,
        /// Its domain.
        domain: String,
        /// Version of the domain's operators.
        opset: i64,
        /// The node: its name, or its first output.
        node: String,
        /// What would go wrong.
        reason: &'static str,
    },
    /// A constant does not fit into the 32 bits that rten computes with.
    #[error("constant {constant:?} has numbers of more than 32 bits, which rten would cut off; use another backend")]
    WideConstant {
        /// The constant.
        constant: String,
    },
    /// The inputs and outputs are none that a model can have, or not those of a batched one.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// rten has refused the model.
    #[error("rten does not load {}: {reason}", path.display())]
    Backend {
        /// The model.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// The operating system refused.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        reason: std::io::Error,
    },
}
