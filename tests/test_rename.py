"""Fields renamed before templates see them, and fields of names that are no plain words."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import ConfigError, InputError, PackOptions, PackReport
from support import packer
from support.jinja_records import JINJA
from support.packed_texts import pack_file
from support.strategies import tokenizer_json

RENAME = {"Tweet text": "tweet", "en-US": "en"}
SEGMENTS = [{"prompt": "{{ tweet }}|{{ en }}"}, {"target": "{{ label }}"}]
RENDERED = [{"prompt": "{% if en %}{{ tweet }}{% endif %}|{{ en }}"}, {"target": "{{ label }}"}]


def write(folder: Path, content: dict[str, str], **source: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    for name, text in content.items():
        (folder / name).write_text(text, "utf-8")
    sources = [{"name": "a", "files": list(content), **source}]
    named = {"file": "tokenizer.json"}
    packer.write_config(folder, sources, tokenizer=named, pack={"seq_len": 64})
    return folder


def pack(folder: Path, content: dict[str, str], **source: Any) -> PackReport:
    corpus = write(folder / "corpus", content, **source)
    return sabiprep.pack(corpus, folder / "out", PackOptions(threads=1))


def rows(count: int) -> list[dict[str, str]]:
    return [
        {"Tweet text": f"tweet {n}", "en-US": f"e{n}", "label": "a b"[n % 3 :] or "c"}
        for n in range(count)
    ]


def json_lines(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def quoted(records: list[dict[str, str]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()


def raw(records: list[dict[str, str]]) -> str:
    lines = [list(records[0]), *(list(record.values()) for record in records)]
    return "".join("\t".join(line) + "\n" for line in lines)


WRITERS: dict[str, Callable[[Any], str]] = {
    "a.jsonl": json_lines,
    "a.json": json.dumps,
    "a.csv": quoted,
    "a.tsv": raw,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("segments", [SEGMENTS, RENDERED])
def test_a_renamed_field_is_the_field_under_its_new_name(
    tmp_path: Path, name: str, segments: list[dict[str, str]]
) -> None:
    records = rows(40)
    renamed = [{RENAME.get(key, key): text for key, text in row.items()} for row in records]
    texts = []
    for folder, content, rename in [("new", renamed, {}), ("old", records, {"rename": RENAME})]:
        text = WRITERS[name](content).encode()
        made = pack_file(tmp_path / folder, name, text, segments=segments, **rename)
        assert made.source["kept"] == 40
        texts.append(list(made.texts.values()))
    assert texts[0] == texts[1]


def test_a_new_name_that_is_there_already_costs_the_record(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = list(rows(10))
    records[3] = {**records[3], "tweet": "both"}
    # A file that has the new name alone, as another may have, is read as it is.
    records[5] = {"tweet": "new", "en": "e", "label": "b"}
    records[6] = {"label": "b"}
    report = pack(tmp_path, {"a.jsonl": json_lines(records)}, rename=RENAME, segments=SEGMENTS)
    [source] = report.sources
    assert (source.kept, source.drops) == (8, {"malformed": 1, "missing field": 1})
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    [both] = [e for e in manifest["sources"][0]["examples"] if e["reason"] == "malformed"]
    assert both["line"] == 4 and "'tweet' beside 'Tweet text'" in both["why"]


def test_names_may_be_exchanged_and_an_old_name_is_gone(tmp_path: Path) -> None:
    tokenizer = tmp_path / "corpus" / "tokenizer.json"
    segments = [{"prompt": "{{ a }}-{{ b }}-{{ c | default('none') }}"}, {"target": "{{ d }}"}]
    rename = {"a": "b", "b": "a", "c": "d"}
    corpus = write(tmp_path / "corpus", {"a.jsonl": "{}\n"}, rename=rename, segments=segments)
    record = {"a": "1", "b": "2", "c": "3"}
    found = packer.explain(corpus, "a", record, tokenizer=tokenizer, seq_len=64)
    assert "".join(text for text, _, _ in found.spans) == "2-1-none3"
    shown = [{"prompt": "{{ a }}-{{ b }}"}, {"target": "{{ d }}"}]
    report = pack(tmp_path, {"a.jsonl": json_lines([record] * 3)}, rename=rename, segments=shown)
    assert report.sources[0].kept == 3
    with pytest.raises(InputError, match="missing field"):
        gone = [{"target": "{{ c }}"}]
        corpus = write(
            tmp_path / "corpus", {"a.jsonl": json_lines([record])}, rename=rename, segments=gone
        )
        sabiprep.pack(corpus, tmp_path / "again")


@pytest.mark.parametrize(
    "rename, what",
    [
        ({"a": "x", "b": "x"}, "'a' and 'b' one name, 'x'"),
        ({"a": ""}, "no name"),
        ({"a": "a"}, "the name that it has"),
    ],
)
def test_names_that_cannot_be_meant_are_refused(
    tmp_path: Path, rename: dict[str, str], what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        pack(tmp_path, {"a.jsonl": "{}\n"}, rename=rename, segments=[{"target": "{{ x }}"}])


def test_a_language_is_looked_for_under_the_new_name(tmp_path: Path) -> None:
    records = [{"Language": "yo" if n % 2 else "hau", "text": f"t{n}"} for n in range(9)]
    source = {"rename": {"Language": "lang"}, "lang": "{{ lang }}"}
    segments = [{"prompt": "{{ lang }}"}, {"target": "{{ text }}"}]
    report = pack(tmp_path, {"a.jsonl": json_lines(records)}, segments=segments, **source)
    assert [(s.name, s.records, s.kept) for s in report.sources] == [
        ("a-hau", 5, 5),
        ("a-yo", 4, 4),
    ]


# Names that are words of a language, composed and decomposed, and names that are no words.
NAMES = ["ẹ̀kọ́", "èdè", "ọmọ", "ńlá", "ƙasa", "ụlọ", "język", "字段", "Ω", "_x", "x1"]
NAMES += [unicodedata.normalize("NFD", name) for name in NAMES]


@pytest.mark.parametrize("rendered", [False, True])
def test_names_of_any_script_are_fields_as_in_jinja(tmp_path: Path, rendered: bool) -> None:
    tokenizer = tmp_path / "corpus" / "tokenizer.json"
    for name in dict.fromkeys(NAMES):
        template = f"<{{{{ {name} }}}}|{{{{ record.{name} }}}}|{{{{ record['{name}'] }}}}>"
        if rendered:
            template = "{% if true %}" + template + "{% endif %}"
        segments = [{"prompt": template}, {"target": "{{ t }}"}]
        corpus = write(tmp_path / "corpus", {"a.jsonl": "{}\n"}, segments=segments)
        # Fields whose names are equal only once they are normalised are other fields.
        record = {unicodedata.normalize(form, name): form for form in ("NFC", "NFD")}
        record |= {name: "own", "t": "t"}
        found = packer.explain(corpus, "a", record, tokenizer=tokenizer, seq_len=64)
        text = "".join(text for text, _, _ in found.spans)
        assert text == JINJA.from_string(template).render(**record, record=record) + "t", name


@pytest.mark.parametrize("rendered", [False, True])
def test_a_field_of_any_name_is_reached_by_record(tmp_path: Path, rendered: bool) -> None:
    records = [{"en-US": f"e{n}", "a b": {"c-d": "x"}, "t": "t"} for n in range(20)]
    template = '{{ record["en-US"] }}{{ record[\'a b\']["c-d"] }}'
    template = "{% if true %}" + template + "{% endif %}" if rendered else template
    segments = [{"prompt": template}, {"target": "{{ t }}"}]
    report = pack(tmp_path, {"a.jsonl": json_lines(records)}, segments=segments)
    assert report.sources[0].kept == 20
    tokenizer = tmp_path / "corpus" / "tokenizer.json"
    found = packer.explain(tmp_path / "corpus", "a", records[3], tokenizer=tokenizer, seq_len=64)
    assert "".join(text for text, _, _ in found.spans) == "e3xt"
