"""The file of dropped records, against records that the test itself judges."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import DatasetError, PackOptions, _core
from sabiprep.manifest import read_manifest
from support import packer
from support.files import edit, reseal
from support.strategies import tokenizer_json

PAIR = [{"prompt": "{{ a }}:"}, {"target": " {{ b }}"}]
LISTED = 10_000


def write(
    folder: Path, sources: list[dict[str, Any]], files: dict[str, str | bytes], **pack: Any
) -> Path:
    """Write a corpus with a tokenizer of bytes, in which any share of the records may be bad."""
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    for name, content in files.items():
        content = content.encode() if isinstance(content, str) else content
        (corpus / name).write_bytes(content)
    pack = {"seq_len": 64, "max_bad_fraction": 1.0, **pack}
    packer.write_config(corpus, sources, tokenizer={"file": "tokenizer.json"}, pack=pack)
    return corpus


def listed(out: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (out / "dropped.jsonl").read_text("utf-8").split("\n")[:-1]
    ]


def pairs(count: int, bad: dict[int, str]) -> str:
    """JSON Lines of `count` pairs; those of `bad` have its text instead."""
    whole = [json.dumps({"a": f"one {nth}", "b": f"two {nth}"}) for nth in range(count)]
    return "".join(bad.get(nth, line) + "\n" for nth, line in enumerate(whole))


def test_every_dropped_record_is_listed_by_source_file_line_reason_and_first_words(
    tmp_path: Path,
) -> None:
    bad = {
        3: '{"a": "ọ̀rọ̀ tí a kò parí',
        8: '{"a": "no b"}',
        9: '{"a": "x", "b": "  "}',
        12: json.dumps({"a": "one 4", "b": "two 4"}),
        30: json.dumps({"a": "x", "b": "long " * 40}),
    }
    sources = [
        {"name": "s", "files": ["p.jsonl", "q.jsonl"], "segments": PAIR, "duplicates": "exact"},
        {"name": "clean", "files": ["t.txt"]},
        {"name": "z", "files": ["q.jsonl"], "segments": PAIR},
    ]
    files: dict[str, str | bytes] = {
        "p.jsonl": pairs(40, bad),
        "q.jsonl": "\n\n" + pairs(60, {50: "{"}).replace("one", "three"),
        "t.txt": "a text\n" * 3,
    }
    corpus = write(tmp_path, sources, files)
    out = tmp_path / "out"
    report = sabiprep.pack(corpus, out, PackOptions(threads=2))
    lines = listed(out)
    place = [(line["source"], line["file"], line["line"], line["reason"]) for line in lines]
    assert place == [
        ("s", "p.jsonl", 4, "malformed"),
        ("s", "p.jsonl", 9, "missing field"),
        ("s", "p.jsonl", 10, "empty target"),
        ("s", "p.jsonl", 13, "duplicate"),
        ("s", "p.jsonl", 31, "too long"),
        ("s", "q.jsonl", 53, "malformed"),
        ("z", "q.jsonl", 53, "malformed"),
    ]
    texts = [line["text"] for line in lines]
    assert texts[:4] == [bad[3], bad[8], '{"a": "x", "b": " "}', bad[12]]
    assert texts[4] == bad[30][:100] and texts[5] == "{"
    assert all(line["why"] for line in lines)
    assert "p.jsonl says the same" in lines[3]["why"]
    # The report names the file, and the manifest has its checksum.
    assert report.dropped_file == out / "dropped.jsonl"
    shown = str(report)
    assert "They are listed in" in shown and "dropped.jsonl" in shown
    entry = read_manifest(out).raw["dropped"]
    assert entry["records"] == 7 and entry["bytes"] == (out / "dropped.jsonl").stat().st_size
    assert packer.verify(out)["failures"] == []


def test_where_nothing_is_dropped_there_is_no_such_file_and_an_old_one_goes(tmp_path: Path) -> None:
    sources = [{"name": "s", "files": ["p.jsonl"], "segments": PAIR}]
    corpus = write(tmp_path, sources, {"p.jsonl": pairs(30, {3: "{"})})
    out = tmp_path / "out"
    sabiprep.pack(corpus, out, PackOptions(threads=1))
    assert len(listed(out)) == 1
    (corpus / "p.jsonl").write_text(pairs(30, {}))
    report = sabiprep.pack(corpus, out, PackOptions(threads=1, overwrite=True))
    assert report.dropped_file is None and "dropped" not in read_manifest(out).raw
    assert sorted(path.name for path in out.iterdir()) == [
        "manifest.json",
        "tokenizer.json",
        "train",
        "validation",
    ]
    with sabiprep.open_dataset(out) as dataset:
        assert len(dataset.sources) == 1


def test_lines_beyond_ten_thousand_are_counted_and_the_lowest_are_listed(tmp_path: Path) -> None:
    count = LISTED + 2500
    bad = {nth * 2: ("{" if nth % 2 else '{"a": "x"}') for nth in range(2 * count)}
    sources = [
        {"name": "s", "files": ["p.jsonl"], "segments": PAIR, "epochs": 0.25},
        {"name": "t", "files": ["few.jsonl"], "segments": PAIR},
    ]
    files: dict[str, str | bytes] = {
        "p.jsonl": pairs(4 * count, bad),
        "few.jsonl": pairs(5, {4: "{"}),
    }
    corpus = write(tmp_path, sources, files)
    out = tmp_path / "out"
    report = sabiprep.pack(corpus, out, PackOptions(threads=2, split_bytes=200_000))
    lines = listed(out)
    malformed = [
        line["line"] for line in lines if line.get("reason") == "malformed" and "line" in line
    ]
    assert malformed == [4 * nth + 3 for nth in range(LISTED)] + [5]
    missing = [
        line["line"] for line in lines if line.get("reason") == "missing field" and "line" in line
    ]
    assert missing == [4 * nth + 1 for nth in range(LISTED)]
    counted = [line for line in lines if "not_listed" in line]
    assert counted == [
        {"source": "s", "reason": "malformed", "not_listed": 2500},
        {"source": "s", "reason": "missing field", "not_listed": 2500},
        {
            "source": "s",
            "reason": "not sampled",
            "not_listed": report.sources[0].drops["not sampled"],
        },
    ]
    # The counts come after the records of their source, and all lines account for all drops.
    assert [line["source"] for line in lines] == ["s"] * (2 * LISTED + 3) + ["t"]
    total = sum(line.get("not_listed", 1) for line in lines)
    assert total == report.total.dropped


def test_the_file_depends_on_no_thread_split_spool_or_mixing_again(tmp_path: Path) -> None:
    bad = {nth: "{" if nth % 3 else '{"a": "x"}' for nth in range(0, 900, 7)}
    bad |= {nth: json.dumps({"a": "same", "b": "same"}) for nth in range(1, 900, 40)}
    bad |= {nth: json.dumps({"a": f"x{nth}", "b": "long " * 30}) for nth in range(2, 900, 50)}
    sources = [
        {"name": "s", "files": ["p.jsonl"], "segments": PAIR, "duplicates": "exact"},
        {"name": "t", "files": ["q.jsonl.gz"], "segments": PAIR, "epochs": 0.5},
    ]
    files: dict[str, str | bytes] = {
        "p.jsonl": pairs(900, bad),
        "q.jsonl.gz": gzip.compress(pairs(400, {5: "[", 300: "{}"}).encode()),
        "held.jsonl": '{"t": "two 17 two"}\n{"t": "one 21"}\n',
    }
    corpus = write(
        tmp_path,
        sources,
        files,
        validation=0.1,
        decontaminate=["held.jsonl"],
        decontaminate_ngram=2,
    )
    sabiprep.pack(corpus, tmp_path / "one", PackOptions(threads=1, keep_spool=True))
    first = (tmp_path / "one" / "dropped.jsonl").read_bytes()
    reasons = {json.loads(line)["reason"] for line in first.splitlines()}
    assert reasons >= {
        "malformed",
        "missing field",
        "duplicate",
        "too long",
        "contaminated",
        "not sampled",
    }
    for nth, options in enumerate(
        [
            PackOptions(threads=4, split_bytes=3000),
            PackOptions(threads=2, spool_bytes=0),
            PackOptions(threads=3, split_bytes=777, spool_bytes=20_000),
        ]
    ):
        out = tmp_path / f"out-{nth}"
        sabiprep.pack(corpus, out, options)
        assert (out / "dropped.jsonl").read_bytes() == first, options
    report = sabiprep.remix(tmp_path / "one", tmp_path / "two", PackOptions(threads=2))
    assert report.reused_splits[0] == report.reused_splits[1] > 0
    assert (tmp_path / "two" / "dropped.jsonl").read_bytes() == first


def test_records_of_every_format_are_found_at_their_line(tmp_path: Path) -> None:
    rows = [["a", "b"], ["x\ny", "1"], ["short"], ["p", "2"], ["x", ""], ['said "no"', "3"]]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    array = [{"a": "x", "b": "y"}, {"a": '\u00e0 {["', "c": [1, 2]}, {"a": "x", "b": "y"}, {"b": 1}]
    files: dict[str, str | bytes] = {
        "a.csv": text.getvalue(),
        "b.json": json.dumps(array, indent=2, ensure_ascii=False),
        "c.tsv": "a\tb\nx\ty\nx\nz\t\n",
        "d.jsonl": b"\xef\xbb\xbf{\r\n" + b'{"a": "x", "b": "y"}\r\n\xff\xfe\r\n',
    }
    sources = [{"name": name, "files": [name], "segments": PAIR} for name in files]
    corpus = write(tmp_path, sources, files)
    out = tmp_path / "out"
    sabiprep.pack(corpus, out, PackOptions(threads=2))
    found = [(line["file"], line["line"], line["reason"], line["text"]) for line in listed(out)]
    pretty = json.dumps(array, indent=2, ensure_ascii=False).split("\n")
    assert found == [
        ("a.csv", 4, "malformed", "short"),
        ("a.csv", 6, "empty target", "x,"),
        (
            "b.json",
            pretty.index("  {", 2) + 1,
            "missing field",
            '{ "a": "à {[\\"", "c": [ 1, 2 ] }',
        ),
        ("b.json", len(pretty) - 3, "missing field", '{ "b": 1 }'),
        ("c.tsv", 3, "malformed", "x"),
        ("c.tsv", 4, "empty target", "z"),
        ("d.jsonl", 1, "malformed", "{"),
        ("d.jsonl", 3, "malformed", "\ufffd\ufffd"),
    ]


def test_a_changed_or_missing_file_is_a_failure_and_an_older_manifest_has_none(
    tmp_path: Path,
) -> None:
    sources = [{"name": "s", "files": ["p.jsonl"], "segments": PAIR}]
    corpus = write(tmp_path, sources, {"p.jsonl": pairs(30, {3: "{"})})
    out = tmp_path / "out"
    sabiprep.pack(corpus, out, PackOptions(threads=1))
    content = (out / "dropped.jsonl").read_bytes()
    (out / "dropped.jsonl").write_bytes(content.replace(b"malformed", b"malformeD"))
    assert "dropped.jsonl" in packer.verify(out)["failures"][0]
    (out / "dropped.jsonl").unlink()
    assert "dropped.jsonl" in packer.verify(out)["failures"][0]
    # The loader needs the rows alone.
    with sabiprep.open_dataset(out) as dataset:
        assert len(dataset.sources) == 1
    (out / "dropped.jsonl").write_bytes(content)
    assert packer.verify(out)["failures"] == []


def test_a_forged_path_of_the_file_is_refused(tmp_path: Path) -> None:
    sources = [{"name": "s", "files": ["p.jsonl"], "segments": PAIR}]
    corpus = write(tmp_path, sources, {"p.jsonl": pairs(30, {3: "{"})})
    out = tmp_path / "out"
    sabiprep.pack(corpus, out, PackOptions(threads=1))
    edit(out / "manifest.json", '"file": "dropped.jsonl"', '"file": "../dropped.jsonl"')
    reseal(out / "manifest.json")
    with pytest.raises(DatasetError, match=r"dropped\.file"):
        read_manifest(out)
    with pytest.raises(DatasetError, match=r"dropped\.file"):
        _core.verify(out, progress=None)
