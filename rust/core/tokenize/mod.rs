//! Turns a rendered record into a document: token ids and the run-lengths of their roles.
//!
//! Owns the tokenizer in its two forms, and the control tokens. Each run of text is encoded by
//! itself: the first run as the tokenizer encodes a text, later runs by the continuation form. So
//! no token covers text of a prompt and of a target. Text that comes from data never becomes a
//! control token.

mod added;
mod backtrack;
mod bpe;
mod choice;
mod config;
mod draft;
mod edges;
pub mod fast;
mod file;
mod form;
mod plain;
mod probe;
mod run;
mod spell;
mod steps;

use std::path::Path;
use std::sync::OnceLock;

use once_cell::sync::OnceCell;
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

pub(crate) use bpe::tags_of;
pub use bpe::train_bpe;
pub(crate) use choice::Chosen;
use choice::Loaded;
use draft::Draft;
pub(crate) use draft::Marks;
pub use plain::{Ids, Share, TextEncoder};
pub(crate) use probe::{Probe, probes};

use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::panics::caught;
use crate::plan::{TokenizerChats, TokenizerPlan};
use crate::schema::{DropReason, IdType, Refusal, Role, Run, Weight};
use crate::segment::{Controls, DEFAULT_CHAT, Rendered, TokenNames};
use crate::storage::Storage;
use fast::{Engine, Lease};
use form::Form;

/// A record as token ids and roles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// Token ids.
    pub(crate) ids: Vec<u32>,
    /// Run-lengths of the roles of `ids`.
    pub(crate) runs: Vec<Run>,
    /// Facts about the document that the report counts.
    pub(crate) marks: Marks,
    /// The weight in the loss, if its source has weights.
    pub(crate) weight: Option<Weight>,
}

/// The ids of the control tokens that the configuration puts into rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ControlIds {
    /// Opens every document; none where documents have no opening token.
    pub(crate) bos: Option<u32>,
    /// Closes every document.
    pub(crate) eos: u32,
    /// Fills rows.
    pub(crate) pad: u32,
}

/// The words that one thread has seen, kept from record to record. Empty where the `tokenizers`
/// library encodes.
#[derive(Debug)]
pub struct Session(Option<Lease>);

/// A tokenizer and its control tokens, ready to encode records.
#[derive(Debug)]
pub struct Encoder {
    first: Form,
    continuation: Form,
    /// The reason why the tokenizer has no continuation form; none if it has one.
    no_continuation: Option<String>,
    chosen: Chosen,
    controls: ControlIds,
    /// The spellings of the added tokens.
    spellings: Controls,
    bytes: Vec<u8>,
    /// The chat templates found beside the file at loading. A dataset keeps its own in the manifest.
    chats: TokenizerChats,
    /// Computed on first use, as is `probes`.
    sha256: OnceLock<String>,
    probes: OnceCell<Vec<Probe>>,
    vocab_size: usize,
    file: String,
}

/// The two forms of a tokenizer, with the encoder chosen for both.
struct Forms {
    first: Form,
    continuation: Form,
    no_continuation: Option<String>,
    chosen: Chosen,
}

impl Forms {
    /// Builds the forms of a tokenizer file on up to `threads` threads.
    fn of(bytes: &[u8], threads: usize) -> Result<Self> {
        let Loaded { json, tokenizer, engine } = choice::load(bytes, threads)?;
        let mut first = Form::new(tokenizer, &json)?;
        let mut continuation = Form::continuation(&first, &json)?;
        let no_continuation = form::no_continuation(&json, &first, &continuation)?;
        let engine = engine.map(|engine| engine.guarding(first.guarded()));
        // The fast encoder must agree in both forms: one disagreement leaves both to the library.
        let mut chosen = choice::choose(engine, &first, threads, |engine, text| {
            first.agrees(engine, text) && continuation.agrees(&engine.continuing(), text)
        })?;
        if let Some(engine) = chosen.take() {
            continuation.engine = Some(engine.continuing());
            first.engine = Some(engine);
        }
        Ok(Self { first, continuation, no_continuation, chosen })
    }
}

impl Encoder {
    /// Loads the tokenizer of the plan on up to `threads` threads and resolves its control tokens.
    pub(crate) fn load(
        plan: &TokenizerPlan,
        config_file: &str,
        context: &Context<'_>,
    ) -> Result<Self> {
        let Context { threads, storage, .. } = *context;
        let Some(path) = &plan.file else {
            return Err(Error::config("no tokenizer").file(config_file).remedy(
                "name one in corpus.toml ([tokenizer] file = \"tokenizer.json\") \
                 or with --tokenizer; `sabiprep tokenizer train` makes one",
            ));
        };
        let bytes = storage
            .whole_bytes(path)
            .map_err(|error| Error { kind: ErrorKind::Tokenizer, ..error })?;
        let shown = path.display().to_string();
        let chats = config::chats(path, storage)?;
        Self::from_bytes(bytes, &shown, threads, |tokenizer| {
            config::resolve(plan, path, tokenizer, storage)
        })
        .map(|loaded| Self { chats, ..loaded })
        .map_err(|error| if error.file.is_none() { error.file(shown) } else { error })
    }

