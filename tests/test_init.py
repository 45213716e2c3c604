"""``sabiprep init``: a ``corpus.toml`` that says what is guessed, and packs to equal documents."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import sabiprep
from sabiprep import InputError, OutputError, PackOptions
from support.command import Run
from support.command import run as run
from support.unconfigured import documents, json_lines, write_shapes, write_tokenizer


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus of every shape, with its tokenizer."""
    write_shapes(tmp_path / "corpus")
    write_tokenizer(tmp_path / "corpus" / "tokenizer.json")
    return tmp_path / "corpus"


def test_it_packs_to_the_documents_of_the_guess(corpus: Path, tmp_path: Path) -> None:
    options = PackOptions(seq_len=256, threads=2)
    guessed = sabiprep.pack(corpus, tmp_path / "guessed", options)
    text = sabiprep.init(corpus)
    assert (corpus / "corpus.toml").read_text("utf-8") == text
    written = sabiprep.pack(corpus, tmp_path / "written", options)
    assert documents(tmp_path / "guessed") == documents(tmp_path / "written")
    shards = [next((tmp_path / out / "train").iterdir()) for out in ("guessed", "written")]
    assert shards[0].read_bytes() == shards[1].read_bytes()
    assert not [note for note in written.notes if "corpus.toml" in note]
    assert [note for note in guessed.notes if "corpus.toml" in note]
    config = tomllib.loads(text)
    assert config["tokenizer"] == {"file": "tokenizer.json", "eos": "</s>"}
    [yor] = [source for source in config["source"] if source["name"] == "mt-eng-yor-en-yor"]
    assert (yor["task"], yor["lang"]) == ("translate", "yor")


def test_what_differs_by_a_language_is_one_source(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    pair = {"en": "a b", "ibo": "c d"}
    for lang in ("hau", "ibo", "yor"):
        (corpus / f"mt/eng-{lang}").mkdir(parents=True)
        record = {"translation": {"en": f"in {lang}", lang: f"{lang} hau"}}
        (corpus / f"mt/eng-{lang}/train.jsonl").write_text(json_lines([record] * 9))
        (corpus / f"odd-{lang}.jsonl").write_text(json_lines([{"left": "a", "right": lang}]))
    # One language has files that others have not; one name holds no language.
    (corpus / "mt/eng-ibo/dev.jsonl").write_text(json_lines([{"translation": pair}]))
    (corpus / "mono").mkdir()
    for name in ("hau", "yor", "*ibo"):
        (corpus / f"mono/{name}.txt").write_text(f"{name}\n" * 5)
    write_tokenizer(corpus / "tokenizer.json")
    options = PackOptions(seq_len=256)
    with pytest.raises(InputError, match="odd-hau"):
        sabiprep.pack(corpus, tmp_path / "guessed", options)
    text = sabiprep.init(corpus)
    sources = tomllib.loads(text)["source"]
    assert [(source["name"], source.get("lang"), source["files"]) for source in sources] == [
        ("mono-*ibo", None, ["mono/*ibo.txt"]),
        ("mono-{lang}", None, ["mono/{lang}.txt"]),
        ("mt-eng-{lang}-en-{lang}", None, ["mt/eng-{lang:hau|yor}/train.jsonl"]),
        ("mt-eng-{lang}-{lang}-en", "en", ["mt/eng-{lang:hau|yor}/train.jsonl"]),
        ("mt-eng-ibo-en-ibo", "ibo", ["mt/eng-ibo/train.jsonl"]),
        ("mt-eng-ibo-ibo-en", "en", ["mt/eng-ibo/train.jsonl"]),
    ]
    assert '# name = "odd-{lang}"\n# files = ["odd-{lang}.jsonl"]\n' in text
    assert "{lang} is hau, yor" in text
    report = sabiprep.pack(corpus, tmp_path / "out", options)
    found = {source.name: (source.task, source.lang) for source in report.sources}
    assert found["mt-eng-yor-en-yor"] == ("translate", "yor")
    assert found["mt-eng-hau-hau-en"] == ("translate", "eng")
    assert found["mono-hau"] == ("text", "hau") and len(found) == 9


def test_nothing_is_replaced_unless_asked(corpus: Path, run: Run) -> None:
    (corpus / "corpus.toml").write_text("# mine\n")
    with pytest.raises(OutputError, match="exists already"):
        sabiprep.init(corpus)
    refused = run("init", corpus)
    assert refused.code == 1 and "--overwrite" in refused.err
    printed = run("init", corpus, "--print")
    assert printed.code == 0 and tomllib.loads(printed.out)["source"]
    assert (corpus / "corpus.toml").read_text() == "# mine\n"
    assert run("init", corpus, "--overwrite").code == 0
    assert (corpus / "corpus.toml").read_text("utf-8").rstrip("\n") == printed.out.rstrip("\n")


def test_fields_that_are_not_known_are_there_to_be_filled_in(corpus: Path) -> None:
    (corpus / "odd").mkdir()
    (corpus / "odd" / "yor.jsonl").write_text(json_lines([{"left": "a", "right\n[x]": "b"}] * 3))
    text = sabiprep.init(corpus, write=False)
    assert "# Its fields: left, right [x]" in text
    assert "yor.jsonl" not in str(tomllib.loads(text))
    # Filled in as its comments say, it is a source.
    begin = text.index('# [[source]]\n# name = "odd-yor"')
    block = text[begin:].split("\n\n")[0].replace("# ", "")
    block = block.replace("{{ … }}\\n\\n", "{{ left }}").replace("{{ … }}", "{{ left }}")
    (corpus / "corpus.toml").write_text(text + block + "\n", "utf-8")
    plan = sabiprep.plan(corpus, PackOptions(seq_len=256))
    assert "odd-yor" in [source.name for source in plan.sources] and not plan.would_fail


def test_names_of_any_letters_are_written_as_toml_reads_them(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    names = ['a"b\\c.jsonl', "x\x1b\n\x7f\u0085.jsonl", "[ab]*.jsonl", "ẹ.jsonl"]
    for name in names:
        (folder / name).write_text(json_lines([{"text": "a"}]), "utf-8")
    config = tomllib.loads(sabiprep.init(folder))
    assert sorted(source["files"][0] for source in config["source"]) == sorted(names)
    assert sabiprep.plan(folder).configured


def test_a_folder_without_data_or_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(sabiprep.InputError, match="no file that would be recognised"):
        sabiprep.init(tmp_path)
    with pytest.raises(sabiprep.ConfigError, match="no such corpus folder"):
        sabiprep.init(tmp_path / "nowhere")
    assert not (tmp_path / "corpus.toml").exists()
