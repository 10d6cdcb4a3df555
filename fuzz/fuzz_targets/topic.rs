//! Any sequence of steps on a topic gives the answers that its model gives.
#![no_main]

#[path = "../../tests/model/model.rs"]
mod model;
#[path = "../../tests/model/run.rs"]
mod run;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Opened anew each time: nothing is left behind when the fuzzer ends.
    let session = format!("fuzz-{}", std::process::id());
    let bus = tensorbus::Bus::builder().session(&session).open().expect("bus");
    run::Run::from_bytes(bytes).check(&bus);
});
