//! Published rules, with the limits of their authors.
//!
//! Gopher: Rae et al. 2021, arXiv:2112.11446, section A.1.1 and table A1. `FineWeb`: Penedo et al.
//! 2024, arXiv:2406.17557; for other languages, with limits that a source brings, Penedo et al.
//! 2025, arXiv:2506.20920. Words are those of [`words`], and lines and paragraphs those without
//! white space around them.

use super::measures::{Ngrams, Repeated, chars, lines, paragraphs, share, words};
use super::{Filter, Judged, Value, at_least, at_most, filtered};
use crate::plan::{Limits, Rule};

/// The characters that end a sentence, and quotation marks after it.
const ENDS: &str = ".!?…\"'”’»።፧፨؟۔।。！？";
/// The characters that begin an item of a list.
const BULLETS: [char; 4] = ['•', '‣', '-', '*'];
/// English words of which prose has two at least.
const STOP_WORDS: [&str; 8] = ["the", "be", "to", "of", "and", "that", "have", "with"];
/// Lines of fewer characters are short.
const SHORT: u64 = 30;

/// The largest shares of characters in the most frequent n-gram, and in repeated n-grams, by n.
const TOP: [(u64, f64); 3] = [(2, 0.20), (3, 0.18), (4, 0.16)];
const REPEATED: [(u64, f64); 6] =
    [(5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)];

/// The limits of quality that depend on the language.
#[derive(Debug)]
struct Quality<'a> {
    name: &'a str,
    /// The smallest and the largest mean length of words.
    mean: (f64, f64),
    /// The smallest share of words with a letter.
    with_letters: f64,
    /// Words of which a text has two at least, if any are known.
    stop_words: Vec<&'a str>,
}

impl Filter {
    /// Refuses a text that breaks one of a set of rules.
    pub(super) fn judge_by(&self, rule: Rule, text: &str) -> Judged {
        match rule {
            Rule::GopherRepetition => gopher_repetition(text),
            Rule::GopherQuality => {
                let stop_words = if self.is_english { STOP_WORDS.to_vec() } else { Vec::new() };
                let (mean, with_letters) = ((3.0, 10.0), 0.8);
                let limits = Quality { name: "gopher-quality", mean, with_letters, stop_words };
                self.quality(&limits, text)
            }
            Rule::FinewebQuality => fineweb_quality(text),
            Rule::Fineweb2 => {
                self.spec.limits.as_ref().map_or(Ok(()), |limits| self.fineweb_2(limits, text))
            }
        }
    }

    /// Refuses a text that is no prose, by the rules of Gopher.
    fn quality(&self, limits: &Quality<'_>, text: &str) -> Judged {
        let name = limits.name;
        let (words, lines) = (words(text), lines(text));
        let count = words.len() as u64;
        at_least(name, "words", Value::Count(count), 50.0)?;
        at_most(name, "words", Value::Count(count), 100_000.0)?;
        let of_word = |word: &&str| word.chars().filter(|c| self.letters.is_of_word(*c)).count();
        let lengths = || words.iter().map(of_word).filter(|length| *length > 0);
        let mean = share(lengths().sum::<usize>() as u64, lengths().count() as u64);
        at_least(name, "mean word length", Value::Mean(mean), limits.mean.0)?;
        at_most(name, "mean word length", Value::Mean(mean), limits.mean.1)?;
        let hashes = text.matches('#').count() as u64;
        let ellipses = (text.matches("...").count() + text.matches('…').count()) as u64;
        at_most(name, "hash signs to words", Value::Share(share(hashes, count)), 0.1)?;
        at_most(name, "ellipses to words", Value::Share(share(ellipses, count)), 0.1)?;
        let of_lines = |is_such: &dyn Fn(&str) -> bool| {
            let such = lines.iter().filter(|line| is_such(line)).count();
            Value::Share(share(such as u64, lines.len() as u64))
        };
        let bullets = of_lines(&|line| line.starts_with(BULLETS));
        at_most(name, "lines with a bullet", bullets, 0.9)?;
        let cut = of_lines(&|line| line.ends_with("...") || line.ends_with('…'));
        at_most(name, "lines that end in an ellipsis", cut, 0.3)?;
        let has_letter = |word: &&&str| word.chars().any(|char| self.letters.is_letter(char));
        let with_letters =
            Value::Share(share(words.iter().filter(has_letter).count() as u64, count));
        at_least(name, "words with a letter", with_letters, limits.with_letters)?;
        if !limits.stop_words.is_empty() {
            let found = words.iter().filter(|word| limits.stop_words.contains(word)).count();
            at_least(name, "stop words", Value::Count(found as u64), 2.0)?;
        }
        Ok(())
    }

