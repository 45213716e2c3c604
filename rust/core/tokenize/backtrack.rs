//! Decides from the text of a pattern whether a search with it may take long. Errs on the side of
//! "may".
//!
//! A backtracking engine tries every way to share a text among the quantifiers of a pattern. The
//! patterns of tokenizers in use have at most two quantifiers in a row and none inside another, so
//! their searches end soon. Any other pattern is tried with a limit first.

/// Repetitions up to this number count as a constant.
const FEW: u32 = 16;

/// The quantifiers seen inside a group so far.
#[derive(Debug, Default, Clone, Copy)]
struct Group {
    /// Repeating quantifiers in the current branch.
    repeats: u32,
    /// The most repeating quantifiers of any branch.
    most: u32,
    /// Whether the group can match in more than one way: it has a quantifier or branches.
    is_varied: bool,
}

impl Group {
    /// Starts a new branch: only the worst branch counts for the group.
    fn begin_branch(&mut self) {
        *self = Self { repeats: 0, most: self.most.max(self.repeats), is_varied: true };
    }

    /// Adds an atom, or the group `within`, and its quantifier. Returns whether a search may now
    /// take long.
    fn add(&mut self, within: Self, times: Times) -> bool {
        // A repeated group that can match in several ways multiplies the ways at each repetition.
        if within.is_varied && matches!(times, Times::Few | Times::Many) {
            return true;
        }
        // Two repetitions in a row are usual; anything after them but an optional atom is a third
        // share of the same text.
        if self.repeats >= 2 && times != Times::Perhaps {
            return true;
        }
        self.repeats += within.most.max(within.repeats) + u32::from(times == Times::Many);
        self.is_varied |= within.is_varied || times != Times::Once;
        self.repeats > 2
    }
}

/// The number of times that a quantifier repeats the atom before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    Once,
    Perhaps,
    Few,
    Many,
}

/// Returns whether a search for `pattern` may take more than a few tries for each position of a
/// text.
pub(crate) fn may_search_long(pattern: &str) -> bool {
    let chars: Vec<char> = pattern.chars().collect();
    let mut groups = vec![Group::default()];
    let mut position = 0;
    while position < chars.len() {
        let within = match chars[position] {
            '(' => {
                // Conditions, calls, absent operators: rare, and hard to judge.
                if chars[position + 1..].starts_with(&['?', '('])
                    || chars[position + 1..].starts_with(&['?', '~'])
                {
                    return true;
                }
                groups.push(Group::default());
                position = after_opening(&chars, position);
                continue;
            }
            '|' => {
                groups.last_mut().into_iter().for_each(Group::begin_branch);
                position += 1;
                continue;
            }
            ')' if groups.len() > 1 => groups.pop().unwrap_or_default(),
            '\\' if is_reference(&chars, position) => return true,
            _ => Group::default(),
        };
        let end = atom_end(&chars, position);
        let (times, next) = quantifier(&chars, end);
        position = next;
        if groups.last_mut().is_none_or(|group| group.add(within, times)) {
            return true;
        }
    }
    false
}

/// Returns where the content of a group begins.
fn after_opening(chars: &[char], position: usize) -> usize {
    let mut next = position + 1;
    if chars.get(next) != Some(&'?') {
        return next;
    }
    next += 1;
    match chars.get(next) {
        Some('<') if !matches!(chars.get(next + 1), Some('=' | '!')) => {
            skip_to(chars, next, '>') + 1
        }
        Some('<') => next + 2,
        Some(':' | '=' | '!' | '>') => next + 1,
        // Options: `(?i:` opens a group, `(?i)` has no content.
        _ => {
            let end =
                chars[next.min(chars.len())..].iter().position(|char| matches!(char, ':' | ')'));
            end.map_or(chars.len(), |end| next + end + usize::from(chars[next + end] == ':'))
        }
    }
}

/// Returns whether an escape refers to an earlier match or a named group.
fn is_reference(chars: &[char], position: usize) -> bool {
    matches!(chars.get(position + 1), Some('1'..='9' | 'k' | 'g'))
}

