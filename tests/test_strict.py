"""`strict`: the lowest dropped record ends a run, unless the configuration chose to drop it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import InputError, PackOptions
from support import packer
from support.command import Run
from support.command import run as run  # the fixture
from support.strategies import tokenizer_json

PAIR = [{"prompt": "{{ a }}:"}, {"target": " {{ b }}"}]
BAD = {
    "malformed": "{",
    "missing field": '{"a": "x"}',
    "empty target": '{"a": "x", "b": " "}',
    "too long": json.dumps({"a": "x", "b": "long " * 40}),
}


def write(folder: Path, sources: list[dict[str, Any]], files: dict[str, str], **pack: Any) -> Path:
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    for name, text in files.items():
        (corpus / name).write_text(text, "utf-8")
    pack = {"seq_len": 64, "max_bad_fraction": 1.0, **pack}
    packer.write_config(corpus, sources, tokenizer={"file": "tokenizer.json"}, pack=pack)
    return corpus


def pairs(count: int, bad: dict[int, str]) -> str:
    whole = [json.dumps({"a": f"one {nth}", "b": f"two {nth}"}) for nth in range(count)]
    return "".join(bad.get(nth, line) + "\n" for nth, line in enumerate(whole))


def refusal(corpus: Path, out: Path, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        sabiprep.pack(corpus, out, PackOptions(strict=True, **options))
    return caught.value


@pytest.mark.parametrize("reason", BAD)
@pytest.mark.parametrize("line", [7, 2503], ids=["first records", "later"])
def test_the_lowest_dropped_record_is_the_error_whatever_the_threads(
    tmp_path: Path, reason: str, line: int
) -> None:
    # Lower in another source, and higher in this one, others are dropped too.
    bad = {line - 1: BAD[reason], 2700: "{", 2900: '{"a": "y"}'}
    files = {"good.jsonl": pairs(300, {}), "p.jsonl": pairs(3000, bad), "z.jsonl": "{\n" * 5}
    sources = [
        {"name": name, "files": [f"{file}.jsonl"], "segments": PAIR}
        for name, file in [("first", "good"), ("second", "p"), ("third", "z")]
    ]
    corpus = write(tmp_path, sources, files)
    found = [
        refusal(corpus, tmp_path / f"out-{nth}", **options)
        for nth, options in enumerate(
            [{"threads": 1}, {"threads": 4, "split_bytes": 3000}, {"threads": 2, "spool_bytes": 0}]
        )
    ]
    assert {str(error) for error in found} == {str(found[0])}
    error = found[0]
    assert (error.file, error.line, error.source) == ("p.jsonl", line, "second")
    assert str(error).split(": ", 1)[1].startswith(f"{reason}: ")
    assert error.remedy is not None and "--strict" in error.remedy
    if line == 2503:
        assert f"1 {reason}" in error.remedy or "2 " in error.remedy
        assert "drop 3: " in error.remedy
    assert not (tmp_path / "out-0").exists(), "nothing is left of a refused run"


def test_what_the_configuration_chose_to_drop_is_no_error(tmp_path: Path) -> None:
    same = {nth: json.dumps({"a": "same", "b": "same"}) for nth in range(5, 400, 20)}
    sources = [
        {
            "name": "s",
            "files": ["p.jsonl"],
            "segments": PAIR,
            "duplicates": "exact",
            "epochs": 0.5,
        }
    ]
    files = {"p.jsonl": pairs(400, same), "held.jsonl": '{"t": "one 21"}\n'}
    clean = {"validation": 0.2, "decontaminate": ["held.jsonl"], "decontaminate_ngram": 2}
    corpus = write(tmp_path, sources, files, **clean)
    report = sabiprep.pack(corpus, tmp_path / "out", PackOptions(threads=2, strict=True))
    assert {"duplicate", "not sampled", "contaminated"} <= set(report.total.drops)


def test_a_finished_dataset_is_judged_as_a_run_is(tmp_path: Path) -> None:
    sources = [{"name": "s", "files": ["p.jsonl"], "segments": PAIR}]
    corpus = write(tmp_path, sources, {"p.jsonl": pairs(3000, {2499: "{", 2600: '{"a": "x"}'})})
    out = tmp_path / "out"
    sabiprep.pack(corpus, out, PackOptions(threads=2, keep_spool=True))
    fresh = refusal(corpus, tmp_path / "fresh", threads=2)
    assert str(refusal(corpus, out, threads=2, resume=True)) == str(fresh)
    with pytest.raises(InputError) as caught:
        sabiprep.remix(out, tmp_path / "mixed", PackOptions(threads=2, strict=True))
    assert str(caught.value) == str(fresh)
    assert sabiprep.verify(out).ok, "the finished dataset stays"


def test_the_command_line_has_the_option(tmp_path: Path, run: Run) -> None:
    sources = [{"name": "s", "files": ["p.jsonl"], "segments": PAIR}]
    corpus = write(tmp_path, sources, {"p.jsonl": pairs(30, {3: "{"})})
    for command in ["pack", "remix"]:
        assert "--strict" in run(command, "--help").out
    code, _, err = run("pack", corpus, tmp_path / "out", "--strict")
    assert code == 1 and "p.jsonl:4, source 's': malformed" in err
    assert run("pack", corpus, tmp_path / "out").code == 0
