"""Corpora that were read in another way than their owners meant, without a word about it."""

from __future__ import annotations

import io
import json
import tomllib
import zipfile
from pathlib import Path

import pytest
from rich.console import Console

import sabiprep
from sabiprep import ConfigError, CorpusPlan, InputError, PackOptions
from sabiprep.survey_table import plan_table
from support import packer
from support.columnar import arrow, table_of
from support.unconfigured import json_lines, write_tokenizer

LABEL = [{"prompt": "{{ text }}: "}, {"target": "{{ label }}"}]
RECORDS = [{"text": f"a text {i}", "label": f"l{i}"} for i in range(20)]
PAIRS = [{"prompt": f"a text {i}", "answer": f"l{i}"} for i in range(20)]
NER = "".join(f"Ada{i} B-PER\nlọ O\nEko{i} B-LOC\n\n" for i in range(20))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """An empty corpus with a tokenizer."""
    (tmp_path / "corpus").mkdir()
    write_tokenizer(tmp_path / "corpus" / "tokenizer.json")
    return tmp_path / "corpus"


def configure(corpus: Path, **source: object) -> None:
    """Writes a source of ``a.jsonl`` with the tokenizer that lies in the corpus."""
    entry = {"name": "a", "lang": "yor", "files": ["a.jsonl"], "segments": LABEL, **source}
    entry = {key: value for key, value in entry.items() if value is not None}
    packer.write_config(corpus, [entry], tokenizer={"eos": "</s>"}, pack={"seq_len": 128})


def problems(plan: CorpusPlan) -> list[tuple[str, str]]:
    return [(problem.severity, problem.kind) for problem in plan.problems]


def test_tagged_tokens_in_a_text_file_are_no_text(corpus: Path, tmp_path: Path) -> None:
    (corpus / "ner").mkdir()
    for lang in ("hau", "yor"):
        (corpus / f"ner/{lang}.txt").write_text(NER, "utf-8")
        (corpus / f"ner/{lang}.conll").write_text(NER, "utf-8")
    with pytest.raises(InputError, match=r"tokens (with|have) tags"):
        sabiprep.pack(corpus, tmp_path / "out", PackOptions(seq_len=128))
    # What `init` leaves to its owner packs once its marks of comment are gone.
    blocks = sabiprep.init(corpus, write=False).split("# Not recognised")[1:]
    sources = []
    for block in blocks:
        lines = block[block.index("# [[source]]") :].split("\n\n")[0].splitlines()
        sources += tomllib.loads("\n".join(line.removeprefix("# ") for line in lines))["source"]
    assert [source.get("format") for source in sources] == [None, "conll"]
    for nth, source in enumerate(sources):
        configure(corpus, **{"lang": None, **source})
        report = sabiprep.pack(corpus, tmp_path / str(nth))
        assert [source.train.documents for source in report.sources] == [20, 20]


@pytest.mark.parametrize("test", ["devtest", "tests", "testset", "test2"])
def test_no_name_of_a_test_split_is_trained_on(corpus: Path, test: str) -> None:
    for name in ("train", "dev2", test):
        (corpus / f"yor.{name}.jsonl").write_text(json_lines(PAIRS))
    [source] = sabiprep.plan(corpus).sources
    assert source.files.names == ("yor.train.jsonl",)
    assert source.validation_files is not None
    assert source.validation_files.names == ("yor.dev2.jsonl",)


def test_one_brace_in_a_target_is_no_text_to_train(corpus: Path, tmp_path: Path) -> None:
    (corpus / "a.jsonl").write_text(json_lines(RECORDS))
    configure(corpus, segments=[{"prompt": "{{ text }} ="}, {"target": " {label}"}])
    assert ("error", "template") in problems(sabiprep.plan(corpus))
    with pytest.raises(ConfigError, match="a target shows no field") as caught:
        sabiprep.pack(corpus, tmp_path / "out")
    assert "{{ label }} for {label}" in (caught.value.remedy or "")
    # A constant answer may be meant.
    configure(corpus, segments=[{"prompt": "{{ text }} ="}, {"target": " yes"}])
    assert sabiprep.pack(corpus, tmp_path / "out").train.documents == 20


