"""The command line: what each command prints and its exit code; no mistake of the user's ends in a
traceback.

Most commands run in the process (an exception that `main` does not catch fails the test), those
that are about streams and signals in a process of their own.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import sabiprep
from sabiprep import PackOptions
from support.command import COMMANDS, Ran, Run, process
from support.command import run as run

# Help and usage


def test_help_names_every_command(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0 and ran.err == ""
    for command in COMMANDS:
        assert re.search(rf"• {command}\s+\w", ran.out), command
        assert getattr(sabiprep, command.replace("-", "_"), None) or command in (
            "inspect",
            "tokenizer",
        )


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (
            "pack",
            "CORPUS OUT --seq-len --tokenizer --seed --threads --split-bytes --spool-bytes"
            " --strict --overwrite --resume --keep-spool --engine --ray-address --part",
        ),
        (
            "finish",
            "CORPUS OUT --settle --part --seq-len --tokenizer --seed --threads --spool-bytes"
            " --strict --keep-spool",
        ),
        (
            "remix",
            "DATASET OUT --corpus --seq-len --tokenizer --seed --threads --spool-bytes --strict"
            " --overwrite --resume --keep-spool",
        ),
        ("inspect", "OUT --row --source --split"),
        ("verify", "OUT --against --sample"),
        ("explain", "CORPUS --source --record --seq-len --tokenizer"),
        ("export", "OUT DIR --to --overwrite"),
        (
            "export-tasks",
            "CORPUS DIR --seq-len --tokenizer --seed --threads --overwrite",
        ),
        ("tokenizer", "train CORPUS FILE --vocab-size --overwrite"),
    ],
)
def test_help_of_a_command_names_its_arguments_and_no_more(
    run: Run, command: str, arguments: str
) -> None:
    ran = run(command, "--help")
    assert ran.code == 0
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", ran.out))
    assert options == {word for word in arguments.split() if word.startswith("--")} | {"--help"}
    for word in arguments.split():
        assert word in ran.out
    assert "None" not in ran.out and "--no-" not in ran.out and "\x1b" not in ran.out


def test_version(run: Run) -> None:
    from sabiprep import _core

    assert run("--version") == Ran(0, f"sabiprep {_core.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["pakc"],
        ["pack"],
        ["pack", "corpus"],
        ["pack", "corpus", "out", "--seed", "x"],
        ["pack", "corpus", "out", "--seed", "None"],
        ["pack", "corpus", "out", "--seqlen", "64"],
        ["inspect", "out", "--split", "test"],
        ["tokenizer", "trian", "corpus", "t.json", "--vocab-size", "300"],
        ["tokenizer", "train", "corpus", "t.json"],
        ["explain", "corpus", "--source", "x"],
    ],
)
def test_a_wrong_command_line_is_2_and_says_where_help_is(run: Run, arguments: list[str]) -> None:
    ran = run(*arguments)
    assert ran.code == 2 and ran.out == ""
    assert "--help" in ran.err and "NoneType" not in ran.err


# What the commands print


def test_pack_prints_the_table_verify_and_inspect_agree(
    run: Run, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = run("pack", corpus, out, "--threads", 1)
    assert ran.code == 0, ran.err
    report = sabiprep.pack(corpus, tmp_path / "twin", PackOptions(threads=2))

    def without_speed(table: str) -> list[str]:
        return [
            line for line in table.splitlines() if not line.startswith(("Packed ", str(tmp_path)))
        ]

    twin = str(report).replace(str(tmp_path / "twin"), str(out))
    assert without_speed(ran.out) == without_speed(twin)
    assert f"{out}: " in ran.out and "on 1 thread:" in ran.out

    ran = run("verify", out)
    rows = report.train.rows + report.validation.rows
    assert ran[:2] == (
        0,
        f"{out}: in order (2 shards, {rows} rows, {report.total.total.documents} documents)\n",
    )

    ran = run("inspect", out, "--split", "validation", "--row", 0)
    assert ran.code == 0 and ran.out.startswith(
        f"validation row 0 (rows 0 to {report.validation.rows - 1})"
    )
    ran = run("inspect", out, "--source", "label")
    assert "⟦p|<label>" in ran.out and "<sum>" not in ran.out


def test_options_reach_the_core(run: Run, corpus: Path, tmp_path: Path) -> None:
    tokenizer = (corpus / "tokenizer.json").rename(tmp_path / "elsewhere.json")
    out = tmp_path / "out"
    ran = run(
        "pack",
        corpus,
        out,
        "--tokenizer",
        tokenizer,
        "--seq-len",
        192,
        "--seed",
        5,
        "--split-bytes",
        1000,
    )
    assert ran.code == 0, ran.err
    manifest = sabiprep.open_dataset(out).manifest
    assert (manifest["seq_len"], manifest["seed"]) == (192, 5)
    assert run("pack", corpus, out, "--tokenizer", tokenizer).code == 1
    assert run("pack", corpus, out, "--tokenizer", tokenizer, "--overwrite").code == 0
    assert sabiprep.open_dataset(out).seq_len == 128


def test_tokenizer_train_and_explain(run: Run, corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.json"
    ran = run("tokenizer", "train", corpus, file, "--vocab-size", 300)
    assert ran.code == 0 and f"{file}: 300 entries from " in ran.out
    assert "special tokens: </s> <sum> <eng> <yor> <label>" in ran.out
    assert (
        "passed over: 6 malformed, 3 missing field)" in ran.out
        and "sums.jsonl:11  malformed:" in ran.out
    )
    assert run("tokenizer", "train", corpus, file, "--vocab-size", 300).code == 1
    assert run("tokenizer", "train", corpus, file, "--vocab-size", 310, "--overwrite").code == 0

    record = '{"text": "one [bold]two[/bold]", "label": "good"}'
    ran = run("explain", corpus, "--source", "label", "--record", record, "--tokenizer", file)
    assert ran == Ran(
        0, f"{sabiprep.explain(record, 'label', corpus=corpus, tokenizer=file)}\n", ""
    )


def test_explain_reads_a_record_from_standard_input(shared_corpus: Path) -> None:
    arguments = ("explain", shared_corpus, "--source", "sum-yor", "--record", "-")
    record = '{"a":"1","b":"2","yor":"ẹ̀ta"}'
    out, err = process(*arguments, stdin=subprocess.PIPE).communicate(f"{record}\n")
    assert (out, err) == (f"{sabiprep.explain(record, 'sum-yor', corpus=shared_corpus)}\n", "")
    broken = process(*arguments, stdin=subprocess.PIPE, text=False, encoding=None)
    out, err = broken.communicate(b"\xff")  # type: ignore[arg-type]
    assert broken.returncode == 1 and b"not UTF-8" in err  # type: ignore[operator]


@pytest.mark.parametrize("module", ["sabiprep.cli", "sabitrain.command_line"])
def test_a_command_begins_without_the_libraries_that_its_help_does_not_need(module: str) -> None:
    """NumPy was imported by every command, for a tenth of a second of nothing."""
    code = f"import {module}, sys; print(*({{'numpy', 'pyarrow', 'torch'}} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
