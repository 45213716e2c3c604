//! Our engine against the `tokenizers` library: equal ids, on every shape of file that it knows.

#![expect(clippy::print_stderr, reason = "a test says what it skips")]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sabiprep::storage::{Local, Storage};
use sabiprep::tasks;
use sabiprep::tokenize::{TextEncoder, train_bpe};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

const LOCAL: &dyn Storage = &Local;

const WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|";
const REST: &str = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const O200K: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Returns the texts that the vocabularies are trained on: many words repeated, many alone.
fn corpus() -> Vec<String> {
    let text = "Ìwé mẹ́ta wà lórí tábìlì ọmọ náà ń kà á Ẹ̀kọ́ ọ́nụ́ Ụlọ akwụkwọ Ƙasa ɓera Ina \
                kwana the quick brown fox we're it's they'll I'm he'd 123 4567 the theory thermal \
                other mother e\u{301}kó o\u{323}mo\u{323} 中文字符 中文 العربية HTTPServer \
                camelCase print(x) == != // \n\n  \t </s> <yor>: […] — “quoted”";
    let words: Vec<&str> = text.split(' ').collect();
    let pick = |nth: usize| words[nth * nth % words.len()];
    (0..400)
        .map(|from| (0..30).map(|nth| pick(from * 7 + nth)).collect::<Vec<_>>().join(" "))
        .collect()
}

/// Returns a tokenizer file trained with the pattern of sabiprep.
fn trained() -> &'static Value {
    static TRAINED: OnceLock<Value> = OnceLock::new();
    TRAINED.get_or_init(|| {
        let trained =
            train_bpe(corpus().into_iter(), 900, &["</s>".to_owned(), "<yor>".to_owned()])
                .expect("a tokenizer");
        serde_json::from_slice(&trained.json).expect("JSON")
    })
}

fn split(pattern: &str, prefix: bool) -> Value {
    let split = json!({
        "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false,
    });
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": false,
    });
    json!({ "type": "Sequence", "pretokenizers": [split, bytes] })
}

/// Returns a tokenizer file whose vocabulary was trained under `pre_tokenizer`.
fn under(pre_tokenizer: &Value) -> Value {
    let mut json = trained().clone();
    json["pre_tokenizer"] = pre_tokenizer.clone();
    json["model"]["vocab"] = json!({});
    json["model"]["merges"] = json!([]);
    json["added_tokens"] = json!([]);
    let mut tokenizer = Tokenizer::from_bytes(json.to_string()).expect("a tokenizer");
    let mut trainer = tokenizers::models::TrainerWrapper::from(
        tokenizers::models::bpe::BpeTrainer::builder()
            .vocab_size(900)
            .show_progress(false)
            .initial_alphabet(
                tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect(),
            )
            .special_tokens(vec![tokenizers::AddedToken::from("</s>", true)])
            .build(),
    );
    tokenizer.train(&mut trainer, corpus().into_iter()).expect("trained");
    serde_json::from_str(&tokenizer.to_string(false).expect("JSON")).expect("JSON")
}

fn with(json: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut json = json.clone();
    change(&mut json);
    json
}

fn added(json: &mut Value, content: &str, flags: &[&str]) {
    let vocab = json["model"]["vocab"].as_object().expect("a vocabulary").len();
    let tokens = json["added_tokens"].as_array_mut().expect("a list");
    let id = vocab + tokens.len();
    let has = |flag: &str| flags.contains(&flag);
    let mut token = json!({ "id": id, "content": content });
    for flag in ["special", "single_word", "lstrip", "rstrip", "normalized"] {
        token[flag] = has(flag).into();
    }
    tokens.push(token);
}

