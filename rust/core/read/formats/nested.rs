//! Reads objects inside objects of JSON: the records of a path such as `data[].paragraphs[]`.
//!
//! A record has its own fields and those of the objects around it. Where a file is one object, its
//! outermost list is read one element at a time. Memory is bounded by [`MAX_LINE`] for an element,
//! and for all that is around the list.

use super::json_array::Elements;
use crate::error::{Error, Result};
use crate::read::content::Content;
use crate::read::encoding::Encoding;
use crate::read::format::Request;
use crate::read::json::{Fields, Member, Value, items, members, parse_object};
use crate::read::lines::{Line, Lines, MAX_LINE};
use crate::read::record::{Reader, malformed, utf8};
use crate::read::slots::Slots;
use crate::schema::Refusal;
use crate::storage::BOM;

/// The most names of a path.
const MAX_STEPS: usize = 16;

/// A name on the way to the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::read) struct Step {
    name: String,
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
    /// The encoding of the file, if it is not UTF-8.
    encoding: Option<Encoding>,
    /// The objects around the records of the element at hand.
    levels: Vec<Level>,
    /// The records of the element at hand.
    found: Vec<Nested>,
    /// The index of the record after the one at hand.
    next: usize,
}

/// The objects in which a file holds its records.
enum Base {
    /// Lines, and the length of the mark before the first.
    Lines(Lines, usize),
    Elements(Elements),
}

/// An object around records, without the field that leads to them.
struct Level {
    fields: Fields,
    parent: Option<usize>,
}

/// A record, or a place where one is missing.
struct Nested {
    /// The offset of its first byte in the content.
    offset: u64,
    bytes: usize,
    /// The index of the object around it.
    level: Option<usize>,
    /// Its own fields, or its fault in words.
    fields: std::result::Result<Fields, String>,
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
        let mut around = vec![Fields::new(); steps.len()];
        if !enter(&mut elements, &steps, Some(&mut around))? {
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
        let around = around.into_iter().flatten().collect();
        Ok(Self::boxed(Base::Elements(elements), rest, around, request))
    }

    /// Returns a cursor before the first record.
    fn boxed(
        base: Base,
        steps: Vec<Step>,
        around: Fields,
        request: &Request<'_>,
    ) -> Box<dyn Reader> {
        let (levels, found) = (Vec::new(), Vec::new());
        let encoding = request.options.encoding;
        Box::new(Self { base, steps, around, encoding, levels, found, next: 0 })
    }

    /// Finds the records of the next element. Returns `false` after the last element.
    fn find_more(&mut self) -> Result<bool> {
        self.levels.clear();
        self.found.clear();
        self.next = 0;
        let has_more = match &mut self.base {
            Base::Lines(lines, _) => lines.step()?,
            Base::Elements(elements) => elements.advance()?,
        };
        if !has_more {
            return Ok(false);
        }
        let (offset, bytes) = match &self.base {
            Base::Lines(lines, mark) => match lines.current() {
                (offset, Line::TooLong) => (offset, None),
                (0, Line::Text(line)) => (*mark as u64, Some(line)),
                (offset, Line::Text(line)) => (offset, Some(line)),
            },
            Base::Elements(elements) => (elements.offset(), elements.element()),
        };
        let is_line = matches!(self.base, Base::Lines(..));
        let mut finder = Finder { levels: &mut self.levels, found: &mut self.found };
        match bytes {
            Some(bytes) if is_line && bytes.iter().all(u8::is_ascii_whitespace) => {}
            Some(bytes) => match utf8(bytes, self.encoding) {
                Ok(text) => finder.find(text, offset, &self.steps, None),
                Err(refusal) => finder.miss(offset, bytes.len(), None, refusal.why),
            },
            None => finder.miss(offset, 0, None, format!("longer than {} MiB", MAX_LINE >> 20)),
        }
        Ok(true)
    }

    /// Returns the record at hand.
    fn record(&self) -> &Nested {
        &self.found[self.next - 1]
    }
}

impl Reader for NestedReader {
    fn advance(&mut self) -> Result<bool> {
        while self.next == self.found.len() {
            if !self.find_more()? {
                return Ok(false);
            }
        }
        self.next += 1;
        Ok(true)
    }

    fn offset(&self) -> u64 {
        self.record().offset
    }

    fn bytes(&self) -> usize {
        self.record().bytes
    }

    fn fill<'a>(&'a self, _: &mut Slots<'a>) -> bool {
        false
    }

    /// An inner field takes the place of an outer one of the same name.
    fn fields(&self) -> std::result::Result<Fields, Refusal> {
        let record = self.record();
        let own = record.fields.as_ref().map_err(|why| malformed(why.clone()))?;
        let (mut chain, mut level) = (vec![own], record.level);
        while let Some(index) = level {
            chain.push(&self.levels[index].fields);
            level = self.levels[index].parent;
        }
        let mut fields = self.around.clone();
        for outer in chain.into_iter().rev() {
            fields.extend(outer.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        Ok(fields)
    }
}

/// Finds the records of an element.
struct Finder<'a> {
    levels: &'a mut Vec<Level>,
    found: &'a mut Vec<Nested>,
}

