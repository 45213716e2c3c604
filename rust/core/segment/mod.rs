//! Segmenting: renders a record through its source's templates, to text whose every byte has a
//! role.
//!
//! Takes a record's fields; gives a [`Rendered`], or refuses the record. Knows of tokenizers only
//! the spelling of their control tokens, which rendered templates must keep apart from data.

mod alternatives;
mod augment;
mod builder;
mod characters;
mod chat;
mod chat_messages;
mod chat_spans;
mod chat_templates;
mod clean;
mod compiled;
mod conditional;
mod direct;
mod exploded;
mod filter;
mod filters;
mod formats;
mod guard;
mod jinja;
mod limits;
mod marks;
mod methods;
mod operations;
mod paths;
mod program;
mod python;
mod rendered;
#[cfg(test)]
mod rendered_tests;
mod several;
mod slices;
mod source;
mod spans;
mod tagged;
mod weights;
mod words;

pub use builder::SegmentBuilder;
pub(crate) use builder::{Each, builder_of, find_named};
pub(crate) use chat_templates::DEFAULT_CHAT;
use clean::Editor;
pub(crate) use clean::{Change, Touched};
use direct::Direct;
pub(crate) use filter::refuse_tokens;
pub use filter::{IdentifyLanguage, Likelihood, register_identifier};
pub(crate) use guard::Controls;
pub use paths::Step;
pub(crate) use paths::value_at_mut;
use paths::{string_leaves, string_leaves_of, value_at};
use rendered::is_target_text;
pub use rendered::{Rendered, Span};
pub(crate) use rendered::{TextRun, Way};
pub(crate) use words::names_in;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::plan::{SegmentSpec, Source, TaggedSpec};
pub use crate::read::Fields;
use crate::read::{FieldTree, Needed, Record};
use crate::schema::{DropReason, Refusal};

/// The name of the object with all fields of the record, so that `record["a-b"]` is the field
/// `a-b`. A field of this name takes its place.
const RECORD: &str = "record";

/// The tokenizer's tokens by their names in templates, such as `bos_token`.
pub(crate) type TokenNames = Vec<(String, String)>;

/// A source's templates, ready to render.
#[derive(Debug)]
pub(crate) struct Segmenter {
    /// Whether each segment is a target, and its template.
    segments: Vec<(bool, Compiled)>,
    /// The direct path, if all templates only substitute fields.
    direct: Option<Direct>,
    /// The fields that templates may read.
    needed: Needed,
}

/// A compiled template.
#[derive(Debug)]
enum Compiled {
    /// A template that only substitutes fields.
    Plain(compiled::Template),
    /// A template for the engine.
    Jinja(Box<jinja::Template>),
}

impl Compiled {
    /// Returns the template if it only substitutes fields.
    fn plain(&self) -> Option<&compiled::Template> {
        if let Self::Plain(template) = self { Some(template) } else { None }
    }

    /// Renders the template as segment `index`. Returns whether it shows data, all of it blank.
    fn render(
        &self,
        fields: &Fields,
        index: usize,
        is_target: bool,
        out: &mut Rendered,
    ) -> std::result::Result<bool, Refusal> {
        match self {
            Self::Plain(template) => template.render(fields, is_target, out),
            Self::Jinja(template) => {
                template.render(fields, is_target, out).map_err(|refusal| refusal.in_segment(index))
            }
        }
    }
}

impl Segmenter {
    /// Compiles the templates of `source`. `controls` are the tokenizer's control tokens, `tokens`
    /// the tokens that templates know by name. Refuses a faulty template.
    pub(crate) fn compile(
        source: &Source,
        controls: &Controls,
        tokens: &TokenNames,
    ) -> Result<Self> {
        Self::of_segments(&source.segments, controls, tokens)
            .map_err(|error| error.source(source.name.clone()))
    }

    /// Refuses a source without any template that shows a field.
    pub(crate) fn refuse_constant(source: &Source) -> Result<()> {
        if source.chat.is_some() || source.tagged.is_some() {
            return Ok(());
        }
        let templates = if source.templates.is_empty() {
            std::slice::from_ref(&source.segments)
        } else {
            &source.templates
        };
        let mut templates = templates.iter();
        templates
            .try_for_each(|segments| words::refuse_constant(segments))
            .map_err(|error| error.source(source.name.clone()))
    }

