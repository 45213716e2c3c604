"""What the command line refuses: in words, with a remedy, and leaving files alone."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

import pytest

from sabiprep import PackReport
from support.command import Ran, Run
from support.command import run as run
from support.files import edit, files_of

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


def test_inspect_of_a_corpus_names_the_command_that_shows_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "shard.jsonl").write_text('{"text": "a"}\n')
    refused(run("inspect", tmp_path), "a corpus, not a packed dataset", "sabiprep plan")
    (tmp_path / "corpus.toml").write_text("")
    refused(run("inspect", tmp_path), "a corpus, not a packed dataset", "sabiprep plan")
    (tmp_path / "empty").mkdir()
    refused(run("inspect", tmp_path / "empty"), "manifest.json")


def test_inspect_refuses_what_is_not_there(run: Run, packed: PackReport) -> None:
    refused(
        run("inspect", packed.out, "--row", 10_000), "no row 10000", f"0 to {packed.train.rows - 1}"
    )
    refused(run("inspect", packed.out, "--source", "lable"), "'lable'", "did you mean label")


def test_messages_cannot_drive_the_terminal(run: Run, packed: PackReport) -> None:
    ran = run("inspect", packed.out, "--source", "\x1b[2J\r[bold]x[/bold]")
    refused(ran, r"\x1b[2J\r[bold]x[/bold]")
    assert "\x1b" not in ran.err and "\r" not in ran.err