def test_a_pattern_reads_none_of_the_files_that_configure_the_corpus(
    corpus: Path, tmp_path: Path
) -> None:
    (corpus / "book.txt").write_text("one\ntwo\n")
    configure(corpus, files=["*"], format="text", segments=[{"target": "{{ text }}"}])
    report = sabiprep.pack(corpus, tmp_path / "out")
    assert [source.records for source in report.sources] == [2]
    (corpus / "book.txt").unlink()
    with pytest.raises(InputError, match="no file matches"):
        sabiprep.pack(corpus, tmp_path / "again")


def test_a_saved_folder_is_one_source_without_what_was_cached_in_it(
    corpus: Path, tmp_path: Path
) -> None:
    folder = corpus / "sets" / "train"
    folder.mkdir(parents=True)
    (folder / "data-0.arrow").write_bytes(arrow(table_of(20), stream=True))
    (folder / "cache-1.arrow").write_bytes(arrow(table_of(7), stream=True))
    (folder / "dataset_info.json").write_text("{}")
    state = {"_data_files": [{"filename": "data-0.arrow"}]}
    (folder / "state.json").write_text(json.dumps(state))
    [source] = tomllib.loads(sabiprep.init(corpus, write=False))["source"]
    assert source["files"] == ["sets/train"]
    assert sabiprep.pack(corpus, tmp_path / "out").sources[0].records == 20
    selected = {**state, "_indices_files": [{"filename": "indices.arrow"}]}
    (folder / "state.json").write_text(json.dumps(selected))
    with pytest.raises(InputError, match="selection of its rows"):
        sabiprep.pack(corpus, tmp_path / "again")


@pytest.mark.parametrize(
    ("answers", "remedy"),
    [(["a", "b"], "join"), ("['a', 'b']", 'literals = ["answers"]'), ({"text": "a"}, "join")],
)
def test_a_list_is_not_shown_as_python_writes_it_without_a_word(
    corpus: Path, answers: object, remedy: str
) -> None:
    records = [{"text": f"text {i}", "answers": answers} for i in range(9)]
    (corpus / "a.jsonl").write_text(json_lines(records))
    configure(corpus, segments=[{"prompt": "{{ text }}"}, {"target": "{{ answers }}"}])
    [problem] = [problem for problem in sabiprep.plan(corpus).problems if problem.kind == "list"]
    assert problem.severity == "warning" and remedy in (problem.remedy or "")


def test_a_misspelled_field_under_a_default_is_found(corpus: Path) -> None:
    (corpus / "a.jsonl").write_text(json_lines(RECORDS))
    prompt = "{{ txet | default('') }}{% if lable %}{{ lable }}{% endif %} ="
    configure(corpus, segments=[{"prompt": prompt}, {"target": "{{ label }}"}])
    found = [problem for problem in sabiprep.plan(corpus).problems if problem.kind == "field"]
    assert [(problem.severity, problem.remedy) for problem in found] == [
        ("warning", "did you mean `label`?"),
        ("warning", "did you mean `text`?"),
    ]
    loop = "{% for x in record %}{{ x }}{{ loop.index }}{% endfor %}{{ label }}"
    configure(corpus, segments=[{"prompt": loop}, {"target": "{{ label }}"}])
    assert "field" not in [problem.kind for problem in sabiprep.plan(corpus).problems]


def test_a_text_is_not_translated_into_itself(corpus: Path, tmp_path: Path) -> None:
    for lang in ("eng", "yor"):
        (corpus / f"{lang}.dev").write_text(f"{lang}\n" * 5)
    segments = [{"prompt": "{{ en }}"}, {"target": "{{ other }}"}]
    configure(corpus, files={"en": "eng.dev", "other": "{lang}.dev"}, lang=None, segments=segments)
    with pytest.raises(ConfigError, match=r"reads eng\.dev as 'en' and as 'other'"):
        sabiprep.pack(corpus, tmp_path / "out")


def test_plan_fails_where_packing_would_find_nothing(corpus: Path, tmp_path: Path) -> None:
    (corpus / "a.jsonl").write_text(json_lines(RECORDS))
    configure(corpus, lang="{{ language }}")
    assert ("error", "language") in problems(sabiprep.plan(corpus))
    (corpus / "a.jsonl").write_text(json_lines([{"text": "a " * 9999, "label": "b " * 9999}]))
    configure(corpus)
    assert ("error", "nothing to train") in problems(sabiprep.plan(corpus))
    with pytest.raises(InputError):
        sabiprep.pack(corpus, tmp_path / "out")


