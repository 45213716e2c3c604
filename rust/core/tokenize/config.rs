//! Resolves the control tokens of a configuration, and lists candidates where a name is missing.

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use super::ControlIds;
use crate::error::{Error, Result};
use crate::plan::{TokenizerChats, TokenizerPlan, nearest};
use crate::segment::DEFAULT_CHAT;
use crate::storage::Storage;

/// Resolves BOS, EOS and pad from `corpus.toml`, else from the `tokenizer_config.json` beside the
/// tokenizer.
///
/// BOS is used if `corpus.toml` names it or `tokenizer_config.json` sets `add_bos_token`; pad
/// defaults to EOS.
pub(crate) fn resolve(
    plan: &TokenizerPlan,
    path: &Path,
    tokenizer: &Tokenizer,
    storage: &dyn Storage,
) -> Result<ControlIds> {
    let beside = sibling_config(path, storage)?;
    let token = |key: &str| -> Option<String> {
        let value = &beside[key];
        value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
    };
    let Some(eos) = plan.eos.clone().or_else(|| token("eos_token")) else {
        return Err(Error::config("no EOS token: it closes every document").remedy(format!(
            "set `eos` under [tokenizer] in corpus.toml; candidates: {}",
            candidates(tokenizer)
        )));
    };
    // An empty `bos` in corpus.toml turns off the one beside the tokenizer.
    let bos = match &plan.bos {
        Some(bos) if bos.is_empty() => None,
        Some(bos) => Some(bos.clone()),
        None if beside["add_bos_token"] == true => token("bos_token"),
        None => None,
    };
    let pad = plan.pad.clone().or_else(|| token("pad_token")).unwrap_or_else(|| eos.clone());
    Ok(ControlIds {
        bos: bos.map(|bos| id_of("bos", &bos, tokenizer)).transpose()?,
        eos: id_of("eos", &eos, tokenizer)?,
        pad: id_of("pad", &pad, tokenizer)?,
    })
}

/// Returns the chat templates beside the tokenizer at `path`, with its special tokens by name.
/// `chat_template.jinja` takes the place of the usual one in `tokenizer_config.json`.
pub(crate) fn chats(path: &Path, storage: &dyn Storage) -> Result<TokenizerChats> {
    let beside = sibling_config(path, storage)?;
    let mut chats = TokenizerChats::default();
    // Where there are several, each has a name; plain chats use the template called `default`.
    for named in beside["chat_template"].as_array().into_iter().flatten() {
        if let (Some(name), Some(text)) = (named["name"].as_str(), named["template"].as_str()) {
            chats.templates.insert(name.to_owned(), text.to_owned());
        }
    }
    if let Some(text) = beside["chat_template"].as_str() {
        chats.templates.insert(DEFAULT_CHAT.to_owned(), text.to_owned());
    }
    let file = path.with_file_name("chat_template.jinja");
    if storage.is_file(&file) {
        chats.templates.insert(DEFAULT_CHAT.to_owned(), storage.whole_text(&file)?);
    }
    for (key, value) in beside.as_object().into_iter().flatten() {
        let token = value.as_str().or_else(|| value["content"].as_str());
        if let Some(token) = token.filter(|_| key.ends_with("_token")) {
            chats.tokens.insert(key.clone(), token.to_owned());
        }
    }
    Ok(chats)
}

/// Reads the `tokenizer_config.json` beside the tokenizer; returns null if there is none.
fn sibling_config(path: &Path, storage: &dyn Storage) -> Result<Value> {
    let beside = path.with_file_name("tokenizer_config.json");
    // Most tokenizers come alone. A broken link is no absence: it is an error below.
    if !storage.is_there(&beside) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&storage.small_bytes(&beside)?).map_err(|error| {
        Error::tokenizer(format!("not JSON: {error}"))
            .file(beside.display().to_string())
            .line(error.line() as u64)
    })
}

/// Returns the id of a control token. Only an added token is accepted: text could spell any other.
fn id_of(key: &str, token: &str, tokenizer: &Tokenizer) -> Result<u32> {
    let added = tokenizer.get_added_tokens_decoder();
    if let Some((id, _)) = added.iter().find(|(_, added)| added.content == token) {
        return Ok(*id);
    }
    // A misspelled token is the usual mistake.
    let near = nearest(token, added.values().map(|added| added.content.as_str()));
    let hint = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
    Err(Error::config(format!("{key} = \"{token}\" is not one of the tokenizer's added tokens"))
        .remedy(format!("{hint}candidates: {}", candidates(tokenizer))))
}

/// Lists the added tokens that could be control tokens, special ones first.
fn candidates(tokenizer: &Tokenizer) -> String {
    let mut added: Vec<_> = tokenizer.get_added_tokens_decoder().into_iter().collect();
    added.sort_by_key(|(id, token)| (!token.special, *id));
    let names: Vec<String> =
        added.iter().take(20).map(|(_, token)| format!("`{}`", token.content)).collect();
    match names.len() {
        0 => "none, the tokenizer has no added tokens".to_owned(),
        _ if added.len() > names.len() => {
            format!("{} and {} more", names.join(" "), added.len() - names.len())
        }
        _ => names.join(" "),
    }
}

/// Refuses a model with dropout: it gives random ids, and a dataset must not depend on chance.
pub(crate) fn refuse_dropout(json: &Value) -> Result<()> {
    match json["model"]["dropout"].as_f64() {
        Some(dropout) if dropout > 0.0 => {
            Err(Error::tokenizer(format!("its model has dropout {dropout}: ids would be random"))
                .remedy("set \"dropout\" to null in its \"model\""))
        }
        _ => Ok(()),
    }
}
