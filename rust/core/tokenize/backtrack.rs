//! Whether a pattern may search for long: read off its text, generously.
//!
//! A backtracking engine tries every way to share a text among the quantifiers of a pattern. The
//! patterns of tokenizers in use have two in a row at most, and none within another, so their
//! searches end soon. Whatever looks otherwise is to be tried with a limit.

/// Repetitions up to this many are a matter of a constant.
const FEW: u32 = 16;

/// What a group has in it.
#[derive(Debug, Default, Clone, Copy)]
struct Group {
    /// Quantifiers that repeat, in the branch at hand.
    repeats: u32,
    /// The most of any branch.
    most: u32,
    /// Whether there is more than one way through it: a quantifier, or branches.
    is_varied: bool,
}

/// How often what stands before a quantifier may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    Once,
    Perhaps,
    Few,
    Many,
}

/// Whether a search for `pattern` may take more than a few tries for each place of a text.
pub fn may_search_long(pattern: &str) -> bool {
    let chars: Vec<char> = pattern.chars().collect();
    let mut groups = vec![Group::default()];
    let mut at = 0;
    while at < chars.len() {
        let within = match chars[at] {
            '(' => {
                // Conditions, calls, absent operators: seldom seen, hard to judge.
                if chars[at + 1..].starts_with(&['?', '('])
                    || chars[at + 1..].starts_with(&['?', '~'])
                {
                    return true;
                }
                groups.push(Group::default());
                at = after_opening(&chars, at);
                continue;
            }
            '|' => {
                if let Some(group) = groups.last_mut() {
                    *group =
                        Group { repeats: 0, most: group.most.max(group.repeats), is_varied: true };
                }
                at += 1;
                continue;
            }
            ')' if groups.len() > 1 => groups.pop().unwrap_or_default(),
            '\\' if is_reference(&chars, at) => return true,
            _ => Group::default(),
        };
        let end = atom_end(&chars, at);
        let (times, next) = quantifier(&chars, end);
        at = next;
        if within.is_varied && matches!(times, Times::Few | Times::Many) {
            return true;
        }
        let Some(group) = groups.last_mut() else { return true };
        let inner = within.most.max(within.repeats);
        if group.repeats >= 2 && times != Times::Perhaps {
            return true;
        }
        group.repeats += inner + u32::from(times == Times::Many);
        group.is_varied |= within.is_varied || times != Times::Once;
        if group.repeats > 2 {
            return true;
        }
    }
    false
}

/// Where the content of a group begins.
fn after_opening(chars: &[char], at: usize) -> usize {
    let mut next = at + 1;
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
        // Options: `(?i:` holds a group, `(?i)` nothing.
        _ => {
            let end =
                chars[next.min(chars.len())..].iter().position(|char| matches!(char, ':' | ')'));
            end.map_or(chars.len(), |end| next + end + usize::from(chars[next + end] == ':'))
        }
    }
}

/// Whether what was matched before, or a group by name, is called for.
fn is_reference(chars: &[char], at: usize) -> bool {
    matches!(chars.get(at + 1), Some('1'..='9' | 'k' | 'g'))
}

/// Where an atom ends: a character, an escape, a class.
fn atom_end(chars: &[char], at: usize) -> usize {
    match (chars[at], chars.get(at + 1)) {
        ('\\', Some('p' | 'P' | 'x' | 'o' | 'u')) if chars.get(at + 2) == Some(&'{') => {
            skip_to(chars, at, '}') + 1
        }
        ('\\', Some(_)) => at + 2,
        ('[', _) => class_end(chars, at),
        _ => at + 1,
    }
}

/// Where a class in brackets ends; classes nest.
fn class_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut next) = (0, at);
    while next < chars.len() {
        match chars[next] {
            '\\' => next += 1,
            '[' => depth += 1,
            ']' if next == at + 1 || (next == at + 2 && chars[at + 1] == '^') => {}
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

fn skip_to(chars: &[char], at: usize, wanted: char) -> usize {
    chars[at..].iter().position(|&char| char == wanted).map_or(chars.len() - 1, |found| at + found)
}

/// The quantifiers at a place, taken together, and the place after them.
fn quantifier(chars: &[char], at: usize) -> (Times, usize) {
    let (times, next) = match chars.get(at) {
        Some('?') => (Times::Perhaps, at + 1),
        Some('*' | '+') => (Times::Many, at + 1),
        Some('{') => match interval(chars, at) {
            Some(found) => found,
            None => return (Times::Once, at),
        },
        _ => return (Times::Once, at),
    };
    // `a+?` is lazy, `a++` takes nothing back; `a{2}{3}` repeats what repeats.
    match chars.get(next) {
        Some('?') => (times, next + 1),
        Some('+') => (Times::Many, next + 1),
        Some('*' | '{') => (Times::Many, quantifier(chars, next).1.max(next + 1)),
        _ => (times, next),
    }
}

/// `{3}`, `{1,3}`, `{2,}`; nothing if it is text.
fn interval(chars: &[char], at: usize) -> Option<(Times, usize)> {
    let end = at + chars[at..].iter().position(|&char| char == '}')?;
    let text: String = chars[at + 1..end].iter().collect();
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
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
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
