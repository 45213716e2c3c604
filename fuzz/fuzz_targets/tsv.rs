//! Reads any bytes as `tsv`.
#![no_main]

libfuzzer_sys::fuzz_target!(|content: &[u8]| {
    let _ = sabiprep::read::fuzzing::read_all("tsv", content, "");
});
