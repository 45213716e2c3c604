"""Corpora that were damaged, cut or made to harm: what once passed without a word, or too dear."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

import sabiprep
from sabiprep import ConfigError, InputError, PackOptions
from support import packer
from support.columnar import arrow, table_of
from support.packed_texts import pack_file
from support.unconfigured import json_lines, write_tokenizer

NER = [
    {"prompt": "{{ text }} ="},
    {"target": "{% for e in entities %} {{ e.type }}: {{ e.text }}{% else %} none{% endfor %}"},
]
ROWS = [{"text": f"text {i}"} for i in range(20)]


def packed(folder: Path, name: str, content: bytes | str, **source: object) -> list[str]:
    """The texts of the documents of a file."""
    content = content.encode() if isinstance(content, str) else content
    return list(pack_file(folder, name, content, **source).texts.values())


def test_lines_of_old_macs_are_refused_in_every_format_of_lines(tmp_path: Path) -> None:
    for nth, (name, content, source) in enumerate(
        [
            ("a.conll", "Bola B-PER\rni O\r\rEko B-LOC\r", {"segments": NER}),
            ("a.txt", "one\rtwo\rthree\rfour\rfive\n", {}),
            ("a.tsv", "text\rtwo\rthree\rfour\rfive\n", {}),
        ]
    ):
        with pytest.raises(InputError, match=r"lines that end with \\r alone"):
            packed(tmp_path / str(nth), name, content, **source)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    write_tokenizer(corpus / "tokenizer.json")
    for name in ("a.en", "a.yo"):
        (corpus / name).write_text(f"{name} 1\r{name} 2\r")
    segments = [{"prompt": "{{ en }}"}, {"target": "{{ yo }}"}]
    source = {"name": "a", "files": {"en": "a.en", "yo": "a.yo"}, "segments": segments}
    packer.write_config(corpus, [source], tokenizer={"eos": "</s>"})
    with pytest.raises(InputError, match=r"lines that end with \\r alone"):
        sabiprep.pack(corpus, tmp_path / "out")
    # A text may hold one beside its own ends of line.
    assert packed(tmp_path / "text", "a.txt", "one\rmore\ntwo\nthree\n")[0] == "one\rmore"


def test_a_second_stream_or_archive_behind_the_first_is_refused(tmp_path: Path) -> None:
    stream = arrow(table_of(20), stream=True)
    text = [{"target": "{{ text }}"}]
    with pytest.raises(InputError, match="after the end of its stream"):
        packed(tmp_path / "a", "a.arrows", stream * 2, format="arrow", segments=text)
    archives = []
    for name in ("a.jsonl", "b.jsonl"):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr(name, json_lines(ROWS))
            archive.comment = b"a comment"
        archives.append(content.getvalue())
    assert len(packed(tmp_path / "b", "a.zip", archives[0], format="jsonl", segments=text)) == 20
    for nth, content in enumerate([b"".join(archives), archives[0] + b"more", b"x" + archives[0]]):
        with pytest.raises(InputError, match="damaged zip"):
            packed(tmp_path / f"c{nth}", "a.zip", content, format="jsonl", segments=text)


def test_white_space_after_a_tag_is_no_part_of_it(tmp_path: Path) -> None:
    content = "Bola\tB-PER \nTinubu\tI-PER\nlọ\tO\t\n\nEko B-LOC \n"
    assert packed(tmp_path, "a.conll", content, segments=NER) == [
        "Bola Tinubu lọ = PER: Bola Tinubu",
        "Eko = LOC: Eko",
    ]


def test_a_sentence_without_its_last_column_is_not_read_by_another(tmp_path: Path) -> None:
    content = "Bola NNP B-PER\n\nEko NNP\nni IN\n\nAda NNP B-PER\n"
    made = pack_file(tmp_path, "a.conll", content.encode(), segments=NER)
    assert list(made.texts.values()) == ["Bola = PER: Bola", "Ada = PER: Ada"]
    assert made.source["drops"] == {"malformed": 1}


def test_a_sentence_of_a_million_tokens_costs_itself_alone(tmp_path: Path) -> None:
    content = "a O\n" * 70_000 + "\nEko B-LOC\n"
    made = pack_file(tmp_path, "a.conll", content.encode(), segments=NER)
    assert list(made.texts.values()) == ["Eko = LOC: Eko"]
    assert made.source["drops"] == {"malformed": 1}


def test_languages_are_found_in_parallel_text(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    write_tokenizer(corpus / "tokenizer.json")
    for name, lines in (("en", "one\ntwo\n"), ("to", "ọ̀kan\nbiyu\n"), ("lang", "yor\nhau\n")):
        (corpus / f"a.{name}").write_text(lines, "utf-8")
    source = {"name": "a", "files": {name: f"a.{name}" for name in ("en", "to", "lang")}}
    source |= {"lang": "{{ lang }}", "segments": [{"prompt": "{{ en }}"}, {"target": "{{ to }}"}]}
    packer.write_config(corpus, [source], tokenizer={"eos": "</s>"})
    report = sabiprep.pack(corpus, tmp_path / "out", PackOptions(seq_len=64))
    assert [(source.lang, source.records) for source in report.sources] == [("hau", 1), ("yor", 1)]


def test_a_list_of_drops_holds_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    bad = "not json \x9b31m \u202e \u2066 \x7f \x1b[2J ẹ́"
    lines = json_lines(ROWS) + bad + "\n"
    made = pack_file(tmp_path, "a.jsonl", lines.encode(), segments=[{"target": "{{ text }}"}])
    assert made.source["drops"] == {"malformed": 1}
    written = (tmp_path / "out" / "dropped.jsonl").read_text("utf-8")
    assert not set(written) & set("\x9b\u202e\u2066\x7f\x1b")
    assert json.loads(written)["text"] == bad


def test_columns_without_a_name_are_those_of_a_spreadsheet(tmp_path: Path) -> None:
    content = "q,a,,\none,two,,\n"
    segments = [{"prompt": "{{ q }}="}, {"target": "{{ a }}"}]
    assert packed(tmp_path, "a.csv", content, segments=segments) == ["one=two"]


def test_a_template_too_deep_to_walk_is_refused(tmp_path: Path) -> None:
    for nth, template in enumerate(
        ["{{ text" + ".a" * 50_000 + " }}", "{% if text %}" * 50_000, "{{ " + "(" * 50_000]
    ):
        with pytest.raises(ConfigError, match=r"operators|template|nest|deep"):
            segments = [{"target": "{{ text }}" + template}]
            packed(tmp_path / str(nth), "a.jsonl", json_lines(ROWS), segments=segments)


def test_a_value_of_a_dictionary_is_not_read_a_thousand_times_at_once(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    write_tokenizer(corpus / "tokenizer.json")
    long = pa.array(["x" * (4 << 20)] * 200).dictionary_encode()
    pyarrow.parquet.write_table(pa.table({"q": long, "a": ["b"] * 200}), corpus / "a.parquet")
    segments = [{"prompt": "{{ q[:5] }}"}, {"target": "{{ a }}"}]
    source = {"name": "a", "files": ["a.parquet"], "segments": segments}
    packer.write_config(corpus, [source], tokenizer={"eos": "</s>"})
    program = """
import sys, sabiprep
print(sabiprep.pack(*sys.argv[1:], sabiprep.PackOptions(threads=2)).train.documents)
print(*[line for line in open("/proc/self/status") if line.startswith("VmHWM")])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, corpus, tmp_path / "out"],
        capture_output=True,
        text=True,
        check=True,
    )
    documents, peak = done.stdout.split("\n")[:2]
    assert documents == "200" and int(peak.split()[1]) < 600_000, done.stdout
