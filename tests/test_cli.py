"""The command line: what each command prints and its exit code; no mistake of the user's ends in a
traceback.

Most commands run in the process (an exception that `main` does not catch fails the test), those
that are about streams and signals in a process of their own.
"""

from __future__ import annotations

import gzip
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import sabiprep
from conftest import make_it_last
from sabiprep import PackOptions, PackReport, cli
from sabiprep.progress import PHASES, ProgressLines


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]

COMMANDS = ["pack", "remix", "inspect", "verify", "explain", "tokenizer"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


def process(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """Starts ``python -m sabiprep`` with its streams piped."""
    command = [sys.executable, "-m", "sabiprep", *(str(argument) for argument in arguments)]
    pipes = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "encoding": "utf-8",
    }
    return subprocess.Popen(command, **{**pipes, **options})  # type: ignore[call-overload, no-any-return]


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")


# Help and usage


def test_help_names_every_command(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0 and ran.err == ""
    for command in COMMANDS:
        assert re.search(rf"• {command}\s+\w", ran.out), command
        assert getattr(sabiprep, command, None) or command in ("inspect", "tokenizer")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (
            "pack",
            "CORPUS OUT --seq-len --tokenizer --seed --threads --split-bytes --spool-bytes --overwrite --resume"
            " --keep-spool",
        ),
        (
            "remix",
            "DATASET OUT --corpus --seq-len --tokenizer --seed --threads --spool-bytes --overwrite --resume --keep-spool",
        ),
        ("inspect", "OUT --row --source --split"),
        ("verify", "OUT --against --sample"),
        ("explain", "CORPUS --source --record --seq-len --tokenizer"),
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

    assert without_speed(ran.out) == without_speed(str(report))
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


# What is refused


def refused(ran: Ran, *parts: str, remedy: bool = True) -> None:
    """The command failed with a message that names all of ``parts``."""
    assert ran.code == 1, ran
    assert ran.out == ""
    message = ran.err[ran.err.index("sabiprep: ") :]
    assert "Traceback" not in message
    for part in parts:
        assert part in message
    assert not remedy or "\nRemedy: " in message


def test_corpora_that_cannot_be_packed(run: Run, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(run("pack", tmp_path / "nowhere", out), "nowhere: no such corpus folder", remedy=False)
    (tmp_path / "empty").mkdir()
    refused(run("pack", tmp_path / "empty", out), "corpus.toml")
    config = corpus / "corpus.toml"
    edit(config, "task =", "tsak =")
    refused(run("pack", corpus, out), "corpus.toml:12: ", "`tsak`", "did you mean `task`?")
    edit(config, "tsak =", "task =")
    edit(config, '"sums.jsonl"', '"sum.jsonl"')
    refused(
        run("pack", corpus, out),
        "sum.jsonl, source 'sum-eng': no such file",
        "did you mean sums.jsonl?",
    )
    edit(config, '"sum.jsonl"', '"sums.jsonl"')
    config.write_text("[[source]\n", "utf-8")
    refused(run("pack", corpus, out), "corpus.toml:1: ")
    assert not out.exists()


def test_tokenizers_that_cannot_be_used(run: Run, corpus: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "out", corpus / "tokenizer.json"
    refused(
        run("pack", corpus, out, "--tokenizer", tmp_path / "none.json"), "none.json", remedy=False
    )
    edit(corpus / "corpus.toml", 'eos = "</s>"\n', "")
    refused(run("pack", corpus, out), "no EOS token", "candidates: `</s>` `<sum>`")
    edit(corpus / "corpus.toml", "[tokenizer]\n", '[tokenizer]\neos = "<end>"\n')
    refused(run("pack", corpus, out), "<end>")
    file.write_text("not json", "utf-8")
    refused(run("pack", corpus, out), "tokenizer.json", remedy=False)
    file.unlink()
    refused(run("pack", corpus, out), "tokenizer.json", remedy=False)
    assert not out.exists()


def test_records_that_cannot_be_used(run: Run, corpus: Path, tmp_path: Path) -> None:
    out, sums = tmp_path / "out", corpus / "sums.jsonl"
    config = (corpus / "corpus.toml").read_text("utf-8")
    only_sums = config[: config.index('[[source]]\nname = "sum-yor"')]
    (corpus / "corpus.toml").write_text(only_sums, "utf-8")
    sums.write_text("not json\n[1]\n", "utf-8")
    refused(
        run("pack", corpus, out),
        "none of its records (2) can be used",
        "sums.jsonl:1",
        "source 'sum-eng'",
    )
    sums.write_bytes(b'{"a": "\xff", "b": "1", "words": "one"}\n')
    refused(run("pack", corpus, out), "none of its records (1) can be used", "not UTF-8")
    sums.write_text("", "utf-8")
    refused(run("pack", corpus, out), "no training document is left (records read: 0)")
    sums.unlink()
    packed = gzip.compress(b'{"a": "1", "b": "2", "words": "three"}\n' * 5000)
    (corpus / "sums.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    edit(corpus / "corpus.toml", "sums.jsonl", "sums.jsonl.gz")
    refused(run("pack", corpus, out), "sums.jsonl.gz", remedy=False)
    assert not out.exists()


def test_a_line_that_is_no_utf8_is_counted_and_shown(
    run: Run, corpus: Path, tmp_path: Path
) -> None:
    with (corpus / "plain.txt").open("ab") as file:
        file.write(b"broken \xff\xfe\n")
    ran = run("pack", corpus, tmp_path / "out")
    assert ran.code == 0
    assert re.search(r"^  plain\s+eng\s.* 1 malformed$", ran.out, re.MULTILINE)
    assert "plain.txt:42  plain: malformed: " in ran.out


def test_options_that_cannot_be_right(run: Run, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for option, value in (
        ("seq-len", 100),
        ("seq-len", 0),
        ("seq-len", -64),
        ("threads", 0),
        ("seed", -1),
    ):
        refused(
            run("pack", corpus, out, f"--{option}", value), option.replace("-", "_"), str(value)
        )
    refused(
        run("explain", corpus, "--source", "sum", "--record", "{}"),
        "'sum'",
        "sum-eng, sum-yor, label, plain",
    )
    refused(run("tokenizer", "train", corpus, tmp_path / "t.json", "--vocab-size", 3), "3")
    assert not out.exists() and not (tmp_path / "t.json").exists()


@pytest.mark.parametrize("foreign", ["notes.txt", "manifest.json"])
def test_a_folder_that_is_not_ours_is_left_alone(
    run: Run, corpus: Path, tmp_path: Path, foreign: str
) -> None:
    out = tmp_path / "out"
    (out / "train").mkdir(parents=True)
    (out / foreign).write_text('{"name": "a web app"}', "utf-8")
    (out / "train" / "shard-00000.arrow").write_text("mine", "utf-8")
    before = files_of(out)
    for overwrite in ([], ["--overwrite"]):
        refused(run("pack", corpus, out, *overwrite), str(out))
        assert files_of(out) == before


def test_outs_that_cannot_be_written(run: Run, corpus: Path, tmp_path: Path) -> None:
    before = files_of(corpus)
    refused(run("pack", corpus, corpus / "plain.txt", "--overwrite"), "plain.txt: is not a folder")
    refused(run("pack", corpus, corpus / "plain.txt" / "out"), "plain.txt", remedy=False)
    refused(run("pack", corpus, corpus, "--overwrite"), str(corpus))
    assert files_of(corpus) == before


def test_a_failed_overwrite_leaves_the_old_dataset(run: Run, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("pack", corpus, out).code == 0
    before = files_of(out)
    (corpus / "sums.jsonl").unlink()
    assert run("pack", corpus, out, "--overwrite").code == 1
    assert files_of(out) == before and run("verify", out).code == 0


# Damaged datasets


def test_verify_finds_a_flipped_byte(run: Run, packed: PackReport, tmp_path: Path) -> None:
    out = Path(shutil.copytree(packed.out, tmp_path / "out"))
    shard = out / "train" / "shard-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    ran = run("verify", out)
    assert ran.code == 1
    assert (
        "1 failed" in ran.out and "train/shard-00000.arrow: " in ran.out and "Remedy: " in ran.out
    )


def test_unfinished_and_foreign_datasets(run: Run, packed: PackReport, tmp_path: Path) -> None:
    out = Path(shutil.copytree(packed.out, tmp_path / "out"))
    manifest = out / "manifest.json"
    text = manifest.read_text("utf-8")
    manifest.write_text(text.replace('"seed": 0', '"seed": 1'), "utf-8")
    for command in ("verify", "inspect"):
        refused(run(command, out), "manifest.json", "sha256")
    manifest.unlink()
    for command in ("verify", "inspect"):
        refused(run(command, out), "manifest.json")
        refused(run(command, tmp_path / "nowhere"), "nowhere")


def test_inspect_refuses_what_is_not_there(run: Run, packed: PackReport) -> None:
    refused(
        run("inspect", packed.out, "--row", 10_000), "no row 10000", f"0 to {packed.train.rows - 1}"
    )
    refused(run("inspect", packed.out, "--source", "lable"), "'lable'", "did you mean label")


def test_messages_cannot_drive_the_terminal(run: Run, packed: PackReport) -> None:
    ran = run("inspect", packed.out, "--source", "\x1b[2J\r[bold]x[/bold]")
    refused(ran, r"\x1b[2J\r[bold]x[/bold]")
    assert "\x1b" not in ran.err and "\r" not in ran.err


# Streams and signals


def test_piped_output_is_plain(corpus: Path, tmp_path: Path) -> None:
    packing = process("pack", corpus, tmp_path / "out", env={**os.environ, "COLUMNS": "60"})
    out, err = packing.communicate()
    assert packing.returncode == 0
    assert "\x1b" not in out + err and "\r" not in out + err
    assert max(map(len, out.splitlines())) > 80  # the width of no terminal counts
    assert set(err.splitlines()) <= set(PHASES.values())
    out, err = process("inspect", tmp_path / "out").communicate()
    assert "\x1b" not in out and "⟦t+|" in out and err == ""


def on_terminal(*arguments: object, **environment: str) -> str:
    """What a command writes to a terminal, stdout and stderr together."""
    ours, theirs = pty.openpty()
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NO_COLOR", "FORCE_COLOR", "CI")
    }
    env = {**clean, "TERM": "xterm-256color", "COLUMNS": "100", **environment}
    running = process(*arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    content = b""
    while True:
        try:
            more = os.read(ours, 65536)
        except OSError:  # Linux: the other end was closed
            break
        if not more:
            break
        content += more
    os.close(ours)
    assert running.wait() == 0
    return content.decode()


def test_a_terminal_gets_colours_and_a_bar_unless_it_wants_none(
    corpus: Path, tmp_path: Path
) -> None:
    shown = on_terminal("pack", corpus, tmp_path / "out")
    assert "\x1b[1m" in shown and "task, source" in shown
    assert any(phase in shown for phase in PHASES.values())
    shown = on_terminal("inspect", tmp_path / "out")
    assert "\x1b[36m" in shown and "⟦" not in shown
    shown = on_terminal("inspect", tmp_path / "out", NO_COLOR="1")
    assert "\x1b[36m" not in shown and "⟦p|" in shown
    shown = on_terminal("inspect", tmp_path / "out", TERM="dumb")
    assert "\x1b" not in shown and "⟦p|" in shown


def test_a_reader_that_leaves_is_no_error(packed: PackReport) -> None:
    for arguments in (["inspect", packed.out], ["--help"], ["pack", "--help"]):
        running = process(*arguments)
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == ""
        assert running.wait() == 0
        running.stderr.close()


def test_a_reader_of_progress_that_leaves_stops_the_work(corpus: Path, tmp_path: Path) -> None:
    make_it_last(corpus)
    packing = process("pack", corpus, tmp_path / "out")
    assert packing.stdout is not None and packing.stderr is not None
    packing.stderr.close()
    out = packing.stdout.read()
    packing.stdout.close()
    assert (packing.wait(), out) == (1, "")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_encoding_without_the_letters_is_no_error(packed: PackReport) -> None:
    running = process("inspect", packed.out, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    out, err = running.communicate()
    assert running.returncode == 0 and err == ""
    assert r"\u27e6p|" in out


@pytest.mark.parametrize(
    ("sent", "code", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_signal_stops_the_work_and_says_how_to_go_on(
    corpus: Path, tmp_path: Path, sent: signal.Signals, code: int, name: str
) -> None:
    make_it_last(corpus)
    arguments = [
        "pack",
        str(corpus),
        str(tmp_path / "out 1"),
        "--threads",
        "1",
        "--split-bytes",
        "20000",
    ]
    packing = process(*arguments)
    assert packing.stderr is not None
    assert packing.stderr.readline() == f"{PHASES['map']}\n"
    packing.send_signal(sent)
    out, err = packing.communicate()
    to_go_on = shlex.join(["sabiprep", *arguments, "--resume"])
    assert (packing.returncode, out, err) == (
        code,
        "",
        f"sabiprep: stopped by {name}\nTo go on: {to_go_on}\n",
    )
    assert not (tmp_path / "out 1" / "manifest.json").exists()

    again = process(*arguments)
    assert "--resume" in again.communicate()[1] and again.returncode == 1
    going_on = process(*shlex.split(to_go_on)[1:])
    out, err = going_on.communicate()
    assert going_on.returncode == 0, err
    sabiprep.pack(corpus, tmp_path / "at once")
    assert files_of(tmp_path / "out 1") == files_of(tmp_path / "at once")


def test_lines_of_progress_are_few(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("sabiprep.progress.time.monotonic", lambda: now)
    told = ProgressLines()
    for tick in range(241):
        now = tick * 0.05
        told("map", tick * 10, tick * 1_000_000, 240_000_000, tick * 100)
    told("reduce", 2400, 5, 10, 24_000)
    now += 6
    told("reduce", 2400, 7, 10, 24_000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[0] == PHASES["map"] and lines[3] == PHASES["reduce"]
    assert lines[1].startswith(f"{PHASES['map']}: 4") and lines[1].endswith("MB/s · 10,000 tokens")
    assert "1,000 records · 20.0 MB/s" in lines[1]
    assert lines[4] == f"{PHASES['reduce']}: 70% · 7 rows"
