//! Best fit: puts each document into the fullest row that still has room for it.
//!
//! Documents longer than half a row come first: no two of them share a row, so each opens one. The
//! rest follow in seeded random order, and the shortest last, longest of them first: they fill the
//! gaps. In file order nearly every row is of one source; in random order alone more is left empty;
//! longest first over all fills a little better, with more rows of one source, since length goes
//! with task (measured: `benches/README.md`).
//!
//! A row with r tokens left lies on stack r. A bitset over stacks gives the fullest row with room
//! for n tokens, the lowest non-empty stack at or above n, by one scan of at most `seq_len / 64`
//! words. Memory: four bytes for each item, and the keys of the items that are sorted at a time.

use super::order::{Sorting, for_each_in_order};
use super::{Items, Packed, Packer, Rows};
use crate::error::Result;

/// The share of a row, as a divisor, up to which documents count as the shortest.
const SHORTEST: usize = 32;

/// Whole documents, each in the fullest row that has room for it.
#[derive(Debug)]
pub(super) struct BestFit;

impl Packer for BestFit {
    fn name(&self) -> &'static str {
        "best_fit"
    }

    fn pack(&self, items: &dyn Items, seq_len: usize, sorting: Sorting) -> Result<Packed> {
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
                // Nearly always the last row of the stack, unless it holds another copy.
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
        Ok(Packed { rows, pieces: None })
    }
}

/// The rows that still have room, by their room.
struct Room {
    /// The rows with each number of tokens left.
    stacks: Vec<Vec<u32>>,
    /// A bit for each stack that is not empty.
    occupied: Vec<u64>,
}

impl Room {
    /// Returns empty stacks for rows of `seq_len` tokens.
    fn new(seq_len: usize) -> Self {
        Self { stacks: vec![Vec::new(); seq_len + 1], occupied: vec![0; seq_len / 64 + 1] }
    }

    /// Adds a row that has `room` tokens left.
    fn put(&mut self, row: u32, room: usize) {
        self.stacks[room].push(row);
        self.occupied[room / 64] |= 1 << (room % 64);
    }

    /// Removes the row at `depth` of the stack of rows with `room` tokens left, and returns it.
    fn take(&mut self, room: usize, depth: usize) -> u32 {
        let stack = &mut self.stacks[room];
        let row = stack.remove(depth);
        if stack.is_empty() {
            self.occupied[room / 64] &= !(1 << (room % 64));
        }
        row
    }

    /// Returns the least room, at or above `least`, that some row has.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::Item;
    use crate::pack::testing::{lists, sortings};
    use crate::schema::DocId;
    use proptest::prelude::*;

    /// Packs by best fit, comparing every row. Returns the room left in each, sorted.
    fn pack_slowly(items: &[Item], order: &[u32], seq_len: usize) -> Vec<usize> {
        let mut rows: Vec<(usize, Vec<u32>)> = Vec::new();
        for &index in order {
            let item = &items[index as usize];
            let fits = |(left, held): &(usize, Vec<u32>)| {
                let is_copy = |&other: &u32| {
                    let other = &items[other as usize];
                    other.id.record == item.id.record && other.id.copy != item.id.copy
                };
                *left >= item.len as usize && !held.iter().any(is_copy)
            };
            match rows.iter_mut().filter(|row| fits(row)).min_by_key(|(left, _)| *left) {
                Some((left, held)) => {
                    *left -= item.len as usize;
                    held.push(index);
                }
                None => rows.push((seq_len - item.len as usize, vec![index])),
            }
        }
        let mut left: Vec<usize> = rows.into_iter().map(|(left, _)| left).collect();
        left.sort_unstable();
        left
    }

    proptest! {
        #[test]
        fn every_document_once_no_row_too_long_no_two_copies_together_and_best_fit(
            documents in prop::collection::vec(
                (1u32..129, any::<u64>(), 0u64..6, 0u32..3),
                0..80,
            ),
            sorting in sortings(),
        ) {
            let numbered = (0..).zip(&documents);
            let items: Vec<Item> = numbered.map(|(window, &(len, order, record, copy))| {
                Item { len, order, id: DocId { record, copy, window, ..DocId::default() } }
            }).collect();
            let rows = BestFit.pack(&items, 128, sorting).unwrap().rows;
            prop_assert_eq!(&rows, &BestFit.pack(&items, 128, Sorting::on(1)).unwrap().rows);
            let rows = lists(&rows);
            let mut placed: Vec<u32> = rows.iter().flatten().copied().collect();
            placed.sort_unstable();
            prop_assert_eq!(placed, (0..items.len() as u32).collect::<Vec<_>>());
            let mut left = Vec::new();
            for row in &rows {
                let total: u32 = row.iter().map(|&index| items[index as usize].len).sum();
                prop_assert!(total <= 128);
                left.push(128 - total as usize);
                for (nth, &a) in row.iter().enumerate() {
                    for &b in &row[nth + 1..] {
                        let (a, b) = (&items[a as usize], &items[b as usize]);
                        prop_assert!(a.id.record != b.id.record || a.id.copy == b.id.copy);
                    }
                }
            }
            left.sort_unstable();
            // The order the contract names, spelled out again.
            let mut long: Vec<u32> = Vec::new();
            let (mut rest, mut shortest) = (Vec::new(), Vec::new());
            for (index, item) in (0_u32..).zip(&items) {
                match item.len {
                    65.. => long.push(index),
                    5.. => rest.push(index),
                    _ => shortest.push(index),
                }
            }
            let item = |index: &u32| &items[*index as usize];
            let random = |index: &u32| (item(index).order, item(index).id);
            long.sort_by_key(random);
            rest.sort_by_key(random);
            shortest.sort_by_key(random);
            shortest.sort_by_key(|index| std::cmp::Reverse(item(index).len));
            // Rows of equal room are interchangeable only where no copies meet; compare where that
            // cannot matter.
            if items.iter().all(|item| item.id.copy == items[0].id.copy) {
                prop_assert_eq!(left, pack_slowly(&items, &[long, rest, shortest].concat(), 128));
            }
        }
    }
}