def test_plan_fails_where_settings_leave_nothing(corpus: Path, tmp_path: Path) -> None:
    (corpus / "a.jsonl").write_text(json_lines(RECORDS))
    (corpus / "b.jsonl").write_text(json_lines(RECORDS))
    for nth, source in enumerate([{"epochs": 0.001}, {"validation_files": ["b.jsonl"]}]):
        configure(corpus, **source)
        assert problems(sabiprep.plan(corpus)).count(("error", "nothing to train")) == 1
        with pytest.raises(InputError, match="no training document is left"):
            sabiprep.pack(corpus, tmp_path / str(nth))
    configure(corpus, epochs=0.5)
    assert not sabiprep.plan(corpus).would_fail


def test_plan_knows_the_languages_that_packing_finds(corpus: Path, tmp_path: Path) -> None:
    records = [{**record, "lang": ["yo", "Hausa"][i % 2]} for i, record in enumerate(RECORDS)]
    (corpus / "a.jsonl").write_text(json_lines(records))
    configure(corpus, lang="{{ lang }}")
    plan = sabiprep.plan(corpus)
    assert [(source.name, source.lang) for source in plan.sources] == [
        ("a-Hausa", "hau"),
        ("a-yo", "yor"),
    ]
    report = sabiprep.pack(corpus, tmp_path / "out")
    assert [source.name for source in report.sources] == [source.name for source in plan.sources]
    (corpus / "a.jsonl").write_text(json_lines([{**RECORDS[0], "lang": "a" * 65}]))
    assert sabiprep.plan(corpus).would_fail
    with pytest.raises(ConfigError, match="names no language"):
        sabiprep.pack(corpus, tmp_path / "again")


@pytest.mark.parametrize("field", ['"x"y"z"', '"ab" tail', '"ab" "cd"', '"a""b"c"'])
def test_a_quote_that_closes_too_early_is_doubted(corpus: Path, tmp_path: Path, field: str) -> None:
    rows = "".join(f'"text {i}, with ""quotes""",l{i}\n' for i in range(20))
    (corpus / "a.csv").write_text(f"text,label\n{rows}{field},k\n{rows}")
    configure(corpus, files=["a.csv"])
    report = sabiprep.pack(corpus, tmp_path / "out")
    [note] = [note for note in report.notes if "quote" in note]
    assert "1 of its records, first a.csv:22" in note and "before the end" in note
    (corpus / "a.csv").write_text(f"text,label\n{rows}")
    report = sabiprep.pack(corpus, tmp_path / "again")
    assert not [note for note in report.notes if "quote" in note]


def test_a_remedy_with_a_backslash_can_be_copied(corpus: Path) -> None:
    (corpus / "a.jsonl").write_text("one\rtwo\rthree\r")
    configure(corpus, format="text", segments=[{"target": "{{ text }}"}])
    plan = sabiprep.plan(corpus)
    shown = io.StringIO()
    Console(file=shown, width=200).print(plan_table(plan))
    assert r"tr '\r' '\n'" in shown.getvalue()


def test_a_zip_is_known_by_the_name_of_the_file_in_it(corpus: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(corpus / "a.zip", "w") as archive:
        archive.writestr("inner.jsonl", json_lines(PAIRS))
    assert sabiprep.pack(corpus, tmp_path / "out").sources[0].records == 20


def test_one_object_on_a_line_is_read_as_one_over_many(corpus: Path, tmp_path: Path) -> None:
    squad = {"data": [{"paragraphs": RECORDS}]}
    (corpus / "dev.json").write_text(json.dumps(squad) + "\n")
    (corpus / "train.json").write_text(json.dumps(squad, indent=1))
    configure(corpus, files=["*.json"], records="data[].paragraphs[]")
    assert sabiprep.pack(corpus, tmp_path / "out").sources[0].records == 40
    with pytest.raises(InputError) as caught:
        (corpus / "corpus.toml").unlink()
        (corpus / "dev.json").unlink()
        sabiprep.plan(corpus)
        sabiprep.pack(corpus, tmp_path / "guessed")
    assert "`records` names the list" in (caught.value.remedy or "")
