"""``sabiprep plan``: estimates beside what packing makes, each kind of problem, bounded reading,
and what a terminal of 80 columns shows.
"""

from __future__ import annotations

import gzip
import io
import json
import random
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

import sabiprep
from sabiprep import CorpusPlan, PackOptions
from support import packer
from support.command import Run
from support.command import run as run
from support.unconfigured import json_lines, words, write_shapes, write_tokenizer

LABEL = [{"prompt": "{{ text }}: "}, {"target": "{{ label }}"}]
RECORDS = [{"text": words(i), "label": f"l{i}"} for i in range(40)]


@pytest.fixture(scope="session")
def fitting_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A tokenizer trained on the words of `RECORDS`, as a file."""
    folder = tmp_path_factory.mktemp("fitting")
    (folder / "a.txt").write_text("".join(f"{words(i)} wọ́n\n" for i in range(200)), "utf-8")
    packer.write_config(folder, [{"name": "a", "files": ["a.txt"]}], tokenizer={"eos": "</s>"})
    sabiprep.train_tokenizer(folder, folder / "tokenizer.json", 500)
    return (folder / "tokenizer.json").read_bytes()


@pytest.fixture
def folder(tmp_path: Path, fitting_tokenizer: bytes) -> Path:
    """A corpus with a tokenizer and without files."""
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "tokenizer.json").write_bytes(fitting_tokenizer)
    return tmp_path / "corpus"


def planned(
    folder: Path, text: str | bytes, *, name: str = "a.jsonl", **source: object
) -> CorpusPlan:
    """The plan of a corpus with one source of one file, in Yorùbá unless ``source`` says else."""
    content = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(content)
    entry = {"name": "a", "lang": "yor", "files": [name], "segments": LABEL, **source}
    packer.write_config(
        folder,
        [{key: value for key, value in entry.items() if value is not None}],
        tokenizer={"file": "tokenizer.json", "eos": "</s>"},
        pack={"seq_len": 128},
    )
    return sabiprep.plan(folder)


def kinds(plan: CorpusPlan) -> dict[str, str]:
    """The kinds of a plan's problems, with their severities."""
    return {problem.kind: problem.severity for problem in plan.problems}


def message(plan: CorpusPlan, kind: str) -> str:
    """The one problem of a kind."""
    [found] = [problem for problem in plan.problems if problem.kind == kind]
    return f"{found} {found.remedy}"


