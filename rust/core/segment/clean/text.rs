//! `Cleaner`: changes one text as the table `clean` of its source says.
//!
//! The steps, in order: the Unicode form, removed characters, apostrophes, marks below letters, and
//! the form again where the steps between may have broken it. Each step finds nothing to do in its
//! own result, so that cleaning a clean text changes nothing.

use std::borrow::Cow;

use unicode_normalization::char::decompose_canonical;
use unicode_normalization::{UnicodeNormalization, is_nfc, is_nfd, is_nfkc};

use super::touched::{Change, Touched};
use crate::plan::{CleanSpec, Invisible, Underdot, UnicodeForm};

/// The apostrophes that are unified.
const APOSTROPHES: [char; 3] = ['\'', '\u{2019}', '\u{2bc}'];
/// The marks below letters that are unified.
const DOT_BELOW: char = '\u{323}';
const LINE_BELOW: char = '\u{329}';

/// Changes texts.
#[derive(Debug, Clone)]
pub(super) struct Cleaner {
    spec: CleanSpec,
}

impl Cleaner {
    /// Returns the cleaner that `spec` asks for.
    pub(super) fn new(spec: &CleanSpec) -> Self {
        Self { spec: spec.clone() }
    }

    /// Returns the changed text, and adds each change to `touched`; `None` if nothing changes.
    pub(super) fn clean(&self, text: &str, touched: &mut Touched) -> Option<String> {
        let spec = &self.spec;
        let mut now = Cow::Borrowed(text);
        let mut step = |now: &mut Cow<'_, str>, change: Change, new: Option<String>| {
            let Some(new) = new else { return false };
            touched.add(change, now, &new);
            *now = Cow::Owned(new);
            true
        };
        // Of ASCII, only apostrophes can change.
        let is_ascii = text.is_ascii();
        if !is_ascii {
            let new = in_form(spec.unicode, &now);
            step(&mut now, Change::Unicode, new);
        }
        let mut is_broken = false;
        if !is_ascii && spec.invisible == Invisible::Remove {
            let new = without_invisible(&now);
            is_broken |= step(&mut now, Change::Invisible, new);
        }
        if let Some(apostrophe) = spec.apostrophes {
            let new = with_apostrophes(&now, apostrophe.char());
            step(&mut now, Change::Apostrophes, new);
        }
        if let Some(underdot) = spec.underdots.filter(|_| !is_ascii) {
            let new = with_underdots(&now, underdot);
            is_broken |= step(&mut now, Change::Underdots, new);
        }
        // A letter and its mark may have come together.
        if is_broken && let Some(new) = in_form(spec.unicode, &now) {
            now = Cow::Owned(new);
        }
        if let Cow::Owned(new) = now { Some(new) } else { None }
    }
}

/// Returns a text in a form; `None` if it has this form.
fn in_form(form: UnicodeForm, text: &str) -> Option<String> {
    match form {
        UnicodeForm::Nfc => (!is_nfc(text)).then(|| text.nfc().collect()),
        UnicodeForm::Nfd => (!is_nfd(text)).then(|| text.nfd().collect()),
        UnicodeForm::Nfkc => (!is_nfkc(text)).then(|| text.nfkc().collect()),
        UnicodeForm::AsIs => None,
    }
}

