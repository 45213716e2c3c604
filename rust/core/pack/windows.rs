//! Windows: splits a document longer than a row into stretches of a row each.

use std::ops::Range;

/// Returns the number of windows of a document of `len` tokens: 1 if it fits a row. Each window but
/// the first starts with the last token of the window before.
#[must_use]
pub(crate) fn window_count(len: usize, seq_len: usize) -> usize {
    if len <= seq_len { 1 } else { (len - 1).div_ceil(seq_len - 1) }
}

/// Returns the windows of a document of `len` tokens: one window if it fits a row of `seq_len`.
///
/// Window k starts with the last token of window k−1, so each brings at most `seq_len` − 1 new
/// tokens. All are full but the last two, which share the rest as evenly as possible.
#[must_use]
pub fn windows(len: usize, seq_len: usize) -> Vec<Range<usize>> {
    let fresh = seq_len - 1;
    let count = window_count(len, seq_len);
    if count == 1 {
        return vec![0..len];
    }
    let mut ends: Vec<usize> = (1..count.saturating_sub(1)).map(|nth| 1 + nth * fresh).collect();
    let left = len - ends.last().copied().unwrap_or(1);
    ends.extend([len - left / 2, len]);
    let starts = std::iter::once(0).chain(ends.iter().map(|end| end - 1));
    starts.zip(&ends).map(|(start, &end)| start..end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_token_is_new_in_one_window_and_the_last_two_are_balanced(
            len in 2usize..3000,
            seq_len in 2usize..70,
        ) {
            prop_assume!(len > seq_len);
            let windows = windows(len, seq_len);
            prop_assert_eq!((windows[0].start, windows.last().unwrap().end), (0, len));
            for pair in windows.windows(2) {
                prop_assert_eq!(pair[1].start, pair[0].end - 1);
            }
            prop_assert!(windows.iter().all(|window| (2..=seq_len).contains(&window.len())));
            prop_assert_eq!(windows.len(), (len - 1).div_ceil(seq_len - 1));
            let (last_two, full) = (&windows[windows.len() - 2..], &windows[..windows.len() - 2]);
            prop_assert!(full.iter().all(|window| window.len() == seq_len));
            let (a, b) = (last_two[0].len(), last_two[1].len());
            prop_assert!(a == b || a == b + 1, "{a} {b}");
        }
    }
}
