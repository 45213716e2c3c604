//! Problems of the names that a source says: fields that templates, `lang`, `rename` or `literals` name.

use std::collections::BTreeSet;

use super::found::Found;
use super::problem::Severity;
use super::resolve::Bench;
use crate::plan::{Augment, ITEM, SegmentSpec, UNDETERMINED, code_of, nearest};
use crate::segment::{Step, names_in};

/// The most names that are listed.
const NAMED: usize = 12;

impl Found<'_> {
    /// Finds fields that templates name and no record has.
    pub(super) fn fields(&mut self, bench: &Bench) {
        let fields = &self.sampled.fields;
        if fields.records() == 0 || !fields.is_complete() {
            return;
        }
        let source = &self.plan.sources[self.index];
        let made = source.augment.as_ref().map_or(&[][..], Augment::fields);
        // The list that is taken apart, whose elements templates know as `item`.
        let list = source.each.clone().unwrap_or_default();
        let mut known = Vec::new();
        for path in bench.builder(self.index).named_fields() {
            let keys = path.iter().filter_map(|step| match step {
                Step::Key(key) => Some(key.as_str()),
                Step::Index(_) => None,
            });
            // Deeper fields than two are not counted.
            let name = keys.take(2).collect::<Vec<_>>().join(".");
            if fields.has(&name) {
                if name != list {
                    self.list(&name);
                }
                continue;
            }
            let near = nearest(&name, fields.names().chain(made.iter().copied()));
            let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
            let names: Vec<String> = fields.names().map(|name| format!("`{name}`")).collect();
            let near = self.other_delimiter().unwrap_or(near);
            let remedy = format!("{near}The fields are {}", names.join(", "));
            let what = format!("its templates name the field `{name}`, which {}", self.none_has());
            self.add(Severity::Error, "field", what, &remedy);
            known.push(name);
        }
        // Templates that do without a field may have its name wrong all the same.
        let templates = source.all_segments().map(SegmentSpec::template);
        let asked = templates.chain(source.when.as_deref()).flat_map(names_in);
        for name in asked.collect::<BTreeSet<String>>() {
            let is_made = !list.is_empty() && name == ITEM
                || source.augment.is_some() && (name == "text" || made.contains(&name.as_str()));
            let is_named = known.iter().any(|known| known.split('.').next() == Some(&name));
            if fields.has(&name) || is_named || is_made {
                continue;
            }
            let near = nearest(&name, fields.names());
            let remedy = near.map(|near| format!("did you mean `{near}`?")).unwrap_or_default();
            let what = format!("its templates ask for `{name}`, which {}", self.none_has());
            self.add(Severity::Warning, "field", what, &remedy);
        }
    }

    /// Returns the remedy for a table all of whose columns became one.
    fn other_delimiter(&self) -> Option<String> {
        let source = &self.plan.sources[self.index];
        let [name] = self.sampled.fields.names().collect::<Vec<_>>()[..] else { return None };
        let is_table = source.format.get().options().contains(&"header");
        let other = [';', '\t', ',', '|'].into_iter().find(|other| name.contains(*other));
        let other = other.filter(|_| is_table)?.escape_default();
        Some(format!("did you mean format = \"csv\" and delimiter = \"{other}\"? "))
    }

    /// Finds fields that `rename` and `literals` name and no record has.
    pub(super) fn unmet(&mut self) {
        let fields = &self.sampled.fields;
        if fields.records() == 0 {
            return;
        }
        for (key, name) in &self.sampled.unmet {
            let near = nearest(name, fields.names());
            let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
            let names: Vec<String> =
                fields.names().take(NAMED).map(|name| format!("`{name}`")).collect();
            let what = format!("`{key}` names the field `{name}`, which {}", self.none_has());
            let remedy = format!("{near}The fields are {}", names.join(", "));
            self.add(Severity::Warning, "field", what, &remedy);
        }
    }

    /// Finds a list or an object that templates show as Python would.
    fn list(&mut self, name: &str) {
        let fields = &self.sampled.fields;
        if fields.are_lists(name) {
            let what = format!("`{name}` is a list or an object, and is shown as Python writes it");
            let remedy = format!(
                "show its parts: {{{{ {name} | join(', ') }}}}, {{{{ {name}[0] }}}} or a loop"
            );
            self.add(Severity::Warning, "list", what, &remedy);
        } else if fields.are_literals(name) {
            let what = format!("`{name}` is text that looks like a list or an object written out");
            let remedy = format!("literals = [\"{name}\"] in its source makes it one");
            self.add(Severity::Warning, "list", what, &remedy);
        }
    }

    /// Finds a language that is not known.
    pub(super) fn language(&mut self) {
        let source = &self.plan.sources[self.index];
        let lang = source.lang.clone();
        // What a field holds is looked up when the corpus is packed.
        if let Some(path) = &source.lang_field {
            let (name, fields) = (path.join("."), &self.sampled.fields);
            let is_there = path.len() > 2 || fields.has(&name);
            if fields.records() > 0 && fields.is_complete() && !is_there {
                let names: Vec<String> = fields.names().map(|name| format!("`{name}`")).collect();
                let what = format!("lang names the field `{name}`, which {}", self.none_has());
                let remedy = format!("the fields are {}", names.join(", "));
                self.add(Severity::Error, "language", what, &remedy);
            }
            return;
        }
        if code_of(&lang).is_some_and(|code| code != UNDETERMINED) {
            return;
        }
        let (what, remedy) = if lang == UNDETERMINED {
            ("says no language".to_owned(), "say lang = \"yor\", for reports and mixes")
        } else {
            let what = format!("lang = \"{lang}\" is no language of ISO 639");
            (what, "write its code of three letters, such as \"yor\", or leave it out")
        };
        self.add(Severity::Note, "language", what, remedy);
    }
}