    /// Returns the encoder of a packed dataset: its tokenizer file, and the ids in its manifest.
    pub(crate) fn of_dataset(
        path: &Path,
        controls: ControlIds,
        storage: &dyn Storage,
    ) -> Result<Self> {
        let shown = path.display().to_string();
        Self::from_bytes(storage.whole_bytes(path)?, &shown, 1, |_| Ok(controls))
            .map_err(|error| error.file(shown))
    }

    /// Returns this encoder without the fast encoder: the `tokenizers` library encodes.
    #[must_use]
    pub(crate) fn by_library(mut self) -> Self {
        (self.first.engine, self.continuation.engine) = (None, None);
        self
    }

    fn from_bytes(
        bytes: Vec<u8>,
        file: &str,
        threads: usize,
        controls: impl FnOnce(&Tokenizer) -> Result<ControlIds>,
    ) -> Result<Self> {
        // A hostile file can make the library panic in any of these calls.
        let Forms { first, continuation, no_continuation, chosen } =
            caught(|| Forms::of(&bytes, threads))
                .unwrap_or_else(|panic| Err(form::unusable(form::panicked(&panic))))?;
        let tokenizer = first.tokenizer();
        // Special or not: any added token that data spells would be taken for control.
        let spelled = tokenizer.get_added_tokens_decoder();
        let spellings = Controls::new(spelled.values().map(|token| token.content.as_str()));
        // Ids may have gaps: the size of the vocabulary is the largest id + 1, not the number of
        // entries.
        let vocab_size = tokenizer.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        let controls = controls(tokenizer)?;
        let (file, sha256, probes) = (file.to_owned(), OnceLock::new(), OnceCell::new());
        Ok(Self {
            first,
            continuation,
            no_continuation,
            chosen,
            controls,
            spellings,
            bytes,
            chats: TokenizerChats::default(),
            sha256,
            probes,
            vocab_size,
            file,
        })
    }

    /// Returns an error for a source with a prompt and a target if the tokenizer cannot continue a
    /// text.
    pub(crate) fn check_continuation(&self, source: &str) -> Result<()> {
        match &self.no_continuation {
            None => Ok(()),
            Some(why) => {
                Err(Error::tokenizer(format!("cannot continue a prompt with a target: {why}"))
                    .file(self.file.clone())
                    .source(source)
                    .remedy(
                        "use a byte-level BPE, a Unigram or a Metaspace tokenizer; \
                         `sabiprep tokenizer train` makes one",
                    ))
            }
        }
    }

    /// Returns a session for one thread.
    #[must_use]
    pub fn session(&self) -> Session {
        Session(self.first.engine.as_ref().map(Engine::session))
    }

    /// Encodes a record. Refuses a record whose text the tokenizer turns into a control token.
    pub fn encode(
        &self,
        rendered: &Rendered,
        session: &mut Session,
    ) -> std::result::Result<Document, Refusal> {
        let (mut draft, mut marks) =
            (Draft { placed: Vec::with_capacity(8), ..Draft::default() }, Marks::default());
        if let Some(bos) = self.controls.bos {
            draft.place(bos, Role::Control);
        }
        // Only the first run is encoded as the start of a text; every later run continues it.
        let mut form = &self.first;
        for run in rendered.runs() {
            form.encode(&run, session.0.as_deref_mut(), &mut draft)?;
            form = &self.continuation;
        }
        // Many templates spell BOS or EOS themselves: the configuration's token must not be
        // doubled.
        if let Some(bos) = self.controls.bos {
            marks.bos = u64::from(draft.without_beginning(bos, self.first.added()));
        }
        // The BOS of the configuration is never taken for an EOS, even where both have one id.
        let least = usize::from(self.controls.bos.is_some());
        marks.eos = u64::from(draft.without_end(least, self.controls.eos, self.first.added()));
        // A normalizer may delete a whole target, and a target may be BOS or EOS alone: nothing
        // would be left to train on.
        if !draft.runs.iter().any(|run| run.role == Role::Target && run.len > 0) {
            return Err(Refusal::new(
                DropReason::NoTargetLeft,
                "the tokenizer leaves nothing of the target beside BOS and EOS",
            ));
        }
        draft.place(self.controls.eos, Role::Control);
        draft.finish(&self.first, marks)
    }

