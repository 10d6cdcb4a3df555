//! Any bytes as an ONNX model.
#![no_main]

#[path = "../../registry/tests/untrusted/checks.rs"]
#[allow(dead_code, reason = "the other check is for another target")]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    checks::decode_model(bytes);
});
