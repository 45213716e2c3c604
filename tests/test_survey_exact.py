"""``sabiprep plan``: exact where all is read, at least or unknown where a sample says little, and
bounded whatever a record holds.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sabiprep
from sabiprep import ConfigError, CorpusPlan, SabiprepError
from support import packer
from support.peak_memory import needs_proc, peak_of
from support.strategies import tokenizer_json
from support.unconfigured import json_lines, words

LABEL = [{"prompt": "{{ text }}: "}, {"target": "{{ label }}"}]
PEAK = 500 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus with a tokenizer of bytes and without files."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    return corpus


def configure(folder: Path, *, pack: dict[str, object] | None = None, **source: object) -> None:
    """Write a configuration of one source."""
    entry = {"name": "a", "lang": "yor", "files": ["a.jsonl"], "segments": LABEL, **source}
    packer.write_config(
        folder,
        [entry],
        tokenizer={"file": "tokenizer.json"},
        pack={"seq_len": 128, **(pack or {})},
    )


def planned(
    folder: Path, content: str | bytes, name: str = "a.jsonl", **source: object
) -> CorpusPlan:
    """The plan of a corpus with one source of one file."""
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    configure(folder, **{"files": [name], **source})  # type: ignore[arg-type]
    return sabiprep.plan(folder)


def said(plan: CorpusPlan) -> str:
    return "\n".join(f"{problem.kind}: {problem} {problem.remedy}" for problem in plan.problems)


def test_a_corpus_of_many_small_records_is_planned_to_the_record(
    folder: Path, tmp_path: Path
) -> None:
    for name, count in (("a", 3000), ("b", 700)):
        records = [{"text": f"{name} {words(i)}", "label": f"l{i % 7}"} for i in range(count)]
        (folder / f"{name}.jsonl").write_text(json_lines(records) + "no json\n", "utf-8")
    configure(folder, files=["*.jsonl"], pack={"validation": 0.1})
    plan = sabiprep.plan(folder)
    report = sabiprep.pack(folder, tmp_path / "out")
    [source], made = plan.sources, report.total
    assert source.whole and source.sampled == made.records == 3702
    assert plan.estimate is not None and plan.estimate.exact and not plan.estimate.at_least
    assert plan.estimate.documents == made.total.documents
    assert plan.estimate.tokens == made.total.tokens
    assert plan.estimate.targets == made.total.targets
    assert "2 of 3702 records dropped: malformed" in said(plan)


def test_texts_on_both_sides_of_the_draw_leave_the_estimate_inexact(folder: Path) -> None:
    records = [{"text": words(i % 50), "label": "x"} for i in range(400)]
    plan = planned(folder, json_lines(records), pack={"validation": 0.5})
    assert plan.estimate is not None and not plan.estimate.exact
    assert "leak: " in said(plan)


@pytest.mark.parametrize(
    ("count", "share", "kind", "fails"),
    [
        (20, 0.0001, "validation", False),
        (3, 0.999999, "nothing to train", True),
        (400, 0.1, "", False),
    ],
)
def test_a_split_that_the_draw_leaves_empty_is_known_before_packing(
    folder: Path, tmp_path: Path, count: int, share: float, kind: str, fails: bool
) -> None:
    records = [{"text": words(i), "label": "x"} for i in range(count)]
    plan = planned(folder, json_lines(records), pack={"validation": share})
    kinds = [problem.kind for problem in plan.problems]
    assert [found for found in kinds if found != "tokenizer fit"] == [kind] * bool(kind)
    assert plan.would_fail == fails
    if fails:
        with pytest.raises(SabiprepError):
            sabiprep.pack(folder, tmp_path / "out")
    else:
        report = sabiprep.pack(folder, tmp_path / "out")
        assert (report.validation.rows == 0) == (kind == "validation")


def test_of_a_sample_a_small_draw_is_only_likely(folder: Path) -> None:
    records = [{"text": words(i) * 20, "label": "x"} for i in range(30_000)]
    plan = planned(folder, json_lines(records), pack={"validation": 0.00003})
    assert not plan.sources[0].whole
    assert "only a sample was read" in said(plan)


def test_one_record_that_fills_a_file_makes_its_counts_lower_bounds(
    folder: Path, tmp_path: Path
) -> None:
    small = json_lines([{"text": words(i), "label": "x"} for i in range(40)])
    huge = json.dumps({"text": "x" * (50 << 20), "label": "x"})
    for content, name in (
        (f"{huge}\n{small}", "a.jsonl"),
        (f"{small}{huge}\n", "a.jsonl"),
        (gzip.compress(f"{huge}\n{small}".encode(), 1), "a.jsonl.gz"),
    ):
        plan = planned(folder, content, name)
        estimate = plan.estimate
        assert estimate is not None and not estimate.exact
        assert estimate.records <= 41 and estimate.documents <= 40
        assert estimate.at_least and ("≥" in str(plan) or "unknown" in str(plan))
        assert not plan.would_fail


def test_a_sample_without_a_document_says_unknown(folder: Path) -> None:
    bad = json_lines([{"text": words(i) * 20, "label": None} for i in range(30_000)])
    plan = planned(folder, bad, max_bad_fraction=1.0)
    assert plan.estimate is not None and plan.estimate.at_least and plan.estimate.documents == 0
    assert "unknown" in str(plan) and "~0" not in str(plan)


def many(count: int) -> str:
    return f"[{'1,' * (count - 1)}1]"


PLAN = """
import sys, sabiprep
sabiprep.plan(sys.argv[1])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