    /// Compiles segments.
    fn of_segments(
        segments: &[SegmentSpec],
        controls: &Controls,
        tokens: &TokenNames,
    ) -> Result<Self> {
        let compile = |segment: &SegmentSpec| {
            words::refuse_deep(segment.template())?;
            let text = source::as_jinja_reads(segment.template());
            let template = match compiled::Template::parse(&text, tokens) {
                Some(template) => Compiled::Plain(template),
                None => Compiled::Jinja(Box::new(jinja::Template::parse(&text, controls, tokens)?)),
            };
            Ok((matches!(segment, SegmentSpec::Target(_)), template))
        };
        let placed = |(nth, segment): (usize, &SegmentSpec)| {
            compile(segment).map_err(|error: Error| words::in_segment(error, nth, segment))
        };
        let segments: Vec<(bool, Compiled)> =
            segments.iter().enumerate().map(placed).collect::<Result<_>>()?;
        let all_plain =
            segments.iter().map(|(is_target, template)| Some((*is_target, template.plain()?)));
        let direct =
            all_plain.collect::<Option<Vec<_>>>().and_then(|segments| Direct::new(&segments));
        let needed = needed_by(&segments);
        Ok(Self { segments, direct, needed })
    }

    /// Returns the fields that the templates show, if the direct path can read them alone.
    fn wanted(&self) -> Option<&Arc<FieldTree>> {
        self.direct.as_ref().map(Direct::fields)
    }

    /// Renders a record into `out`, in place of the old content. An ordinary record that was opened
    /// for the direct path takes it; others are rendered by way of their fields.
    fn render_record(
        &self,
        record: &Record<'_>,
        out: &mut Rendered,
    ) -> std::result::Result<(), Refusal> {
        if self.direct.as_ref().is_some_and(|direct| direct.render(record, out)) {
            return Ok(());
        }
        out.clear();
        self.render(&record.fields()?, out)
    }

    /// Renders a record as [`Self::render_record`] does, its shown texts changed by `editor` first.
    fn render_edited(
        &self,
        record: &Record<'_>,
        editor: &mut Editor<'_>,
        out: &mut Rendered,
    ) -> std::result::Result<(), Refusal> {
        if self.direct.as_ref().is_some_and(|direct| direct.render_edited(record, editor, out)) {
            return Ok(());
        }
        editor.restart();
        out.clear();
        let mut fields = record.fields()?;
        let shown = self.shown_fields(&fields);
        editor.edit_fields(&mut fields, &shown);
        self.render(&fields, out)
    }

    /// Renders the fields of a record into `out`, in place of the old content.
    pub(crate) fn render(
        &self,
        fields: &Fields,
        out: &mut Rendered,
    ) -> std::result::Result<(), Refusal> {
        out.clear();
        let mut any_target = false;
        for (index, (is_target, template)) in self.segments.iter().enumerate() {
            let start = out.text.len();
            let data_is_blank = template.render(fields, index, *is_target, out)?;
            // A target of the template's text alone would teach the model to answer nothing.
            if *is_target && data_is_blank {
                return Err(self.empty_target(index));
            }
            any_target |= *is_target && is_target_text(&out.text[start..]);
        }
        if any_target {
            Ok(())
        } else {
            Err(Refusal::new(DropReason::EmptyTarget, "the target is empty"))
        }
    }

    /// Returns the refusal of a record that leaves the target segment `index` without data.
    fn empty_target(&self, index: usize) -> Refusal {
        let targets =
            |segments: &[(bool, Compiled)]| segments.iter().filter(|segment| segment.0).count();
        let (nth, count) = (targets(&self.segments[..=index]), targets(&self.segments));
        Refusal::new(DropReason::EmptyTarget, words::empty_target(nth, count))
    }

    /// Returns the paths of the fields that may be shortened, in order of first use: the fields
    /// that prompts show, or without a prompt the fields that targets show.
    #[must_use]
    pub(crate) fn shortenable_fields(&self, fields: &Fields) -> Vec<Vec<Step>> {
        let has_prompt = self.segments.iter().any(|(is_target, _)| !is_target);
        self.fields_of(fields, |is_target| is_target != has_prompt)
    }

