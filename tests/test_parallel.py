"""Parallel text: line i of every file makes one record."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import sabiprep
from sabiprep import ConfigError, InputError, _core
from sabiprep.dataset import open_dataset
from support import packer
from support.strategies import EOS, tokenizer_json

SEGMENTS = [{"prompt": "{{ en }}|"}, {"target": "{{ yo }}."}]
number = count()


def pack(
    folder: Path, contents: Mapping[str, bytes], *, split_bytes: int | None = None, **source: Any
) -> tuple[dict[str, Any], list[str]]:
    """Pack files as one source. Returns the manifest, and the texts of documents in order."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    for name, content in contents.items():
        (corpus / name).write_bytes(content)
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    entry = {"name": "s", "segments": SEGMENTS, "duplicates": "keep", **source}
    packer.write_config(corpus, [entry], pack={"seq_len": 1024})
    tokenizer = corpus / "tokenizer.json"
    out = folder / "out"
    manifest = packer.pack(corpus, out, tokenizer=tokenizer, threads=2, split_bytes=split_bytes)
    assert packer.verify(out)["failures"] == []
    against = _core.verify_against(out, corpus, sample=None, threads=1, progress=None)
    assert json.loads(against)["failures"] == []
    decode = Tokenizer.from_file(str(tokenizer)).decode
    texts: dict[tuple[int, int], str] = {}
    with open_dataset(out) as dataset:
        for split in (dataset.train, dataset.validation):
            for i in range(len(split) if split is not None else 0):
                row = split[i]
                ends = row["cu_seqlens"].tolist()
                records = zip(row["source_ids"].tolist(), row["record_ids"].tolist(), strict=True)
                for nth, record in enumerate(records):
                    ids = row["input_ids"][ends[nth] : ends[nth + 1]].tolist()
                    texts[record] = decode(ids, skip_special_tokens=False).removesuffix(EOS)
    return manifest, [texts[record] for record in sorted(texts)]


FILES = {"en": "t.en", "yo": "t.yo"}
texts = st.text(st.sampled_from("abọ̀ \t"), max_size=5)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(texts, texts), max_size=8),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 20),
)
def test_records_are_the_lines_beside_each_other(
    tmp_path: Path,
    pairs: list[tuple[str, str]],
    end: str,
    is_gzip: bool,
    is_open: bool,
    split_bytes: int,
) -> None:
    pairs = [*pairs, ("last", "x")]
    files = {}
    for nth, name in enumerate(FILES.values()):
        text = end.join(pair[nth] for pair in pairs) + ("" if is_open and nth else end)
        content = text.encode()
        files[f"{name}.gz" if is_gzip and nth else name] = (
            gzip.compress(content) if is_gzip and nth else content
        )
    named = dict(zip(FILES, files, strict=True))
    folder = tmp_path / str(next(number))
    manifest, found = pack(folder, files, files=named, split_bytes=split_bytes)
    records = [(en, yo) for en, yo in pairs if en.strip() or yo.strip()]
    kept = [f"{en}|{yo}." for en, yo in records if yo.strip()]
    assert found == kept
    [source] = manifest["sources"]
    assert source["records"] == len(records)
    assert source["drops"] == (
        {"empty target": len(records) - len(kept)} if len(records) > len(kept) else {}
    )
    assert {entry["path"] for entry in manifest["inputs"]} == set(files)
    assert manifest["config"]["source"][0]["format"] == "parallel"
    assert manifest["config"]["source"][0]["files"] == named


def test_a_blank_line_on_one_side_shifts_nothing(tmp_path: Path) -> None:
    files = {"t.en": b"one\n\nthree\n\nfive\n", "t.yo": b"eni\neji\n\n\narun\n"}
    manifest, found = pack(tmp_path, files, files=FILES)
    assert found == ["one|eni.", "|eji.", "five|arun."]
    assert manifest["sources"][0]["drops"] == {"empty target": 1}
    assert manifest["sources"][0]["examples"][0]["line"] == 3


