//! Spans from tags, by the rule of `conlleval`: BIO, IOB1, IOBES and BILOU at once.
//!
//! A span begins at B or S (U), at any tag after O, E (L) or S, and where the type changes. So no
//! tagged token is lost: an I without a B before it begins a span.

/// A span of tokens, its end exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span<'a> {
    pub(super) kind: &'a str,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The place of a token in its span, as its tag says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    Begin,
    Inside,
    End,
    Single,
}

/// Returns the spans of a sentence, in order.
pub(super) fn spans<'a>(tags: impl Iterator<Item = &'a str>) -> Vec<Span<'a>> {
    let mut spans: Vec<Span<'a>> = Vec::new();
    let mut before = (Place::Outside, "");
    for (index, tag) in tags.enumerate() {
        let (place, kind) = parse(tag);
        if place != Place::Outside {
            let begins = matches!(place, Place::Begin | Place::Single)
                || matches!(before.0, Place::Outside | Place::End | Place::Single)
                || before.1 != kind;
            match spans.last_mut() {
                Some(span) if !begins => span.end = index + 1,
                _ => spans.push(Span { kind, start: index, end: index + 1 }),
            }
        }
        before = (place, kind);
    }
    spans
}

/// Returns whether a text is a tag of these schemes.
pub(super) fn is_tag(text: &str) -> bool {
    text == "O" || parse(text).0 != Place::Outside
}

/// Returns the place and the type of a tag. A tag of no scheme is outside of spans.
fn parse(tag: &str) -> (Place, &str) {
    let (prefix, kind) = tag.split_once('-').unwrap_or((tag, ""));
    let place = match prefix {
        "B" => Place::Begin,
        "I" => Place::Inside,
        "E" | "L" if !kind.is_empty() => Place::End,
        "S" | "U" if !kind.is_empty() => Place::Single,
        _ => return (Place::Outside, ""),
    };
    (place, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_gives_the_spans_of_conlleval() {
        for (tags, expected) in [
            ("O B-P I-P O", vec![("P", 1, 3)]),
            ("I-P I-P O I-L", vec![("P", 0, 2), ("L", 3, 4)]),
            ("I-P B-P I-P", vec![("P", 0, 1), ("P", 1, 3)]),
            ("B-P I-L", vec![("P", 0, 1), ("L", 1, 2)]),
            ("B-P E-P S-L S-L", vec![("P", 0, 2), ("L", 2, 3), ("L", 3, 4)]),
            ("B-P L-P U-L I-L", vec![("P", 0, 2), ("L", 2, 3), ("L", 3, 4)]),
            ("E-P E-P I-P", vec![("P", 0, 1), ("P", 1, 2), ("P", 2, 3)]),
            ("B I O", vec![("", 0, 2)]),
            ("NOUN VERB", vec![]),
            ("B-A-B I-A-B", vec![("A-B", 0, 2)]),
        ] {
            let spans = spans(tags.split(' '));
            let spans: Vec<_> =
                spans.into_iter().map(|span| (span.kind, span.start, span.end)).collect();
            assert_eq!(spans, expected, "{tags}");
        }
    }
}
