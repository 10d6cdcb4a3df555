#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tensorbus_fuzz::decode_metadata(bytes);
});
