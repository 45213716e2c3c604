//! One stream of documents, cut where rows end.

use super::order::{Sorting, for_each_in_order};
use super::{Items, Rows};
use crate::error::Result;

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

/// Lays `items` end to end, in their seeded order, and cuts them where a row of `seq_len` tokens
/// ends: the pieces, and rows of indices of pieces.
///
/// A piece starts with the last token of the one before, as windows do, so that every token is
/// trained once. A single place at the end of a row would hold a token that the next row repeats:
/// it stays empty.
pub fn concat<I: Items + ?Sized>(
    items: &I,
    seq_len: usize,
    sorting: Sorting,
) -> Result<(Vec<Piece>, Rows)> {
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
                start += taken - 1;
                window += 1;
            }
        },
    )?;
    Ok((pieces, rows))
}