/// Returns whether a character cannot be seen and shapes no letter or emoji: the byte order mark,
/// the space of no width, the soft hyphen, and the marks that turn the direction of text.
///
/// Joiners (U+200C, U+200D) and variation selectors are none of these: they choose the shape of
/// letters in many scripts, and make emoji of several characters.
fn is_invisible(char: char) -> bool {
    matches!(
        char,
        '\u{feff}'
            | '\u{200b}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

/// Returns a text without characters that cannot be seen; `None` if it has none.
fn without_invisible(text: &str) -> Option<String> {
    text.contains(is_invisible).then(|| text.chars().filter(|char| !is_invisible(*char)).collect())
}

/// Returns a text in which every apostrophe is `one`; `None` if it has no other.
fn with_apostrophes(text: &str, one: char) -> Option<String> {
    let is_other = |char: char| char != one && APOSTROPHES.contains(&char);
    let unify = |char: char| if is_other(char) { one } else { char };
    text.contains(is_other).then(|| text.chars().map(unify).collect())
}

/// Returns a text with one kind of mark below letters; `None` if it has no other.
///
/// A letter that holds the dot below, such as U+1EB9, is taken apart where the dot is replaced.
fn with_underdots(text: &str, underdot: Underdot) -> Option<String> {
    if underdot == Underdot::Dot {
        return text.contains(LINE_BELOW).then(|| text.replace(LINE_BELOW, "\u{323}"));
    }
    if !text.contains(has_dot_below) {
        return None;
    }
    let mut out = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if has_dot_below(char) {
            decompose_canonical(char, |part| {
                out.push(if part == DOT_BELOW { LINE_BELOW } else { part });
            });
        } else {
            out.push(char);
        }
    }
    Some(out)
}

/// Returns whether a character is the dot below, or a letter that holds it.
fn has_dot_below(char: char) -> bool {
    // Every such letter lies in the block Latin Extended Additional.
    if !matches!(char, DOT_BELOW | '\u{1e00}'..='\u{1eff}') {
        return false;
    }
    let mut found = false;
    decompose_canonical(char, |part| found |= part == DOT_BELOW);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Apostrophe;
    use proptest::prelude::*;

    fn clean(spec: &CleanSpec, text: &str) -> (String, Vec<Change>) {
        let mut touched = Touched::default();
        let new = Cleaner::new(spec).clean(text, &mut touched);
        let changes = touched.iter().map(|(change, _)| change).collect();
        (new.unwrap_or_else(|| text.to_owned()), changes)
    }

    #[test]
    fn only_letters_of_one_block_hold_the_dot_below() {
        for char in '\0'..=char::MAX {
            let mut holds = false;
            decompose_canonical(char, |part| holds |= part == DOT_BELOW);
            assert_eq!(has_dot_below(char), holds, "{char:?}");
        }
    }

    #[test]
    fn each_step_changes_what_it_names_and_nothing_else() {
        let nfc = CleanSpec::default();
        assert_eq!(clean(&nfc, "e\u{323}\u{300}ko"), ("ẹ\u{300}ko".into(), vec![Change::Unicode]));
        assert_eq!(clean(&nfc, "ẹ\u{300}\u{200b}’"), ("ẹ\u{300}\u{200b}’".into(), vec![]));
        let family = "👨\u{200d}👩\u{200d}👧 ❤\u{fe0f} نمی\u{200c}خواهم";
        let invisible = CleanSpec { invisible: Invisible::Remove, ..nfc.clone() };
        assert_eq!(clean(&invisible, family), (family.into(), vec![]));
        let marks = "\u{feff}a\u{ad}b\u{200e}\u{2067}c\u{2069}\u{61c}";
        assert_eq!(clean(&invisible, marks), ("abc".into(), vec![Change::Invisible]));
        // What was parted comes together.
        assert_eq!(clean(&invisible, "e\u{200b}\u{301}").0, "é");
        let straight = CleanSpec { apostrophes: Some(Apostrophe::Straight), ..nfc.clone() };
        assert_eq!(clean(&straight, "’yanʼuwa'"), ("'yan'uwa'".into(), vec![Change::Apostrophes]));
        let letter = CleanSpec { apostrophes: Some(Apostrophe::Letter), ..nfc.clone() };
        assert_eq!(clean(&letter, "'yan").0, "ʼyan");
        let dot = CleanSpec { underdots: Some(Underdot::Dot), ..nfc.clone() };
        assert_eq!(clean(&dot, "é\u{329}"), ("ẹ\u{301}".into(), vec![Change::Underdots]));
        let line = CleanSpec { underdots: Some(Underdot::Line), ..nfc.clone() };
        assert_eq!(clean(&line, "Ẹ\u{301} o\u{323}").0, "É\u{329} o\u{329}");
        let as_is = CleanSpec { unicode: UnicodeForm::AsIs, ..dot };
        assert_eq!(clean(&as_is, "e\u{329}\u{301}").0, "e\u{323}\u{301}");
        let nfkc = CleanSpec { unicode: UnicodeForm::Nfkc, ..straight };
        assert_eq!(clean(&nfkc, "ﬁŉ").0, "fi'n");
    }

    /// Returns every way of cleaning.
    fn any_spec() -> impl Strategy<Value = CleanSpec> {
        use UnicodeForm::{AsIs, Nfc, Nfd, Nfkc};
        let forms = prop::sample::select(vec![Nfc, Nfd, Nfkc, AsIs]);
        let apostrophes =
            prop::sample::select(vec![Apostrophe::Straight, Apostrophe::Curly, Apostrophe::Letter]);
        let underdots = prop::sample::select(vec![Underdot::Dot, Underdot::Line]);
        (forms, any::<bool>(), prop::option::of(apostrophes), prop::option::of(underdots)).prop_map(
            |(unicode, removes, apostrophes, underdots)| {
                let invisible = if removes { Invisible::Remove } else { Invisible::Keep };
                CleanSpec { unicode, invisible, apostrophes, underdots }
            },
        )
    }

    proptest! {
        #[test]
        fn a_clean_text_stays_as_it_is(
            spec in any_spec(),
            text in "(.|[a-eoọẹẸṣ'’ʼŉﬁ\u{300}\u{301}\u{323}\u{329}\u{200b}\u{200d}\u{ad}\u{feff}\u{202b}ệ]){0,16}",
        ) {
            let (once, changes) = clean(&spec, &text);
            prop_assert_eq!(once != text, !changes.is_empty());
            prop_assert_eq!(clean(&spec, &once), (once.clone(), vec![]), "{:?}", text);
        }
    }
}
