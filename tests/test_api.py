"""The public functions: their arguments, their results, and what still works without the compiled
core.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import sabiprep
from sabiprep import (
    ConfigError,
    InputError,
    OutputError,
    PackOptions,
    PackReport,
    Role,
    TokenizerError,
)
from sabiprep.api import available_cores
from support.small_corpus import MALFORMED, WITHOUT_FIELD, make_it_last

RECORD = {"a": "1", "b": "2", "words": "three", "yor": "ẹ̀ta"}


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_everything_public_is_there_and_sorted() -> None:
    assert sorted(sabiprep.__all__) == sabiprep.__all__
    assert all(hasattr(sabiprep, name) for name in sabiprep.__all__)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threads", 0),
        ("threads", -1),
        ("threads", True),
        ("threads", 1.5),
        ("seq_len", 0),
        ("seq_len", -64),
        ("seq_len", 100),
        ("seq_len", 2**40),
        ("seed", -1),
        ("seed", 2**64),
        ("split_bytes", 0),
    ],
)
def test_numbers_that_cannot_be_right_are_refused(
    corpus: Path, tmp_path: Path, name: str, value: object
) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        sabiprep.pack(corpus, tmp_path / "out", PackOptions(**{name: value}))
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_pack_takes_its_arguments_over_those_of_the_corpus(
    corpus: Path, tmp_path: Path, tokenizer_file: Path
) -> None:
    (corpus / "tokenizer.json").unlink()
    out = tmp_path / "out"
    report = sabiprep.pack(
        str(corpus), str(out), PackOptions(seq_len=192, tokenizer=tokenizer_file, seed=2**64 - 1)
    )
    assert (report.seq_len, report.seed, report.threads) == (192, 2**64 - 1, available_cores())
    assert sabiprep.open_dataset(out).seq_len == 192
    with pytest.raises(OutputError, match="holds a dataset") as caught:
        sabiprep.pack(corpus, out, PackOptions(tokenizer=tokenizer_file))
    assert "overwrite" in str(caught.value)
    assert (
        sabiprep.pack(corpus, out, PackOptions(tokenizer=tokenizer_file, overwrite=True)).seq_len
        == 128
    )


def test_seed_decides_and_split_bytes_does_not(corpus: Path, tmp_path: Path) -> None:
    packed = {}
    for name, seed, split_bytes in (("a", 0, None), ("b", 0, 100), ("c", 1, None)):
        sabiprep.pack(corpus, tmp_path / name, PackOptions(seed=seed, split_bytes=split_bytes))
        packed[name] = files_of(tmp_path / name)
    assert packed["a"] == packed["b"] != packed["c"]


def test_progress_is_told_and_can_stop_the_work(corpus: Path, tmp_path: Path) -> None:
    make_it_last(corpus)
    told: list[tuple[str, int, int, int, int]] = []
    report = sabiprep.pack(corpus, tmp_path / "out", progress=lambda *counts: told.append(counts))
    assert {phase for phase, *_ in told} <= {"plan", "map", "reduce"}
    tokens = [tokens for *_, tokens in told]
    assert tokens == sorted(tokens)
    # Copies and held-out twins are settled after the map has counted every document once.
    assert 0 < tokens[-1] <= report.total.total.tokens

    class Stopped(Exception):
        pass

    def stop(phase: str, records: int, done: int, total: int, tokens: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        sabiprep.pack(corpus, tmp_path / "stopped", progress=stop)
    assert not (tmp_path / "stopped").exists()


def test_verify_counts_what_it_read_and_tells_its_progress(packed: PackReport) -> None:
    told: list[str] = []
    report = sabiprep.verify(packed.out, progress=lambda phase, *_: told.append(phase))
    assert report.ok and report.failures == []
    assert report.rows == packed.train.rows + packed.validation.rows
    assert report.documents == packed.total.total.documents
    assert report.shards == 2
    assert set(told) <= {"plan", "verify"}


def test_explain_shows_every_stage(shared_corpus: Path) -> None:
    explained = sabiprep.explain(RECORD, "sum-yor", corpus=shared_corpus)
    assert explained == sabiprep.explain(
        json.dumps(RECORD, ensure_ascii=False), "sum-yor", corpus=shared_corpus
    )
    assert explained.runs == ("<sum> 1 2 <yor>:", " ẹ̀ta")
    assert [(span.role, span.literal, span.text) for span in explained.spans] == [
        (Role.TEMPLATE, True, "<sum> "),
        (Role.DATA, False, "1"),
        (Role.TEMPLATE, True, " "),
        (Role.DATA, False, "2"),
        (Role.TEMPLATE, True, " <yor>:"),
        (Role.TARGET, True, " "),
        (Role.TARGET, False, "ẹ̀ta"),
    ]
    tokens = explained.tokens.to_pylist()
    assert "".join(token["text"] for token in tokens) == "<sum> 1 2 <yor>: ẹ̀ta</s>"
    assert [token["trained"] for token in tokens] == [
        token["role"] == Role.TARGET or at == len(tokens) - 1 for at, token in enumerate(tokens)
    ]
    assert explained.dropped is None and not explained.truncated

    shown = str(explained)
    for part in (
        "record of source 'sum-yor'",
        "'<sum> 1 2 <yor>:'",
        "from the record    '2'",
        "template",
        "target   +",
    ):
        assert part in shown
    assert sum(line.split()[2:4] == ["target", "+"] for line in shown.splitlines()) == sum(
        token["role"] == Role.TARGET for token in tokens
    )


def test_explain_says_why_a_record_is_dropped(shared_corpus: Path) -> None:
    for record, reason in (
        ({"a": "1", "b": "2"}, "missing field"),
        ({**RECORD, "words": None}, "missing field"),
        ({**RECORD, "words": ""}, "empty target"),
        ("not json", "malformed"),
        ("[1]", "malformed"),
    ):
        explained = sabiprep.explain(record, "sum-eng", corpus=shared_corpus)
        assert explained.dropped is not None and explained.dropped.reason == reason
        assert f"dropped: {reason}: {explained.dropped.why}" in str(explained)
        assert explained.tokens.num_rows == 0


def test_explain_shows_windows_and_shortened_records(shared_corpus: Path) -> None:
    explained = sabiprep.explain({"text": "seven eight nine " * 200}, "plain", corpus=shared_corpus)
    windows = set(explained.tokens.column("window").to_pylist())
    assert len(windows) > 1 and f"window 1 of 0 to {max(windows)}" in str(explained)
    long = sabiprep.explain(
        {"text": "seven " * 400, "label": "good"}, "label", corpus=shared_corpus
    )
    assert long.truncated and "shortened" in str(long)
    assert long.tokens.num_rows <= 128
    assert (
        sabiprep.explain(RECORD, "sum-eng", corpus=shared_corpus, seq_len=64).tokens.num_rows < 64
    )


def test_explain_escapes_what_could_drive_the_terminal(shared_corpus: Path) -> None:
    shown = str(
        sabiprep.explain(
            {**RECORD, "words": "\x1b[2J\r\x00 \\ \u202e"}, "sum-eng", corpus=shared_corpus
        )
    )
    assert not set(shown) & {"\x1b", "\r", "\x00", "\u202e"}
    assert r"\x1b[2J\r\x00 \\ \u202e" in shown


@pytest.mark.parametrize("record", [{"a": {1, 2}}, {"a": float("nan")}, {"a": "\ud800"}, "\ud800"])
def test_explain_refuses_what_is_no_json(
    shared_corpus: Path, record: dict[str, object] | str
) -> None:
    with pytest.raises(InputError, match="JSON"):
        sabiprep.explain(record, "sum-eng", corpus=shared_corpus)


def test_explain_names_the_nearest_source(shared_corpus: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'sum-yor'"):
        sabiprep.explain(RECORD, "sum-yoo", corpus=shared_corpus)


def test_train_tokenizer_makes_each_tag_one_token(corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.json"
    report = sabiprep.train_tokenizer(corpus, file, 320)
    assert report.specials == ["</s>", "<sum>", "<eng>", "<yor>", "<label>"]
    assert report.vocab_size == 320 and report.file == str(file)
    assert report.passed_over == 2 * (MALFORMED + WITHOUT_FIELD) - 1
    assert report.drops == {"malformed": 2 * MALFORMED, "missing field": 2 * WITHOUT_FIELD - 1}
    first = report.examples[0]
    assert (first.reason, first.file, first.line) == ("malformed", "sums.jsonl", 11)
    explained = sabiprep.explain(RECORD, "sum-eng", corpus=corpus, tokenizer=file)
    assert [t["text"] for t in explained.tokens.to_pylist() if "<" in t["text"]] == [
        "<sum>",
        "<eng>",
        "</s>",
    ]

    before = file.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        sabiprep.train_tokenizer(corpus, file, 330)
    assert file.read_bytes() == before
    assert sabiprep.train_tokenizer(corpus, file, 330, overwrite=True).vocab_size == 330
    with pytest.raises((TokenizerError, ConfigError)):
        sabiprep.train_tokenizer(corpus, tmp_path / "small.json", 3)
    with pytest.raises(ConfigError, match="vocab_size"):
        sabiprep.train_tokenizer(corpus, tmp_path / "small.json", -3)


WITHOUT_CORE = """
import sys
sys.modules["sabiprep._core"] = None  # importing it raises ImportError
import sabiprep
assert "rich" not in sys.modules and "tyro" not in sys.modules and "torch" not in sys.modules
dataset = sabiprep.open_dataset(sys.argv[1])
assert len(dataset.train[0]["input_ids"]) == dataset.seq_len
for call in (
    lambda: sabiprep.pack(".", "out"),
    lambda: sabiprep.verify(sys.argv[1]),
    lambda: sabiprep.explain({}, "x"),
    lambda: sabiprep.train_tokenizer(".", "t.json", 300),
):
    try:
        call()
    except sabiprep.SabiprepError as error:
        assert "core" in error.message and error.remedy, error
    else:
        raise AssertionError
"""


def test_the_loader_works_without_the_core_and_the_rest_says_what_is_missing(
    packed: PackReport, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_CORE, str(packed.out)], check=True, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_options_of_python_and_of_the_core_are_the_same() -> None:
    from sabiprep import _core

    assert [option.name for option in fields(PackOptions)] == _core.OPTION_NAMES
