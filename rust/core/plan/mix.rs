//! `MixPlan`: the resolved mix of the sources without `epochs`.

use serde::Serialize;

use super::{MixBy, MixSpec, SourceSpec, Unit};
use crate::error::{Error, Result};
use crate::schema::MAX_COPIES;

/// `[mix]`, resolved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MixPlan {
    /// The property that groups sources into shares.
    pub(crate) by: MixBy,
    /// The temperature: shares follow the (1 / temperature)-th power of sizes or weights.
    pub(crate) temperature: f64,
    /// The unit in which shares are counted.
    pub(crate) unit: Unit,
    /// The most copies of a record, on average over its source.
    pub(crate) max_epochs: Option<f64>,
}

/// Returns the mix if there is a `[mix]` or a source has a weight.
pub(crate) fn resolve(spec: Option<&MixSpec>, sources: &[SourceSpec]) -> Result<Option<MixPlan>> {
    let has_weight = |source: &&SourceSpec| source.weight.is_some();
    let weighted = sources.iter().find(has_weight);
    if spec.is_none() && weighted.is_none() {
        return Ok(None);
    }
    let spec = spec.cloned().unwrap_or_default();
    let temperature = spec.temperature.unwrap_or(1.0);
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(Error::config(format!(
            "temperature = {}: must be a number above 0, not infinite",
            shown(temperature)
        ))
        .remedy("1 keeps shares as they are; above 1 they come nearer to each other"));
    }
    refuse_epochs("max_epochs", spec.max_epochs)?;
    sources.iter().try_for_each(|source| {
        refuse_weight(source, weighted.is_some()).map_err(|error| error.source(source.full_name()))
    })?;
    // Nothing would be left to mix.
    if sources.iter().all(|source| source.epochs.is_some()) {
        return Err(Error::config("[mix], but every source has `epochs`")
            .remedy("remove `epochs` from those that are to be mixed, or remove [mix]"));
    }
    let (by, unit) = (spec.by.unwrap_or_default(), spec.unit.unwrap_or_default());
    Ok(Some(MixPlan { by, temperature, unit, max_epochs: spec.max_epochs }))
}

/// Refuses the weight of a source, or its lack. Epochs and weights exclude each other, and a weight
/// needs the other sources' weights to compare with.
fn refuse_weight(source: &SourceSpec, others_have: bool) -> Result<()> {
    let (what, remedy) = match source.weight {
        Some(_) if source.epochs.is_some() => {
            ("has `epochs` and a `weight`".to_owned(), "`epochs` keeps it out of the mix: say one")
        }
        Some(weight) if !(weight > 0.0 && weight.is_finite()) => (
            format!("weight = {}: must be a number above 0, not infinite", shown(weight)),
            "weights count in proportion to each other; remove the source to leave it out",
        ),
        None if source.epochs.is_none() && others_have => {
            ("has no `weight`, and others have".to_owned(), "give it a `weight`, or `epochs`")
        }
        _ => return Ok(()),
    };
    Err(Error::config(what).remedy(remedy))
}

/// Returns a number as TOML writes it.
pub(crate) fn shown(number: f64) -> String {
    if number.is_nan() { "nan".to_owned() } else { number.to_string() }
}

/// Refuses a number of copies that is not above 0 or is too large.
pub(crate) fn refuse_epochs(key: &str, epochs: Option<f64>) -> Result<()> {
    match epochs {
        Some(epochs) if !(epochs > 0.0 && epochs <= f64::from(MAX_COPIES)) => {
            let what =
                format!("{key} = {}: must be above 0 and at most {MAX_COPIES}", shown(epochs));
            Err(Error::config(what)
                .remedy(format!("write {key} = 1.0 for each record once, 0.5 for half of them")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PlanSpec;

    fn resolved(text: &str) -> Result<Option<MixPlan>> {
        let spec = PlanSpec::parse(text, "corpus.toml").unwrap();
        resolve(spec.mix.as_ref(), &spec.sources)
    }

    const SOURCES: [&str; 3] = ["[[source]]\nname='a'\nfiles=[]\n", "weight=2\n", "epochs=2\n"];

    #[test]
    fn there_is_a_mix_where_it_is_asked_for() {
        let [source, weight, epochs] = SOURCES;
        assert_eq!(resolved(&[source, epochs, source].concat()), Ok(None));
        let defaults =
            MixPlan { by: MixBy::Task, temperature: 1.0, unit: Unit::Targets, max_epochs: None };
        for text in
            [[source, weight, source, epochs].concat(), format!("[mix]\n{source}{source}{epochs}")]
        {
            assert_eq!(resolved(&text), Ok(Some(defaults.clone())), "{text}");
        }
        let text =
            format!("[mix]\nby='lang'\ntemperature=3\nunit='examples'\nmax_epochs=4\n{source}");
        let all = MixPlan {
            by: MixBy::Lang,
            temperature: 3.0,
            unit: Unit::Examples,
            max_epochs: Some(4.0),
        };
        assert_eq!(resolved(&text), Ok(Some(all)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let [source, weight, epochs] = SOURCES;
        for text in [
            format!("{source}{weight}{epochs}"),
            format!("{source}{weight}{source}"),
            format!("{source}weight=-1"),
            format!("{source}weight=inf"),
            format!("[mix]\n{source}{epochs}"),
            format!("[mix]\ntemperature=0\n{source}"),
            format!("[mix]\nmax_epochs=256\n{source}"),
        ] {
            assert!(resolved(&text).is_err(), "{text}");
        }
    }
}
