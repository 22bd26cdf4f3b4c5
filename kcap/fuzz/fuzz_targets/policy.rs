#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kcap_fuzz::policy(input));