impl Finder<'_> {
    /// Finds the records at the end of `steps` in the object `text`, which begins at `offset`.
    fn find(&mut self, text: &str, offset: u64, steps: &[Step], level: Option<usize>) {
        // An element of an array may have white space before it.
        let members = match members(text) {
            Ok(members) => members,
            Err(why) => return self.miss(offset, text.len(), level, why),
        };
        let named = |members: Vec<Member>| {
            members.into_iter().map(|Member { name, value, .. }| (name, value)).collect()
        };
        let Some((step, rest)) = steps.split_first() else {
            let fields = Ok(named(members));
            return self.found.push(Nested { offset, bytes: text.len(), level, fields });
        };
        let (inner, own): (Vec<Member>, Vec<Member>) =
            members.into_iter().partition(|member| member.name == step.name);
        self.levels.push(Level { fields: named(own), parent: level });
        let level = Some(self.levels.len() - 1);
        let Step { name, is_list } = step;
        // Of a name that comes twice, the last value counts.
        let Some(Member { span, value, .. }) = inner.into_iter().last() else {
            return self.miss(offset, text.len(), level, format!("has no field '{name}'"));
        };
        let (start, inside) = (offset + span.start as u64, &text[span]);
        match value {
            Value::Object(_) if !is_list => self.find(inside, start, rest, level),
            Value::Array(_) if *is_list => {
                for (span, value) in items(inside) {
                    let (start, item) = (start + span.start as u64, &inside[span]);
                    if matches!(value, Value::Object(_)) {
                        self.find(item, start, rest, level);
                    } else {
                        let why = format!("an element of '{name}' is no object");
                        self.miss(start, item.len(), level, why);
                    }
                }
            }
            _ => {
                let wanted = if *is_list { "list" } else { "object" };
                self.miss(offset, text.len(), level, format!("field '{name}' is no {wanted}"));
            }
        }
    }

    /// Adds a malformed record.
    fn miss(&mut self, offset: u64, bytes: usize, level: Option<usize>, why: String) {
        self.found.push(Nested { offset, bytes, level, fields: Err(why) });
    }
}

/// Moves into the object that comes next, up to the list at the end of `steps`. Returns whether
/// there is such a list.
///
/// With `around`, it moves past the whole object instead, and adds the fields of each object on the
/// way to its own entry of `around`.
fn enter(
    elements: &mut Elements,
    steps: &[Step],
    mut around: Option<&mut [Fields]>,
) -> Result<bool> {
    elements.consume();
    let (mut found, mut kept) = (false, 0);
    if elements.next_byte()? == Some(b'}') {
        elements.consume();
        return Ok(false);
    }
    loop {
        let name = read_name(elements)?;
        let first = elements.next_byte()?;
        if !found && name == steps[0].name {
            let wanted = if steps.len() == 1 { b'[' } else { b'{' };
            if first != Some(wanted) {
                let wanted = if steps.len() == 1 { "list" } else { "object" };
                return Err(not_json(elements, &format!("its field '{name}' is no {wanted}")));
            }
            found = true;
            match &mut around {
                None if steps.len() == 1 => {
                    elements.consume();
                    return Ok(true);
                }
                None => return enter(elements, &steps[1..], None),
                Some(_) if steps.len() == 1 => {
                    elements.read_element(b'}')?;
                    // Only the end of the list is looked at here; its elements are read later.
                    let is_list = elements.last_byte() == Some(b']');
                    if !is_list {
                        return Err(not_json(elements, "is not JSON: expected `,` or `}`"));
                    }
                }
                Some(around) => found = enter(elements, &steps[1..], Some(&mut around[1..]))?,
            }
        } else {
            elements.read_element(b'}')?;
            if let Some(around) = &mut around {
                kept += elements.bytes();
                let text = elements.element().filter(|_| kept <= MAX_LINE);
                let Some(text) = text else {
                    let what = format!("holds more than {} MiB around its list", MAX_LINE >> 20);
                    return Err(not_json(elements, &what));
                };
                let value = value_of(text).map_err(|why| {
                    not_json(elements, &format!("its field '{name}' cannot be read: {why}"))
                })?;
                around[0].insert(name, value);
            }
        }
        let end = elements.next_byte()?;
        elements.consume();
        match end {
            Some(b',') => {
                elements.next_byte()?;
            }
            Some(b'}') => return Ok(found),
            None => return Err(elements.unfinished()),
            Some(_) => return Err(not_json(elements, "is not JSON: expected `,` or `}`")),
        }
    }
}

/// Reads the name of a field and its colon.
fn read_name(elements: &mut Elements) -> Result<String> {
    elements.read_element(b':')?;
    let name = elements.element().and_then(|name| {
        let text = format!("{{{}:null}}", std::str::from_utf8(name).ok()?);
        parse_object(&text).ok()?.into_iter().next().map(|(name, _)| name)
    });
    if elements.next_byte()? != Some(b':') {
        return Err(not_json(elements, "is not JSON: expected a field's name in quotes and `:`"));
    }
    elements.consume();
    // A name with a lone surrogate is no text, and names nothing that is looked for.
    Ok(name.unwrap_or_default())
}

/// Returns the value that a text of JSON holds.
fn value_of(text: &[u8]) -> std::result::Result<Value, String> {
    let text = std::str::from_utf8(text).map_err(|_| "not UTF-8".to_owned())?;
    let mut fields = parse_object(&format!("{{\"v\":{text}}}"))?;
    Ok(fields.swap_remove("v").unwrap_or(Value::Null))
}

/// Returns the error of a file whose object cannot be read.
fn not_json(elements: &Elements, what: &str) -> Error {
    elements.fault(what).remedy("mend the file, or write another path in `records`")
}
