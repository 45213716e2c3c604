//! Reads any bytes as `json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|content: &[u8]| {
    let _ = sabiprep::read::fuzzing::read_all("json", content, "");
});
