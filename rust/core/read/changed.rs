//! `Changed`: the records of a reader, whose fields are changed once they are read.

use super::json::Fields;
use super::record::Reader;
use super::slots::Slots;
use crate::error::Result;
use crate::schema::Refusal;

/// A cursor over records with changed fields.
pub(super) struct Changed<F> {
    reader: Box<dyn Reader>,
    change: F,
}

impl<F> Changed<F>
where
    F: Fn(&mut Fields) -> std::result::Result<(), Refusal> + Send + 'static,
{
    /// Returns the records of `reader`, their fields changed by `change`, which may refuse them.
    pub(super) fn over(reader: Box<dyn Reader>, change: F) -> Box<dyn Reader> {
        Box::new(Self { reader, change })
    }
}

impl<F> Reader for Changed<F>
where
    F: Fn(&mut Fields) -> std::result::Result<(), Refusal> + Send + 'static,
{
    fn advance(&mut self) -> Result<bool> {
        self.reader.advance()
    }

    fn offset(&self) -> u64 {
        self.reader.offset()
    }

    fn bytes(&self) -> usize {
        self.reader.bytes()
    }

    /// Slots hold text of the file: every record is read by its fields.
    fn fill<'a>(&'a self, _: &mut Slots<'a>) -> bool {
        false
    }

    fn fields(&self) -> std::result::Result<Fields, Refusal> {
        let mut fields = self.reader.fields()?;
        (self.change)(&mut fields)?;
        Ok(fields)
    }

    fn is_doubtful(&self) -> bool {
        self.reader.is_doubtful()
    }
}
