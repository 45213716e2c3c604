//! `Exploded`: a document for each element of a list, `each = "answers"`.
//!
//! A builder over any other: it adds the element to the fields as `item` and lets the other one
//! build. An element that gives no document is left out of its record, and counted.

use super::several::make_each;
use super::{Each, Fields, Rendered, SegmentBuilder, Step, value_at, value_at_mut};
use crate::error::{Error, Result};
use crate::plan::{ITEM, Source};
use crate::read::{Needed, Value, field_path};
use crate::schema::{DropReason, MAX_PARTS, Refusal};

/// A builder that makes a document of each element of a list.
#[derive(Debug)]
pub(super) struct Exploded {
    inner: Box<dyn SegmentBuilder>,
    /// The path of the list.
    list: Vec<String>,
    /// The fields that the inner builder may read, and that of the list.
    needed: Needed,
}

impl Exploded {
    /// Returns `inner` for each element of the list at `each` of a source.
    pub(super) fn over(
        inner: Box<dyn SegmentBuilder>,
        source: &Source,
        each: &str,
    ) -> Result<Self> {
        let list = field_path(each).ok_or_else(|| {
            Error::config(format!("each = {each:?} is no field"))
                .source(source.name.clone())
                .remedy("name a field that holds a list: each = \"answers\" or \"data.answers\"")
        })?;
        let needed = inner.needed().and(&Needed::of(list.first().cloned()));
        Ok(Self { inner, list, needed })
    }

    /// Returns the elements of the list. Refuses a record without any, or with too many.
    fn items<'a>(&self, fields: &'a Fields) -> std::result::Result<&'a [Value], Refusal> {
        let name = self.name();
        let items = match value_at(fields, &self.list) {
            Some(Value::Array(items)) => items,
            Some(_) => {
                let why = format!("`{name}` is no list, and `each` takes it apart");
                return Err(Refusal::new(DropReason::Malformed, why));
            }
            None => {
                let why = format!("`{name}` is missing or null");
                return Err(Refusal::new(DropReason::MissingField, why));
            }
        };
        match items.len() {
            0 => Err(Refusal::new(DropReason::NotChosen, format!("the list `{name}` is empty"))),
            count if count > MAX_PARTS as usize => {
                let why = format!("the list `{name}` has {count} elements, at most {MAX_PARTS}");
                Err(Refusal::new(DropReason::TooManyDocuments, why))
            }
            _ => Ok(items),
        }
    }

    /// Returns the path of the list, as it is written.
    fn name(&self) -> String {
        self.list.join(".")
    }

    /// Returns the paths that the inner builder names for each element, as paths of the record.
    fn paths(
        &self,
        fields: &Fields,
        paths_of: impl Fn(&Fields) -> Vec<Vec<Step>>,
    ) -> Vec<Vec<Step>> {
        let Ok(items) = self.items(fields) else { return Vec::new() };
        let (mut fields, mut paths) = (fields.clone(), Vec::new());
        for (nth, item) in items.iter().enumerate() {
            fields.insert(ITEM.to_owned(), item.clone());
            for path in paths_of(&fields) {
                let path = self.in_record(path, nth);
                if !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
        paths
    }

    /// Returns the fields of an element alone, which the ways that have units read.
    fn alone(item: &Value) -> Fields {
        [(ITEM.to_owned(), item.clone())].into_iter().collect()
    }

    /// Returns a path below `item` as one below the element `nth` of the list; others as they are.
    fn in_record(&self, path: Vec<Step>, nth: usize) -> Vec<Step> {
        if path.first() != Some(&Step::Key(ITEM.to_owned())) {
            return path;
        }
        let list = self.list.iter().cloned().map(Step::Key).chain([Step::Index(nth)]);
        list.chain(path.into_iter().skip(1)).collect()
    }
}

impl SegmentBuilder for Exploded {
    fn build(
        &self,
        fields: &Fields,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> std::result::Result<(), Refusal> {
        let items = self.items(fields)?;
        let mut fields = fields.clone();
        let make = |nth: usize, rendered: &mut Rendered| {
            fields.insert(ITEM.to_owned(), items[nth].clone());
            rendered.way.element = Some(nth);
            self.inner.build(&fields, rendered, each)
        };
        make_each(items.len(), rendered, make, |nth| format!("element {}", nth + 1))
    }

    fn needed(&self) -> &Needed {
        &self.needed
    }

    fn shown_fields(&self, fields: &Fields) -> Vec<Vec<Step>> {
        self.paths(fields, |fields| self.inner.shown_fields(fields))
    }

    fn shortenable_fields(&self, fields: &Fields) -> Vec<Vec<Step>> {
        self.paths(fields, |fields| self.inner.shortenable_fields(fields))
    }

    fn units(&self, fields: &Fields) -> Option<Vec<usize>> {
        let units_of = |item: &Value| self.inner.units(&Self::alone(item)).map(|it| it[0]);
        self.items(fields).ok()?.iter().map(units_of).collect()
    }

    fn without_units(&self, fields: &Fields, counts: &[usize]) -> Option<Fields> {
        let mut items = self.items(fields).ok()?.to_vec();
        for (item, &count) in items.iter_mut().zip(counts).filter(|(_, count)| **count > 0) {
            let mut shorter = self.inner.without_units(&Self::alone(item), &[count])?;
            *item = shorter.swap_remove(ITEM)?;
        }
        let mut fields = fields.clone();
        let path: Vec<Step> = self.list.iter().cloned().map(Step::Key).collect();
        *value_at_mut(&mut fields, &path)? = Value::Array(items);
        Some(fields)
    }

    fn named_fields(&self) -> Vec<Vec<Step>> {
        let mut paths = self.inner.named_fields();
        paths.retain(|path| path.first() != Some(&Step::Key(ITEM.to_owned())));
        paths.insert(0, self.list.iter().cloned().map(Step::Key).collect());
        paths
    }

    fn unmarked(&self) -> u64 {
        self.inner.unmarked()
    }
}
