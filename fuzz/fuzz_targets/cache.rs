//! Whatever happens to a cache of models, it decides what its model says.
#![no_main]

#[path = "../../registry/tests/model/model.rs"]
mod model;
#[path = "../../registry/tests/model/run.rs"]
mod run;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    run::Run::from_bytes(bytes).check();
});
