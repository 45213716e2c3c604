//! `Chat`: conversations of any length, rendered by a chat template.
//!
//! Takes the messages of a record; gives one document, in which the trained messages are targets.
//! The template is rendered once without marks and once with the contents of messages marked.
//! Where it says what is generated, that is trained. Elsewhere an answer reaches from the end of
//! the generation prompt to the first control token that the template spells after its content.

use std::ops::Range;

use minijinja::Value as Jinja;

use super::chat_messages::{Message, messages_of, most_dropped, without_oldest};
use super::chat_spans::{Conversation, Heads};
use super::jinja::Template;
use super::marks::{Marked, Signs};
use super::{
    Controls, Each, Fields, Rendered, SegmentBuilder, Step, TokenNames, chat_templates, value_at,
};
use crate::error::{Error, Result};
use crate::plan::{ChatSpec, FoundTemplate, Source, TokenizerChats, TrainOn};
use crate::read::{Needed, Value, field_path, parse_json};
use crate::schema::{DropReason, Refusal, Role};

type Rendering<T> = std::result::Result<T, Refusal>;

/// Finds the chat template of a source that has one, among those of the tokenizer and those known
/// by name. `names` are the tokens that the configuration names.
pub(crate) fn find_chat_template(
    source: &mut Source,
    chats: &TokenizerChats,
    names: &TokenNames,
) -> Result<()> {
    let name = source.name.clone();
    let Some(chat) = source.chat.as_mut().filter(|chat| chat.found.is_none()) else {
        return Ok(());
    };
    let text = chat_templates::text_of(chat.template.as_deref(), chats)
        .map_err(|error| error.source(name))?;
    let mut tokens = chats.tokens.clone();
    tokens.extend(names.iter().cloned());
    // As in `transformers`, a token that a tokenizer lacks is no text.
    tokens.entry("bos_token".to_owned()).or_default();
    chat.found = Some(FoundTemplate { text, tokens });
    Ok(())
}

/// The conversations of a source, ready to render.
#[derive(Debug)]
pub(crate) struct Chat {
    template: Template,
    found: FoundTemplate,
    /// The paths of its fields.
    messages: Vec<String>,
    tools: Option<Vec<String>>,
    documents: Option<Vec<String>>,
    needed: Needed,
    train_on: TrainOn,
    controls: Controls,
    heads: Heads,
    /// The tokens that the configuration puts at the ends of a document.
    bos: Option<String>,
    eos: Option<String>,
}

/// The values of a record that a chat template sees.
struct Seen<'a> {
    messages: &'a [Message<'a>],
    tools: Option<&'a Value>,
    documents: Option<&'a Value>,
    add_generation_prompt: bool,
}

impl<'a> Seen<'a> {
    /// Returns messages with nothing beside them.
    fn of(messages: &'a [Message<'a>]) -> Self {
        Self { messages, tools: None, documents: None, add_generation_prompt: false }
    }
}

impl Chat {
    /// Compiles the template of a source. Refuses one that leaves open what is trained.
    pub(crate) fn compile(
        source: &Source,
        chat: &ChatSpec,
        controls: &Controls,
        tokens: &TokenNames,
    ) -> Result<Self> {
        Self::new(chat, controls, tokens).map_err(|error| error.source(source.name.clone()))
    }

    /// Compiles a template and tries it on a probe.
    fn new(chat: &ChatSpec, controls: &Controls, tokens: &TokenNames) -> Result<Self> {
        let Some(found) = chat.found.clone() else {
            return Err(Error::internal("a chat template was not looked for")
                .remedy("this is a bug in sabiprep: please report it"));
        };
        let path = |key: &str, path: &str| {
            field_path(path).ok_or_else(|| {
                Error::config(format!("chat: {key} = {path:?} is no field"))
                    .remedy("name a field, or one of an object: \"data.messages\"")
            })
        };
        let optional = |key: &str, field: &Option<String>| {
            field.as_deref().map(|field| path(key, field)).transpose()
        };
        let named = |wanted: &str| {
            let token = tokens.iter().find(|(name, token)| name == wanted && !token.is_empty());
            token.map(|(_, token)| token.clone())
        };
        let messages = path("messages", &chat.messages)?;
        let tools = optional("tools", &chat.tools)?;
        let documents = optional("documents", &chat.documents)?;
        let paths = [Some(&messages), tools.as_ref(), documents.as_ref()].into_iter().flatten();
        let needed = Needed::of(paths.filter_map(|path| path.first().cloned()));
        let mut chat = Self {
            template: Template::of_chat(&found.text)?,
            found,
            messages,
            tools,
            documents,
            needed,
            train_on: chat.train_on.clone(),
            controls: controls.clone(),
            heads: Heads::default(),
            bos: named("bos_token"),
            eos: named("eos_token"),
        };
        chat.heads = chat.probe()?;
        Ok(chat)
    }

