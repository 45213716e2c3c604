//! `TextColumn`: the texts of a column that a slot shows, borrowed row by row.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, LargeStringArray, StringArray, StringViewArray};
use arrow_buffer::NullBuffer;
use arrow_schema::DataType;

/// A field of a row.
pub(super) enum Found<'a> {
    Text(&'a str),
    /// Null, or missing.
    Nothing,
    /// Another kind of value, which the fields path shows.
    Other,
}

/// The texts of a column, or of a field of a column of structs.
pub(super) struct TextColumn {
    /// The validity of the structs above, and of the column.
    nulls: Vec<NullBuffer>,
    texts: Texts,
}

/// Texts by the type of their column.
enum Texts {
    Small(StringArray),
    Large(LargeStringArray),
    View(StringViewArray),
    /// The index of each row among other texts.
    Indexed(Vec<usize>, Box<TextColumn>),
    /// No column: every row lacks the field.
    Missing,
    /// Values of another kind.
    Other,
}

impl TextColumn {
    /// Returns the field at `path` below `column`.
    pub(super) fn of(column: Option<&ArrayRef>, path: &[String]) -> Self {
        let mut nulls = Vec::new();
        let Some(column) = column else { return Self { nulls, texts: Texts::Missing } };
        nulls.extend(column.nulls().cloned());
        if let Some((name, path)) = path.split_first() {
            let Some(inner) = column.as_struct_opt() else {
                return Self { nulls, texts: Texts::Other };
            };
            let inner = Self::of(inner.column_by_name(name), path);
            nulls.extend(inner.nulls);
            return Self { nulls, texts: inner.texts };
        }
        let texts = match column.data_type() {
            DataType::Utf8 => Texts::Small(column.as_string::<i32>().clone()),
            DataType::LargeUtf8 => Texts::Large(column.as_string::<i64>().clone()),
            DataType::Utf8View => Texts::View(column.as_string_view().clone()),
            DataType::Dictionary(..) => {
                let dictionary = column.as_any_dictionary();
                // Without values every row is null, and the library would not number them.
                let keys = if dictionary.values().is_empty() {
                    vec![0; column.len()]
                } else {
                    dictionary.normalized_keys()
                };
                Texts::Indexed(keys, Box::new(Self::of(Some(dictionary.values()), &[])))
            }
            DataType::Null => Texts::Missing,
            _ => Texts::Other,
        };
        Self { nulls, texts }
    }

    /// Returns the field in `row`.
    pub(super) fn at(&self, row: usize) -> Found<'_> {
        if self.nulls.iter().any(|nulls| nulls.is_null(row)) {
            return Found::Nothing;
        }
        match &self.texts {
            Texts::Small(texts) => Found::Text(texts.value(row)),
            Texts::Large(texts) => Found::Text(texts.value(row)),
            Texts::View(texts) => Found::Text(texts.value(row)),
            Texts::Indexed(keys, texts) => texts.at(keys[row]),
            Texts::Missing => Found::Nothing,
            Texts::Other => Found::Other,
        }
    }
}
