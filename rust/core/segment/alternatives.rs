//! `Alternatives`: several templates of one task, of which each record takes one or all.

use super::several::make_each;
use super::{Controls, Each, Fields, Rendered, SegmentBuilder, Segmenter, Step, TokenNames};
use crate::choice::{Purpose, Subject, choice};
use crate::error::Result;
use crate::plan::{Choose, Source};
use crate::read::Needed;
use crate::schema::Refusal;

/// The templates of a source, ready to render.
#[derive(Debug)]
pub(super) struct Alternatives {
    templates: Vec<Segmenter>,
    choose: Choose,
    seed: u64,
    /// The name of the source, by which it is chosen.
    name: String,
    /// The fields that any of the templates may read.
    needed: Needed,
}

impl Alternatives {
    /// Compiles the templates of `source`. `seed` is that of its choices.
    pub(super) fn compile(
        source: &Source,
        controls: &Controls,
        tokens: &TokenNames,
        seed: u64,
    ) -> Result<Self> {
        let compile = |(nth, segments): (usize, &Vec<_>)| {
            Segmenter::of_segments(segments, controls, tokens).map_err(|mut error| {
                error.message = format!("template {}: {}", nth + 1, error.message);
                error.source(source.name.clone())
            })
        };
        let templates: Vec<Segmenter> =
            source.templates.iter().enumerate().map(compile).collect::<Result<_>>()?;
        let needed = templates.iter().fold(Needed::of([]), |all, one| all.and(&one.needed));
        Ok(Self {
            templates,
            choose: source.choose.unwrap_or_default(),
            seed,
            name: source.name.clone(),
            needed,
        })
    }

    /// Returns the index of the template that a record takes; `None` if it takes all. A record
    /// that lies in no file takes all, so that each can be seen.
    fn chosen(&self, rendered: &Rendered) -> Option<usize> {
        if self.choose == Choose::All || rendered.in_no_file {
            return None;
        }
        // The elements of a list are records of their own in this.
        let copy = rendered.way.element.unwrap_or(0) as u32;
        let subject = Subject { name: &self.name, record: rendered.record_id, copy };
        Some((choice(self.seed, Purpose::Template, subject) % self.templates.len() as u64) as usize)
    }

    /// Makes the document of the template `nth`.
    fn make(
        &self,
        nth: usize,
        fields: &Fields,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> std::result::Result<(), Refusal> {
        rendered.way.template = Some(nth);
        self.templates[nth].render(fields, rendered)?;
        each(rendered)
    }

    /// Returns the paths that some templates name, in order of first use.
    fn paths(&self, paths_of: impl Fn(&Segmenter) -> Vec<Vec<Step>>) -> Vec<Vec<Step>> {
        let mut paths = Vec::new();
        for path in self.templates.iter().flat_map(paths_of) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        paths
    }
}

impl SegmentBuilder for Alternatives {
    fn build(
        &self,
        fields: &Fields,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> std::result::Result<(), Refusal> {
        let name = |nth: usize| format!("template {}", nth + 1);
        if let Some(nth) = self.chosen(rendered) {
            return self.make(nth, fields, rendered, each).map_err(|Refusal { reason, why }| {
                Refusal { reason, why: format!("{}: {why}", name(nth)) }
            });
        }
        let make = |nth: usize, rendered: &mut Rendered| self.make(nth, fields, rendered, each);
        make_each(self.templates.len(), rendered, make, name)
    }

    fn needed(&self) -> &Needed {
        &self.needed
    }

    fn shown_fields(&self, fields: &Fields) -> Vec<Vec<Step>> {
        self.paths(|template| template.shown_fields(fields))
    }

    fn shortenable_fields(&self, fields: &Fields) -> Vec<Vec<Step>> {
        self.paths(|template| template.shortenable_fields(fields))
    }

    fn named_fields(&self) -> Vec<Vec<Step>> {
        // A record needs the fields that all templates name, whichever it takes.
        let mut paths = self.paths(Segmenter::named_fields);
        paths.retain(|path| {
            self.templates.iter().all(|template| template.named_fields().contains(path))
        });
        paths
    }

    fn unmarked(&self) -> u64 {
        self.templates.iter().map(Segmenter::unmarked).max().unwrap_or(0)
    }
}
