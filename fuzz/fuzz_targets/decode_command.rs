#![no_main]

#[path = "../src/directory.rs"]
#[allow(dead_code, reason = "each target has one of the checks")]
mod directory;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    directory::command(bytes);
});