    /// Returns the first control token that the record's data spells, alone or together with the
    /// text around it.
    #[must_use]
    pub(crate) fn control_in_data(&self, rendered: &Rendered) -> Option<String> {
        // Each run is searched as it will be encoded: only the first one starts a text.
        let forms = std::iter::once(&self.first).chain(std::iter::repeat(&self.continuation));
        rendered
            .runs()
            .iter()
            .zip(forms)
            .find_map(|(run, form)| form.control_in_data(run, &self.spellings))
    }

    /// Returns the text that each token adds, as the tokenizer's decoder spells it. A token that
    /// ends inside a character adds nothing; the token that completes the character adds it.
    pub fn pieces(&self, ids: &[u32]) -> Result<Vec<String>> {
        let tokenizer = self.first.tokenizer();
        let failed = |error: tokenizers::Error| Error::tokenizer(format!("cannot decode: {error}"));
        // A stream, since one token may hold only some bytes of a character.
        let mut stream = tokenizer.decode_stream(false);
        let mut step = |id: u32| Ok(stream.step(id).map_err(failed)?.unwrap_or_default());
        caught(|| ids.iter().map(|&id| step(id)).collect()).unwrap_or_else(|panic| {
            Err(form::unusable(form::panicked(&panic)).file(self.file.clone()))
        })
    }

    /// Returns the name of the encoder with the reason for its choice, and the Unicode versions in
    /// use.
    #[must_use]
    pub(crate) fn engine(&self) -> (String, String) {
        (self.chosen.name(), probe::unicode())
    }

    /// Returns a warning if the fast encoder was rejected for wrong ids.
    #[must_use]
    pub(crate) fn engine_warning(&self) -> Option<String> {
        self.chosen.warning()
    }

    /// Returns the differences between the tokens that the post-processor and the configuration put
    /// around a text, as sentences for the report.
    #[must_use]
    pub(crate) fn disagreements(&self) -> Vec<String> {
        edges::disagreements(self.first.tokenizer(), self.controls)
    }

    /// Returns whether `tag` becomes a single token when a template spells it.
    #[must_use]
    pub(crate) fn is_one_token(&self, tag: &str) -> bool {
        self.continuation.ids(tag, true).is_ok_and(|ids| ids.len() == 1)
    }

    /// Returns the spelling of an id in the tokenizer file.
    #[must_use]
    pub(crate) fn spelling(&self, id: u32) -> String {
        self.first.tokenizer().id_to_token(id).unwrap_or_else(|| id.to_string())
    }

    /// Returns the id of the model's unknown token, if the model has one.
    #[must_use]
    pub(crate) fn unknown(&self) -> Option<u32> {
        self.first.added().unknown()
    }

    /// Returns the chat template found beside the tokenizer, if there is one.
    #[must_use]
    pub(crate) fn chat_template(&self) -> Option<&str> {
        self.chats.templates.get(DEFAULT_CHAT).map(String::as_str)
    }

    /// Returns the chat templates found beside the tokenizer.
    #[must_use]
    pub(crate) fn chats(&self) -> &TokenizerChats {
        &self.chats
    }

    /// Returns the ids of the control tokens.
    #[must_use]
    pub(crate) fn controls(&self) -> ControlIds {
        self.controls
    }

    /// Returns the control tokens by the names that templates use; without `bos_token` if there is
    /// no BOS.
    #[must_use]
    pub(crate) fn token_names(&self) -> TokenNames {
        let ControlIds { bos, eos, pad } = self.controls;
        let named = [("bos_token", bos), ("eos_token", Some(eos)), ("pad_token", Some(pad))];
        let spelled = |(name, id): (&str, Option<u32>)| {
            Some((name.to_owned(), self.first.tokenizer().id_to_token(id?)?))
        };
        named.into_iter().filter_map(spelled).collect()
    }

    /// Returns the spellings of the added tokens.
    #[must_use]
    pub(crate) fn spellings(&self) -> &Controls {
        &self.spellings
    }

    /// Returns the largest id + 1.
    #[must_use]
    pub(crate) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Returns the integer type that stores the ids.
    #[must_use]
    pub(crate) fn id_type(&self) -> IdType {
        IdType::for_vocab(self.vocab_size)
    }

    /// Returns the bytes of the tokenizer file.
    #[must_use]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the sha256 of the tokenizer file, in hexadecimal.
    #[must_use]
    pub(crate) fn sha256(&self) -> &str {
        self.sha256.get_or_init(|| hex(&Sha256::digest(&self.bytes)))
    }

    /// Returns the probe strings with the ids that this tokenizer gives them.
    pub(crate) fn probes(&self) -> Result<Vec<Probe>> {
        let found = || probes(&self.first).map_err(|error| error.file(self.file.clone()));
        self.probes.get_or_try_init(found).cloned()
    }
}

/// Returns `bytes` in lower-case hexadecimal.
#[must_use]
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).expect("a nibble is a digit");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