    /// Renders a conversation made for the purpose. Returns the texts before its answers; refuses a
    /// template that leaves open what is trained.
    fn probe(&self) -> Result<Heads> {
        let value = |turns: &[(&str, &str)]| {
            let turn = |&(role, content): &(&str, &str)| {
                let pair = |key: &str, text: &str| (key.to_owned(), text.into());
                Value::Object([pair("role", role), pair("content", content)].into_iter().collect())
            };
            Value::Array(turns.iter().map(turn).collect())
        };
        let turns = [("user", "Hi"), ("assistant", "Yes"), ("user", "So"), ("assistant", "No")];
        let all = TrainOn::Word(crate::plan::TrainWord::All);
        // What the template says about a turn that it refuses is the reason to show.
        let refuse = |refusal: Refusal| {
            let why = format!("its chat template fails on a plain conversation: {}", refusal.why);
            let remedy = if refusal.why.contains("strftime_now") {
                "today's date would make the dataset another each day: write it into the template"
            } else {
                "mend the template, or name another: chat = { template = \"chatml\" }"
            };
            Error::config(why).remedy(remedy)
        };
        let list = value(&turns);
        let messages = messages_of(&list, "messages", &TrainOn::default()).map_err(refuse)?;
        let (text, marked, generated) = self.rendered(&Seen::of(&messages), &[]).map_err(refuse)?;
        let ask = value(&turns[..1]);
        let ask = messages_of(&ask, "messages", &all).map_err(refuse)?;
        let heads = self.heads(&ask);
        let conversation =
            Conversation { marked: &marked, generated: &generated, messages: &messages };
        let spans = conversation.trained(&heads, &self.controls).map_err(|why| {
            Error::config(format!("its chat template leaves open what is trained: {why}")).remedy(
                "put {% generation %} and {% endgeneration %} around what is trained in the \
                 template",
            )
        })?;
        let end = |span: Option<&Range<usize>>| self.controls.at_end(&text[span?.clone()]);
        let (first, last) = (end(spans.first()), end(spans.last()));
        // Where only the last answer is left open, the token before the next is the head of a
        // turn, unless it is EOS, which closes the last one too.
        let is_closed = first.is_some() && (first == last || first == self.eos.as_deref());
        if generated.is_empty() && self.controls.any() && !is_closed {
            return Err(Error::config(
                "its chat template closes an answer with no token of the tokenizer: no end of a \
                 turn could be trained",
            )
            .remedy(
                "name the template of this tokenizer, or add the tokens that it spells to the \
                 tokenizer's `added_tokens`, or mark what is trained in the template by \
                 {% generation %} and {% endgeneration %}",
            ));
        }
        Ok(heads)
    }

