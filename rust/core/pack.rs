//! Packing: which documents share a row. Best fit, in an order that keeps rows of mixed sources; or one stream, cut.
//!
//! Takes lengths and seeded orders; gives rows of indices. Knows nothing of tokens or files.
//!
//! Best fit: each document goes to the fullest row that still has room for it. Documents longer than half a row come first:
//! no two of them share a row, so each opens one. The rest follow in seeded random order, and the shortest last, longest
//! of them first: they fill what is left. In file order nearly every row is of one source; in random order alone more
//! is left empty; longest first over all fills a little better, with more rows of one source, since length goes with
//! task (measured: `benches/README.md`).
//!
//! A row with r tokens left lies on stack r; a bitset over stacks gives the fullest row with room for n tokens, the
//! lowest non-empty stack at or above n, by one scan of at most `seq_len / 64` words.

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

/// A document in its order.
#[derive(Debug, Clone, Copy)]
struct Ordered {
    order: u64,
    longest_first: u32,
    at: u32,
    len: u32,
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

/// A piece of a document in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The index of the item it is of.
    pub item: u32,
    /// The first of the document's tokens that is in it.
    pub start: u32,
    /// Its tokens.
    pub len: u32,
    /// Its number within the document.
    pub window: u32,
}

/// Lays `items` end to end, in their seeded order, and cuts them where a row of `seq_len` tokens ends: the pieces, and
/// rows of indices of pieces.
///
/// A piece starts with the last token of the one before, as windows do, so that every token is learnt once. A single
/// place at the end of a row would hold a token that the next row repeats: it stays empty.
#[must_use]
pub fn concat(items: &[Item], seq_len: usize) -> (Vec<Piece>, Vec<Vec<u32>>) {
    let mut order: Vec<u32> = (0..items.len() as u32).collect();
    order.sort_unstable_by_key(|&at| {
        let item = &items[at as usize];
        (item.order, item.record, item.copy)
    });
    let mut pieces: Vec<Piece> = Vec::with_capacity(items.len());
    let mut rows: Vec<Vec<u32>> = Vec::new();
    let mut room = 0;
    for at in order {
        let len = items[at as usize].len;
        let (mut start, mut window) = (0, 0);
        loop {
            if room < 2 {
                rows.push(Vec::new());
                room = seq_len as u32;
            }
            let row = rows.last_mut().expect("there is room in it");
            row.push(pieces.len() as u32);
            let taken = room.min(len - start);
            pieces.push(Piece { item: at, start, len: taken, window });
            room -= taken;
            if start + taken == len {
                break;
            }
            start += taken - 1;
            window += 1;
        }
    }
    (pieces, rows)
}

/// Packs `items` into rows of `seq_len` tokens by best fit: indices of items, in the order they were placed.
#[must_use]
pub fn pack(items: &[Item], seq_len: usize) -> Vec<Vec<u32>> {
    // Whoever is looked at is known by its length: reading the items again, in random order, would take most of the time.
    let mut classes: [Vec<Ordered>; 3] = Default::default();
    for (item, at) in items.iter().zip(0..) {
        let len = item.len as usize;
        let class = if len > seq_len / 2 { 0 } else { 1 + usize::from(len <= seq_len / SHORTEST) };
        let longest_first = if class == 2 { u32::MAX - item.len } else { 0 };
        classes[class].push(Ordered { longest_first, order: item.order, at, len: item.len });
    }
    let rest = |one: &Ordered| {
        let item = &items[one.at as usize];
        (item.record, item.copy, item.window)
    };
    for class in &mut classes {
        class.sort_unstable_by(|a, b| {
            let key = |one: &Ordered| (one.longest_first, one.order);
            key(a).cmp(&key(b)).then_with(|| rest(a).cmp(&rest(b)))
        });
    }
    let has_copies = items.iter().any(|item| item.copy > 0);
    let mut rows: Vec<Vec<u32>> = Vec::new();
    let mut room = Room::new(seq_len);
    for Ordered { at, len, .. } in classes.into_iter().flatten() {
        let holds_a_copy = |row: u32| {
            if !has_copies {
                return false;
            }
            let item = &items[at as usize];
            let other = |&other: &u32| {
                let other = &items[other as usize];
                other.record == item.record && other.copy != item.copy
            };
            rows[row as usize].iter().any(other)
        };
        let len = len as usize;
        let mut least = room.at_least(len);
        let mut found = None;
        while let Some(left) = least {
            // Nearly always the last of the stack; further only where it holds another copy of the record.
            if let Some(depth) = room.stacks[left].iter().rposition(|&row| !holds_a_copy(row)) {
                found = Some((room.take(left, depth), left));
                break;
            }
            least = room.at_least(left + 1);
        }
        let (row, left) = found.unwrap_or_else(|| {
            rows.push(Vec::with_capacity(8));
            (rows.len() as u32 - 1, seq_len)
        });
        rows[row as usize].push(at);
        if left > len {
            room.put(row, left - len);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            documents in prop::collection::vec((2u32..300, any::<u64>()), 1..40),
        ) {
            let items: Vec<Item> = documents.iter().enumerate().map(|(nth, &(len, order))| {
                Item { len, order, record: (0, nth as u64), copy: 0, window: 0 }
            }).collect();
            let (pieces, rows) = concat(&items, 64);
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
            documents in prop::collection::vec((1u32..129, any::<u64>(), 0u64..6, 0u32..3), 0..80),
        ) {
            let items: Vec<Item> = documents.iter().enumerate().map(|(nth, &(len, order, record, copy))| {
                Item { len, order, record: (0, record), copy, window: nth as u32 }
            }).collect();
            let rows = pack(&items, 128);
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
            // Rows of equal room are interchangeable only where no copies meet; compare where that cannot matter.
            if items.iter().all(|item| item.copy == items[0].copy) {
                prop_assert_eq!(left, pack_slowly(&items, &[long, rest, shortest].concat(), 128));
            }
        }
    }
}
