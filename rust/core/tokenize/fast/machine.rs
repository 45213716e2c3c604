//! Processor features that safe Rust cannot express: comparing sixteen bytes at once, and
//! prefetching memory.
//!
//! The only module of the core that may be `unsafe`. Each function has a portable twin, and the
//! tests compare the two.

#![allow(unsafe_code, reason = "intrinsics; each is held against its portable twin")]

/// Returns which of sixteen bytes are ASCII letters, which are lower-case letters, and which are
/// ASCII: a bit each, the first byte lowest.
#[inline]
pub(crate) fn letters(chunk: &[u8; 16]) -> (u32, u32, u32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128,
            _mm_set1_epi8, _mm_slli_epi16, _mm_sub_epi8,
        };
        // SAFETY: SSE2 belongs to every x86-64 processor, and sixteen bytes are read from a
        // reference to sixteen bytes.
        unsafe {
            let bytes = _mm_loadu_si128(chunk.as_ptr().cast());
            let lowered = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
            // An unsigned minimum stands in for the unsigned comparison that SSE2 lacks.
            let from_a = _mm_sub_epi8(lowered, _mm_set1_epi8(b'a'.cast_signed()));
            let letters =
                _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(from_a, _mm_set1_epi8(25)), from_a))
                    as u32;
            // Moves the case bit to the highest bit of each byte.
            let small = _mm_movemask_epi8(_mm_slli_epi16::<2>(bytes)) as u32;
            (letters, letters & small, !_mm_movemask_epi8(bytes) as u32 & 0xffff)
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    portable_letters(chunk)
}

/// Computes `letters` with arithmetic on one integer.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn portable_letters(chunk: &[u8; 16]) -> (u32, u32, u32) {
    /// The highest bit of each byte.
    const HIGH: u128 = u128::MAX / 255 * 0x80;
    let chunk = u128::from_le_bytes(*chunk);
    let each = |byte: u8| u128::MAX / 255 * u128::from(byte);
    let lowered = chunk & !HIGH | each(0x20);
    // The first sum sets the highest bit from `a` on, the second from the byte after `z` on.
    let (from_a, after_z) = (lowered + each(0x80 - b'a'), lowered + each(0x7f - b'z'));
    let all = from_a & !after_z & !chunk & HIGH;
    // The product gathers the highest bits of eight bytes in one byte.
    let half = |bits: u128| ((bits as u64 >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32;
    let mask = |bits: u128| half(bits) | half(bits >> 64) << 8;
    (mask(all), mask(all & chunk << 2), mask(!chunk & HIGH))
}

/// Returns which of sixteen bytes are between `from` and `to`, both included: a bit each, the first
/// byte lowest.
#[inline]
pub(crate) fn within(chunk: &[u8; 16], from: u8, to: u8) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_set1_epi8,
            _mm_sub_epi8,
        };
        // SAFETY: SSE2 belongs to every x86-64 processor, and sixteen bytes are read from a
        // reference to sixteen bytes.
        unsafe {
            let bytes = _mm_loadu_si128(chunk.as_ptr().cast());
            let above = _mm_sub_epi8(bytes, _mm_set1_epi8(from.cast_signed()));
            let most = _mm_set1_epi8((to - from).cast_signed());
            _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(above, most), above)) as u32
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    portable_within(chunk, from, to)
}

/// Computes `within` byte by byte.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn portable_within(chunk: &[u8; 16], from: u8, to: u8) -> u32 {
    (0..16).fold(0, |mask, nth| mask | u32::from((from..=to).contains(&chunk[nth])) << nth)
}

/// Prefetches the cache line that holds index `index`, so that reading it soon does not wait.
/// Changes nothing else.
#[inline]
pub(crate) fn prefetch(memory: &[u64], index: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE belongs to every x86-64 processor, and a prefetch may be given any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(memory.as_ptr().wrapping_add(index).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (memory, index);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: [u8; 16]) {
        let mask = |is: fn(&u8) -> bool| {
            (0..16).fold(0, |mask, nth| mask | u32::from(is(&bytes[nth])) << nth)
        };
        let expected =
            (mask(u8::is_ascii_alphabetic), mask(u8::is_ascii_lowercase), mask(u8::is_ascii));
        assert_eq!(letters(&bytes), expected, "{bytes:?}");
        assert_eq!(portable_letters(&bytes), expected, "{bytes:?}");
    }

    proptest::proptest! {
        #[test]
        fn random_bytes(bytes: [u8; 16]) {
            check(bytes);
            check(bytes.map(|byte| b"azAZ@[`{ m"[byte as usize % 10]));
        }

        #[test]
        fn any_range(bytes: [u8; 16], one: u8, other: u8) {
            let (from, to) = (one.min(other), one.max(other));
            assert_eq!(within(&bytes, from, to), portable_within(&bytes, from, to), "{bytes:?}");
        }
    }

    #[test]
    fn every_byte_at_every_place() {
        for byte in 0..=u8::MAX {
            for place in 0..16 {
                let mut bytes = [b'k'; 16];
                bytes[place] = byte;
                check(bytes);
            }
        }
    }

    #[test]
    fn any_address_may_be_asked_for() {
        let memory = [1, 2];
        for index in [0, 1, 2, usize::MAX] {
            prefetch(&memory, index);
        }
        assert_eq!(memory, [1, 2]);
    }
}
