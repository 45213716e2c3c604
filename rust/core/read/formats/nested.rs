//! Reads objects inside objects of JSON: the records of a path such as `data[].paragraphs[]`.
//!
//! A record has its own fields and those of the objects around it. Where a file is one object, its
//! outermost list is read one element at a time. Memory is bounded by [`MAX_LINE`] for an element,
//! and for all that is around the list.

use std::ops::Range;
use std::sync::Arc;

use super::json_array::Elements;
use super::nested_file::{Around, enter};
use crate::error::Result;
use crate::read::content::Content;
use crate::read::encoding::Encoding;
use crate::read::json::{Fields, Member, Value, members, next_item, value_in};
use crate::read::json_slots::fill_value;
use crate::read::lines::{Line, Lines, MAX_LINE};
use crate::read::needed::{Needed, Room};
use crate::read::record::{Reader, malformed, utf8};
use crate::read::request::Request;
use crate::read::slots::{FieldTree, Node, Slots};
use crate::schema::Refusal;
use crate::storage::BOM;

/// The most names of a path.
const MAX_STEPS: usize = 16;

/// A name on the way to the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::read) struct Step {
    pub(super) name: String,
    /// Whether the field is a list, each of whose objects is meant.
    is_list: bool,
}

/// Returns the steps of a path; an error in words for a text that is none.
pub(in crate::read) fn steps_of(path: &str) -> std::result::Result<Vec<Step>, &'static str> {
    let step = |part: &str| {
        let name = part.strip_suffix("[]");
        Step { name: name.unwrap_or(part).trim().to_owned(), is_list: name.is_some() }
    };
    // Where a file is an array, its elements may be named.
    let steps: Vec<Step> = path.strip_prefix("[].").unwrap_or(path).split('.').map(step).collect();
    if steps.iter().any(|step| step.name.is_empty() || step.name.contains(['[', ']'])) {
        return Err("a part of it is no name");
    }
    if !steps.iter().any(|step| step.is_list) {
        return Err("it names no list");
    }
    if steps.len() > MAX_STEPS {
        return Err("it is longer than 16 names");
    }
    Ok(steps)
}

/// A cursor over the objects at the end of a path.
pub(super) struct NestedReader {
    base: Base,
    steps: Vec<Step>,
    /// The fields around the outermost list of the file.
    around: Fields,
    needed: Needed,
    /// The fields that templates show, if slots are filled.
    wanted: Option<Arc<FieldTree>>,
    /// The encoding of the file, if it is not UTF-8.
    encoding: Option<Encoding>,
    /// The element at hand, and the offset of its first byte in the content.
    element: String,
    start: u64,
    /// The lists that are being read, the innermost last.
    lists: Vec<List>,
    /// The fields of the objects around the record, the outermost first, without those that lead to
    /// it.
    levels: Vec<Vec<Member>>,
    record: Nested,
}

/// The objects in which a file holds its records.
enum Base {
    /// Lines, and the length of the mark before the first.
    Lines(Lines, usize),
    Elements(Elements),
}

/// A list in the element at hand, some of whose objects are read.
struct List {
    /// The place after the last object that was read.
    at: usize,
    /// The number of steps that led to it, the last of which is its name.
    depth: usize,
    /// The number of objects around it.
    levels: usize,
}

/// A record, or a place where one is missing.
struct Nested {
    /// The place of its first byte in the element.
    at: usize,
    bytes: usize,
    /// The places of its own fields, or its fault in words.
    fields: std::result::Result<Vec<Member>, String>,
}

impl NestedReader {
    /// Opens the records below the lines of a file.
    pub(super) fn of_lines(request: &Request<'_>, steps: Vec<Step>) -> Result<Box<dyn Reader>> {
        let range = &request.range;
        let mut mark = 0;
        if range.start == 0 {
            let mut content = Content::open(request, 0)?;
            content.skip_bom()?;
            mark = content.offset() as usize;
            debug_assert!(mark <= BOM.len());
        }
        let lines = Lines::open(request, range.clone())?;
        Ok(Self::boxed(Base::Lines(lines, mark), steps, Fields::new(), request))
    }

