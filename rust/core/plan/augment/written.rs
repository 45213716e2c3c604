//! `AugmentSpec`: the key `augment` of a source, as written, and the checks of its options.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::super::{mix, nearest};
use super::{Augment, AugmentTask, LanguageShown, Made, NUMBER, Noise, Underdots, refused};
use crate::error::{Error, Result};
use crate::read::field_path;

/// The key `augment`, as written: the name of a task, or a table with the task and its options.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentSpec {
    /// The task.
    pub task: AugmentTask,
    /// The path of the field that holds the text.
    pub field: Option<String>,
    /// `diacritize`: the treatment of marks below letters.
    pub underdots: Option<Underdots>,
    /// `denoise`: the share of letters that are dropped.
    pub char_drop: Option<f64>,
    /// `denoise`: the share of letters that change places with the next.
    pub char_swap: Option<f64>,
    /// `denoise`: the share of letters that are repeated.
    pub char_repeat: Option<f64>,
    /// `denoise`: the share of letters that are replaced.
    pub char_replace: Option<f64>,
    /// `denoise`: the share of words that are dropped.
    pub word_drop: Option<f64>,
    /// `denoise`: the share of words that change places with the next.
    pub word_swap: Option<f64>,
    /// `denoise`: the share of words that are joined to the next.
    pub word_join: Option<f64>,
    /// `denoise`: the share of words that are split by a space.
    pub space_split: Option<f64>,
    /// `denoise`: the share of words behind which there is a space too many.
    pub space_double: Option<f64>,
    /// `continue`: the smallest share of a text's words that is given.
    pub min_share: Option<f64>,
    /// `continue`: the largest share of a text's words that is given.
    pub max_share: Option<f64>,
    /// `span_fill`: the share of words that are left blank.
    pub rate: Option<f64>,
    /// `span_fill`: the words of a blank, on average.
    pub span: Option<f64>,
    /// `span_fill`: the text of a blank, `{n}` standing for its number.
    pub blank: Option<String>,
    /// `span_fill`: the number of the first blank.
    pub first: Option<u64>,
    /// `language_id`: the way in which the language is named.
    pub language: Option<LanguageShown>,
    /// `order`: the fewest sentences of a text.
    pub min_sentences: Option<u64>,
}

/// The keys of the rates of noise.
pub(super) const RATES: [&str; 9] = [
    "char_drop",
    "char_swap",
    "char_repeat",
    "char_replace",
    "word_drop",
    "word_swap",
    "word_join",
    "space_split",
    "space_double",
];

