use std::fmt;

use tensorbus_registry::BoxError;

use crate::call::Call;
use crate::model::Model;
use crate::signature::Signature;

/// A function as a model. [`run`](crate::run) shows one.
pub struct FunctionModel<F> {
    signature: Signature,
    function: F,
    is_idempotent: bool,
}

impl<F> FunctionModel<F>
where
    F: Fn(&mut Call<'_>) -> Result<(), BoxError> + Send + Sync + 'static,
{
    /// A model that calls `function` for what [`Model::infer`] says.
    pub fn new(signature: Signature, function: F) -> Self {
        Self { signature, function, is_idempotent: false }
    }

    /// Says that a request may be run again: nothing but the outputs depends on it.
    pub fn idempotent(mut self) -> Self {
        self.is_idempotent = true;
        self
    }
}

impl<F> Model for FunctionModel<F>
where
    F: Fn(&mut Call<'_>) -> Result<(), BoxError> + Send + Sync + 'static,
{
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn infer(&self, call: &mut Call<'_>) -> Result<(), BoxError> {
        (self.function)(call)
    }

    fn is_idempotent(&self) -> bool {
        self.is_idempotent
    }
}

impl<F> fmt::Debug for FunctionModel<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionModel").field("signature", &self.signature).finish_non_exhaustive()
    }
}
