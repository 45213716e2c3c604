//! Concat: joins documents to one stream, cut where rows end.
//!
//! A piece starts with the last token of the piece before, as windows do, so that every token is
//! trained once. A single place at the end of a row stays empty: its token would be repeated in
//! the next row.

use super::order::{Sorting, for_each_in_order};
use super::{Items, Packed, Packer, Piece, Rows};
use crate::error::Result;

/// One stream of documents in seeded order, cut where a row ends.
#[derive(Debug)]
pub(super) struct Concat;

impl Packer for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn may_cut(&self) -> bool {
        true
    }

    fn pack(&self, items: &dyn Items, seq_len: usize, sorting: Sorting) -> Result<Packed> {
        let mut pieces: Vec<Piece> = Vec::with_capacity(items.count());
        let mut rows = Rows::with_capacity(items.count());
        let (mut room, mut row) = (0, 0);
        for_each_in_order(
            items,
            |_| 0,
            sorting,
            |item| {
                let len = items.tokens(item);
                let (mut start, mut window) = (0, 0);
                loop {
                    let piece = pieces.len() as u32;
                    // The first token of a piece is not trained, so a piece needs two.
                    if room < 2 {
                        row = rows.open(piece);
                        room = seq_len as u32;
                    } else {
                        rows.push(row, piece);
                    }
                    let taken = room.min(len - start);
                    pieces.push(Piece { item, start, len: taken, window });
                    room -= taken;
                    if start + taken == len {
                        break;
                    }
                    // The next piece repeats the last token.
                    start += taken - 1;
                    window += 1;
                }
            },
        )?;
        Ok(Packed { rows, pieces: Some(pieces) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::testing::{lists, sortings};
    use crate::pack::{Item, window_count};
    use crate::schema::DocId;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stream_holds_every_token_once_and_fills_every_row_but_the_last(
            documents in prop::collection::vec((2u32..300, any::<u64>()), 1..40),
            sorting in sortings(),
        ) {
            let items: Vec<Item> = (0..).zip(&documents).map(|(record, &(len, order))| {
                Item { len, order, id: DocId { record, ..DocId::default() } }
            }).collect();
            let packed = Concat.pack(&items, 64, sorting).unwrap();
            let (pieces, rows) = (packed.pieces.unwrap(), lists(&packed.rows));
            prop_assert_eq!(rows.concat(), (0..pieces.len() as u32).collect::<Vec<_>>());
            let len_of = |&piece: &u32| pieces[piece as usize].len;
            let held = |row: &Vec<u32>| row.iter().map(len_of).sum::<u32>();
            prop_assert!(rows[..rows.len() - 1].iter().all(|row| (63..=64).contains(&held(row))));
            prop_assert!((2..=64).contains(&held(&rows[rows.len() - 1])));
            prop_assert!(pieces.iter().all(|piece| piece.len >= 2));
            let key = |item: &Item| (item.order, item.id.record);
            let mut expected: Vec<(u64, u64)> = items.iter().map(key).collect();
            expected.sort_unstable();
            let mut rest = pieces.iter();
            for (_, record) in expected {
                let len = items[record as usize].len;
                let (mut next, mut window) = (0, 0);
                while next < len {
                    let piece = rest.next().unwrap();
                    let start = if window == 0 { 0 } else { next - 1 };
                    let found = (u64::from(piece.item), piece.start, piece.window);
                    prop_assert_eq!(found, (record, start, window));
                    next = piece.start + piece.len;
                    window += 1;
                }
                prop_assert_eq!(next, len);
                prop_assert!(window as usize <= window_count(len as usize, 64) + 1);
            }
            prop_assert!(rest.next().is_none());
        }
    }
}
