"""Tasks made from plain text, beside a slow second implementation, however they are packed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

import sabiprep
from sabiprep import ConfigError
from support import packer
from support.explaining import properties
from support.files import files_of
from support.oracle import augment as oracle
from support.packed_texts import pack_file
from support.strategies import tokenizer_json

TASKS = ("diacritize", "denoise", "continue", "span_fill", "language_id", "order")
LETTERS = ["a", "e", "ọ", "ṣ", "E\u0323\u0300", "o\u0301", "é", "Ẹ", "T", "n", "\u1ecd\u0301"]
word = st.lists(st.sampled_from([*LETTERS, "-", "'", "1"]), min_size=1, max_size=7).map("".join)
space = st.sampled_from([" ", " ", " ", "  ", "\n", " \u00a0", "\u1361"])
texts = (
    st.tuples(st.lists(st.tuples(word, space), max_size=30), st.sampled_from(LETTERS))
    .map(lambda parts: "".join(w + s for w, s in parts[0]) + parts[1])
    .map(str.strip)
)
rates = st.fixed_dictionaries(
    {},
    optional={key: st.sampled_from([0.0, 0.05, 0.2]) for key in [*oracle.CHARS, *oracle.WORDS]},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tokenizer."""
    (tmp_path / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    return tmp_path


def explain(folder: Path, record: dict[str, Any], augment: Any, **source: Any) -> packer.Explained:
    """A record explained as one of a source with a task."""
    (folder / "a.jsonl").write_text("{}\n", "utf-8")
    source = {"name": "a", "lang": "yor", "files": ["a.jsonl"], "augment": augment, **source}
    packer.write_config(folder, [source])
    tokenizer = folder / "tokenizer.json"
    return packer.explain(folder, source["name"], record, tokenizer=tokenizer, seq_len=1 << 16)


def data_of(shown: packer.Explained) -> list[str]:
    """The data of the prompt and that of the target."""
    joined = {1: "", 2: "", 3: ""}
    for text, role, literal in shown.spans:
        # Text of blanks belongs to what is made, that of the usual templates does not.
        if not literal or text.startswith("___"):
            joined[2 if role == 1 else role] += text
    return [joined[2], joined[3]]


@properties
@given(text=texts, underdots=st.sampled_from(["keep", "strip"]))
def test_marks_are_stripped_as_by_the_oracle(folder: Path, text: str, underdots: str) -> None:
    shown = explain(folder, {"text": text}, {"task": "diacritize", "underdots": underdots})
    expected = oracle.stripped(text, underdots)
    if expected is None:
        assert shown.dropped == "filtered"
    else:
        assert data_of(shown) == [expected, text]


@properties
@given(text=texts, rates=rates, name=st.sampled_from(["a", "another source"]))
def test_noise_is_that_of_the_oracle(
    folder: Path, text: str, rates: dict[str, float], name: str
) -> None:
    if not any({**oracle.CHARS, **oracle.WORDS, **rates}.values()):
        return
    shown = explain(folder, {"text": text}, {"task": "denoise", **rates}, name=name)
    expected = oracle.noisy(text, oracle.Draws(name), rates)
    assert data_of(shown) == [expected, text]


@properties
@given(text=texts, shares=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
def test_a_text_is_continued_where_the_oracle_parts_it(
    folder: Path, text: str, shares: list[float]
) -> None:
    options = {"min_share": shares[0], "max_share": shares[1]}
    shown = explain(folder, {"text": text}, {"task": "continue", **options})
    expected = oracle.continued(text, oracle.Draws("a"), *shares)
    if expected is None:
        assert shown.dropped == "filtered"
    else:
        assert data_of(shown) == list(expected)
        start, rest = expected
        assert text.startswith(start) and text.endswith(rest)


@properties
@given(
    text=texts,
    rate=st.floats(0.01, 0.9),
    span=st.floats(1, 5),
    first=st.integers(0, 3),
)
def test_blanks_are_those_of_the_oracle(
    folder: Path, text: str, rate: float, span: float, first: int
) -> None:
    options = {"rate": rate, "span": span, "blank": "___{n}", "first": first}
    shown = explain(folder, {"text": text}, {"task": "span_fill", **options})
    expected = oracle.blanked(text, oracle.Draws("a"), "___{n}", rate, span, first)
    if expected is None:
        assert shown.dropped == "filtered"
        return
    assert data_of(shown) == list(expected)
    blanks = [(role, literal) for text, role, literal in shown.spans if text.startswith("___")]
    count = len(blanks) // 2
    assert blanks == [(1, True)] * count + [(3, True)] * count, "a blank is the template's"


@properties
@given(
    sentences=st.lists(
        st.lists(st.sampled_from(["mo", "wá", "ilé", "ọ̀nà"]), min_size=1, max_size=4).map(
            lambda words: " ".join(words).capitalize() + "."
        ),
        min_size=1,
        max_size=6,
    ),
    least=st.integers(2, 4),
)
def test_sentences_are_shuffled_as_by_the_oracle(
    folder: Path, sentences: list[str], least: int
) -> None:
    text = " ".join(sentences)
    segments = [{"prompt": "{{ shuffled }}"}, {"target": "{{ text }}|{{ order }}"}]
    augment = {"task": "order", "min_sentences": least}
    shown = explain(folder, {"text": text}, augment, segments=segments)
    if len(sentences) < least:
        assert shown.dropped == "filtered"
        return
    shuffled, numbers = oracle.shuffled(sentences, oracle.Draws("a"))
    assert data_of(shown) == [shuffled, text + numbers]
    # Putting the numbered sentences in this order gives the text.
    numbered = dict(re.findall(r"\[(\d+)\] ([^\[]*\.)", shuffled))
    assert " ".join(numbered[number] for number in numbers.split()) == text


def test_the_language_is_named_as_asked(folder: Path) -> None:
    for lang, shown, expected in [
        ("yo", "code", "yor"),
        ("yo", "name", "Yoruba"),
        ("yo_NG", "written", "yo_NG"),
        ("zzz-unknown", "name", "zzz-unknown"),
    ]:
        augment = {"task": "language_id", "language": shown}
        made = explain(folder, {"text": " Ẹ kú\n"}, augment, lang=lang)
        assert data_of(made) == ["Ẹ kú", expected]


LINES = [
    f"Ẹ̀kọ́ {n} dára. Ọmọ {'náà ' * (n % 9)}ń lọ. Ṣé wọ́n ti dé ilé? Bẹ́ẹ̀ ni, {n}!" for n in range(150)
]
MADE: dict[str, Callable[[str, oracle.Draws], tuple[str, str]]] = {
    "diacritize": lambda text, _: (oracle.stripped(text) or "", text),
    "denoise": lambda text, draws: (oracle.noisy(text, draws), text),
    "continue": lambda text, draws: oracle.continued(text, draws) or ("", ""),
    "span_fill": lambda text, draws: oracle.blanked(text, draws, "<extra_id_{n}>") or ("", ""),
    "language_id": lambda text, _: (text, "yor"),
    "order": lambda text, draws: (
        oracle.shuffled(re.split(r"(?<=[.?!]) ", text), draws)[0],
        text,
    ),
}


@pytest.mark.parametrize("task", TASKS)
def test_each_record_has_draws_of_its_own_whatever_the_splits(tmp_path: Path, task: str) -> None:
    content = "".join(line + "\n" for line in LINES).encode()
    packed = pack_file(tmp_path / "1", "a.txt", content, split_bytes=700, lang="yor", augment=task)
    whole = pack_file(tmp_path / "2", "a.txt", content, lang="yor", augment=task)
    assert packed.texts == whole.texts and packed.source["task"] == task
    action = "language" if task == "language_id" else "yor"
    offset = 0
    for line in LINES:
        given, wanted = MADE[task](line, oracle.Draws("file", offset))
        assert packed.texts[offset] == f"<{task}> {given} <{action}>: {wanted}"
        offset += len(line.encode()) + 1


def every_task(**source: Any) -> list[dict[str, Any]]:
    """A source of the text as it is, and one for each task of it."""
    common = {"lang": "yor", **source}
    return [
        {"name": "text", **common},
        *({"name": task, "augment": task, **common} for task in TASKS),
    ]


def pack(folder: Path, sources: list[dict[str, Any]], **pack: Any) -> dict[str, Any]:
    """The sources of the manifest of a corpus packed."""
    packer.write_config(folder, sources, pack={"seq_len": 512, **pack})
    out = folder.parent / f"{folder.name}.out"
    manifest = packer.pack(folder, out, tokenizer=folder / "tokenizer.json")
    assert packer.verify(out)["failures"] == []
    entries: list[dict[str, Any]] = manifest["sources"]
    return {entry["name"]: entry for entry in entries}


def held_out(out: Path) -> dict[int, set[int]]:
    """The held-out records of each source, by offset."""
    found: dict[int, set[int]] = {}
    with sabiprep.open_dataset(out) as dataset:
        for number in range(len(dataset.validation)):
            row = dataset.validation[number]
            for source, record in zip(row["source_ids"], row["record_ids"], strict=True):
                found.setdefault(int(source), set()).add(int(record) & (1 << 40) - 1)
    return found


def test_what_is_made_of_a_held_out_text_is_held_out_in_every_format(folder: Path) -> None:
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    (corpus / "a.txt").write_text("".join(line + "\n" for line in LINES), "utf-8")
    (corpus / "b.jsonl").write_text(
        "".join(json.dumps({"body": line}) + "\n" for line in LINES[::-1]), "utf-8"
    )
    as_tsv = {"format": "tsv", "columns": ["text"], "header": False}
    sources = [
        *every_task(files=["a.txt"]),
        {"name": "tsv", "files": ["a.txt"], "augment": "denoise", **as_tsv},
        {"name": "csv", "files": ["a.txt"], "augment": "diacritize", **as_tsv, "format": "csv"},
    ]
    # A comma would part the fields of a CSV.
    sources[-1]["delimiter"] = ";"
    pack(corpus, sources, validation=0.2)
    found = held_out(folder / "corpus.out")
    assert len(found) == len(sources) and 15 <= len(found[0]) <= 45
    assert all(records == found[0] for records in found.values())


def test_a_text_held_out_somewhere_is_trained_in_no_task_elsewhere(folder: Path) -> None:
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    (corpus / "dev.txt").write_text("".join(line + "\n" for line in LINES[:20]), "utf-8")
    again = [line.upper().replace(" ", "  ") for line in LINES[:20]]
    (corpus / "a.txt").write_text("".join(line + "\n" for line in again + LINES[20:]), "utf-8")
    for task in ("", *TASKS):
        holding = {"name": "dev", "lang": "yor", "files": [], "validation_files": ["dev.txt"]}
        if task:
            holding |= {"augment": task}
        entries = pack(corpus, [holding, *every_task(files=["a.txt"])])
        for name in ("text", *TASKS):
            assert entries[name]["drops"] == {"in validation": 20}, (task, name)
        rmtree(folder / "corpus.out")


def test_duplicates_are_told_by_the_text_within_each_kind_of_task(folder: Path) -> None:
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    (corpus / "a.txt").write_text("".join(line + "\n" for line in LINES[:9] * 2), "utf-8")
    (corpus / "b.txt").write_text("".join(line + "\n" for line in LINES[:12]), "utf-8")
    sources = every_task(files=["a.txt"])
    heavy = {"task": "denoise", "char_drop": 0.2}
    sources += [
        {"name": "same", "lang": "yor", "files": ["b.txt"], "augment": "denoise"},
        {"name": "other", "lang": "yor", "files": ["b.txt"], "augment": heavy},
    ]
    for policy in ("exact", "normalised"):
        entries = pack(corpus, sources, duplicates=policy)
        for name in ("text", *TASKS):
            assert (entries[name]["kept"], entries[name]["drops"]) == (9, {"duplicate": 9})
        assert (entries["same"]["kept"], entries["other"]["kept"]) == (3, 12)
        rmtree(folder / "corpus.out")


def test_near_duplicates_are_told_by_the_text_within_each_kind_of_task(folder: Path) -> None:
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    lines = [" ".join(f"ọ̀{line}{n}" for n in range(40)) + ". Ó! Ó tó!" for line in "abcdef"]
    nearly = [f"{line} Rárá o!" for line in lines]
    (corpus / "a.txt").write_text("".join(line + "\n" for line in lines + nearly), "utf-8")
    (corpus / "dev.txt").write_text(f"{lines[0]} Hẹn!\n", "utf-8")
    dev = {"name": "dev", "lang": "yor", "files": [], "validation_files": ["dev.txt"]}
    sources = [*every_task(files=["a.txt"]), {**dev, "augment": "order"}]
    entries = pack(corpus, sources, duplicates="near")
    for name in ("text", *TASKS):
        drops = {"duplicate": 5, "in validation": 2}
        assert (entries[name]["kept"], entries[name]["drops"]) == (5, drops), name


@pytest.mark.parametrize("task", TASKS)
def test_a_text_too_long_for_a_row_is_cut_before_the_task_is_made(
    tmp_path: Path, task: str
) -> None:
    words = " ".join(LINES)
    packed = pack_file(tmp_path, "a.txt", (words + "\n").encode(), lang="yor", augment=task)
    [text] = packed.texts.values()
    assert (packed.source["kept"], packed.source["truncated"]) == (1, 1)
    action = "language" if task == "language_id" else "yor"
    given, wanted = text.removeprefix(f"<{task}> ").split(f" <{action}>: ")
    if task in ("denoise", "diacritize", "order"):
        assert words.startswith(wanted) and words[len(wanted)] == " " and len(wanted) > 200
    elif task == "continue":
        assert words.startswith(f"{given} {wanted}")
    elif task == "language_id":
        assert words.startswith(given) and wanted == "yor"
    else:
        assert words.startswith(given.split(" <extra_id_0>")[0]) and len(wanted) > 60


def test_blanks_that_the_tokenizer_knows_are_tokens_and_those_of_the_data_are_not(
    folder: Path,
) -> None:
    tokenizer = Tokenizer.from_str(tokenizer_json("bytes"))
    blanks = [f"<extra_id_{n}>" for n in range(3)]
    tokenizer.add_special_tokens([AddedToken(blank, normalized=False) for blank in blanks])
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = [tokenizer.token_to_id(blank) for blank in blanks]
    text = "ó ti lọ sí ilé <extra_id_2> " * 3
    shown = explain(folder, {"text": text}, {"task": "span_fill", "rate": 0.2})
    expected = oracle.blanked(text.strip(), oracle.Draws("a"), "<extra_id_{n}>", 0.2)
    assert expected is not None
    count = expected[1].count("<extra_id_") - expected[1].count("<extra_id_2>")
    assert count == 1 and shown.dropped is None
    assert [id for id in shown.ids if id in ids] == [ids[0], ids[0]]
    # One that it needs itself would stand for two things.
    spelled = explain(folder, {"text": "ó ti <extra_id_0> lọ"}, "span_fill")
    assert spelled.dropped == "filtered"


def test_a_record_of_which_nothing_can_be_made_has_its_reason(folder: Path) -> None:
    for record, augment, reason in [
        ({"text": "omo ni"}, "diacritize", "filtered"),
        ({"text": "ó"}, "continue", "filtered"),
        ({"text": "ó"}, "span_fill", "filtered"),
        ({"text": "Ó dára. Ó tán."}, "order", "filtered"),
        ({"text": "123 …"}, "denoise", "filtered"),
        ({"text": " \n"}, "denoise", "empty target"),
        ({"text": None}, "denoise", "missing field"),
        ({"body": "ó"}, "denoise", "missing field"),
        ({"text": ["ó"]}, "denoise", "malformed"),
        ({"text": {"text": "ó"}}, "denoise", "malformed"),
    ]:
        assert explain(folder, record, augment).dropped == reason, record
    kept = explain(folder, {"page": {"text": " ó dé "}}, {"task": "denoise", "field": "page.text"})
    assert data_of(kept)[1] == "ó dé"


def test_segments_may_show_what_is_made_in_any_words_beside_other_fields(folder: Path) -> None:
    segments = [{"prompt": "{{ title | upper }}: {{ stripped }}"}, {"target": "{{ text }}"}]
    record = {"title": "ẹ̀kọ́", "text": "Ọmọ náà", "stripped": "of the record"}
    shown = explain(folder, record, "diacritize", segments=segments)
    assert "".join(shown.runs) == "Ẹ̀KỌ́: Omo naaỌmọ náà"
    # Blanks keep their place in a rendered template.
    rendered = [{"prompt": "{% if true %}{{ blanked }}{% endif %}"}, {"target": "{{ fills }}"}]
    augment = {"task": "span_fill", "blank": "___{n}"}
    text = " ".join(["wọ́n ti dé ilé"] * 9)
    shown = explain(folder, {"text": text, "n": 3}, augment, segments=rendered)
    assert data_of(shown) == list(oracle.blanked(text, oracle.Draws("a"), "___{n}") or ())


@pytest.mark.parametrize(
    ("source", "what", "remedy"),
    [
        ({"augment": "diacritise"}, 'cannot be "diacritise"', 'did you mean "diacritize"?'),
        ({"augment": {"task": "denoise", "char_drp": 1}}, "no key `char_drp`", "`char_drop`"),
        ({"augment": {"field": "a"}}, "`augment` has no `task`", 'task = "denoise"'),
        ({"augment": 1}, "one of its words in quotes, or a table", '"denoise"'),
        ({"augment": {"task": "order", "rate": 0.1}}, "an option of span_fill", "min_sentences"),
        ({"augment": "order", "chat": {"messages": "m"}}, "both `augment` and `chat`", "leave out"),
        (
            {"augment": "denoise", "segments": [{"target": "{{ text }}"}]},
            "show nothing that `augment` makes: {{ noisy }}",
            "show it in a segment",
        ),
        ({"augment": "language_id", "lang": "und"}, "no language to name", 'lang = "yor"'),
        (
            {"augment": "denoise", "unit": "paragraph"},
            "reads a.txt in other records than source 'text' does",
            "`unit`",
        ),
        ({"augment": "denoise", "overflow": "split"}, "is for plain text", '"truncate"'),
    ],
)
def test_a_source_that_cannot_be_meant_is_refused_with_a_remedy(
    folder: Path, source: dict[str, Any], what: str, remedy: str
) -> None:
    (folder / "a.txt").write_text("ó dé\n", "utf-8")
    text = {"name": "text", "lang": "yor", "files": ["a.txt"]}
    packer.write_config(folder, [text, {**text, "name": "x", **source}], pack={"validation": 0.1})
    with pytest.raises(ConfigError) as caught:
        packer.pack(folder, folder / "out", tokenizer=folder / "tokenizer.json", seq_len=64)
    assert what in caught.value.message and remedy in (caught.value.remedy or "")
    assert caught.value.source in ("x", None)


def test_a_side_of_parallel_text_is_read_as_the_pairs_are(folder: Path) -> None:
    (folder / "a.en").write_text("one\ntwo\n", "utf-8")
    (folder / "a.yo").write_text("ọ̀kan\néjì\n", "utf-8")
    pairs = {"files": {"en": "a.en", "yo": "a.yo"}}
    segments = [{"prompt": "{{ en }}"}, {"target": "{{ yo }}"}]
    alone = {"name": "x", "format": "text", "files": ["a.yo"], "augment": "denoise"}
    packer.write_config(
        folder, [{"name": "pairs", "segments": segments, **pairs}, alone], pack={"validation": 0.1}
    )
    tokenizer = folder / "tokenizer.json"
    with pytest.raises(ConfigError, match=r"reads a\.yo in other records than source 'pairs'"):
        packer.pack(folder, folder / "out", tokenizer=tokenizer, seq_len=64)
    of_side = {"name": "x", "augment": {"task": "denoise", "field": "yo"}, **pairs}
    packer.write_config(folder, [{"name": "pairs", "segments": segments, **pairs}, of_side])
    manifest = packer.pack(folder, folder / "out", tokenizer=tokenizer, seq_len=64)
    assert [source["kept"] for source in manifest["sources"]] == [2, 2]


def test_sources_by_language_make_one_task(folder: Path) -> None:
    for lang in ("yor", "ibo"):
        (folder / f"{lang}.txt").write_text("ẹ ṣé o\n", "utf-8")
    rows = [{"lang": "yor", "text": "ó dé"}, {"lang": "ibo", "text": "ọ bịara"}, {"text": "ó tán"}]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    packer.write_config(
        folder,
        [
            {"name": "by-file", "files": ["{lang}.txt"], "augment": "denoise"},
            {"name": "by-field", "files": ["a.jsonl"], "lang": "{{ lang }}", "augment": "continue"},
            {"name": "id", "files": ["a.jsonl"], "lang": "{{ lang }}", "augment": "language_id"},
        ],
    )
    tokenizer = folder / "tokenizer.json"
    manifest = packer.pack(folder, folder / "out", tokenizer=tokenizer, seq_len=64)
    sources = {source["name"]: source for source in manifest["sources"]}
    assert [sources[f"by-file-{lang}"]["task"] for lang in ("ibo", "yor")] == ["denoise"] * 2
    [config] = [one for one in manifest["config"]["source"] if one["name"] == "by-field-ibo"]
    assert config["segments"][0] == {"prompt": "<continue> {{ start }} <ibo>:"}
    assert config["augment"]["task"] == "continue"
    assert sources["id-und"]["drops"] == {"filtered": 1} and sources["id-yor"]["kept"] == 1


def test_a_clean_text_is_made_noisy_and_a_filter_measures_the_text(folder: Path) -> None:
    record = {"text": "o\u0323mo\u0323 \u200bni"}
    shown = explain(folder, record, "diacritize", clean={"invisible": "remove"})
    assert data_of(shown) == ["omo ni", "ọmọ ni"]
    # The text once: the document shows it twice.
    shown = explain(folder, {"text": "ọmọ ni " * 5}, "diacritize", filter={"max_words": 10})
    assert shown.dropped is None
    shown = explain(folder, {"text": "ọmọ ni " * 6}, "diacritize", filter={"max_words": 10})
    assert shown.dropped == "filtered"


def test_plan_names_what_is_made_for_a_misspelled_field(folder: Path) -> None:
    (folder / "a.txt").write_text("ó dé\n", "utf-8")
    segments = [{"prompt": "{{ nosiy }}"}, {"target": "{{ noisy }}"}]
    source = {"name": "a", "lang": "yor", "files": ["a.txt"], "augment": "denoise"}
    packer.write_config(folder, [{**source, "segments": segments}])
    [problem] = [one for one in sabiprep.plan(folder).problems if one.kind == "field"]
    assert "`nosiy`" in problem.message and "did you mean `noisy`?" in (problem.remedy or "")


def test_a_text_is_contaminated_whatever_is_made_of_it(folder: Path) -> None:
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    words = " ".join(f"ọ̀rọ̀{n}" for n in range(14))
    (corpus / "test.txt").write_text(f"{words}\n", "utf-8")
    (corpus / "a.txt").write_text(f"Ó ní! {words} ni! Ó tán!\n{LINES[0]}\n", "utf-8")
    entries = pack(corpus, every_task(files=["a.txt"]), decontaminate=["test.txt"])
    for name in ("text", *TASKS):
        assert (entries[name]["kept"], entries[name]["drops"]) == (1, {"contaminated": 1}), name


def test_a_changed_option_maps_its_source_again_and_no_other(folder: Path) -> None:
    corpus, out = folder / "corpus", folder / "out"
    corpus.mkdir()
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    (corpus / "a.txt").write_text("".join(line + "\n" for line in LINES), "utf-8")
    sources = every_task(files=["a.txt"])
    packer.write_config(corpus, sources)
    options = sabiprep.PackOptions(seq_len=512, threads=1, keep_spool=True)
    sabiprep.pack(corpus, out, options)
    sources[2]["augment"] = {"task": "denoise", "char_drop": 0.2}
    packer.write_config(corpus, sources)
    kept = {path.name for path in (out / ".work" / "spool").iterdir()}
    sabiprep.remix(out, folder / "mixed", options, corpus=corpus)
    again = {path.name for path in (folder / "mixed" / ".work" / "spool").iterdir()}
    assert len(again - kept) == len(kept - again) > 0
    fresh = folder / "fresh"
    sabiprep.pack(corpus, fresh, sabiprep.PackOptions(seq_len=512, threads=2))
    for path, content in files_of(fresh).items():
        assert (folder / "mixed" / path).read_bytes() == content, path


def test_plan_shows_what_is_made_and_a_tokenizer_is_trained_on_the_text(folder: Path) -> None:
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "a.txt").write_text("".join(line + "\n" for line in LINES) + "omo\n", "utf-8")
    packer.write_config(corpus, every_task(files=["a.txt"]))
    trained = packer.train_tokenizer(corpus, corpus / "tokenizer.json", 600)
    assert {"<denoise>", "<yor>", "<extra_id_0>", "<extra_id_99>"} <= set(trained["specials"])
    plan = sabiprep.plan(corpus)
    assert {problem.kind for problem in plan.problems} == {"dropped"}
    planned = {source.name: source for source in plan.sources}
    assert planned["denoise"].task == "denoise" and planned["text"].augment is None
    assert planned["span_fill"].augment is not None
    assert planned["span_fill"].augment["blank"] == "<extra_id_{n}>"
    assert planned["diacritize"].drops == {"filtered": 1}
    shown = "".join(span.text for span in planned["denoise"].records[0].spans)
    assert shown == f"<denoise> {oracle.noisy(LINES[0], oracle.Draws('denoise'))} <yor>: {LINES[0]}"


def test_the_page_shows_what_the_tasks_make(folder: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "records.md").read_text("utf-8")
    text = "Ẹ kú àárọ̀, ẹ̀yin ará ilé wa. Ọmọ náà ń lọ sí ilé-ìwé. Ṣé o ti jẹun?"
    for task in TASKS:
        shown = explain(folder, {"text": text}, task, name=f"news-{task}")
        joined = ""
        for role, spans in groupby(shown.spans, lambda span: " pdt"[span[1]]):
            joined += f"⟦{role}|{''.join(text for text, _, _ in spans)}⟧"
        assert joined in page, task


def test_exchanged_fields_give_pairs_of_back_translation(tmp_path: Path) -> None:
    line = json.dumps({"text": "Ọmọ náà ń lọ", "mt": "The child goes"})
    segments = [{"prompt": "<translate> {{ mt }} <yor>:"}, {"target": " {{ text }}"}]
    packed = pack_file(tmp_path, "a.jsonl", f"{line}\n".encode(), segments=segments)
    assert list(packed.texts.values()) == ["<translate> The child goes <yor>: Ọmọ náà ń lọ"]


def test_noise_comes_at_about_the_rates_asked_for(tmp_path: Path) -> None:
    lines = [f"{'abcdefghij ' * 40}{n}" for n in range(200)]
    zero = dict.fromkeys([*oracle.CHARS, *oracle.WORDS], 0.0)
    letters, words = 400 * 200, 41 * 200
    for key, rate in [("char_drop", 0.02), ("char_repeat", 0.05), ("word_drop", 0.03)]:
        augment = {"task": "denoise", **zero, key: rate}
        content = "".join(line + "\n" for line in lines).encode()
        packed = pack_file(tmp_path / key, "a.txt", content, augment=augment)
        made = [text.split("> ", 1)[1].rsplit(" <", 1)[0] for text in packed.texts.values()]
        if key == "word_drop":
            share = 1 - sum(len(text.split()) for text in made) / words
        else:
            there = sum(len(re.findall("[a-j]", text)) for text in made)
            share = abs(there / letters - 1)
        assert abs(share - rate) < 0.15 * rate, (key, share)
