//! M7: every record of a dataset is accounted for.

use crate::schema::Split;
use crate::settle::Sums;
use crate::write::{Manifest, RecordsEntry, SourceEntry};

/// Checks M7: every record is kept or dropped for a reason, and the sums over sources equal the
/// sums over shards.
pub(crate) fn account(manifest: &Manifest) -> std::result::Result<(), String> {
    let broken = |what: String| Err(format!("M7: {what}"));
    for source in &manifest.sources {
        let drops: u64 = source.drops.values().sum();
        if source.records != source.kept + drops {
            let (name, records, kept) = (&source.name, source.records, source.kept);
            return broken(format!(
                "source '{name}': {records} records, {kept} kept, {drops} dropped"
            ));
        }
    }
    account_tables(manifest)?;
    // Counted apart: sources by settling, shards when they were written.
    for split in Split::ALL {
        let Some(entry) = manifest.splits.get(split.name()) else {
            return broken(format!("no split '{}'", split.name()));
        };
        let mut of_sources = Sums::default();
        for source in &manifest.sources {
            of_sources.add_sums(if split == Split::Train {
                source.train
            } else {
                source.validation
            });
        }
        let of_shards =
            Sums { documents: entry.documents, tokens: entry.tokens, targets: entry.targets };
        if of_sources != of_shards {
            return broken(format!(
                "the sources' {} sums are not those of its shards",
                split.name()
            ));
        }
    }
    Ok(())
}

/// Checks the counts of sources of several document tables. Every table reads each record, and a
/// record is kept if any table keeps it.
fn account_tables(manifest: &Manifest) -> std::result::Result<(), String> {
    for RecordsEntry { source, records, kept, without } in &manifest.records {
        let of_source = |table: &&SourceEntry| table.document_of.as_ref() == Some(source);
        let tables = || manifest.sources.iter().filter(of_source);
        let most = tables().map(|table| table.kept).max().unwrap_or(0);
        let all: u128 = tables().map(|table| u128::from(table.kept)).sum();
        let is_right = tables().all(|table| table.records == *records)
            && kept.checked_add(*without) == Some(*records)
            && *kept >= most
            && u128::from(*kept) <= all;
        if !is_right {
            return Err(format!(
                "M7: source '{source}': {records} records, {kept} kept, {without} without a \
                 document, which its tables contradict"
            ));
        }
    }
    Ok(())
}