@needs_proc
@pytest.mark.parametrize("shape", ["jsonl", "literal", "records", "array", "loop"])
def test_millions_of_numbers_that_no_template_shows_take_little_memory(
    folder: Path, tmp_path: Path, shape: str
) -> None:
    numbers = many(7_500_000)
    text, label = json.dumps(words(1)), '"yes"'
    fields = f'"text": {text}, "label": {label}'
    source: dict[str, object] = {}
    if shape == "jsonl":
        content = f'{{{fields}, "v": {numbers}}}\n{{{fields}}}\n'
    elif shape == "literal":
        content = f'{{{fields}, "v": "{numbers}"}}\n{{{fields}, "v": "[]"}}\n'
        source = {"literals": ["v"]}
    elif shape == "records":
        content = f'{{"v": {numbers}, "data": [{{{fields}, "v": [1]}}, {{{fields}}}]}}'
        source = {"records": "data[]", "files": ["a.json"]}
    elif shape == "array":
        content = f'[{{{fields}, "v": {numbers}}}, {{{fields}}}]'
        source = {"files": ["a.json"]}
    else:
        content = f'{{{fields}, "v": {numbers}}}\n{{{fields}}}\n'
        source = {"segments": [{"prompt": "{% if true %}{{ text }}{% endif %}"}, LABEL[1]]}
    name = "a.json" if "files" in source else "a.jsonl"
    (folder / name).write_text(content, "utf-8")
    configure(folder, **source)  # type: ignore[arg-type]
    command = [sys.executable, "-c", PLAN, str(folder)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(ran.stdout) * 1024 < PEAK
    assert peak_of(folder, tmp_path / "out", threads=1) < PEAK
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    [made] = manifest["sources"]
    assert (made["records"], made["drops"]) == (2, {})


def test_a_record_of_too_many_shown_values_is_malformed(folder: Path, tmp_path: Path) -> None:
    shown = [{"prompt": "{{ text }}"}, {"target": "{{ label }} {{ v | length }}"}]
    records = [{"text": words(i), "label": "x", "v": [1]} for i in range(9)]
    long = f'{{"text": "a", "label": "x", "v": {many((1 << 20) + 1)}}}\n'
    (folder / "a.jsonl").write_text(json_lines(records) + long, "utf-8")
    configure(folder, segments=shown, max_bad_fraction=1.0)
    report = sabiprep.pack(folder, tmp_path / "out")
    assert report.total.drops == {"malformed": 1}
    assert "more than 1048576 values" in (tmp_path / "out" / "dropped.jsonl").read_text("utf-8")


@pytest.mark.parametrize("key", ["rename", "literals"])
def test_a_name_that_no_record_has_is_said(folder: Path, tmp_path: Path, key: str) -> None:
    value: object = {"Tweet txt": "tweet", "text": "text2"}
    value = value if key == "rename" else ["Tweet txt", "text2"]
    records = [{"Tweet text": words(i), "label": "x", "text": "'a'"} for i in range(30)]
    shown = [{"target": "{{ label }}{{ record['Tweet text'] }}"}]
    plan = planned(folder, json_lines(records), segments=shown, **{key: value})
    expected = "`rename` names the field `Tweet txt`" if key == "rename" else "`literals` names"
    assert f"{expected}" in said(plan) and "did you mean `Tweet text`" in said(plan)
    assert "`text`" not in said(plan).split("The fields")[0]
    sabiprep.pack(folder, tmp_path / "out")
    notes = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8")).get("notes", [])
    assert any(f"`{key}` names the field 'Tweet txt'" in note for note in notes)
    assert not any("field 'text'," in note for note in notes)


def test_words_of_a_dropped_record_are_one_short_line(folder: Path) -> None:
    records = [{"text": words(i), "label": None if i == 3 else "x"} for i in range(40)]
    content = json.dumps([{"n": 7, **record} for record in records], indent=4)
    bad = content.replace('"n": 7,', '"n": nope,', 1)
    plan = planned(folder, bad, "a.json")
    [problem] = [found for found in plan.problems if "malformed" in found.message]
    begins = problem.message.split("it begins ")[1]
    assert len(begins) <= 80 and "\n" not in begins and begins.startswith('"{ "n": nope, "text"')


def test_placeholders_of_a_language_need_one_in_files(folder: Path) -> None:
    (folder / "a.jsonl").write_text(json_lines([{"text": "a", "label": "b"}]), "utf-8")
    prompt = [{"prompt": "<{lang}> {{ text }}"}, LABEL[1]]
    for key, value in (("segments", prompt), ("lang", "{lang}"), ("task", "t-{lang}")):
        configure(folder, **{key: value})  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"`{key}` holds {{lang}}, and no entry of `files`"):
            sabiprep.pack(folder, folder.parent / "out")
        assert "no entry of `files` does" in said(sabiprep.plan(folder))
    # The field `lang`, and the text of a template.
    for text in ("{{lang}}", '{{ "{la" ~ "ng}" }}'):
        configure(folder, segments=[{"prompt": f"{text} {{{{ text }}}}"}, LABEL[1]])
        assert "holds {lang}" not in said(sabiprep.plan(folder))