    /// Opens the records below the elements of a file that is an array, or one object.
    pub(super) fn of_file(request: &Request<'_>, mut steps: Vec<Step>) -> Result<Box<dyn Reader>> {
        let open = || -> Result<Elements> {
            let mut content = Content::open(request, 0)?;
            content.skip_bom()?;
            Ok(Elements::new(content))
        };
        let mut elements = open()?;
        if elements.next_byte()? != Some(b'{') {
            elements.begin_array()?;
            return Ok(Self::boxed(Base::Elements(elements), steps, Fields::new(), request));
        }
        // What is around the list may come after it: the whole file is read once before.
        let first_list = steps.iter().position(|step| step.is_list).unwrap_or_default();
        let rest = steps.split_off(first_list + 1);
        let mut around = Around::of(request.needed, steps.len());
        if !enter(&mut elements, &steps, Some((&mut around, 0)))? {
            let path: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
            return Err(elements
                .fault(&format!("has no list '{}'", path.join(".")))
                .remedy("write the path to its records: records = \"data[].paragraphs[]\""));
        }
        if elements.next_byte()?.is_some() {
            return Err(elements.fault("goes on after the end of its object").remedy(
                "say format = \"jsonl\" in its source if each line is an object of its own",
            ));
        }
        let mut elements = open()?;
        elements.next_byte()?;
        enter(&mut elements, &steps, None)?;
        elements.ends_inside();
        Ok(Self::boxed(Base::Elements(elements), rest, around.fields(), request))
    }

    /// Returns a cursor before the first record.
    fn boxed(
        base: Base,
        steps: Vec<Step>,
        around: Fields,
        request: &Request<'_>,
    ) -> Box<dyn Reader> {
        Box::new(Self {
            base,
            steps,
            around,
            needed: request.needed.clone(),
            wanted: request.wanted.cloned(),
            encoding: request.options.encoding,
            element: String::new(),
            start: 0,
            lists: Vec::new(),
            levels: Vec::new(),
            record: Nested { at: 0, bytes: 0, fields: Ok(Vec::new()) },
        })
    }

    /// Goes to the next element. Returns whether it is a place where records are missing; `None` after
    /// the last one.
    fn next_element(&mut self) -> Result<Option<bool>> {
        self.element.clear();
        self.levels.clear();
        let has_more = match &mut self.base {
            Base::Lines(lines, _) => lines.step()?,
            Base::Elements(elements) => elements.advance()?,
        };
        if !has_more {
            return Ok(None);
        }
        let (start, bytes) = match &self.base {
            Base::Lines(lines, mark) => match lines.current() {
                (offset, Line::TooLong) => (offset, None),
                (0, Line::Text(line)) => (*mark as u64, Some(line)),
                (offset, Line::Text(line)) => (offset, Some(line)),
            },
            Base::Elements(elements) => (elements.offset(), elements.element()),
        };
        self.start = start;
        let (span, why) = match bytes.map(|bytes| (bytes.len(), utf8(bytes, self.encoding))) {
            Some((_, Ok(text))) => {
                self.element.push_str(text);
                return Ok(Some(false));
            }
            Some((bytes, Err(refusal))) => (0..bytes, refusal.why),
            None => (0..0, format!("longer than {} MiB", MAX_LINE >> 20)),
        };
        Ok(Some(self.miss(span, why)))
    }

