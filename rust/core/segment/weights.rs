//! `Weighted`: a segment builder over another one, for the sources whose records hold the weights of
//! their documents in the loss.

use super::compiled::lookup;
use super::spans::path_of;
use super::{Each, Fields, Rendered, SegmentBuilder, Step, words};
use crate::error::Result;
use crate::plan::Source;
use crate::read::{Needed, Number, Value};
use crate::schema::{DropReason, Refusal, Weight};

/// A builder whose documents have the weight that a field of their record says.
#[derive(Debug)]
pub(super) struct Weighted {
    inner: Box<dyn SegmentBuilder>,
    field: Vec<String>,
    /// The fields that the inner builder may read, and that of the weight.
    needed: Needed,
}

impl Weighted {
    /// Returns `inner` with the weights in `field`.
    pub(super) fn over(
        inner: Box<dyn SegmentBuilder>,
        source: &Source,
        field: &str,
    ) -> Result<Self> {
        let field = path_of("loss_weight", field);
        let field = field.map_err(|error| error.source(source.name.clone()))?;
        let needed = inner.needed().and(&Needed::of(field.first().cloned()));
        Ok(Self { inner, field, needed })
    }

    /// Returns the weight that a record holds.
    fn weight(&self, fields: &Fields) -> std::result::Result<Weight, Refusal> {
        let value = lookup(fields, &self.field).ok_or_else(|| {
            Refusal::new(DropReason::MissingField, words::missing_field(fields, &self.field))
        })?;
        number(value).and_then(Weight::of).ok_or_else(|| {
            let (name, shown) = (self.field.join("."), shown(value));
            Refusal::new(
                DropReason::Malformed,
                format!("the weight '{name}' is {shown}: not a number of 32 bits, 0 or above"),
            )
        })
    }
}

/// Returns the number of a value: files of text alone, such as CSV, spell it.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(Number::Int(number)) => Some(*number as f64),
        Value::Number(Number::Float(number)) => Some(*number),
        Value::Number(Number::Big(digits)) => digits.parse().ok(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Returns the start of a value in words, for the report.
fn shown(value: &Value) -> String {
    match value {
        Value::Number(Number::Int(number)) => number.to_string(),
        Value::Number(Number::Float(number)) => number.to_string(),
        Value::Number(Number::Big(_)) => "a huge number".to_owned(),
        Value::String(text) => format!("the text {:?}", text.chars().take(40).collect::<String>()),
        Value::Bool(truth) => truth.to_string(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::Null | Value::Unreadable(_) => "no text".to_owned(),
    }
}

impl SegmentBuilder for Weighted {
    fn inner(&self) -> Option<&dyn SegmentBuilder> {
        Some(&*self.inner)
    }

    fn build(
        &self,
        fields: &Fields,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> std::result::Result<(), Refusal> {
        rendered.weight = Some(self.weight(fields)?);
        self.inner.build(fields, rendered, each)
    }

    fn needed(&self) -> &Needed {
        &self.needed
    }

    fn named_fields(&self) -> Vec<Vec<Step>> {
        let mut paths = self.inner.named_fields();
        paths.push(self.field.iter().cloned().map(Step::Key).collect());
        paths
    }
}
