//! FR-008: what a registry tells the recorder of the `metrics` crate.

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tensorbus_registry::{Measured, ModelRegistry};

#[test]
fn a_recorder_is_told_all_figures() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // Name, the value of its only label or nothing, and the figure; times are left out.
    let snapshot = || -> Vec<(String, String, f64)> {
        let told = snapshotter.snapshot().into_vec().into_iter().filter_map(|(key, _, _, value)| {
            let label = key.key().labels().next().map_or(String::new(), |label| label.value().to_owned());
            match value {
                DebugValue::Counter(value) => Some((key.key().name().to_owned(), label, value as f64)),
                DebugValue::Gauge(value) => Some((key.key().name().to_owned(), label, value.into_inner())),
                DebugValue::Histogram(_) => None,
            }
        });
        told.collect()
    };
    let has = |name: &str, label: &str, value: f64| {
        let told = snapshot();
        assert!(told.contains(&(name.to_owned(), label.to_owned(), value)), "{name} {label} {value}: {told:?}");
    };
    metrics::with_local_recorder(&recorder, || {
        let registry = ModelRegistry::new();
        let load = || std::io::Result::Ok(Measured::new((), 1234));
        let held = registry.get_or_load_blocking("m", load).unwrap();
        drop(registry.get_or_load_blocking("m", load).unwrap());
        registry.get_or_load_blocking::<Measured<()>, _, _>("broken", || Err("no")).unwrap_err();
        registry.record_metrics();
        has("tensorbus_models_hits_total", "", 1.0);
        registry.record_metrics();
        has("tensorbus_model_bytes", "m", 1234.0);
        drop(held);
        registry.unload("m").unwrap();
        registry.record_metrics();
        has("tensorbus_model_bytes", "m", 0.0);
        registry.record_metrics();
        has("tensorbus_models_evicted_total", "asked", 1.0);
        registry.record_metrics();
        has("tensorbus_models_load_failures_total", "", 1.0);
    });
}