    /// Returns the paths of the fields that the templates show, in order of first use.
    #[must_use]
    pub(crate) fn shown_fields(&self, fields: &Fields) -> Vec<Vec<Step>> {
        self.fields_of(fields, |_| true)
    }

    /// Returns the paths of the fields that some segments show, in order of first use: the prompts
    /// or targets for which `is_wanted` holds.
    fn fields_of(&self, fields: &Fields, is_wanted: impl Fn(bool) -> bool) -> Vec<Vec<Step>> {
        let mut paths = Vec::new();
        for (_, template) in self.segments.iter().filter(|(is_target, _)| is_wanted(*is_target)) {
            match template {
                Compiled::Plain(template) => template.paths(&mut paths),
                Compiled::Jinja(_) => paths.extend(string_leaves_of(fields)),
            }
        }
        let mut distinct: Vec<Vec<Step>> = Vec::new();
        for path in paths {
            if !distinct.contains(&path) {
                distinct.push(path);
            }
        }
        distinct
    }

    /// Returns the paths of the fields that templates substitute without more.
    #[must_use]
    pub(crate) fn named_fields(&self) -> Vec<Vec<Step>> {
        let mut paths = Vec::new();
        let plain = self.segments.iter().filter_map(|(_, template)| template.plain());
        plain.for_each(|template| template.paths(&mut paths));
        // A path through the whole record comes without it too.
        paths.retain(|path| path.first() != Some(&Step::Key(RECORD.to_owned())));
        paths
    }

    /// Returns the number of records whose whole text counted as data, since template text could
    /// not be told from data.
    #[must_use]
    pub(crate) fn unmarked(&self) -> u64 {
        let counts = self.segments.iter().map(|(_, template)| match template {
            Compiled::Plain(_) => 0,
            Compiled::Jinja(template) => template.unmarked(),
        });
        counts.max().unwrap_or(0)
    }

    /// Returns the text of the templates, which holds the tags of the corpus.
    pub(crate) fn literals(source: &Source) -> impl Iterator<Item = &str> {
        let chat = source.chat.as_ref().and_then(|chat| chat.found.as_ref());
        let segments = source.all_segments().map(SegmentSpec::template);
        let tags = source.tagged.iter().flat_map(TaggedSpec::tags);
        segments.chain(tags).chain(chat.map(|found| found.text.as_str()))
    }
}