def test_a_sound_corpus_has_no_problem_and_exact_sums(folder: Path, tmp_path: Path) -> None:
    plan = planned(folder, json_lines(RECORDS))
    assert plan.problems == () and not plan.would_fail and plan.configured
    report = sabiprep.pack(folder, tmp_path / "out")
    [source] = plan.sources
    estimate = plan.estimate
    assert estimate is not None and estimate.exact and source.whole
    total = report.total.total
    assert (estimate.records, estimate.documents, estimate.tokens, estimate.targets) == (
        report.total.records,
        total.documents,
        total.tokens,
        total.targets,
    )
    assert report.train.rows * 0.8 <= estimate.rows <= report.train.rows
    assert [(seen.name, seen.types) for seen in source.fields] == [
        ("text", ("text",)),
        ("label", ("text",)),
    ]
    first, _ = source.records
    assert (first.file, first.line) == ("a.jsonl", 1)
    assert "".join(span.text for span in first.spans) == f"{words(0)}: l0"
    explained = sabiprep.explain(RECORDS[0], "a", corpus=folder)
    assert first.token_count == explained.tokens.num_rows
    assert [token.text for token in first.tokens] == explained.tokens["text"].to_pylist()
    assert [token.trained for token in first.tokens] == explained.tokens["trained"].to_pylist()


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "json", "tsv", "csv"])
def test_estimates_of_long_files_are_near_what_packing_makes(
    folder: Path, tmp_path: Path, suffix: str
) -> None:
    # Lengths differ by two orders of magnitude, in no order.
    letters = random.Random(3)
    records = [
        {
            "text": " ".join("".join(letters.choices("abẹọ̀kl", k=5)) for _ in range(length)),
            "label": "yes",
        }
        for length in (letters.choice([1, 4, 9, 18]) for _ in range(240_000))
    ]
    if suffix in ("tsv", "csv"):
        between = "\t" if suffix == "tsv" else ","
        rows = [f"{record['text']}{between}yes" for record in records]
        text = "\n".join([f"text{between}label", *rows, ""])
    else:
        text = json.dumps(records) if suffix == "json" else json_lines(records)
    content = gzip.compress(text.encode(), 1) if suffix.endswith("gz") else text.encode()
    plan = planned(folder, content, name=f"a.{suffix}")
    assert not plan.would_fail and plan.read_bytes < 3 << 20
    report = sabiprep.pack(folder, tmp_path / "out")
    made, estimate = report.total.total, plan.estimate
    assert estimate is not None and not estimate.exact
    band = 0.25 if suffix.endswith("gz") else 0.1
    for found, real in (
        (estimate.records, report.total.records),
        (estimate.documents, made.documents),
        (estimate.tokens, made.tokens),
        (estimate.targets, made.targets),
        (estimate.rows, report.train.rows),
        (estimate.bytes, sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.arrow"))),
    ):
        assert real * (1 - band) <= found <= real * (1 + band), (suffix, found, real)


def test_estimates_follow_epochs_windows_and_validation(folder: Path, tmp_path: Path) -> None:
    long = "\n".join(" ".join(words(i * 50 + j) for j in range(40)) for i in range(20))
    (folder / "long.txt").write_text(long, "utf-8")
    (folder / "dev.jsonl").write_text(json_lines(RECORDS[:7]), "utf-8")
    (folder / "a.jsonl").write_text(json_lines(RECORDS[7:]), "utf-8")
    labelled = {"name": "a", "lang": "yor", "segments": LABEL, "files": ["a.jsonl"], "epochs": 3.0}
    packer.write_config(
        folder,
        [
            {**labelled, "validation_files": ["dev.jsonl"]},
            {"name": "text", "lang": "yor", "files": ["long.txt"]},
        ],
        tokenizer={"file": "tokenizer.json", "eos": "</s>"},
        pack={"seq_len": 128},
    )
    plan = sabiprep.plan(folder)
    report = sabiprep.pack(folder, tmp_path / "out")
    for source, made in zip(plan.sources, report.sources, strict=True):
        assert source.estimate is not None
        assert source.estimate.documents == made.total.documents
        assert source.estimate.tokens == made.total.tokens
        assert source.estimate.targets == made.total.targets
    assert kinds(plan) == {"too long": "note"}


@pytest.mark.parametrize(
    ("kind", "severity", "text", "source", "said"),
    [
        ("field", "error", json_lines([{"texts": "a", "label": "b"}]), {}, "did you mean `texts`?"),
        ("unfit", "error", json_lines([*RECORDS[:36], *[{"text": "a"}] * 4] * 3), {}, "10 %"),
        (
            "dropped",
            "warning",
            json_lines(RECORDS) + '{"text": "only \\u001b[2J this"}\n',
            {},
            "a.jsonl:41: source 'a': 1 of 41 records dropped: missing field",
        ),
        ("dropped", "warning", json_lines(RECORDS) + "no \x07 json\n", {}, 'begins "no \x07 json"'),
        ("duplicates", "note", json_lines([*RECORDS, RECORDS[3]]), {}, "repeats a.jsonl:4"),
        ("language", "note", json_lines(RECORDS), {"lang": "zzz"}, "no language of ISO 639"),
        ("language", "note", json_lines(RECORDS), {"lang": None}, "says no language"),
        (
            "control token",
            "note",
            json_lines([*RECORDS, {"text": "a </s> b", "label": "c"}]),
            {},
            "a.jsonl:41",
        ),
        (
            "too long",
            "warning",
            json_lines([*RECORDS, {"text": "wọ́n " * 200, "label": "c"}]),
            {},
            "longer than a row of 128",
        ),
        (
            "dropped",
            "error",
            json_lines([*RECORDS, {"text": "wọ́n " * 200, "label": "c"}]),
            {"overflow": "error"},
            "too long",
        ),
        ("empty", "error", "", {}, "no record is in a.jsonl"),
        (
            "tokenizer fit",
            "warning",
            json_lines([{"text": "Здравствуй мир " * 4, "label": f"{i}"} for i in range(40)]),
            {},
            "tokens of a word",
        ),
        (
            "template",
            "error",
            json_lines(RECORDS),
            {"segments": [{"prompt": "{{ text"}, {"target": "{{ label }}"}]},
            "",
        ),
        ("configuration", "error", json_lines(RECORDS), {"overflow": "split"}, "plain text"),
        ("file", "error", json_lines(RECORDS), {"files": ["b.jsonl"]}, "no such file"),
        ("file", "error", "[{}, ", {}, "a.jsonl"),
    ],
)
def test_each_kind_of_problem(
    folder: Path, kind: str, severity: str, text: str, source: dict[str, object], said: str
) -> None:
    plan = planned(folder, text, **source)
    assert kinds(plan).get(kind) == severity, plan.problems
    assert said in message(plan, kind)
    assert plan.would_fail == (severity == "error")
    assert "\x1b" not in str(plan) and "\x07" not in str(plan)


def test_leaks_and_leftovers(folder: Path) -> None:
    (folder / "a.jsonl").write_text(json_lines(RECORDS), "utf-8")
    (folder / "dev.jsonl").write_text(json_lines(RECORDS[:3]), "utf-8")
    plan = planned(folder, json_lines(RECORDS))
    assert kinds(plan) == {"leftover": "note"} and "dev.jsonl" in message(plan, "leftover")
    plan = planned(folder, json_lines(RECORDS), validation_files=["dev.jsonl"])
    assert kinds(plan) == {"leak": "note"} and "3 sampled texts" in message(plan, "leak")


def test_every_error_is_listed_and_the_sound_sources_are_shown(folder: Path) -> None:
    (folder / "a.jsonl").write_text(json_lines(RECORDS), "utf-8")
    good = {"name": "good", "lang": "yor", "files": ["a.jsonl"], "segments": LABEL}
    packer.write_config(
        folder,
        [
            good,
            {**good, "name": "lost", "files": ["nowhere.jsonl"]},
            {**good, "name": "both", "overflow": "split"},
            {**good, "name": "none", "segments": [{"prompt": "{{ text }}"}]},
            {**good, "name": "torn", "segments": [{"target": "{% if %}{{ text }}"}]},
            {**good, "name": "same", "epochs": -1.0},
        ],
        tokenizer={"file": "tokenizer.json", "eos": "</s>"},
        pack={"seq_len": 100},
    )
    plan = sabiprep.plan(folder)
    assert {problem.source for problem in plan.errors} >= {"lost", "both", "none", "same", "torn"}
    assert sum("seq_len = 100" in problem.message for problem in plan.errors) == 1
    assert [source.name for source in plan.sources] == ["good"]
    # TOML that cannot be read leaves nothing to look at.
    (folder / "corpus.toml").write_text("[source\n")
    plan = sabiprep.plan(folder)
    assert kinds(plan) == {"configuration": "error"} and plan.sources == ()


def test_without_a_tokenizer_everything_else_is_shown(tmp_path: Path) -> None:
    expected = write_shapes(tmp_path / "corpus")
    plan = sabiprep.plan(tmp_path / "corpus")
    assert message(plan, "tokenizer").startswith(str(tmp_path / "corpus") + ": no tokenizer")
    assert plan.would_fail and plan.estimate is None and plan.tokenizer is None
    shown = {source.name: source for source in plan.sources}
    assert set(shown) == {source for source, _, _ in expected}
    spans = shown["squad"].records[0].spans
    assert "".join(span.text for span in spans) == f"context 0\n{words(0)}\na0"
    assert all(source.estimate is None and source.records for source in plan.sources)


def test_what_is_read_of_a_large_corpus_is_bounded(folder: Path) -> None:
    line = json.dumps({"text": words(1) * 3, "label": "x"}) + "\n"
    with (folder / "a.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(64):
            file.write(line * ((1 << 20) // len(line.encode())))
    # One line without an end, and a quote that nobody closes.
    (folder / "endless.jsonl").write_bytes(b"x" * (64 << 20))
    (folder / "quote.csv").write_bytes(b'text,label\n"' + b"x\n" * (32 << 20))
    source = {"lang": "yor", "segments": LABEL}
    packer.write_config(
        folder,
        [
            {"name": name, "files": [name], **source}
            for name in ("a.jsonl", "endless.jsonl", "quote.csv")
        ],
        tokenizer={"file": "tokenizer.json", "eos": "</s>"},
    )
    plan = sabiprep.plan(folder)
    assert plan.read_bytes < 96 << 20
    shown = {source.name: source for source in plan.sources}
    estimate = shown["a.jsonl"].estimate
    size = (folder / "a.jsonl").stat().st_size
    assert estimate is not None and abs(estimate.records - size / len(line.encode())) < 2
    # Many files: a few are read, the others taken to be like them.
    (folder / "many").mkdir()
    for nth in range(300):
        (folder / "many" / f"{nth}.txt").write_text(f"{words(nth)} {'wọ́n ' * 400}\n" * 20, "utf-8")
    packer.write_config(
        folder,
        [{"name": "many", "lang": "yor", "files": ["many/*.txt"]}],
        tokenizer={"file": "tokenizer.json", "eos": "</s>"},
    )
    [source_plan] = sabiprep.plan(folder).sources
    assert (source_plan.files.count, source_plan.sampled_files) == (300, 32)
    assert source_plan.estimate is not None
    assert 0.95 * 6000 < source_plan.estimate.records < 1.05 * 6000


def test_the_command_prints_json_and_its_exit_code(folder: Path, run: Run) -> None:
    plan = planned(folder, json_lines(RECORDS))
    ran = run("plan", folder, "--json")
    assert ran.code == 0
    found = json.loads(ran.out)
    without_time = {
        key: value for key, value in found.items() if key not in ("estimate", "sources")
    }
    assert without_time == {key: plan.json[key] for key in without_time}
    page = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text("utf-8")
    for key in [*found, *found["sources"][0], *found["estimate"]]:
        assert f"`{key}`" in page, key
    (folder / "a.jsonl").write_text("")
    failed = run("plan", folder)
    assert failed.code == 1 and "Packing would fail: " in failed.out
    assert run("plan", folder / "nowhere").code == 1


def test_every_kind_of_problem_is_documented() -> None:
    root = Path(__file__).parents[1]
    page = (root / "docs" / "configuration.md").read_text("utf-8")
    names = {
        "configuration", "file", "unrecognised", "tokenizer", "template", "field", "unfit",
        "dropped", "duplicates", "empty", "language", "control token", "too long",
        "tokenizer fit", "leak", "leftover", "nothing to train",
    }  # fmt: skip
    for name in names:
        assert f"`{name}`" in page, name


@pytest.mark.parametrize("width", [40, 80, 140])
def test_it_fits_its_terminal(tmp_path: Path, width: int) -> None:
    write_shapes(tmp_path / "corpus")
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json")
    plan = sabiprep.plan(tmp_path / "corpus", PackOptions(tokenizer=tokenizer))
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system="standard")
    console.print(plan, crop=False)
    plain = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with plain.capture() as captured:
        plain.print(plan, crop=False)
    # Words longer than the line, such as paths, stay whole.
    long = [
        line
        for line in captured.get().splitlines()
        if cell_len(line) > width and len(line.split()) > 1 and "/" not in line
    ]
    assert long == []
    assert "\x1b[" in file.getvalue()
