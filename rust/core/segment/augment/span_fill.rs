//! `SpanFill`: spans of words replaced by numbered blanks, and what fills them.

use std::ops::Range;

use super::blanks::Blanks;
use super::draws::Draws;
use super::texts::{ends_of_words, words};
use super::{Augmentation, Augmenting, refused};

/// Blanks seeded spans of a text, as T5 does.
#[derive(Debug)]
pub(super) struct SpanFill {
    /// The share of words that are left blank.
    pub(super) rate: f64,
    /// The words of a blank, on average.
    pub(super) span: f64,
    pub(super) blanks: Blanks,
}

impl SpanFill {
    /// Returns the spans of words, as ranges of their indices, that are left blank among `count`
    /// words, at least 2. Between two spans there is a word.
    fn spans(&self, count: usize, draws: &mut Draws) -> Vec<Range<usize>> {
        let blank = rounded(self.rate * count as f64).clamp(1, count - 1);
        let kept = count - blank;
        let spans = rounded(blank as f64 / self.span).clamp(1, blank.min(kept + 1));
        // A span ends behind some of the words left blank, and behind the last.
        let mut ends = draws.subset(blank - 1, spans - 1);
        ends.push(true);
        // A span lies before some of the words kept, or behind them all.
        let places = draws.subset(kept + 1, spans);
        let mut lens = ends.split_inclusive(|is_end| *is_end).map(<[bool]>::len);
        let mut word = 0;
        let mut out = Vec::with_capacity(spans);
        for is_before in places {
            if is_before && let Some(len) = lens.next() {
                out.push(word..word + len);
                word += len;
            }
            word += 1;
        }
        out
    }
}

impl Augmentation for SpanFill {
    fn make(&self, text: &str, mark: char, draws: &mut Draws) -> Augmenting<Vec<String>> {
        let words = words(text);
        if words.len() < 2 {
            return Err(refused("a text of one word leaves nothing beside a blank"));
        }
        let spans = self.spans(words.len(), draws);
        if let Some(blank) = self.blanks.spelled_in(text, spans.len()) {
            return Err(refused(format!("the text spells the blank '{blank}'")));
        }
        let (mut blanked, mut fills, mut from) = (String::new(), String::new(), 0);
        for (nth, span) in spans.into_iter().enumerate() {
            let bytes = words[span.start].start..words[span.end - 1].end;
            let blank = Blanks::marked(nth, mark);
            blanked.push_str(&text[from..bytes.start]);
            blanked.push_str(&blank);
            let space = if nth == 0 { "" } else { " " };
            fills.extend([space, &blank, " ", &text[bytes.clone()]]);
            from = bytes.end;
        }
        blanked.push_str(&text[from..]);
        Ok(vec![blanked, fills])
    }

    fn cuts(&self, text: &str) -> Vec<usize> {
        ends_of_words(text).into_iter().skip(1).collect()
    }

    fn blanks(&self) -> Option<&Blanks> {
        Some(&self.blanks)
    }
}

/// Returns the nearest whole number.
fn rounded(number: f64) -> usize {
    (number + 0.5) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MARK: char = '\u{fdd0}';

    proptest! {
        #[test]
        fn spans_are_in_order_apart_and_as_many_words_as_asked(
            key: u64,
            count in 2usize..60,
            rate in 0.01f64..0.9,
            span in 1.0f64..6.0,
        ) {
            let fill = SpanFill { rate, span, blanks: Blanks::new("_{n}", 0) };
            let spans = fill.spans(count, &mut Draws::new(key));
            let blank: usize = spans.iter().map(Range::len).sum();
            prop_assert_eq!(blank, rounded(rate * count as f64).clamp(1, count - 1));
            prop_assert!(spans.iter().all(|span| !span.is_empty() && span.end <= count));
            prop_assert!(spans.windows(2).all(|pair| pair[0].end < pair[1].start));
        }

        #[test]
        fn what_fills_the_blanks_gives_the_text_back(
            key: u64,
            text in "[a-cẹ\u{301}]( {1,2}|\n|[a-cẹ.]){0,40}[b-d]",
            rate in 0.01f64..0.9,
        ) {
            let fill = SpanFill { rate, span: 2.0, blanks: Blanks::new("_{n}", 0) };
            let Ok(made) = fill.make(&text, MARK, &mut Draws::new(key)) else {
                prop_assert!(words(&text).len() < 2);
                return Ok(());
            };
            let mut filled = made[0].clone();
            let pieces: Vec<&str> = made[1].split(MARK).collect();
            for pair in pieces[1..].chunks(2) {
                let (number, rest) = (pair[0], pair[1].strip_prefix(' ').unwrap());
                // A space parts a fill from the next blank.
                let is_last = number.parse::<usize>().unwrap() + 1 == pieces.len() / 2;
                let rest = if is_last { rest } else { rest.strip_suffix(' ').unwrap() };
                filled = filled.replacen(&format!("{MARK}{number}{MARK}"), rest, 1);
            }
            prop_assert_eq!(filled, text);
        }
    }
}