def test_the_line_that_excel_writes_before_a_table_says_the_delimiter(
    folder: Path, tmp_path: Path
) -> None:
    rows = "".join(f'"{words(i)[:6]}, {i}";l{i}\r\n' for i in range(20))
    plan = planned(folder, f"\ufeffsep=;\r\ntext;label\r\n{rows}", "a.csv")
    [source] = plan.sources
    assert [field.name for field in source.fields] == ["text", "label"] and not plan.would_fail
    assert source.records[0].line == 3
    report = sabiprep.pack(folder, tmp_path / "out")
    assert report.total.records == 20 and report.total.drops == {}


def test_a_wrong_delimiter_is_told_by_the_only_column(folder: Path) -> None:
    rows = "".join(f"{words(i)[:5]} {i};l{i}\n" for i in range(20))
    plan = planned(folder, f"text;label\n{rows}", "a.csv", format="csv", delimiter=",")
    assert 'did you mean format = "csv" and delimiter = ";"?' in said(plan)


def test_a_link_in_a_circle_has_a_remedy(folder: Path) -> None:
    os.symlink("b.jsonl", folder / "a.jsonl")
    os.symlink("a.jsonl", folder / "b.jsonl")
    configure(folder)
    with pytest.raises(SabiprepError, match=r"(?s)leads back to itself.*Remedy: remove it"):
        sabiprep.pack(folder, folder.parent / "out")


def test_an_error_of_a_long_template_shows_its_place_alone(folder: Path) -> None:
    (folder / "a.jsonl").write_text(json_lines([{"text": "a", "label": "b"}]), "utf-8")
    long = "All that a prompt may say.\n" * 200
    for tag in ("{{ text if }}", "{% if text %}", "{{ text "):
        configure(folder, segments=[{"prompt": f"{long}{tag}{long}"}, LABEL[1]])
        with pytest.raises(ConfigError) as caught:
            sabiprep.pack(folder, folder.parent / "out")
        message = str(caught.value)
        assert len(message) < 600 and "source 'a'" in message
        assert "`prompt` of `segments`, entry 1" in message and "template line" in message
