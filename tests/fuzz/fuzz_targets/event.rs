//! `streamagg_tests::fuzz::event` with what the fuzzer thinks of.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamagg_tests::fuzz::event(data));