/// Returns the end of an atom: a character, an escape or a class.
fn atom_end(chars: &[char], position: usize) -> usize {
    match (chars[position], chars.get(position + 1)) {
        ('\\', Some('p' | 'P' | 'x' | 'o' | 'u')) if chars.get(position + 2) == Some(&'{') => {
            skip_to(chars, position, '}') + 1
        }
        ('\\', Some(_)) => position + 2,
        ('[', _) => class_end(chars, position),
        _ => position + 1,
    }
}

/// Returns the end of a class in brackets. Classes nest.
fn class_end(chars: &[char], position: usize) -> usize {
    let (mut depth, mut next) = (0, position);
    while next < chars.len() {
        match chars[next] {
            '\\' => next += 1,
            '[' => depth += 1,
            // A `]` right after the opening is an ordinary character.
            ']' if next == position + 1 || (next == position + 2 && chars[position + 1] == '^') => {
            }
            ']' => {
                depth -= 1;
                if depth == 0 {
                    return next + 1;
                }
            }
            _ => {}
        }
        next += 1;
    }
    chars.len()
}

/// Returns the position of the next `wanted`, or of the last character.
fn skip_to(chars: &[char], position: usize, wanted: char) -> usize {
    chars[position..]
        .iter()
        .position(|&char| char == wanted)
        .map_or(chars.len() - 1, |found| position + found)
}

/// Returns the quantifiers at a position, combined, and the position after them.
fn quantifier(chars: &[char], position: usize) -> (Times, usize) {
    let (times, next) = match chars.get(position) {
        Some('?') => (Times::Perhaps, position + 1),
        Some('*' | '+') => (Times::Many, position + 1),
        Some('{') => match interval(chars, position) {
            Some(found) => found,
            None => return (Times::Once, position),
        },
        _ => return (Times::Once, position),
    };
    // `a+?` is lazy, `a++` never gives back, `a{2}{3}` repeats a repetition.
    match chars.get(next) {
        Some('?') => (times, next + 1),
        Some('+') => (Times::Many, next + 1),
        Some('*' | '{') => (Times::Many, quantifier(chars, next).1.max(next + 1)),
        _ => (times, next),
    }
}

/// Parses `{3}`, `{1,3}` or `{2,}`; returns none if the braces are ordinary text.
fn interval(chars: &[char], position: usize) -> Option<(Times, usize)> {
    let end = position + chars[position..].iter().position(|&char| char == '}')?;
    let text: String = chars[position + 1..end].iter().collect();
    let (low, high) = text.split_once(',').unwrap_or((&text, &text));
    let number = |text: &str| {
        if text.is_empty() { Some(None) } else { text.trim().parse::<u32>().ok().map(Some) }
    };
    let (_, high) = (number(low)?, number(high)?);
    Some((if high.is_some_and(|high| high <= FEW) { Times::Few } else { Times::Many }, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_patterns_of_tokenizers_in_use_do_not_search_long() {
        for pattern in [
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            concat!(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
                r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            ),
            concat!(
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|",
                r"\s*[\r\n]+|\s+(?!\S)|\s+",
            ),
            r" ?[^(\s|[.,!?…。，、।۔،])]+",
            r"\p{N}{1,3}(?=(?:\p{N}{3}) )|[一-龥぀-ゟ゠-ヿ]+",
            r"\w+|[^\w\s]+",
            " {2,}",
            "▁",
            super::super::bpe::PATTERN,
        ] {
            assert!(!may_search_long(pattern), "{pattern}");
        }
    }

    #[test]
    fn nested_and_neighbouring_quantifiers_may() {
        for pattern in [
            "(a+)+$",
            "(a|aa)+b",
            "(a?){30}a{30}",
            "(?:a*)*b",
            "([a-z]+)*=",
            r"(\w+\s?)*$",
            r"(a)\1+",
            r"\s+\s+$",
            "a*a*a*b",
            "(?<n>a|b(?<m>c)*)+",
            "(?i:(x+x+)+y)",
            "((a{1,9}){1,9}){1,9}",
            "[[:alpha:]]*[a-z]*[^]]*x",
        ] {
            assert!(may_search_long(pattern), "{pattern}");
        }
    }
}
