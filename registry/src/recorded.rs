//! What a registry tells the recorder of the `metrics` crate, if the program has installed one.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{counter, gauge, histogram};

use crate::info::{ModelInfo, RegistryMetrics};
use crate::registry::ModelRegistry;

/// The keys that have gauges: once their model is gone, these show nothing.
#[derive(Debug, Default)]
pub(crate) struct Recorded(Mutex<BTreeSet<String>>);

impl Recorded {
    fn replace(&self, keys: BTreeSet<String>) -> BTreeSet<String> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), keys)
    }
}

impl ModelRegistry {
    /// Tells the recorder of the [`metrics`] crate all figures of this registry. Whoever exports them calls it before; only the
    /// time that a load took is told when it happens, so that a hit costs nothing.
    ///
    /// Counters are named `tensorbus_models_*_total`; gauges `tensorbus_models`, `tensorbus_models_bytes`,
    /// `tensorbus_models_handles`; with the label `model`, `tensorbus_model_bytes` and `tensorbus_model_handles` of each model;
    /// the histogram of load times is `tensorbus_model_load_seconds`. A process with several registries records one of them.
    pub fn record_metrics(&self) {
        let metrics = self.metrics();
        record_counters(&metrics);
        let RegistryMetrics { models, bytes, handles, .. } = metrics;
        gauge!("tensorbus_models").set(models as f64);
        gauge!("tensorbus_models_bytes").set(bytes as f64);
        gauge!("tensorbus_models_handles").set(handles as f64);
        let models = self.list();
        let keys: BTreeSet<String> = models.iter().map(|model| model.key.clone()).collect();
        let before = self.recorded().replace(keys.clone());
        let gone = before.difference(&keys).map(|key| (key.clone(), 0, 0));
        let here = models.into_iter().map(|ModelInfo { key, bytes, handles, .. }| (key, bytes, handles));
        for (key, bytes, handles) in here.chain(gone) {
            gauge!("tensorbus_model_bytes", "model" => key.clone()).set(bytes as f64);
            gauge!("tensorbus_model_handles", "model" => key).set(handles as f64);
        }
    }
}

fn record_counters(metrics: &RegistryMetrics) {
    counter!("tensorbus_models_hits_total").absolute(metrics.hits);
    counter!("tensorbus_models_misses_total").absolute(metrics.misses);
    counter!("tensorbus_models_waits_total").absolute(metrics.waits);
    counter!("tensorbus_models_loads_total").absolute(metrics.loads);
    counter!("tensorbus_models_load_failures_total").absolute(metrics.failures);
    counter!("tensorbus_models_load_cancelled_total").absolute(metrics.cancelled);
    counter!("tensorbus_models_over_budget_total").absolute(metrics.over_budget);
    counter!("tensorbus_models_evicted_total", "reason" => "expired").absolute(metrics.expired);
    counter!("tensorbus_models_evicted_total", "reason" => "room").absolute(metrics.evicted);
    counter!("tensorbus_models_evicted_total", "reason" => "asked").absolute(metrics.unloaded);
}

/// A load has ended.
pub(crate) fn load(took: Duration, succeeded: bool) {
    let outcome = if succeeded { "loaded" } else { "failed" };
    histogram!("tensorbus_model_load_seconds", "outcome" => outcome).record(took.as_secs_f64());
}
