//! Packing: which documents share a row. Best fit, in an order that keeps rows of mixed sources; or
//! one stream, cut.
//!
//! Takes lengths and seeded orders; gives rows of indices. Knows nothing of tokens or files. Holds
//! four bytes for each item and the keys of as many as are sorted at once.
//!
//! Best fit: each document goes to the fullest row that still has room for it. Documents longer
//! than half a row come first: no two of them share a row, so each opens one. The rest follow in
//! seeded random order, and the shortest last, longest of them first: they fill what is left. In
//! file order nearly every row is of one source; in random order alone more is left empty; longest
//! first over all fills a little better, with more rows of one source, since length goes with task
//! (measured: `benches/README.md`).
//!
//! A row with r tokens left lies on stack r; a bitset over stacks gives the fullest row with room
//! for n tokens, the lowest non-empty stack at or above n, by one scan of at most `seq_len / 64`
//! words.

mod order;
mod rows;
mod stream;

pub use order::Sorting;
pub use rows::Rows;
pub use stream::{Piece, concat};

use crate::error::Result;
use order::for_each_in_order;

/// A document to pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// Its tokens, at least 1; at most `seq_len` but in a stream.
    pub len: u32,
    /// Its place in the seeded random order.
    pub order: u64,
    /// Distinguishes the record; copies of one record have one value.
    pub record: (u16, u64),
    /// Which copy of its record it is.
    pub copy: u32,
    /// Which window of its record it is.
    pub window: u32,
}

/// Documents of at most a row's tokens / this count as the shortest.
const SHORTEST: usize = 32;

/// What is packed, by index.
pub trait Items: Sync {
    /// Returns how many there are.
    fn count(&self) -> usize;
    /// Returns the tokens of an item.
    fn tokens(&self, item: u32) -> u32;
    /// Returns an item's place in the seeded random order.
    fn order(&self, item: u32) -> u64;
    /// Returns the record of an item, its copy and its window: no two items have the same three.
    fn identity(&self, item: u32) -> ((u16, u64), u32, u32);
    /// Returns whether two items are of different copies of one record.
    fn are_copies(&self, item: u32, other: u32) -> bool {
        let (record, copy, _) = self.identity(item);
        let (other_record, other_copy, _) = self.identity(other);
        record == other_record && copy != other_copy
    }
    /// Returns whether any two items may be copies of one record.
    fn has_copies(&self) -> bool;
}

impl Items for [Item] {
    fn count(&self) -> usize {
        self.len()
    }

    fn tokens(&self, item: u32) -> u32 {
        self[item as usize].len
    }

    fn order(&self, item: u32) -> u64 {
        self[item as usize].order
    }

    fn identity(&self, item: u32) -> ((u16, u64), u32, u32) {
        let item = &self[item as usize];
        (item.record, item.copy, item.window)
    }

    fn has_copies(&self) -> bool {
        self.iter().any(|item| item.copy > 0)
    }
}

/// Rows left, by room.
struct Room {
    stacks: Vec<Vec<u32>>,
    occupied: Vec<u64>,
}

impl Room {
    fn new(seq_len: usize) -> Self {
        Self { stacks: vec![Vec::new(); seq_len + 1], occupied: vec![0; seq_len / 64 + 1] }
    }

    fn put(&mut self, row: u32, room: usize) {
        self.stacks[room].push(row);
        self.occupied[room / 64] |= 1 << (room % 64);
    }

    fn take(&mut self, room: usize, depth: usize) -> u32 {
        let stack = &mut self.stacks[room];
        let row = stack.remove(depth);
        if stack.is_empty() {
            self.occupied[room / 64] &= !(1 << (room % 64));
        }
        row
    }