/// Every file, with what it is.
#[expect(clippy::too_many_lines, reason = "a list")]
fn variants() -> Vec<(String, Value)> {
    let own = trained();
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    let mut variants = vec![("our own".to_owned(), own.clone())];
    let mut add = |name: &str, json: Value| variants.push((name.to_owned(), json));
    for digits in [r"\p{N}{1,3}", r"\p{N}{1,2}", r"\p{N}", r"\p{N}+"] {
        add(
            &format!("cl100k with {digits}"),
            under(&split(&format!("{WORDS}{digits}|{REST}"), false)),
        );
    }
    for (name, pattern) in [("Qwen-3.5", QWEN35), ("o200k", O200K), ("GPT-2 by a Split", GPT2)] {
        add(name, under(&split(pattern, false)));
        add(&format!("{name}, a space before each word"), under(&split(pattern, true)));
    }
    let gpt2 = under(&bytes);
    add("GPT-2", gpt2.clone());
    add(
        "GPT-2 in a sequence",
        with(&gpt2, |json| {
            json["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [bytes] });
        }),
    );
    add(
        "GPT-2 with a space",
        with(&gpt2, |json| json["pre_tokenizer"]["add_prefix_space"] = true.into()),
    );
    add("GPT-2 without NFC", with(&gpt2, |json| json["normalizer"] = Value::Null));
    add("no normalizer", with(own, |json| json["normalizer"] = Value::Null));
    add(
        "NFC in a sequence",
        with(own, |json| {
            json["normalizer"] = json!({ "type": "Sequence", "normalizers": [{ "type": "NFC" }] });
        }),
    );
    add("ignore_merges", with(own, |json| json["model"]["ignore_merges"] = true.into()));
    add(
        "ignore_merges and words that no merge makes",
        with(own, |json| {
            json["model"]["ignore_merges"] = true.into();
            json["model"]["merges"].as_array_mut().expect("merges").truncate(200);
        }),
    );
    add(
        "merges as lines",
        with(own, |json| {
            let merges = json["model"]["merges"].as_array().expect("merges");
            let line = |merge: &Value| {
                json!(format!(
                    "{} {}",
                    merge[0].as_str().expect("left"),
                    merge[1].as_str().expect("right")
                ))
            };
            json["model"]["merges"] = merges.iter().map(line).collect();
        }),
    );
    add(
        "merges written twice",
        with(own, |json| {
            let merges = json["model"]["merges"].as_array_mut().expect("merges");
            let twice: Vec<Value> = merges.iter().step_by(3).cloned().collect();
            merges.extend(twice);
        }),
    );
    add(
        "merges backwards",
        with(own, |json| json["model"]["merges"].as_array_mut().expect("merges").reverse()),
    );
    let without_atoms = |json: &mut Value| {
        let vocab = json["model"]["vocab"].as_object_mut().expect("a vocabulary");
        for atom in ["z", "q", "Ģ", "ð", "ħ", "Æ"] {
            vocab.shift_remove(atom);
        }
        let merges = json["model"]["merges"].as_array_mut().expect("merges");
        let known = |part: &Value| {
            !part.as_str().expect("a token").contains(['z', 'q', 'Ģ', 'ð', 'ħ', 'Æ'])
        };
        merges.retain(|merge| known(&merge[0]) && known(&merge[1]));
    };
    add("bytes without an atom", with(own, without_atoms));
    for fuse in [false, true] {
        add(
            &format!("bytes without an atom, unknown, fused: {fuse}"),
            with(own, |json| {
                without_atoms(json);
                json["model"]["unk_token"] = "</s>".into();
                json["model"]["fuse_unk"] = fuse.into();
            }),
        );
    }
    add(
        "added tokens of all flags",
        with(own, |json| {
            added(json, "<|im_start|>", &["special"]);
            added(json, "[L]", &["special", "lstrip"]);
            added(json, "[R]", &["rstrip"]);
            added(json, "[LR]", &["lstrip", "rstrip", "normalized"]);
            added(json, "fox", &["single_word", "normalized"]);
            added(json, "ẹ\u{301}ka", &["normalized"]);
            added(json, "e\u{301}", &["normalized", "special"]);
            added(json, "<|im", &[]);
            added(json, "the", &["single_word", "lstrip"]);
            added(json, "\n", &[]);
        }),
    );
    add(
        "added tokens, a space before text",
        with(&gpt2, |json| {
            json["pre_tokenizer"]["add_prefix_space"] = true.into();
            added(json, "[L]", &["lstrip"]);
            added(json, "fox", &["single_word", "normalized"]);
        }),
    );
    add(
        "Removed and inverted",
        with(own, |json| {
            json["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed".into();
            json["pre_tokenizer"]["pretokenizers"][0]["invert"] = true.into();
        }),
    );
    variants
}

struct Pair {
    name: String,
    own: TextEncoder,
    library: Tokenizer,
}

impl Pair {
    fn new((name, json): (String, Value)) -> Self {
        let bytes = json.to_string().into_bytes();
        let own = TextEncoder::from_bytes(&bytes).expect("a tokenizer");
        assert!(own.engine().name().starts_with("sabiprep"), "{name}: {}", own.engine().name());
        Self { name, own, library: Tokenizer::from_bytes(&bytes).expect("a tokenizer") }
    }

    fn check(&self, texts: &[&str]) {
        let ids = self.own.encode(texts.iter().copied(), 1).expect("ids");
        assert_eq!(ids.lengths.len(), texts.len());
        let mut at = 0;
        for (text, len) in texts.iter().zip(ids.lengths) {
            let library = self.library.encode_fast(*text, false).expect("ids");
            assert_eq!(ids.flat[at..at + len], *library.get_ids(), "{} on {text:?}", self.name);
            at += len;
        }
    }
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn pairs() -> &'static [Pair] {
    static PAIRS: OnceLock<Vec<Pair>> = OnceLock::new();
    PAIRS.get_or_init(|| variants().into_iter().map(Pair::new).collect())
}

#[test]
fn there_are_many_variants() {
    assert!(pairs().len() >= 25, "{}", pairs().len());
}

/// The shares of the assigned characters that variants of a common shape have between them.
const SHARE: usize = 8;

#[test]
fn every_code_point_in_several_contexts() {
    let block = |block: u32| -> String {
        let chars = (block * 256..(block + 1) * 256).filter_map(char::from_u32);
        chars
            .flat_map(|char| ['a', char, ' ', char, 'e', '\u{301}', char, '1', char, '\n'])
            .collect()
    };
    // Shapes that differ in what they do to a character alone see every character that is assigned, and
    // each of the others a share. Nothing is from U+40000 to U+DFFFF, and from U+F0000 on all is for
    // private use, as U+E000 to U+F8FF are: for two shapes.
    let is_plain = |nth: u32| (0x400..0xe00).contains(&nth) || nth >= 0xf00;
    let blocks: Vec<(u32, String)> = (0..0x11_0000 / 256).map(|nth| (nth, block(nth))).collect();
    let shapes = [
        "our own",
        r"cl100k with \p{N}{1,3}",
        "Qwen-3.5",
        "o200k",
        "GPT-2 by a Split",
        "GPT-2",
        "GPT-2 without NFC",
        "no normalizer",
    ];
    let is_shape = |pair: &Pair| shapes.contains(&pair.name.as_str());
    assert_eq!(pairs().iter().filter(|pair| is_shape(pair)).count(), shapes.len());
    let check = |at: usize| {
        let pair = &pairs()[at];
        let is_its = |nth: u32| match is_shape(pair) {
            true if is_plain(nth) => ["our own", "o200k"].contains(&pair.name.as_str()),
            true => true,
            false => !is_plain(nth) && nth as usize % SHARE == at % SHARE,
        };
        let texts = blocks.iter().filter(|(nth, _)| is_its(*nth)).map(|(_, text)| text.as_str());
        pair.check(&texts.collect::<Vec<_>>());
        Ok(())
    };
    tasks::run(threads(), pairs().len(), check).expect("equal ids");
}

#[test]
fn random_texts() {
    let strategy = proptest::collection::vec(
        prop_oneof![
            "[a-zA-Z ]{1,12}",
            r"[ \t\r\n]{1,4}",
            "(the|fox| mẹ́ta|'s|'LL|[0-9]{1,5}|</s>|<yor>|<|im_start|>|\\[L\\]|\\[LR\\]|\\[R\\]|\
             e\u{301}|ẹ\u{301}ka|o\u{301}\u{323})",
            "[\u{300}-\u{340}ọẹńàʰǅ中ا\u{1100}-\u{1112}\u{1161}-\u{1170}😀\u{a0}\u{3000}]\
             {1,4}",
            "\\PC{1,5}",
            any::<String>(),
        ],
        0..10,
    );
    // 100,000 in all, shared among the variants.
    let pairs = pairs();
    let cases = 100_000_u32.div_ceil(pairs.len() as u32);
    let check = |at: usize| {
        let pair = &pairs[at];
        let mut runner =
            TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
        runner
            .run(&strategy, |parts| {
                // All in one, and each by itself among the others.
                let whole = parts.concat();
                pair.check(
                    &[&whole].into_iter().chain(&parts).map(String::as_str).collect::<Vec<_>>(),
                );
                Ok(())
            })
            .expect("equal ids");
        Ok(())
    };
    tasks::run(threads(), pairs.len(), check).expect("equal ids");
}

#[test]
fn pathological_texts() {
    let long = "ọmọ".repeat(3_000);
    let mixed: String = corpus().concat().chars().filter(|char| char.is_alphabetic()).collect();
    let texts = [
        " ".repeat(20_000),
        "a".repeat(20_000),
        "\n".repeat(5_000),
        " \n".repeat(3_000),
        "e\u{301}".repeat(5_000),
        "\u{301}".repeat(2_000),
        "1".repeat(5_000),
        "=".repeat(20_000),
        long,
        mixed,
        "A".repeat(5_000),
        "aB".repeat(5_000),
        "'s".repeat(2_000),
        "the".repeat(4_000),
        "</s>".repeat(500),
        "ʰ".repeat(1_000) + &"B".repeat(1_000),
        String::new(),
    ];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for pair in pairs() {
        pair.check(&texts);
    }
}

#[test]
fn threads_change_nothing() {
    let corpus = corpus();
    let texts: Vec<&str> = corpus.iter().cycle().take(9_000).map(String::as_str).collect();
    let own = &pairs()[0].own;
    assert_eq!(
        own.encode(texts.iter().copied(), 1).expect("ids"),
        own.encode(texts.iter().copied(), 3).expect("ids")
    );
}

#[test]
fn what_is_not_known_is_left_to_the_library_and_why() {
    let own = trained();
    let cases: [(&str, Value); 8] = [
        ("split pattern", with(own, |json| json["pre_tokenizer"] = split(r"\w+|\W", false))),
        ("normalizer is NFKC", with(own, |json| json["normalizer"] = json!({ "type": "NFKC" }))),
        ("byte_fallback", with(own, |json| json["model"]["byte_fallback"] = true.into())),
        (
            "continuing_subword_prefix",
            with(own, |json| {
                json["model"]["continuing_subword_prefix"] = "@".into();
                json["model"]["merges"] = json!([]);
            }),
        ),
        ("end_of_word_suffix", with(own, |json| json["model"]["end_of_word_suffix"] = "@".into())),
        (
            "splits twice",
            with(own, |json| json["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = true.into()),
        ),
        (
            "behavior is Removed",
            with(own, |json| {
                json["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed".into();
            }),
        ),
        (
            "not a BPE",
            json!({
                "version": "1.0",
                "added_tokens": [],
                "pre_tokenizer": { "type": "Whitespace" },
                "model": {
                    "type": "WordLevel", "vocab": { "a": 0, "[UNK]": 1 }, "unk_token": "[UNK]",
                },
            }),
        ),
    ];
    for (reason, json) in cases {
        let bytes = json.to_string().into_bytes();
        let encoder = TextEncoder::from_bytes(&bytes).expect("a tokenizer");
        let name = encoder.engine().name();
        assert!(name.starts_with("tokenizers 0.23") && name.contains(reason), "{name}");
        assert_eq!(encoder.engine().warning(), None);
        let library = Tokenizer::from_bytes(&bytes)
            .expect("a tokenizer")
            .encode_fast("a fox, e\u{301}", false)
            .expect("ids");
        assert_eq!(
            encoder.encode(["a fox, e\u{301}"].into_iter(), 1).expect("ids").flat,
            library.get_ids()
        );
    }
}

#[test]
fn the_naija_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/naija");
    if !folder.is_dir() {
        eprintln!("skipped: no corpus at ../shared/corpora/naija");
        return;
    }
    let mut texts = Vec::new();
    for file in files_below(folder) {
        let bytes = LOCAL.whole_bytes(&file).expect("a file of the corpus");
        let text = String::from_utf8(bytes).unwrap_or_default();
        texts.extend(text.lines().map(str::to_owned));
    }
    assert!(texts.len() > 10_000, "{}", texts.len());
    // The library takes minutes for it all: each variant has its own share of the lines.
    let pairs = pairs();
    for (nth, pair) in pairs.iter().enumerate() {
        let share: Vec<&str> =
            texts.iter().skip(nth).step_by(pairs.len()).map(String::as_str).collect();
        pair.check(&share);
    }
}

/// Returns every file in a folder and the folders in it.
fn files_below(folder: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for name in LOCAL.list(&folder).expect("a folder") {
            let path = folder.join(name);
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}
