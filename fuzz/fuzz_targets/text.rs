//! Feeds the fuzzer's bytes to the `text` target.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ds4_fuzz_entries::run("text", data));