    /// Finds the first record at the end of the steps after `depth` in the object at `span`. Returns
    /// whether there is one, or a place where one is missing; else it is in the list found.
    fn find(&mut self, span: Range<usize>, depth: usize) -> bool {
        let name = self.steps.get(depth).map(|step| step.name.as_str());
        // An element of an array may have white space before it.
        let mut members = match members(&self.element[span.clone()], &self.needed, name) {
            Ok(members) => members,
            Err(why) => return self.miss(span, why),
        };
        for (_, value) in &mut members {
            *value = value.start + span.start..value.end + span.start;
        }
        let Some(Step { name, is_list }) = self.steps.get(depth).cloned() else {
            self.record = Nested { at: span.start, bytes: span.len(), fields: Ok(members) };
            return true;
        };
        let (inner, own): (Vec<Member>, Vec<Member>) =
            members.into_iter().partition(|member| member.0 == name);
        self.levels.push(own);
        // Of a name that comes twice, the last value counts.
        let Some((_, inside)) = inner.into_iter().last() else {
            return self.miss(span, format!("has no field '{name}'"));
        };
        match self.element.as_bytes()[inside.start] {
            b'{' if !is_list => self.find(inside, depth + 1),
            b'[' if is_list => {
                let levels = self.levels.len();
                self.lists.push(List { at: inside.start, depth: depth + 1, levels });
                false
            }
            _ => {
                let wanted = if is_list { "list" } else { "object" };
                self.miss(span, format!("field '{name}' is no {wanted}"))
            }
        }
    }

    /// Goes to a place where a record is missing.
    fn miss(&mut self, span: Range<usize>, why: String) -> bool {
        self.record = Nested { at: span.start, bytes: span.len(), fields: Err(why) };
        true
    }

    /// Fills the slots of the field `name` of the record, if it has one.
    fn fill_field<'a>(&'a self, name: &str, node: &Node, slots: &mut Slots<'a>) -> bool {
        let own = self.record.fields.iter().flatten().rev();
        let outer = self.levels.iter().rev().flat_map(|level| level.iter().rev());
        if let Some((_, span)) = own.chain(outer).find(|member| member.0 == name) {
            return fill_value(node, &self.element[span.clone()], slots);
        }
        match (self.around.get(name), node.slot) {
            (None, _) => true,
            (Some(Value::String(text)), Some(slot)) => {
                slots[slot] = Some(text.as_str().into());
                true
            }
            _ => false,
        }
    }

    /// Goes to the next record of the innermost list. Returns whether there is one; else the list
    /// ended, or another one was found in it.
    fn next_in_list(&mut self) -> bool {
        let Some(list) = self.lists.last_mut() else { return false };
        let (depth, levels) = (list.depth, list.levels);
        let Some(item) = next_item(&self.element, &mut list.at) else {
            self.lists.pop();
            return false;
        };
        self.levels.truncate(levels);
        if self.element.as_bytes()[item.start] == b'{' {
            return self.find(item, depth);
        }
        let name = &self.steps[depth - 1].name;
        let why = format!("an element of '{name}' is no object");
        self.miss(item, why)
    }
}

impl Reader for NestedReader {
    fn advance(&mut self) -> Result<bool> {
        loop {
            if !self.lists.is_empty() {
                if self.next_in_list() {
                    return Ok(true);
                }
                continue;
            }
            match self.next_element()? {
                None => return Ok(false),
                Some(true) => return Ok(true),
                Some(false) => {}
            }
            let is_line = matches!(self.base, Base::Lines(..));
            let is_blank = is_line && self.element.bytes().all(|byte| byte.is_ascii_whitespace());
            if !is_blank && self.find(0..self.element.len(), 0) {
                return Ok(true);
            }
        }
    }

    fn offset(&self) -> u64 {
        self.start + self.record.at as u64
    }

    fn bytes(&self) -> usize {
        self.record.bytes
    }

    fn fill<'a>(&'a self, slots: &mut Slots<'a>) -> bool {
        let Some(wanted) = &self.wanted else { return false };
        let mut wanted = wanted.root().children.iter();
        self.record.fields.is_ok() && wanted.all(|(name, node)| self.fill_field(name, node, slots))
    }

    /// An inner field takes the place of an outer one of the same name.
    fn fields(&self) -> std::result::Result<Fields, Refusal> {
        let own = self.record.fields.as_ref().map_err(|why| malformed(why.clone()))?;
        let (mut fields, mut room) = (self.around.clone(), Room::new());
        for (name, span) in self.levels.iter().flatten().chain(own) {
            room.enter(self.needed.has(name));
            let begun = room.begin().map_err(malformed)?;
            let value = value_in(&self.element[span.clone()], &mut room).map_err(malformed)?;
            if room.keeps(&begun) {
                fields.insert(name.clone(), value);
            }
        }
        Ok(fields)
    }
}
