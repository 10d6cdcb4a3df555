#![no_main]

#[path = "../src/directory.rs"]
mod directory;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    directory::announcement(bytes);
});
