use std::collections::BTreeMap;
use std::path::Path;

use tensorbus_registry::{OpenWeightsError, SharedWeights};
use tensorbus_transport::MappedTensor;

use crate::Output;
use crate::compare::difference;
use crate::error::InferError;
use crate::model::Model;
use crate::run::run;

/// Inputs with the outputs that a model has to give for them: a check that it computes what it should, before it is used.
///
/// It is a safetensors file, in which the tensors are called `input.NAME` and `output.NAME`. Outputs that are not in there are
/// not compared.
#[derive(Debug)]
pub struct Golden {
    tensors: BTreeMap<String, MappedTensor>,
}

/// Why a model is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoldenError {
    /// The file lacks an input.
    #[error("there is no tensor {expected:?}; the file has {present:?}")]
    NoInput {
        /// The tensor's name.
        expected: String,
        /// Names that there are.
        present: Vec<String>,
    },
    /// The file has a tensor that is nothing of the model.
    #[error("{name:?} is no input or output of the model, which is {signature}")]
    Unknown {
        /// The tensor's name.
        name: String,
        /// The model's inputs and outputs.
        signature: String,
    },
    /// The file has no output: nothing would be checked.
    #[error("there is no tensor that is called output.NAME, so there is nothing to compare with")]
    NothingToCompare,
    /// The model gives no answer.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The model gives another answer.
    #[error("output {output:?} is wrong: {difference}; the model is not to be used")]
    Differs {
        /// The output.
        output: String,
        /// Where it differs.
        difference: String,
    },
}

impl Golden {
    /// Maps the file.
    ///
    /// # Errors
    /// [`OpenWeightsError`] if it is no safetensors file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenWeightsError> {
        let file = SharedWeights::open(path)?;
        let tensors = file.tensors().map(|tensor| (tensor.name().to_owned(), tensor.clone())).collect();
        Ok(Self { tensors })
    }

    /// Runs the model, and compares. Numbers with a fraction may differ by `tolerance` times their size, by `tolerance` if they
    /// are below 1; all others have to be equal.
    ///
    /// # Errors
    /// [`GoldenError`].
    pub fn check(&self, model: &dyn Model, tolerance: f64) -> Result<(), GoldenError> {
        let signature = model.signature();
        let present = || self.tensors.keys().cloned().collect();
        let mut inputs = Vec::new();
        for input in signature.inputs() {
            let expected = format!("input.{}", input.name);
            let Some(tensor) = self.tensors.get(&expected) else {
                return Err(GoldenError::NoInput { expected, present: present() });
            };
            inputs.push(tensor.as_view());
        }
        let output = |name: &str| {
            let name = name.strip_prefix("output.")?;
            signature.outputs().iter().position(|output| output.name == name)
        };
        let is_input = |name: &str| {
            name.strip_prefix("input.").is_some_and(|name| signature.inputs().iter().any(|input| input.name == name))
        };
        if let Some(unknown) = self.tensors.keys().find(|name| output(name).is_none() && !is_input(name)) {
            return Err(GoldenError::Unknown { name: unknown.clone(), signature: signature.to_string() });
        }
        let expected: Vec<_> = self.tensors.iter().filter_map(|(name, tensor)| Some((output(name)?, tensor))).collect();
        if expected.is_empty() {
            return Err(GoldenError::NothingToCompare);
        }
        let outcome = run(model, inputs, signature.outputs().iter().map(|_| Output::in_memory()).collect())?;
        for (index, expected) in expected {
            let found = outcome.outputs[index].tensor();
            if let Some(difference) = found.and_then(|found| difference(&expected.as_view(), &found, tolerance)) {
                let output = signature.outputs()[index].name.clone();
                return Err(GoldenError::Differs { output, difference: difference.to_string() });
            }
        }
        Ok(())
    }
}