impl AugmentSpec {
    /// Returns the keys that are written, but for those that every task has.
    fn written(&self) -> Vec<&'static str> {
        let rates = RATES.into_iter().zip(self.rates()).map(|(key, rate)| (key, rate.is_some()));
        let others = [
            ("underdots", self.underdots.is_some()),
            ("min_share", self.min_share.is_some()),
            ("max_share", self.max_share.is_some()),
            ("rate", self.rate.is_some()),
            ("span", self.span.is_some()),
            ("blank", self.blank.is_some()),
            ("first", self.first.is_some()),
            ("language", self.language.is_some()),
            ("min_sentences", self.min_sentences.is_some()),
        ];
        rates.chain(others).filter(|(_, is_there)| *is_there).map(|(key, _)| key).collect()
    }

    /// Returns the rates of noise as written, in the order of their keys.
    fn rates(&self) -> [Option<f64>; 9] {
        [
            self.char_drop,
            self.char_swap,
            self.char_repeat,
            self.char_replace,
            self.word_drop,
            self.word_swap,
            self.word_join,
            self.space_split,
            self.space_double,
        ]
    }

    /// Fills in every option. Refuses an option of another task, and a value that cannot be meant.
    pub(in super::super) fn resolve(&self) -> Result<Augment> {
        let task = self.task;
        if let Some(foreign) = self.written().into_iter().find(|key| !task.options().contains(key))
        {
            return Err(self.foreign(foreign));
        }
        let field = self.field.clone().unwrap_or_else(|| "text".to_owned());
        if field_path(&field).is_none() {
            return Err(refused(
                &format!("field = {field:?} is no path of a field"),
                "name the field that holds the text: field = \"body\" or field = \"page.body\"",
            ));
        }
        let made = match task {
            AugmentTask::Diacritize => {
                Made::Diacritize { underdots: self.underdots.unwrap_or(Underdots::Strip) }
            }
            AugmentTask::Denoise => Made::Denoise(self.noise()?),
            AugmentTask::Continue => self.shares()?,
            AugmentTask::SpanFill => self.blanks()?,
            AugmentTask::LanguageId => {
                Made::LanguageId { language: self.language.unwrap_or(LanguageShown::Code) }
            }
            AugmentTask::Order => self.sentences()?,
        };
        Ok(Augment { field, made })
    }

    /// Returns the error of an option that is another task's.
    fn foreign(&self, key: &str) -> Error {
        let own = self.task.options();
        let is_of = |task: &&AugmentTask| task.options().contains(&key);
        let other = AugmentTask::ALL.iter().find(is_of).map_or("another task", |task| task.name());
        let remedy = match nearest(key, own.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the options of {} are {}", self.task.name(), own.join(", ")),
        };
        let task = self.task.name();
        refused(&format!("`{key}` is an option of {other}, and the task is {task}"), &remedy)
    }

    /// Returns the rates of noise. Where one is written, the others are as usual.
    fn noise(&self) -> Result<Noise> {
        for (key, rate) in RATES.into_iter().zip(self.rates()) {
            refuse_no_share(key, rate, 0.0..=1.0)?;
        }
        let rate = |given: Option<f64>, usual: f64| given.unwrap_or(usual);
        let noise = Noise {
            char_drop: rate(self.char_drop, 0.01),
            char_swap: rate(self.char_swap, 0.01),
            char_repeat: rate(self.char_repeat, 0.01),
            char_replace: rate(self.char_replace, 0.02),
            word_drop: rate(self.word_drop, 0.01),
            word_swap: rate(self.word_swap, 0.01),
            word_join: rate(self.word_join, 0.02),
            space_split: rate(self.space_split, 0.01),
            space_double: rate(self.space_double, 0.01),
        };
        let (chars, words) = (noise.chars(), noise.words());
        for (what, sum) in
            [("char_", chars.iter().sum::<f64>()), ("word_ and space_", words.iter().sum())]
        {
            if sum > 1.0 {
                let what = format!("the rates of {what} add up to {}", mix::shown(sum));
                return Err(refused(&what, "each is a share of the same: make them smaller"));
            }
        }
        if chars.iter().chain(&words).all(|rate| *rate == 0.0) {
            return Err(refused("all rates are 0: nothing would be noisy", "raise one of them"));
        }
        Ok(noise)
    }

    /// Returns the shares of a text that may be given.
    fn shares(&self) -> Result<Made> {
        refuse_no_share("min_share", self.min_share, 0.0..=1.0)?;
        refuse_no_share("max_share", self.max_share, 0.0..=1.0)?;
        // A bound that is written moves the other one that is not.
        let min_share = self.min_share.unwrap_or(0.2_f64.min(self.max_share.unwrap_or(1.0)));
        let max_share = self.max_share.unwrap_or(0.8_f64.max(min_share));
        if min_share > max_share {
            let [min, max] = [min_share, max_share].map(mix::shown);
            let what = format!("min_share = {min} is above max_share = {max}");
            return Err(refused(&what, "swap them"));
        }
        Ok(Made::Continue { min_share, max_share })
    }

    /// Returns the blanks of a text.
    fn blanks(&self) -> Result<Made> {
        refuse_no_share("rate", self.rate, f64::MIN_POSITIVE..=0.9)?;
        let span = self.span.unwrap_or(3.0);
        if !(1.0..=1000.0).contains(&span) {
            let what = format!("span = {}: must be from 1 to 1000", mix::shown(span));
            return Err(refused(&what, "it is the words of a blank, on average"));
        }
        let blank = self.blank.clone().unwrap_or_else(|| format!("<extra_id_{NUMBER}>"));
        if blank.matches(NUMBER).count() != 1 {
            let what = format!("blank = {blank:?} has {NUMBER} not once");
            return Err(refused(
                &what,
                "{n} stands for the number of the blank: blank = \"<extra_id_{n}>\"",
            ));
        }
        let first = self.first.unwrap_or(0);
        if first > u64::from(u32::MAX) {
            return Err(refused(&format!("first = {first} is too large"), "begin with 0 or 1"));
        }
        Ok(Made::SpanFill { rate: self.rate.unwrap_or(0.15), span, blank, first })
    }

    /// Returns the fewest sentences of a text.
    fn sentences(&self) -> Result<Made> {
        let min_sentences = self.min_sentences.unwrap_or(3);
        if min_sentences < 2 {
            return Err(refused(
                &format!("min_sentences = {min_sentences}: one sentence has no order"),
                "leave it out: it is 3 by default",
            ));
        }
        Ok(Made::Order { min_sentences })
    }
}

