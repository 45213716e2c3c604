//! Tests of the splitter: every known pattern against the regex engine.

use onig::Regex;
use proptest::prelude::*;

use super::pattern::{Rules, known};
use super::split::{Cut, Splitter};

/// Returns the matches of the regex engine, and the text between them.
fn oracle(pattern: &Regex, text: &str) -> Vec<(usize, usize)> {
    let (mut words, mut last) = (Vec::new(), 0);
    for (start, end) in pattern.find_iter(text) {
        if last < start {
            words.push((last, start));
        }
        words.push((start, end));
        last = end;
    }
    assert_eq!(last, text.len(), "a known pattern covers every text");
    words
}

fn assert_same(pattern: &str, regex: &Regex, splitter: &Splitter, text: &str) {
    let mut words = Vec::new();
    splitter.each(text, |start, end| words.push((start, end)));
    let expected = oracle(regex, text);
    // The text twice, and more after it: each copy must split as it does alone.
    let all = format!("{text}{text}aẹ");
    let (mut cut, mut start) = (Cut::of(splitter, all.as_bytes()), 0);
    for nth in 1..=2 {
        let stop = nth * text.len();
        for word in &words {
            assert_eq!(
                (start, cut.position()),
                (word.0 + stop - text.len(), start),
                "{pattern}\n on {text:?} twice"
            );
            start = cut.next(stop).expect("a word");
            assert_eq!(start, word.1 + stop - text.len(), "{pattern}\n on {text:?} twice");
        }
        assert_eq!(cut.next(stop), None);
    }
    if words != expected {
        let position = words.iter().zip(&expected).position(|(a, b)| a != b).unwrap_or(0);
        let from = expected[position].0;
        let shown: String = text[from..].chars().take(20).collect();
        panic!(
            "{pattern}\n on {shown:?}: {:?}, not {:?}",
            words.get(position),
            expected.get(position)
        );
    }
}

fn all() -> Vec<(String, Regex, Splitter)> {
    let build = |pattern: String| {
        let regex = Regex::new(&pattern).expect("a valid pattern");
        let splitter = Splitter::new(Rules::of(&pattern).expect("a known pattern"));
        (pattern, regex, splitter)
    };
    known().into_iter().map(build).collect()
}

#[test]
fn every_code_point_in_several_contexts() {
    // One pattern of each kind: the other patterns differ in things that do not depend on a
    // character.
    let kinds = [
        r"'s|'t",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]",
        r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\p{N}|",
        O200K,
    ];
    for kind in kinds {
        let (pattern, regex, splitter) =
            all().into_iter().find(|(pattern, ..)| pattern.starts_with(kind)).expect("known");
        for block in 0..0x440_u32 {
            let mut text = String::new();
            for char in (block << 10..(block + 1) << 10).filter_map(char::from_u32) {
                text.extend(['a', char, ' ', char, '1', char, 'B', '\'', char, '\n', char]);
                // No code point is assigned from here to the last planes but one.
                if !('\u{40000}'..'\u{e0000}').contains(&char) {
                    text.extend([
                        'b', ' ', ' ', char, char, 'A', '\'', 'l', char, '.', char, 'ʰ', char, 'B',
                        '\u{301}', char, '!',
                    ]);
                    text.extend(['/', char, '\t', char, '\u{301}', 'd']);
                }
            }
            assert_same(&pattern, &regex, &splitter, &text);
        }
    }
}

#[test]
fn words_longer_than_a_chunk_and_line_ends() {
    let texts = [
        "",
        " ",
        "\n",
        "a",
        "'",
        "'s",
        "'S",
        "'ſ",
        "'LL",
        "it's IT'S we'Re o'clock '' 'll'll",
        "abcdefghijklmno",
        "abcdefghijklmnopq",
        " abcdefghijklmno pq",
        "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopq1",
        "ABCDEFGHIJKLMNOPQRS",
        "ABCDEFGHIJKLMNOp'sq",
        "aBcDeFGhI ABc'd",
        "x   y",
        "x \n y\r\n\r\n  z  ",
        "  \n\n  ",
        "\t\tx",
        "a/b//\n/c",
        "1234567",
        "ọ́nụ́ ẹ̀kọ́ ʼYaʼya Ǹjẹ́ abcdefghijklmnẹ́opq",
        "日本語テキスト、中文。",
        "…—‘’“”",
        "a\u{a0}b\u{3000}c\u{85}d",
    ];
    for (pattern, regex, splitter) in all() {
        for text in texts {
            assert_same(&pattern, &regex, &splitter, text);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn random_texts(
        text in concat!(
            r"([a-eA-E]{0,18}|[ \t\n\r'/]{0,3}|'(s|S|ſ|Ll|rE|ve|D|m)|[0-9²٣]{0,4}|",
            r"[.,!ẹàʰªǅ中あß\u{301}\u{323}\u{a0}\u{2028}\u{1f600}]|.){0,12}",
        ),
    ) {
        for (pattern, regex, splitter) in PATTERNS.with(Clone::clone).iter() {
            assert_same(pattern, regex, splitter, &text);
        }
    }
}

const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}";

thread_local! {
    static PATTERNS: std::rc::Rc<Vec<(String, Regex, Splitter)>> = std::rc::Rc::new(all());
}
