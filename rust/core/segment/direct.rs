//! The direct path: from a line to text, without a tree of values in between.
//!
//! Where all templates of a source only substitute fields, and the fields are text, their text is
//! borrowed from the line. Whatever is not so (another kind of value, a missing field, a key that
//! comes twice, a line that is malformed) is left to the path by way of [`Fields`](super::Fields),
//! which says what is wrong with it; so the two cannot differ but in speed. JSON is read by the
//! same parser, values that no template shows included.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::compiled::{Part, Template, in_record};
use super::{RECORD, Rendered, is_target_text};
use crate::read::Layout;
use crate::schema::{Format, Role};

/// Fields that templates may show on this path.
const MAX_SLOTS: usize = 16;

/// The templates of a source with each field as a slot.
#[derive(Debug)]
pub struct Direct {
    segments: Vec<(bool, Vec<Piece>)>,
    root: Node,
    /// Whether a template names the record: one with a field of that name is left to the other
    /// path.
    names_record: bool,
}

#[derive(Debug)]
enum Piece {
    Literal(String),
    Slot(usize),
}

/// What is wanted of an object.
#[derive(Debug, Default)]
struct Node {
    /// Its place among all nodes.
    number: usize,
    children: Vec<(String, Node)>,
    slot: Option<usize>,
}

type Slots<'a> = [Option<Cow<'a, str>>; MAX_SLOTS];

/// Where the slots are in the lines of one input.
#[derive(Debug)]
pub struct Binding {
    format: Format,
    /// The slot of each column of a TSV; none where lines are left to the other path.
    columns: Option<Vec<Option<usize>>>,
}

impl Direct {
    /// The direct path of `segments`, if they are short enough.
    #[must_use]
    pub fn new(segments: &[(bool, &Template)]) -> Option<Self> {
        let mut root = Node::default();
        let (mut nodes, mut slots) = (1, 0);
        let mut compiled = Vec::new();
        let is_record =
            |part: &Part| matches!(part, Part::Field(path) if in_record(path).is_some());
        let names_record =
            segments.iter().any(|(_, template)| template.parts.iter().any(is_record));
        if names_record {
            // A node without slot or children refuses whatever it is given.
            root.children.push((RECORD.to_owned(), Node { number: nodes, ..Node::default() }));
            nodes += 1;
        }
        for (is_target, template) in segments {
            let mut pieces = Vec::new();
            for part in &template.parts {
                pieces.push(match part {
                    Part::Literal(text) => Piece::Literal(text.clone()),
                    Part::Field(path) => {
                        let path = in_record(path).unwrap_or(path);
                        Piece::Slot(root.slot_of(path, &mut nodes, &mut slots)?)
                    }
                });
            }
            compiled.push((*is_target, pieces));
        }
        (nodes <= 64 && slots <= MAX_SLOTS).then_some(Self {
            segments: compiled,
            root,
            names_record,
        })
    }

    /// Where its slots are in lines of `layout`.
    #[must_use]
    pub fn bind(&self, layout: &Layout) -> Binding {
        let slot_of = |name: &String| {
            let (_, node) = self.root.children.iter().find(|(key, _)| key == name)?;
            node.slot
        };
        let is_known = !(self.names_record && layout.header.iter().any(|name| name == RECORD));
        let columns = is_known.then(|| layout.header.iter().map(slot_of).collect());
        Binding { format: layout.format, columns }
    }

    /// Renders a line into `out`, whose old content is dropped; `false` where it is left to the
    /// other path.
    pub fn render(&self, binding: &Binding, line: &[u8], out: &mut Rendered) -> bool {
        let Ok(text) = std::str::from_utf8(line) else { return false };
        let mut slots: Slots<'_> = Default::default();
        let filled = match binding.format {
            Format::Jsonl => {
                let mut json = serde_json::Deserializer::from_str(text);
                let mut seen = 0;
                Object { node: &self.root, slots: &mut slots, seen: &mut seen }
                    .deserialize(&mut json)
                    .and_then(|()| json.end())
                    .is_ok()
            }
            Format::Tsv => binding
                .columns
                .as_ref()
                .is_some_and(|columns| fill_columns(columns, text, &mut slots)),
            Format::Text => {
                if let Some((_, node)) = self.root.children.iter().find(|(key, _)| key == "text")
                    && let Some(slot) = node.slot
                {
                    slots[slot] = Some(text.into());
                }
                true
            }
        };
        filled && self.fill(&slots, out).is_some()
    }

