//! `Conditional`: makes documents only where an expression holds, `when = "{{ rating > 3 }}"`.

use super::jinja::Template;
use super::{Each, Fields, Rendered, SegmentBuilder, Step, TokenNames};
use crate::error::Result;
use crate::plan::Source;
use crate::read::Needed;
use crate::schema::{DropReason, Refusal};

/// A builder that makes documents where its condition holds.
#[derive(Debug)]
pub(super) struct Conditional {
    inner: Box<dyn SegmentBuilder>,
    condition: Template,
    /// The refusal of the other records.
    otherwise: Refusal,
    /// The fields that the inner builder or the condition may read.
    needed: Needed,
}

impl Conditional {
    /// Returns `inner` under the condition `when` of a source, a tag of an expression.
    pub(super) fn over(
        inner: Box<dyn SegmentBuilder>,
        source: &Source,
        when: &str,
        tokens: &TokenNames,
    ) -> Result<Self> {
        let condition = Template::of_condition(when, tokens)
            .map_err(|error| error.source(source.name.clone()))?;
        let otherwise = Refusal::new(DropReason::NotChosen, format!("`when` is false: {when}"));
        let asked = condition.names().map(|names| Needed::of(names.iter().cloned()));
        let needed = inner.needed().and(asked.as_ref().unwrap_or(Needed::all()));
        Ok(Self { inner, condition, otherwise, needed })
    }
}

impl SegmentBuilder for Conditional {
    fn inner(&self) -> Option<&dyn SegmentBuilder> {
        Some(&*self.inner)
    }

    fn build(
        &self,
        fields: &Fields,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> std::result::Result<(), Refusal> {
        let named = |Refusal { reason, why }| Refusal { reason, why: format!("`when`: {why}") };
        if !rendered.choose(|| self.condition.holds(fields).map_err(named))? {
            return Err(self.otherwise.clone());
        }
        self.inner.build(fields, rendered, each)
    }

    fn needed(&self) -> &Needed {
        &self.needed
    }

    fn named_fields(&self) -> Vec<Vec<Step>> {
        // Records for which the condition is false need none of them.
        Vec::new()
    }
}
