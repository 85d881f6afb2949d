#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| foundation_proto::fuzzing::fuzz_elixir_text(data));
