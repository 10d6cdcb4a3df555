//! Whatever a hostile process of the same user writes into a ring's file, nobody panics, and nobody reads or writes outside of it.
#![no_main]

#[path = "../../tests/ring/hostile.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Opened anew each time: nothing is left behind when the fuzzer ends.
    let session = format!("fuzz-{}", std::process::id());
    let bus = tensorbus::Bus::builder().session(&session).open().expect("bus");
    hostile::Run::from_bytes(bytes).check(&bus);
});
