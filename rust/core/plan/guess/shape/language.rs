//! The field that holds the language of each record.

use super::seen::Seen;
use crate::plan::language::code_of;

/// Usual names of such a field.
const NAMES: [&str; 5] = ["lang", "language", "lang_code", "language_code", "lang_id"];

/// Returns the field in which every record names a language that is known.
pub(super) fn lang_field(seen: &Seen<'_>) -> Option<&'static str> {
    let names_one = |name: &str| {
        let mut values = seen.values(name);
        values.all(|value| value.as_str().is_some_and(|text| code_of(text).is_some()))
    };
    NAMES.into_iter().find(|name| seen.has(name) && seen.always(name) && names_one(name))
}
