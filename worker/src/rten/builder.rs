use std::path::Path;

use tensorbus_registry::ModelCache;

use super::error::RtenLoadError;
use super::model::RtenModel;

/// How a model is to be loaded. Made by [`RtenModel::builder`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct RtenBuilder {
    pub(super) threads: Option<usize>,
    pub(super) batched: bool,
    pub(super) cache: Option<ModelCache>,
}

impl RtenBuilder {
    /// Threads of the model's own that it computes with, 1 or more. Default: a pool that all models of the process share, with a
    /// thread for each physical core.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads.max(1));
        self
    }

    /// Requests may be stacked into batches ([`Signature::batched`](crate::Signature::batched)). Default: no.
    pub fn batched(mut self) -> Self {
        self.batched = true;
        self
    }

    /// Where the model's weights are put, to be mapped. Default: the cache of the user ([`ModelCache::open`]).
    pub fn cache(mut self, cache: ModelCache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Loads an ONNX model.
    ///
    /// # Errors
    /// [`RtenLoadError`]. An operator that is not there, or that would be computed wrongly, is named.
    pub fn load(self, model: impl AsRef<Path>) -> Result<RtenModel, RtenLoadError> {
        RtenModel::load(&self, model.as_ref())
    }
}