    /// The least room, at or above `least`, that some row has.
    fn at_least(&self, least: usize) -> Option<usize> {
        let mut word = least / 64;
        let mut bits = *self.occupied.get(word)? & (!0 << (least % 64));
        while bits == 0 {
            word += 1;
            bits = *self.occupied.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

/// Packs `items` into rows of `seq_len` tokens by best fit.
pub fn pack<I: Items + ?Sized>(items: &I, seq_len: usize, sorting: Sorting) -> Result<Rows> {
    let has_copies = items.has_copies();
    let mut rows = Rows::with_capacity(items.count());
    let mut room = Room::new(seq_len);
    let shortest = (seq_len / SHORTEST) as u32;
    let tier = |len: u32| match len as usize {
        len if len > seq_len / 2 => 0,
        _ if len > shortest => 1,
        _ => 2 + shortest - len,
    };
    for_each_in_order(items, tier, sorting, |item| {
        let holds_a_copy =
            |row: u32| has_copies && rows.items(row).any(|other| items.are_copies(item, other));
        let len = items.tokens(item) as usize;
        let mut least = room.at_least(len);
        let mut is_kept_apart = false;
        let mut found = None;
        while let Some(left) = least {
            // Nearly always the last of the stack; further only where it holds another copy of the
            // record.
            if let Some(depth) = room.stacks[left].iter().rposition(|&row| !holds_a_copy(row)) {
                found = Some((room.take(left, depth), left));
                break;
            }
            is_kept_apart = true;
            least = room.at_least(left + 1);
        }
        let (row, left) = if let Some((row, left)) = found {
            rows.push(row, item);
            (row, left)
        } else {
            rows.kept_apart += u64::from(is_kept_apart);
            (rows.open(item), seq_len)
        };
        if left > len {
            room.put(row, left - len);
        }
    })?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lists(rows: &Rows) -> Vec<Vec<u32>> {
        (0..rows.len() as u32).map(|row| rows.items(row).collect()).collect()
    }

    /// Sorting a few keys at a time, or all at once, on some threads.
    fn sortings() -> impl Strategy<Value = Sorting> {
        let keys_at_once = prop_oneof![Just(1), 2usize..9, Just(usize::MAX)];
        (keys_at_once, 1usize..4)
            .prop_map(|(keys_at_once, threads)| Sorting { keys_at_once, threads })
    }

    /// Best fit by looking at every row.
    fn pack_slowly(items: &[Item], order: &[u32], seq_len: usize) -> Vec<usize> {
        let mut rows: Vec<(usize, Vec<u32>)> = Vec::new();
        for &at in order {
            let item = &items[at as usize];
            let fits = |(left, held): &(usize, Vec<u32>)| {
                let is_copy = |&other: &u32| {
                    let other = &items[other as usize];
                    other.record == item.record && other.copy != item.copy
                };
                *left >= item.len as usize && !held.iter().any(is_copy)
            };
            match rows.iter_mut().filter(|row| fits(row)).min_by_key(|(left, _)| *left) {
                Some((left, held)) => {
                    *left -= item.len as usize;
                    held.push(at);
                }
                None => rows.push((seq_len - item.len as usize, vec![at])),
            }
        }
        let mut left: Vec<usize> = rows.into_iter().map(|(left, _)| left).collect();
        left.sort_unstable();
        left
    }

    proptest! {
        #[test]
        fn a_stream_holds_every_token_once_and_fills_every_row_but_the_last(
            documents in prop::collection::vec((2u32..300, any::<u64>()), 1..40), sorting in sortings(),
        ) {
            let items: Vec<Item> = documents.iter().enumerate().map(|(nth, &(len, order))| {
                Item { len, order, record: (0, nth as u64), copy: 0, window: 0 }
            }).collect();
            let (pieces, rows) = concat(&items[..], 64, sorting).unwrap();
            let rows = lists(&rows);
            prop_assert_eq!(rows.concat(), (0..pieces.len() as u32).collect::<Vec<_>>());
            let held = |row: &Vec<u32>| row.iter().map(|&at| pieces[at as usize].len).sum::<u32>();
            prop_assert!(rows[..rows.len() - 1].iter().all(|row| (63..=64).contains(&held(row))));
            prop_assert!((2..=64).contains(&held(&rows[rows.len() - 1])));
            prop_assert!(pieces.iter().all(|piece| piece.len >= 2));
            let mut expected: Vec<(u64, u64)> = items.iter().map(|item| (item.order, item.record.1)).collect();
            expected.sort_unstable();
            let mut rest = pieces.iter();
            for (_, record) in expected {
                let len = items[record as usize].len;
                let (mut next, mut window) = (0, 0);
                while next < len {
                    let piece = rest.next().unwrap();
                    let start = if window == 0 { 0 } else { next - 1 };
                    prop_assert_eq!((u64::from(piece.item), piece.start, piece.window), (record, start, window));
                    next = piece.start + piece.len;
                    window += 1;
                }
                prop_assert_eq!(next, len);
                prop_assert!(window as usize <= crate::schema::window_count(len as usize, 64) + 1);
            }
            prop_assert!(rest.next().is_none());
        }

        #[test]
        fn every_document_once_no_row_too_long_no_two_copies_together_and_best_fit(
            documents in prop::collection::vec((1u32..129, any::<u64>(), 0u64..6, 0u32..3), 0..80), sorting in sortings(),
        ) {
            let items: Vec<Item> = documents.iter().enumerate().map(|(nth, &(len, order, record, copy))| {
                Item { len, order, record: (0, record), copy, window: nth as u32 }
            }).collect();
            let rows = pack(&items[..], 128, sorting).unwrap();
            prop_assert_eq!(&rows, &pack(&items[..], 128, Sorting::on(1)).unwrap());
            let rows = lists(&rows);
            let mut placed: Vec<u32> = rows.iter().flatten().copied().collect();
            placed.sort_unstable();
            prop_assert_eq!(placed, (0..items.len() as u32).collect::<Vec<_>>());
            let mut left = Vec::new();
            for row in &rows {
                let total: u32 = row.iter().map(|&at| items[at as usize].len).sum();
                prop_assert!(total <= 128);
                left.push(128 - total as usize);
                for (nth, &a) in row.iter().enumerate() {
                    for &b in &row[nth + 1..] {
                        let (a, b) = (&items[a as usize], &items[b as usize]);
                        prop_assert!(a.record != b.record || a.copy == b.copy);
                    }
                }
            }
            left.sort_unstable();
            // The order the contract names, spelled out again.
            let mut long: Vec<u32> = Vec::new();
            let (mut rest, mut shortest) = (Vec::new(), Vec::new());
            for at in 0..items.len() as u32 {
                match items[at as usize].len { 65.. => long.push(at), 5.. => rest.push(at), _ => shortest.push(at) }
            }
            let random = |at: &u32| { let i = &items[*at as usize]; (i.order, i.record, i.copy, i.window) };
            long.sort_by_key(random);
            rest.sort_by_key(random);
            shortest.sort_by_key(random);
            shortest.sort_by_key(|at| std::cmp::Reverse(items[*at as usize].len));
            // Rows of equal room are interchangeable only where no copies meet; compare where that
            // cannot matter.
            if items.iter().all(|item| item.copy == items[0].copy) {
                prop_assert_eq!(left, pack_slowly(&items, &[long, rest, shortest].concat(), 128));
            }
        }
    }
}
