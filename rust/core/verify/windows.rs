//! Checks M6 across rows: the windows of a split document make one document.

use std::collections::BTreeMap;

use crate::schema::DocId;

/// One window of a split document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Window {
    /// The index of the window in its document.
    pub number: u32,
    /// The id of its first token.
    pub first_id: u32,
    /// The id of its last token.
    pub last_id: u32,
    /// Whether it ends with the closing EOS.
    pub closes: bool,
    /// Whether any of its tokens is trained.
    pub is_trained: bool,
}

/// Checks M6 across rows: adjacent windows of a document share one token, and only the last window
/// has the closing EOS.
pub(super) fn verify_windows(windows: &BTreeMap<DocId, Vec<Window>>, failures: &mut Vec<String>) {
    for (DocId { source, record, .. }, windows) in windows {
        let mut windows = windows.clone();
        windows.sort_unstable();
        let last = windows.len() - 1;
        let numbered =
            windows.iter().enumerate().all(|(nth, window)| window.number as usize == nth);
        let closed = windows.iter().enumerate().all(|(nth, window)| window.closes == (nth == last));
        let joined = windows.windows(2).all(|pair| pair[0].last_id == pair[1].first_id);
        if !windows.iter().any(|window| window.is_trained) {
            failures.push(format!("M3: nothing is trained of record {record} of source {source}"));
        }
        if !(numbered && closed && joined) {
            failures.push(format!(
                "M6: the windows of record {record} of source {source} do not make one document"
            ));
        }
    }
}