    /// Returns what the template puts before an answer, as far as it can be asked for one.
    fn heads(&self, ask: &[Message<'_>]) -> Heads {
        let seen = Seen { add_generation_prompt: true, ..Seen::of(ask) };
        let Ok((asked, marked, _)) = self.rendered(&seen, &[]) else { return Heads::default() };
        let plain = self.rendered(&Seen::of(ask), &[]).map(|(text, ..)| text).unwrap_or_default();
        let end = marked.data.last().map_or(asked.len(), |data| data.end);
        let added = asked.strip_prefix(&plain).filter(|_| !plain.is_empty());
        Heads {
            after_user: asked[end..].to_owned(),
            generation: added.unwrap_or_default().to_owned(),
        }
    }

    /// Renders a conversation. Returns its text, the text with the origin of its data, and the
    /// generated spans. `texts` are all texts that it may hold.
    fn rendered(
        &self,
        seen: &Seen<'_>,
        texts: &[&str],
    ) -> Rendering<(String, Marked, Vec<Range<usize>>)> {
        let open = |why: &str| Refusal::new(DropReason::TemplateError, why.to_owned());
        let text = self.template.render_chat(self.names(seen, None))?;
        let signs = self
            .template
            .signs(texts)
            .ok_or_else(|| open("its data holds nearly every Unicode noncharacter"))?;
        let values = [seen.tools, seen.documents].into_iter().flatten();
        let has_numbers =
            values.chain(seen.messages.iter().flat_map(Message::values)).any(has_numbers);
        let marked =
            self.template.render_marked(self.names(seen, Some(&signs)), &signs, has_numbers);
        let found = marked.and_then(|marked| without_generation(marked, signs.generation()));
        match found.filter(|(marked, _)| marked.text == text) {
            Some((marked, generated)) => Ok((text, marked, generated)),
            None => Err(open("its template's text cannot be told from its messages")),
        }
    }

    /// Returns the names that the template knows, its data marked with `signs`.
    fn names(&self, seen: &Seen<'_>, signs: Option<&Signs>) -> Jinja {
        let shows_only = self.template.shows_only();
        let data = |value: Option<&Value>| {
            let string = |text: &str| match signs {
                Some(signs) if !text.is_empty() => signs.marked(text, 0),
                _ => text.to_owned(),
            };
            value.map_or_else(
                || Jinja::from(()),
                |value| super::python::value_of(value, &string, shows_only),
            )
        };
        let messages = seen.messages.iter().enumerate();
        let messages: Jinja =
            messages.map(|(index, message)| message.value(index, signs, shows_only)).collect();
        let names = [
            ("messages", messages),
            ("tools", data(seen.tools)),
            ("documents", data(seen.documents)),
            ("add_generation_prompt", Jinja::from(seen.add_generation_prompt)),
        ];
        let tokens = self.found.tokens.iter();
        let tokens = tokens.map(|(name, token)| (name.as_str(), Jinja::from(token.as_str())));
        Jinja::from_pairs(names.into_iter().chain(tokens))
    }

    /// Renders the conversation of a record into `out`.
    fn render(&self, fields: &Fields, out: &mut Rendered) -> Rendering<()> {
        out.clear();
        let field = self.messages.join(".");
        let Some(list) = value_at(fields, &self.messages) else {
            let why = format!("field '{field}' is missing or null");
            return Err(Refusal::new(DropReason::MissingField, why));
        };
        let messages = messages_of(list, &field, &self.train_on)?;
        let tools = Self::beside(fields, self.tools.as_deref())?;
        let documents = Self::beside(fields, self.documents.as_deref())?;
        let seen =
            Seen { tools: tools.as_ref(), documents: documents.as_ref(), ..Seen::of(&messages) };
        let mut texts = Vec::new();
        super::jinja::collect_texts(fields, &mut texts);
        let (_, marked, generated) = self.rendered(&seen, &texts)?;
        let conversation =
            Conversation { marked: &marked, generated: &generated, messages: &messages };
        let trained = conversation.trained(&self.heads, &self.controls).map_err(|why| {
            Refusal::new(DropReason::TemplateError, format!("its chat template: {why}"))
        })?;
        self.write(&marked, &trained, out);
        if out.spans.iter().any(|span| span.role == Role::Target) {
            return Ok(());
        }
        Err(Refusal::new(DropReason::EmptyTarget, "the template shows nothing that is trained"))
    }

    /// Returns a field beside the messages; a text is read as JSON, which is how columns hold it.
    fn beside(fields: &Fields, path: Option<&[String]>) -> Rendering<Option<Value>> {
        let Some((path, value)) = path.and_then(|path| Some((path, value_at(fields, path)?)))
        else {
            return Ok(None);
        };
        let Some(text) = value.as_str() else { return Ok(Some(value.clone())) };
        let inner = parse_json(format!("{{\"value\": {text}}}").as_bytes());
        let value = inner.ok().and_then(|mut fields| fields.swap_remove("value"));
        value.map(Some).ok_or_else(|| {
            let why = format!("`{}` is neither a list nor the JSON of one", path.join("."));
            Refusal::new(DropReason::Malformed, why)
        })
    }

    /// Writes a conversation, span by span. A BOS or EOS that the template spells at its ends is
    /// left out, if the configuration puts it there.
    fn write(&self, marked: &Marked, trained: &[Range<usize>], out: &mut Rendered) {
        let text = &marked.text;
        let first = marked.data.first().map_or(text.len(), |data| data.start);
        let last = marked.data.last().map_or(0, |data| data.end);
        let begin = self.bos.as_ref().filter(|bos| text[..first].starts_with(bos.as_str()));
        let begin = begin.map_or(0, String::len);
        let closing = text[last..].trim_end_matches(super::methods::is_space);
        let closing = self.eos.as_ref().and_then(|eos| closing.strip_suffix(eos.as_str()));
        let end = closing.map_or(text.len(), |rest| last + rest.len()).max(begin);
        let mut trained = trained.iter().peekable();
        let mut piece = |range: Range<usize>, literal: bool| {
            let mut from = range.start.clamp(begin, end);
            let to = range.end.clamp(begin, end);
            while from < to {
                while trained.next_if(|span| span.end <= from).is_some() {}
                let next = trained.peek();
                let (role, stop) = match next {
                    Some(span) if span.start <= from => (Role::Target, span.end),
                    _ if literal => (Role::Template, next.map_or(to, |span| span.start)),
                    _ => (Role::Data, next.map_or(to, |span| span.start)),
                };
                let stop = stop.min(to);
                out.push(&text[from..stop], role, literal);
                from = stop;
            }
        };
        let mut from = 0;
        for data in &marked.data {
            piece(from..data.start, true);
            piece(data.range(), false);
            from = data.end;
        }
        piece(from..text.len(), true);
    }
}

/// Returns whether a value holds a number or a truth value.
fn has_numbers(value: &Value) -> bool {
    super::jinja::has_numbers(value)
}

/// Returns a marked text without the marks of generation, and the spans between them; `None` if
/// these do not pair.
fn without_generation(
    marked: Marked,
    signs: Option<[char; 2]>,
) -> Option<(Marked, Vec<Range<usize>>)> {
    let Some(signs) = signs.filter(|signs| super::marks::find(&marked.text, *signs).is_some())
    else {
        return Some((marked, Vec::new()));
    };
    let (mut text, mut spans) = (String::with_capacity(marked.text.len()), Vec::new());
    let (mut open, mut cuts) = (None, Vec::new());
    let mut from = 0;
    for (place, sign) in marked.text.match_indices(signs) {
        text.push_str(&marked.text[from..place]);
        from = place + sign.len();
        cuts.push(place);
        match open.take() {
            None if sign.starts_with(signs[0]) => open = Some(text.len()),
            Some(start) if sign.starts_with(signs[1]) => spans.push(start..text.len()),
            _ => return None,
        }
    }
    text.push_str(&marked.text[from..]);
    if open.is_some() {
        return None;
    }
    let mut out = Marked::plain(&text);
    let mut cuts = cuts.into_iter().peekable();
    let mut taken = 0;
    for data in &marked.data {
        while cuts.next_if(|cut| *cut < data.start).is_some() {
            taken += signs[0].len_utf8();
        }
        let start = data.start - taken;
        // A mark within data would be one that the data itself moved.
        if cuts.peek().is_some_and(|cut| *cut < data.end) {
            return None;
        }
        out.data.push(super::marks::Stretch { start, end: data.end - taken, label: data.label });
    }
    Some((out, spans))
}

/// Makes one document of a conversation.
impl SegmentBuilder for Chat {
    fn build(
        &self,
        fields: &Fields,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> Rendering<()> {
        self.render(fields, rendered)?;
        each(rendered)
    }

    fn needed(&self) -> &Needed {
        &self.needed
    }

    fn units(&self, fields: &Fields) -> Option<Vec<usize>> {
        let field = self.messages.join(".");
        let list = value_at(fields, &self.messages);
        let messages = list.map(|list| messages_of(list, &field, &self.train_on));
        let messages = messages.and_then(std::result::Result::ok);
        Some(vec![messages.map_or(0, |messages| most_dropped(&messages))])
    }

    fn without_units(&self, fields: &Fields, counts: &[usize]) -> Option<Fields> {
        let &[count] = counts else { return None };
        let Some(Value::Array(items)) = value_at(fields, &self.messages) else { return None };
        let kept = without_oldest(items, count);
        let mut fields = fields.clone();
        let path: Vec<Step> = self.messages.iter().cloned().map(Step::Key).collect();
        *super::value_at_mut(&mut fields, &path)? = Value::Array(kept);
        Some(fields)
    }

    fn named_fields(&self) -> Vec<Vec<Step>> {
        vec![self.messages.iter().cloned().map(Step::Key).collect()]
    }
}
