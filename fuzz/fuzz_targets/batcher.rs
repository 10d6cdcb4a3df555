//! Whatever happens to a batcher, it decides what its model says.
#![no_main]

#[path = "../../worker/tests/batcher/model.rs"]
mod model;
#[path = "../../worker/tests/batcher/run.rs"]
mod run;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    run::Run::from_bytes(bytes).check();
});