@pytest.mark.parametrize(
    ("en", "yo", "message"),
    [
        (b"1\n2\n3\n", b"1\n2\n", r"t\.yo ends after line 2, t\.en goes on"),
        (b"1\n", b"1\n2", r"t\.en ends after line 1, t\.yo goes on"),
        (b"1\n2\n", b"1\n2\n\n", r"t\.en ends after line 2, t\.yo goes on"),
        (b"", b"1\n", r"t\.en.*is empty, t\.yo is not"),
    ],
)
def test_lengths_must_agree(tmp_path: Path, en: bytes, yo: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pack(tmp_path, {"t.en": en, "t.yo": yo}, files=FILES)


def test_several_files_and_held_out_ones_are_taken_in_order(tmp_path: Path) -> None:
    files = {f"{name}.{lang}": f"{name} {lang}\n".encode() for name in "abd" for lang in FILES}
    manifest, found = pack(
        tmp_path,
        files,
        files={"en": ["a.en", "b.en"], "yo": "[ab].yo"},
        validation_files={"en": "d.en", "yo": ["d.yo"]},
    )
    assert found == ["a en|a yo.", "b en|b yo.", "d en|d yo."]
    assert manifest["splits"]["validation"]["documents"] == 1
    assert manifest["sources"][0]["inputs"] == ["a.en", "b.en", "d.en"]


def test_a_source_for_each_language_of_one_side(tmp_path: Path) -> None:
    files = {"eng.dev": b"one\ntwo\n", "hau.dev": b"daya\nbiyu\n", "yor.dev": b"eni\neji\n"}
    files |= {"eng.test": b"three\n", "yor.test": b"eta\n"}
    manifest, found = pack(
        tmp_path,
        files,
        files={"en": "eng.dev", "yo": "{lang:hau|yor}.dev"},
        validation_files={"en": "eng.test", "yo": "{lang:yor}.test"},
    )
    assert [(source["name"], source["lang"]) for source in manifest["sources"]] == [
        ("s-hau", "hau"),
        ("s-yor", "yor"),
    ]
    assert found == ["one|daya.", "two|biyu.", "one|eni.", "two|eji.", "three|eta."]
    assert manifest["config"]["source"][0]["files"] == {"en": ["eng.dev"], "yo": ["hau.dev"]}
    for sides, message in (
        ({"en": "{lang:eng|yor}.dev", "yo": "{lang:hau|yor}.dev"}, "'yo' has no file of .* eng"),
        ({"en": ["eng.dev", "{lang:eng}.dev"], "yo": "yor.dev"}, "`eng.dev` names no language"),
    ):
        with pytest.raises(ConfigError, match=message):
            pack(tmp_path / message[1:4], files, files=sides)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"files": {"en": "t.en"}}, "two fields or more"),
        ({"files": {"en": ["t.en", "u.en"], "yo": "t.yo"}}, "has 2 files of 'en', 1 of 'yo'"),
        ({"files": FILES, "validation_files": ["u.en"]}, "not of the same fields"),
        ({"files": FILES, "format": "text"}, "its `files` are a table, its format is text"),
        ({"files": ["t.en"], "format": "parallel"}, "its `files` are a list"),
        ({"files": {"en": "t.en", "yo": 5}}, "names the number 5 for 'yo'"),
        ({"files": {"en": ["t.en", "t.en"], "yo": ["t.yo", "u.en"]}}, "reads t.en twice"),
    ],
)
def test_what_is_no_parallel_text_is_refused(
    tmp_path: Path, source: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pack(tmp_path, {"t.en": b"1\n", "t.yo": b"1\n", "u.en": b"1\n"}, **source)


def test_every_file_counts_where_training_is_kept_clean_or_files_are_held_out(
    tmp_path: Path,
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in ("t.en", "t.yo"):
        (corpus / name).write_text("one\n", "utf-8")
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    parallel = {"name": "p", "files": FILES, "segments": SEGMENTS}
    other = {"name": "o", "files": [], "validation_files": ["t.yo"], "format": "text"}
    options: dict[str, Any] = {"tokenizer": corpus / "tokenizer.json"}
    packer.write_config(corpus, [parallel, other], pack={"seq_len": 64})
    with pytest.raises(ConfigError, match=r"trains on t\.yo, which source 'o' holds out"):
        packer.pack(corpus, tmp_path / "a", **options)
    packer.write_config(corpus, [parallel], pack={"seq_len": 64, "decontaminate": ["t.yo"]})
    with pytest.raises(ConfigError, match=r"trains on t\.yo, which `decontaminate` names"):
        packer.pack(corpus, tmp_path / "b", **options)


def test_damage_on_one_side_costs_its_record_alone(tmp_path: Path) -> None:
    long = b"x" * (17 << 20)
    files = {"t.en": b"1\n2\n" + long + b"\n4\n", "t.yo": b"a\n\xff\nc\nd\n"}
    manifest, found = pack(tmp_path, files, files=FILES)
    assert found == ["1|a.", "4|d."]
    whys = [(e["line"], e["why"]) for e in manifest["sources"][0]["examples"]]
    assert whys == [
        (2, "field 'yo' is not UTF-8 from byte 1 on"),
        (3, "field 'en' is longer than 16 MiB"),
    ]


def test_progress_counts_the_bytes_of_every_side(tmp_path: Path) -> None:
    lines = 400_000
    sides = {name: "".join(f"{name} {nth}\n" for nth in range(lines)) for name in ("t.en", "t.yo")}
    told: list[tuple[str, int, int, int, int]] = []
    (tmp_path / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    for name, text in sides.items():
        (tmp_path / name).write_text(text, "utf-8")
    packer.write_config(tmp_path, [{"name": "s", "files": FILES, "segments": SEGMENTS}])
    sabiprep.pack(tmp_path, tmp_path / "out", progress=lambda *counts: told.append(counts))
    mapped = [(records, done, total) for phase, records, done, total, _ in told if phase == "map"]
    assert {total for *_, total in mapped} == {sum(map(len, sides.values()))}
    shares = [(records / lines, done / total) for records, done, total in mapped]
    # How often a run says how far it is, its speed decides; once at least.
    assert shares
    # A line is as long as any other: bytes go on as records do, and end where they end.
    assert all(abs(done - records) < 0.1 for records, done in shares), shares
