//! Reads any bytes as `arrow`.
#![no_main]

libfuzzer_sys::fuzz_target!(|content: &[u8]| {
    let _ = sabiprep::read::fuzzing::read_all("arrow", content, "");
});