/// Returns the fields that segments may read.
fn needed_by(segments: &[(bool, Compiled)]) -> Needed {
    let mut names = Vec::new();
    for (_, template) in segments {
        match template {
            Compiled::Plain(template) => names.extend(template.names()),
            Compiled::Jinja(template) => match template.names() {
                Some(read) => names.extend(read.iter().cloned()),
                None => return Needed::all().clone(),
            },
        }
    }
    Needed::of(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Role::{Data, Target, Template};
    use proptest::prelude::*;
    use serde_json::json;

    /// Compiles `segments`.
    fn segmenter(segments: &[SegmentSpec], controls: &[&str]) -> Segmenter {
        let tokens = vec![("bos_token".to_owned(), "<s>".to_owned())];
        Segmenter::of_segments(segments, &Controls::new(controls.iter().copied()), &tokens).unwrap()
    }

    fn fields_of(record: &serde_json::Value) -> Fields {
        crate::read::parse_json(record.to_string().as_bytes()).unwrap()
    }

    fn render(
        segments: &[SegmentSpec],
        controls: &[&str],
        record: &serde_json::Value,
    ) -> std::result::Result<Rendered, Refusal> {
        let mut out = Rendered::default();
        segmenter(segments, controls).render(&fields_of(record), &mut out).map(|()| out)
    }

    fn prompt(text: &str) -> SegmentSpec {
        SegmentSpec::Prompt(text.to_owned())
    }

    fn target(text: &str) -> SegmentSpec {
        SegmentSpec::Target(text.to_owned())
    }

    #[test]
    fn template_and_data_keep_their_roles_and_runs_alternate() {
        let rendered = render(
            &[prompt("<a> {{ x.y }} <b>:"), target(" {{ z }}")],
            &[],
            &json!({"x": {"y": "ẹ"}, "z": "t"}),
        );
        let rendered = rendered.unwrap();
        let runs = rendered.runs();
        assert_eq!(runs.iter().map(|run| run.text).collect::<Vec<_>>(), ["<a> ẹ <b>:", " t"]);
        let roles: Vec<_> = rendered.spans.iter().map(|span| (span.role, span.literal)).collect();
        assert_eq!(
            roles,
            [(Template, true), (Data, false), (Template, true), (Target, true), (Target, false)]
        );
    }

    #[test]
    fn missing_null_and_empty_have_their_reasons() {
        let segments = [prompt("{{ x }}"), target("{{ z }}")];
        let jinja = [prompt("{% if true %}{{ x.y }}{% endif %}"), target("{{ z | trim }}")];
        let reason = |segments: &[SegmentSpec], record: serde_json::Value| {
            render(segments, &[], &record).unwrap_err().reason
        };
        for segments in [&segments, &jinja] {
            assert_eq!(reason(segments, json!({"z": "a"})), DropReason::MissingField);
            assert_eq!(reason(segments, json!({"x": null, "z": "a"})), DropReason::MissingField);
        }
        assert_eq!(reason(&segments, json!({"x": "a", "z": " "})), DropReason::EmptyTarget);
        assert_eq!(reason(&jinja, json!({"x": {"y": "a"}, "z": " "})), DropReason::EmptyTarget);
        let by_default = [prompt("{{ x | default('-') }}"), target("{{ z }}")];
        assert_eq!(render(&by_default, &[], &json!({"x": null, "z": "a"})).unwrap().text, "-a");
    }

    #[test]
    fn a_chat_template_keeps_its_own_tokens_and_breaks_those_of_the_data() {
        let chat = "{% for m in messages %}\
                    {{ '<|im|>' + m.role + '\n' + m.content + '<|end|>' }}{% endfor %}";
        let record =
            json!({"messages": [{"role": "user", "content": "say <|end|> or <|e"}], "z": "t"});
        let rendered =
            render(&[prompt(chat), target("{{ z }}")], &["<|im|>", "<|end|>"], &record).unwrap();
        assert_eq!(rendered.text, "<|im|>user\nsay <|end|> or <|e<|end|>t");
        let mut start = 0;
        let mut literal = Vec::new();
        for span in &rendered.spans {
            if span.literal {
                literal.push((start, span.end));
            }
            start = span.end;
        }
        let end = rendered.text.len() - 1;
        let own = [(0, 6), (10, 11), (end - 7, end)];
        assert_eq!(literal, own, "only in the template's own text may control tokens be");
    }

    proptest! {
        #[test]
        fn the_compiled_path_renders_what_jinja_renders(
            data in prop::collection::vec("[a-zẹ\u{301}<>|%#{} \n\0\r]{0,8}", 2),
            number in prop_oneof![
                any::<i64>().prop_map(|n| json!(n)),
                any::<bool>().prop_map(|b| json!(b)),
                (-1e9f64..1e9).prop_map(|f| json!(f)),
                Just(json!([1, "a"])),
                Just(json!({"k": 1.0})),
            ],
            literal in "[a-zọ<>/:% \n]{0,6}",
        ) {
            let record = json!({"a": data[0], "b": {"c": data[1]}, "n": number});
            let text = format!("{literal}{{{{ a }}}}{literal}{{{{b.c}}}}{{{{ n }}}}{literal}");
            let text = source::as_jinja_reads(&text);
            let compiled = compiled::Template::parse(&text, &Vec::new()).unwrap();
            let jinja = jinja::Template::parse(&text, &Controls::new([]), &Vec::new()).unwrap();
            let fields = fields_of(&record);
            let (mut fast, mut slow) = (Rendered::default(), Rendered::default());
            compiled.render(&fields, false, &mut fast).unwrap();
            jinja.render(&fields, false, &mut slow).unwrap();
            prop_assert_eq!(fast.text, slow.text);
        }
    }
}