    /// The text of a record; nothing where a field is missing or a target empty.
    fn fill(&self, slots: &Slots<'_>, out: &mut Rendered) -> Option<()> {
        out.clear();
        let mut any_target = false;
        for (is_target, pieces) in &self.segments {
            let (literal_role, data_role) = if *is_target {
                (Role::Target, Role::Target)
            } else {
                (Role::Template, Role::Data)
            };
            let start = out.text.len();
            let (mut has_data, mut blank) = (false, true);
            for piece in pieces {
                match piece {
                    Piece::Literal(text) => out.push(text, literal_role, true),
                    Piece::Slot(slot) => {
                        let text = slots[*slot].as_deref()?;
                        out.push(text, data_role, false);
                        has_data = true;
                        blank = blank && text.trim().is_empty();
                    }
                }
            }
            if *is_target {
                if has_data && blank {
                    return None;
                }
                any_target |= is_target_text(&out.text[start..]);
            }
        }
        any_target.then_some(())
    }
}

/// The fields of a line of a TSV; `false` if there are not as many as columns.
fn fill_columns<'a>(columns: &[Option<usize>], text: &'a str, slots: &mut Slots<'a>) -> bool {
    let mut fields = text.split('\t');
    for slot in columns {
        let Some(field) = fields.next() else { return false };
        if let Some(slot) = slot {
            slots[*slot] = Some(field.into());
        }
    }
    fields.next().is_none()
}

impl Node {
    /// The slot of the field at `path`; nothing where one field is both text and an object.
    fn slot_of(&mut self, path: &[String], nodes: &mut usize, slots: &mut usize) -> Option<usize> {
        let Some((name, rest)) = path.split_first() else {
            if !self.children.is_empty() {
                return None;
            }
            if self.slot.is_none() {
                self.slot = Some(*slots);
                *slots += 1;
            }
            return self.slot;
        };
        if self.slot.is_some() {
            return None;
        }
        let at = self.children.iter().position(|(key, _)| key == name).unwrap_or_else(|| {
            self.children.push((name.clone(), Node { number: *nodes, ..Node::default() }));
            *nodes += 1;
            self.children.len() - 1
        });
        self.children[at].1.slot_of(rest, nodes, slots)
    }
}

/// Reads an object into slots.
struct Object<'n, 's, 'de> {
    node: &'n Node,
    slots: &'s mut Slots<'de>,
    /// A bit for each node that was come upon.
    seen: &'s mut u64,
}

impl<'de> DeserializeSeed<'de> for Object<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, or an object that holds it")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<(), E> {
        self.put(text.into())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.put(text.to_owned().into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.node.slot.is_some() || self.node.children.is_empty() {
            return Err(A::Error::custom("an object where text is wanted"));
        }
        while let Some(wanted) = map.next_key_seed(Key(self.node))? {
            let Some(node) = wanted else {
                map.next_value_seed(Skip)?;
                continue;
            };
            if *self.seen >> node.number & 1 == 1 {
                return Err(A::Error::custom("a key comes twice"));
            }
            *self.seen |= 1 << node.number;
            map.next_value_seed(Object { node, slots: self.slots, seen: self.seen })?;
        }
        Ok(())
    }
}

impl<'de> Object<'_, '_, 'de> {
    fn put<E: serde::de::Error>(self, text: Cow<'de, str>) -> Result<(), E> {
        let slot = self.node.slot.ok_or_else(|| E::custom("text where an object is wanted"))?;
        self.slots[slot] = Some(text);
        Ok(())
    }
}

/// Reads a key: the child of the node that has it.
struct Key<'n>(&'n Node);

impl<'n, 'de> DeserializeSeed<'de> for Key<'n> {
    type Value = Option<&'n Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'n> Visitor<'_> for Key<'n> {
    type Value = Option<&'n Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.0.children.iter().find(|(key, _)| key == text).map(|(_, node)| node))
    }
}

/// Reads a value as strictly as one that is kept, and drops it.
struct Skip;

impl<'de> DeserializeSeed<'de> for Skip {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skip {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Skip)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key_seed(Skip)?.is_some() {
            map.next_value_seed(Skip)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Segmenter;
    use super::*;
    use crate::plan::SegmentSpec;
    use crate::read::parse_line;
    use crate::segment::Controls;
    use proptest::prelude::*;

