//! Feeds the fuzzer's bytes to the `shapes` target.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ds4_fuzz_entries::run("shapes", data));
