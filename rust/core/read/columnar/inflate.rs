//! Decompresses a page of Parquet, and makes no byte more than its header claims.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use parquet::basic::Compression;

/// Returns the `len` bytes that `bytes` hold, or an error in words.
pub(super) fn inflated(
    compression: Compression,
    bytes: &[u8],
    len: usize,
) -> Result<Vec<u8>, String> {
    let out = match compression {
        Compression::UNCOMPRESSED => Ok(bytes.to_vec()),
        Compression::SNAPPY => snappy(bytes, len),
        Compression::GZIP(_) => read_all(MultiGzDecoder::new(bytes), len),
        Compression::BROTLI(_) => read_all(brotli::Decompressor::new(bytes, 1 << 16), len),
        Compression::ZSTD(_) => {
            zstd::bulk::decompress(bytes, len).map_err(|error| error.to_string())
        }
        Compression::LZ4_RAW => lz4_block(bytes, len),
        Compression::LZ4 => lz4_of_old(bytes, len),
        Compression::LZO => Err("compressed by LZO, which is not read".to_owned()),
    };
    let out = out?;
    if out.len() != len {
        return Err("a page holds more or less than its header says".to_owned());
    }
    Ok(out)
}

/// Decompresses Snappy.
fn snappy(bytes: &[u8], len: usize) -> Result<Vec<u8>, String> {
    // Its own length would be believed; the header's is bounded.
    if snap::raw::decompress_len(bytes).is_ok_and(|own| own != len) {
        return Err("a page holds more or less than its header says".to_owned());
    }
    snap::raw::Decoder::new().decompress_vec(bytes).map_err(|error| error.to_string())
}

/// Reads `len` bytes, or one more where there are more.
fn read_all(reader: impl Read, len: usize) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(len);
    let read = reader.take(len as u64 + 1).read_to_end(&mut out);
    read.map(|_| out).map_err(|error| error.to_string())
}

/// Decompresses a block of LZ4.
fn lz4_block(bytes: &[u8], len: usize) -> Result<Vec<u8>, String> {
    let mut out = vec![0; len];
    let written =
        lz4_flex::block::decompress_into(bytes, &mut out).map_err(|error| error.to_string())?;
    out.truncate(written);
    Ok(out)
}

/// Decompresses what writers called LZ4 before they agreed: Hadoop's framing, LZ4's own frames, or
/// a block.
fn lz4_of_old(bytes: &[u8], len: usize) -> Result<Vec<u8>, String> {
    if let Some(out) = lz4_of_hadoop(bytes, len) {
        return Ok(out);
    }
    match read_all(lz4_flex::frame::FrameDecoder::new(bytes), len) {
        Ok(out) if out.len() == len => Ok(out),
        _ => lz4_block(bytes, len),
    }
}

/// Decompresses Hadoop's framing: the decompressed and the compressed length, both big-endian, then
/// a block.
fn lz4_of_hadoop(mut bytes: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let (whole, rest) = bytes.split_first_chunk::<4>()?;
        let (packed, rest) = rest.split_first_chunk::<4>()?;
        let [whole, packed] = [whole, packed].map(|size| u32::from_be_bytes(*size) as usize);
        if out.len() + whole > len {
            return None;
        }
        out.extend(lz4_block(rest.get(..packed)?, whole).ok()?);
        bytes = &rest[packed..];
    }
    (out.len() == len).then_some(out)
}

/// Returns the most bytes that a frame of LZ4 can hold, by its blocks; `None` if it is no frame.
pub(super) fn lz4_frame_bound(frame: &[u8]) -> Option<u64> {
    let (head, rest) = frame.split_first_chunk::<6>()?;
    if head[..4] != [0x04, 0x22, 0x4d, 0x18] {
        return None;
    }
    let has = |bit: u8| usize::from(head[4] >> bit & 1);
    // Sizes of blocks go by fours, from 64 KiB.
    let block = 1u64 << (8 + 2 * u32::from(head[5] >> 4 & 7));
    // The size of the content, the dictionary, and the checksum of the header.
    let mut rest = rest.get(8 * has(3) + 4 * has(0) + 1..)?;
    let mut bound = 0u64;
    loop {
        let (size, after) = rest.split_first_chunk::<4>()?;
        let size = (u32::from_le_bytes(*size) & 0x7fff_ffff) as usize;
        if size == 0 {
            return Some(bound);
        }
        bound += block;
        rest = after.get(size.checked_add(4 * has(4))?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::basic::{BrotliLevel, GzipLevel, ZstdLevel};
    use std::io::Write;

    /// Returns text, and the ways in which a page may be compressed, each with the text so.
    fn packed() -> (Vec<u8>, Vec<(Compression, Vec<u8>)>) {
        let text = b"the same, and the same, and the same again. ".repeat(100);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let mut brotli = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
        brotli.write_all(&text).unwrap();
        let mut frame = lz4_flex::frame::FrameEncoder::new(Vec::new());
        frame.write_all(&text).unwrap();
        let block = lz4_flex::block::compress(&text);
        let sizes = [text.len() as u32, block.len() as u32].map(u32::to_be_bytes).concat();
        let ways = vec![
            (Compression::GZIP(GzipLevel::default()), gzip.finish().unwrap()),
            (Compression::BROTLI(BrotliLevel::default()), brotli.into_inner()),
            (Compression::ZSTD(ZstdLevel::default()), zstd::bulk::compress(&text, 1).unwrap()),
            (Compression::SNAPPY, snap::raw::Encoder::new().compress_vec(&text).unwrap()),
            (Compression::LZ4, frame.finish().unwrap()),
            (Compression::LZ4, [sizes, block.clone()].concat()),
            (Compression::LZ4, block.clone()),
            (Compression::LZ4_RAW, block),
        ];
        (text, ways)
    }

    #[test]
    fn a_page_holds_what_it_claims_or_is_refused() {
        let (text, ways) = packed();
        for (compression, bytes) in ways {
            assert_eq!(inflated(compression, &bytes, text.len()).as_deref(), Ok(&*text));
            for len in [0, 1, text.len() - 1, text.len() + 1] {
                assert!(inflated(compression, &bytes, len).is_err(), "{compression} {len}");
            }
            for cut in 0..bytes.len() {
                let _ = inflated(compression, &bytes[..cut], text.len());
            }
        }
        assert!(inflated(Compression::LZO, &text, text.len()).is_err());
    }

    #[test]
    fn the_blocks_of_a_frame_bound_what_it_holds() {
        let (text, ways) = packed();
        let frame = &ways[4].1;
        let bound = lz4_frame_bound(frame).unwrap();
        assert!(bound >= text.len() as u64 && bound <= 4 << 20, "{bound}");
        assert_eq!(lz4_frame_bound(&frame[..frame.len() - 4]), None);
        assert_eq!(lz4_frame_bound(&text), None);
    }
}
