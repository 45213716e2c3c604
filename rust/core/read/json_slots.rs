//! Reads JSON into slots: the texts of wanted fields, without a tree of values in between.
//!
//! An unusual record (another kind of value, a key that comes twice, text that is not JSON) is left
//! to [`parse_object`](super::json::parse_object), which names the fault; so the two differ in
//! speed alone. Values that no template shows are read just as strictly.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::slots::{FieldTree, Node, Slots};

/// Fills the slots of the wanted fields of a JSON object. Returns `false` if the record is left to
/// the fields path.
pub(super) fn fill_from_json<'a>(wanted: &FieldTree, text: &'a str, slots: &mut Slots<'a>) -> bool {
    let mut json = serde_json::Deserializer::from_str(text);
    let mut seen = 0;
    Object { node: wanted.root(), slots, seen: &mut seen }
        .deserialize(&mut json)
        .and_then(|()| json.end())
        .is_ok()
}

/// Fills the slots of `node` with the value of its field. Returns `false` as [`fill_from_json`] does.
pub(super) fn fill_value<'a>(node: &Node, text: &'a str, slots: &mut Slots<'a>) -> bool {
    let mut json = serde_json::Deserializer::from_str(text);
    Object { node, slots, seen: &mut 0 }.deserialize(&mut json).and_then(|()| json.end()).is_ok()
}

/// Reads an object into slots.
struct Object<'n, 's, 'de> {
    node: &'n Node,
    slots: &'s mut Slots<'de>,
    /// A bit for each node that was met.
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
    /// Puts the text of the field into its slot.
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
        Ok(self.0.child(text))
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