    /// Refuses a text by the limits of a language.
    fn fineweb_2(&self, limits: &Limits, text: &str) -> Judged {
        let name = "fineweb-2";
        let (words, lines) = (words(text), lines(text));
        let repeated = Repeated::of(&lines);
        if let Some(limit) = limits.dup_line_frac {
            let of_lines = Value::Share(share(repeated.count, lines.len() as u64));
            at_most(name, "repeated lines", of_lines, limit)?;
        }
        repeated_grams(name, text, &limits.top_n_grams, &limits.dup_n_grams)?;
        if let Some(limit) = limits.line_punct_thr {
            let ended = lines.iter().filter(|line| line.ends_with(|c| ENDS.contains(c))).count();
            let ended = Value::Share(share(ended as u64, lines.len() as u64));
            at_least(name, "lines that end in punctuation", ended, limit)?;
        }
        let of_chars = share(repeated.chars, lines.iter().map(|line| chars(line)).sum());
        at_most(name, "characters in repeated lines", Value::Share(of_chars), 0.1)?;
        if let Some(limit) = limits.new_line_ratio {
            let breaks = text.matches('\n').count() as u64;
            let breaks = Value::Share(share(breaks, words.len() as u64));
            at_most(name, "line breaks to words", breaks, limit)?;
        }
        let mean = (
            limits.min_avg_word_length.unwrap_or(0.0),
            limits.max_avg_word_length.unwrap_or(f64::INFINITY),
        );
        let with_letters = limits.max_non_alpha_words_ratio.unwrap_or(0.0);
        let stop_words = limits.stopwords.iter().map(String::as_str).collect();
        self.quality(&Quality { name, mean, with_letters, stop_words }, text)
    }
}

/// Refuses a text that repeats itself.
fn gopher_repetition(text: &str) -> Judged {
    let name = "gopher-repetition";
    let all = chars(text);
    for (what, texts) in [("lines", lines(text)), ("paragraphs", paragraphs(text))] {
        let repeated = Repeated::of(&texts);
        let count = Value::Share(share(repeated.count, texts.len() as u64));
        at_most(name, &format!("repeated {what}"), count, 0.30)?;
        let of_chars = Value::Share(share(repeated.chars, all));
        at_most(name, &format!("characters in repeated {what}"), of_chars, 0.20)?;
    }
    repeated_grams(name, text, &TOP, &REPEATED)
}

/// Refuses a text for its most frequent or its repeated n-grams. `name` names the rules.
fn repeated_grams(name: &str, text: &str, top: &[(u64, f64)], repeated: &[(u64, f64)]) -> Judged {
    let (all, words) = (chars(text), words(text));
    let mut grams = Ngrams::new(&words);
    for (n, limit) in top {
        grams.advance_to(*n as usize);
        let top = Value::Share(share(grams.top(), all));
        at_most(name, &format!("characters in the top {n}-gram"), top, *limit)?;
    }
    let mut grams = Ngrams::new(&words);
    for (n, limit) in repeated {
        grams.advance_to(*n as usize);
        let repeated = Value::Share(share(grams.repeated(), all));
        at_most(name, &format!("characters in repeated {n}-grams"), repeated, *limit)?;
    }
    Ok(())
}

/// Refuses a text of lists, menus or boilerplate. Its authors' limits are themselves beyond what is
/// allowed.
fn fineweb_quality(text: &str) -> Judged {
    let lines = lines(text);
    let of_lines = |count: usize| share(count as u64, lines.len() as u64);
    let ended = of_lines(lines.iter().filter(|line| line.ends_with(|c| ENDS.contains(c))).count());
    let short = of_lines(lines.iter().filter(|line| chars(line) < SHORT).count());
    let all = lines.iter().map(|line| chars(line)).sum();
    let repeated = share(Repeated::of(&lines).chars, all);
    let refused = |what: &str, value: f64, than: &str, limit: f64| {
        let (value, limit) = (Value::Share(value), Value::Share(limit));
        Err(filtered(format!("fineweb-quality: {what} {value}, {than} than {limit}")))
    };
    if ended <= 0.12 {
        return refused("lines that end in punctuation", ended, "more", 0.12);
    }
    if short >= 0.67 {
        return refused("lines of fewer than 30 characters", short, "less", 0.67);
    }
    if repeated >= 0.1 {
        return refused("characters in repeated lines", repeated, "less", 0.1);
    }
    Ok(())
}