/// Refuses a share out of bounds.
fn refuse_no_share(key: &str, share: Option<f64>, bounds: RangeInclusive<f64>) -> Result<()> {
    match share {
        Some(share) if !bounds.contains(&share) => {
            let above = if bounds.contains(&0.0) { "from 0" } else { "above 0 and up" };
            let (share, most) = (mix::shown(share), mix::shown(*bounds.end()));
            let what = format!("{key} = {share}: must be {above} to {most}");
            Err(refused(&what, "it is a share: 0.05 is one in twenty"))
        }
        _ => Ok(()),
    }
}

/// Reads the key: a name, or a table.
pub(in super::super) fn written<'de, D: Deserializer<'de>>(
    value: D,
) -> std::result::Result<Option<AugmentSpec>, D::Error> {
    struct NameOrTable;

    impl<'de> Visitor<'de> for NameOrTable {
        type Value = AugmentSpec;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("the name of a task, or a table with its options")
        }

        fn visit_str<E: serde::de::Error>(self, name: &str) -> std::result::Result<AugmentSpec, E> {
            AugmentSpec::deserialize(MapDeserializer::new(std::iter::once(("task", name))))
        }

        fn visit_map<A: MapAccess<'de>>(
            self,
            map: A,
        ) -> std::result::Result<AugmentSpec, A::Error> {
            AugmentSpec::deserialize(MapAccessDeserializer::new(map))
        }
    }

    value.deserialize_any(NameOrTable).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<Augment> {
        let table: toml::Table = text.parse().unwrap();
        written(table["augment"].clone()).unwrap().unwrap().resolve()
    }

    #[test]
    fn a_name_is_the_table_with_this_task_alone() {
        for (task, name) in AugmentTask::ALL.into_iter().zip(AugmentTask::NAMES) {
            let by_name = resolve(&format!("augment = '{name}'")).unwrap();
            assert_eq!(by_name, resolve(&format!("augment = {{ task = '{name}' }}")).unwrap());
            assert_eq!(by_name.task(), task);
            assert_eq!(serde_json::to_value(&by_name).unwrap()["task"], name);
            assert_eq!(serde_json::to_value(task).unwrap(), name);
        }
    }

    #[test]
    fn every_key_is_an_option_of_one_task() {
        let mut keys: Vec<_> = AugmentTask::ALL.iter().flat_map(|task| task.options()).collect();
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[test]
    fn values_that_cannot_be_meant_are_refused_with_a_remedy() {
        for (options, what, remedy) in [
            (
                "task = 'order', underdots = 'keep'",
                "`underdots` is an option of diacritize",
                "min_",
            ),
            ("task = 'continue', min_sentences = 3", "an option of order", "`min_share`"),
            ("task = 'denoise', char_drop = 1.5", "char_drop = 1.5", "a share"),
            ("task = 'denoise', char_drop = nan", "char_drop = nan", "a share"),
            ("task = 'denoise', char_drop = 0.6, char_swap = 0.6", "add up to", "smaller"),
            ("task = 'continue', min_share = 0.9, max_share = 0.1", "is above max_share", "swap"),
            ("task = 'span_fill', rate = 0.0", "rate = 0", "a share"),
            ("task = 'span_fill', span = 0.5", "span = 0.5", "words"),
            ("task = 'span_fill', blank = '___'", "{n} not once", "{n} stands"),
            ("task = 'order', min_sentences = 1", "no order", "3 by default"),
            ("task = 'order', field = 'a b'", "no path of a field", "field = \"body\""),
        ] {
            let error = resolve(&format!("augment = {{ {options} }}")).unwrap_err();
            assert!(error.message.contains(what), "{error}");
            assert!(error.remedy.as_ref().unwrap().contains(remedy), "{error}");
        }
    }

    #[test]
    fn one_written_bound_moves_the_other() {
        for (options, min, max) in [
            ("min_share = 0.9", 0.9, 0.9),
            ("max_share = 0.1", 0.1, 0.1),
            ("min_share = 0", 0.0, 0.8),
        ] {
            let made = resolve(&format!("augment = {{ task = 'continue', {options} }}")).unwrap();
            assert_eq!(made.made, Made::Continue { min_share: min, max_share: max });
        }
    }
}
