//! `streamagg_tests::fuzz::expression` with what the fuzzer thinks of.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamagg_tests::fuzz::expression(data));
