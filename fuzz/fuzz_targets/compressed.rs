//! Reads any bytes as text in each compression, which the first byte chooses.
#![no_main]

libfuzzer_sys::fuzz_target!(|content: &[u8]| {
    let Some((first, content)) = content.split_first() else { return };
    let suffixes = [".gz", ".zst", ".bz2", ".xz", ".zip"];
    let _ = sabiprep::read::fuzzing::read_all("text", content, suffixes[usize::from(first % 5)]);
});