    fn segmenter() -> Segmenter {
        let prompt = |text: &str| SegmentSpec::Prompt(text.to_owned());
        let target = |text: &str| SegmentSpec::Target(text.to_owned());
        let segments = [
            prompt("<t> {{ a }}{{ b.c }}"),
            target(" {{ b.d }}"),
            prompt("{{ a }}?"),
            target("{{ text }} ."),
        ];
        Segmenter::of_segments(&segments, &Controls::new([]), &Vec::new()).unwrap()
    }

    fn agree(format: Format, header: &[&str], line: &[u8]) -> Result<bool, TestCaseError> {
        let segmenter = segmenter();
        let layout =
            Layout { format, header: header.iter().map(|&name| name.to_owned()).collect() };
        let direct = segmenter.direct().unwrap();
        let (mut fast, mut slow) = (Rendered::default(), Rendered::default());
        let rendered = direct.render(&direct.bind(&layout), line, &mut fast);
        let by_fields =
            parse_line(line, &layout).and_then(|fields| segmenter.render(&fields, &mut slow));
        if rendered {
            prop_assert!(by_fields.is_ok(), "{by_fields:?}");
            prop_assert_eq!(fast, slow);
        }
        Ok(rendered)
    }

    #[test]
    fn ordinary_lines_take_the_direct_path() {
        let json = br#"{"n": [1.5e3, null, {"x": "\u00e9"}], "a": "\u1ecd\ud83d\ude00", "b": {"d": "e", "c": ""}, "text": "t"}"#;
        assert!(agree(Format::Jsonl, &[], json).unwrap());
        let other = |line: &str| agree(Format::Jsonl, &[], line.as_bytes()).unwrap();
        for line in [
            r#"{"a": "x", "b": {"d": "e", "c": 1}, "text": "t"}"#,
            r#"{"a": "x", "b": {"d": "e", "c": "c"}, "text": "t", "a": "y"}"#,
            r#"{"a": "x", "b": {"c": "c"}, "text": "t", "b": {"d": "e"}}"#,
            r#"{"a": "x", "b": {"d": " ", "c": "c"}, "text": "t"}"#,
            r#"{"a": "x", "b": {"d": "e", "c": "c"}, "text": "t"} 1"#,
            r#"{"a": "x", "b": {"d": "e", "c": "c"}, "text": "t", "o": "\ud800"}"#,
            r#"{"a": "x", "b": {"d": "e", "c": "c"}, "text": "t", "o": 1e999}"#,
            r#"{"a": "x", "b": "b", "text": "t"}"#,
            r#"{"a": {}, "b": {"d": "e", "c": "c"}, "text": "t"}"#,
            "[]",
        ] {
            assert!(!other(line), "{line}");
        }
        assert!(!other(&format!(
            r#"{{"a": "x", "b": {{"d": "e", "c": "c"}}, "text": "t", "o": {}}}"#,
            "[".repeat(200) + &"]".repeat(200)
        )));
    }

    proptest! {
        #[test]
        fn json_lines_are_rendered_as_by_way_of_fields(
            values in prop::collection::vec(prop_oneof![
                "[a-zọ\u{301} \n\"\\\\]{0,5}".prop_map(serde_json::Value::from),
                any::<f64>().prop_map(serde_json::Value::from), Just(serde_json::Value::Null),
            ], 4),
            keys in prop::sample::subsequence(vec![0, 1, 2, 3], 2..=4), cut in prop::option::of(0usize..60),
        ) {
            let mut line = serde_json::Map::new();
            for key in keys {
                match key {
                    0 => { line.insert("a".to_owned(), values[0].clone()); }
                    1 => { line.insert("text".to_owned(), values[1].clone()); }
                    2 => { line.insert("b".to_owned(), serde_json::json!({"c": values[2], "d": values[3]})); }
                    _ => { line.insert("other".to_owned(), values[3].clone()); }
                }
            }
            let mut line = serde_json::to_vec(&line).unwrap();
            line.truncate(cut.unwrap_or(line.len()));
            agree(Format::Jsonl, &[], &line)?;
        }

        #[test]
        fn columns_are_rendered_as_by_way_of_fields(line in "[a-c\t ]{0,9}", bytes in prop::collection::vec(any::<u8>(), 0..9)) {
            for line in [line.as_bytes(), &bytes] {
                agree(Format::Tsv, &["a", "x", "text"], line)?;
                agree(Format::Text, &[], line)?;
            }
        }
    }
}
