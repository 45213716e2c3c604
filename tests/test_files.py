"""Paths and files that people really have: what is no text, no regular file, or has a name that is
not UTF-8.

Each is packed as it should be, or refused by name with what to do about it; none hangs, is passed
over, or ends in a traceback.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import sabiprep
from sabiprep import (
    ConfigError,
    InputError,
    OutputError,
    PackOptions,
    SabiprepError,
    TokenizerError,
    cli,
)
from support.files import edit, files_of

TEXT = "".join(f"Ọ̀rọ̀ {i}, one two three\n" for i in range(200))


@pytest.fixture
def folder(tmp_path: Path, tokenizer_file: Path) -> Path:
    """A corpus folder with a tokenizer, and one source of text in ``a.txt``, which is not there
    yet.
    """
    made = tmp_path / "corpus"
    made.mkdir()
    shutil.copy(tokenizer_file, made / "tokenizer.json")
    (made / "corpus.toml").write_text(
        '[tokenizer]\nfile = "tokenizer.json"\neos = "</s>"\n[pack]\nseq_len = 64\n'
        '[[source]]\nname = "a"\nfiles = ["a.txt"]\nformat = "text"\n',
        "utf-8",
    )
    return made


def refusal(corpus: Path, kind: type[SabiprepError] = InputError) -> str:
    """The error that packing it ends in, as it is shown."""
    out = corpus.parent / "out"
    with pytest.raises(kind) as refused:
        sabiprep.pack(corpus, out)
    assert not out.exists() and refused.value.file and refused.value.remedy
    return str(refused.value)


def of_zip(file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", TEXT)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (TEXT.encode("utf-16"), "a.txt, source 'a': is text in UTF-16.*iconv -f UTF-16 -t UTF-8"),
        (TEXT.encode("utf-16-le"), "is text in UTF-16.*iconv -f UTF-16LE -t UTF-8 a.txt"),
        (TEXT.encode("utf-16-be"), "is text in UTF-16.*iconv -f UTF-16BE -t UTF-8"),
        (TEXT.encode("utf-32"), "is text in UTF-32.*iconv -f UTF-32 -t UTF-8"),
        (gzip.compress(TEXT.encode()), "compressed by gzip.*mv a.txt a.txt.gz"),
        (bz2.compress(TEXT.encode()), "compressed by bzip2.*mv a.txt a.txt.bz2"),
        (lzma.compress(TEXT.encode()), "compressed by xz.*mv a.txt a.txt.xz"),
        (b"\x28\xb5\x2f\xfd\x24\x05 compressed", "compressed by zstd.*mv a.txt a.txt.zst"),
        (
            b"\x04\x22\x4d\x18 compressed",
            "compressed by lz4.*lz4 -d a.txt.*.gz, .zst, .bz2, .xz and .zip are read",
        ),
        (b"PAR1 columns PAR1", "is Parquet.*format = .parquet."),
        (b"one\0two\n", "holds NUL bytes"),
    ],
)
def test_what_is_no_text_is_refused_whatever_its_source_says(
    folder: Path, content: bytes, named: str
) -> None:
    (folder / "a.txt").write_bytes(content)
    with pytest.raises(InputError, match=f"(?s){named}"):
        sabiprep.pack(folder, folder.parent / "out")
    assert not (folder.parent / "out").exists()


def test_a_compressed_file_without_a_format_is_not_told_to_name_one(folder: Path) -> None:
    edit(folder / "corpus.toml", 'format = "text"\n', "")
    edit(folder / "corpus.toml", "a.txt", "a.txt.lz4")
    (folder / "a.txt.lz4").write_bytes(b"\x04\x22\x4d\x18 compressed")
    told = refusal(folder)
    assert "a.txt.lz4" in told and "lz4 -d a.txt.lz4" in told and "say format" not in told


def test_utf_16_in_gzip_is_named_and_a_zip_without_its_suffix_too(folder: Path) -> None:
    edit(folder / "corpus.toml", "a.txt", "a.txt.gz")
    (folder / "a.txt.gz").write_bytes(gzip.compress(TEXT.encode("utf-16")))
    assert "is text in UTF-16" in refusal(folder)
    edit(folder / "corpus.toml", "a.txt.gz", "a.xlsx")
    of_zip(folder / "a.xlsx")
    told = refusal(folder)
    assert "a zip archive" in told and "export a spreadsheet as CSV" in told


def test_a_configuration_in_utf_16_is_named(folder: Path) -> None:
    text = (folder / "corpus.toml").read_text("utf-8")
    (folder / "corpus.toml").write_text(text, "utf-16")
    assert "corpus.toml: is text in UTF-16" in refusal(folder)


# What is no regular file


@pytest.mark.parametrize(
    "name", ["a.txt", "corpus.toml", "tokenizer.json", "tokenizer_config.json"]
)
@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("fifo", "is a FIFO, not a regular file"),
        ("/dev/zero", "is a device, not a regular file"),
        ("/proc/self/status", "has content but no size"),
        ("huge", "larger than|NUL bytes"),
    ],
)
def test_only_regular_files_of_a_sane_size_are_read(
    folder: Path, name: str, kind: str, named: str
) -> None:
    if kind.startswith("/proc") and not Path(kind).exists():
        pytest.skip("there is no /proc here")
    (folder / "a.txt").write_text(TEXT, "utf-8")
    file = folder / name
    file.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "huge":
        file.touch()
        os.truncate(file, 1 << 40 if name == "a.txt" else 1 << 34)
    else:
        file.symlink_to(kind)
    with pytest.raises(SabiprepError, match=rf"(?s)^\S*{name}.*({named})") as refused:
        sabiprep.pack(folder, folder.parent / "out")
    assert (
        isinstance(refused.value, InputError | TokenizerError | ConfigError)
        and refused.value.remedy
    )


def test_what_a_pattern_matches_is_never_passed_over(folder: Path) -> None:
    edit(folder / "corpus.toml", "a.txt", "*.txt")
    (folder / "a.txt").write_text(TEXT, "utf-8")
    (folder / "folder.txt").mkdir()  # no file, as ever
    sabiprep.pack(folder, folder.parent / "out")
    shutil.rmtree(folder.parent / "out")
    os.mkfifo(folder / "b.txt")
    assert "b.txt" in (told := refusal(folder)) and "FIFO" in told
    (folder / "b.txt").unlink()
    (folder / "c.txt").symlink_to(folder / "none")
    assert "c.txt" in (told := refusal(folder)) and "a link that leads nowhere" in told
    (folder / "c.txt").unlink()
    with socket.socket(socket.AF_UNIX) as bound:
        before = Path.cwd()
        os.chdir(folder)  # a socket's path is short
        try:
            bound.bind("d.txt")
        finally:
            os.chdir(before)
        assert "d.txt" in (told := refusal(folder)) and "socket" in told


def test_a_file_behind_a_link_is_read(folder: Path) -> None:
    (folder.parent / "elsewhere").write_text(TEXT, "utf-8")
    (folder / "a.txt").symlink_to(folder.parent / "elsewhere")
    assert sabiprep.pack(folder, folder.parent / "out").train.documents == 200


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", "train/shard-00000.arrow"])
def test_a_dataset_with_a_fifo_in_it_is_refused_at_once(folder: Path, name: str) -> None:
    (folder / "a.txt").write_text(TEXT, "utf-8")
    out = folder.parent / "out"
    sabiprep.pack(folder, out)
    (out / name).unlink()
    os.mkfifo(out / name)
    if name == "manifest.json":
        with pytest.raises(SabiprepError, match=r"manifest.json.*FIFO"):
            sabiprep.verify(out)
        return
    assert any(f"{name}: no regular file" in failure for failure in sabiprep.verify(out).failures)


def test_a_work_folder_with_a_fifo_in_it_is_refused_at_once(folder: Path) -> None:
    (folder / "a.txt").write_text(TEXT, "utf-8")
    out = folder.parent / "out"
    sabiprep.pack(folder, out, PackOptions(keep_spool=True))
    spool = next((out / ".work" / "spool").iterdir())
    spool.unlink()
    os.mkfifo(spool)
    sabiprep.remix(out, folder.parent / "mixed")
    assert {"train/shard-00000.arrow"} < files_of(folder.parent / "mixed").keys()
    (out / ".work" / "state.json").unlink()
    os.mkfifo(out / ".work" / "state.json")
    with pytest.raises(SabiprepError, match=r"state.json.*FIFO"):
        sabiprep.pack(folder, out, PackOptions(overwrite=True))


# Names that are not UTF-8


@pytest.fixture
def latin(folder: Path) -> Path:
    """The corpus under a name in Latin-1."""
    (folder / "a.txt").write_text(TEXT, "utf-8")
    moved = Path(os.fsdecode(os.fsencode(folder.parent) + b"/caf\xe9"))
    try:
        folder.rename(moved)
    except OSError:
        pytest.skip("this file system has no such names")
    return moved


def test_folders_whose_names_are_not_utf_8_work(
    latin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, new = (
        Path(os.fsdecode(os.fsencode(latin.parent) + name)) for name in (b"/out\xe9", b"/new\xe9")
    )
    edit(latin / "corpus.toml", "a.txt", "*.txt")
    assert cli.main(["pack", str(latin), str(out), "--keep-spool"]) == 0
    assert r"out\xe9: " in capsys.readouterr().out.splitlines()[-1]
    for command in (["inspect", str(out)], ["verify", str(out), "--against", str(latin)]):
        assert cli.main(command) == 0, capsys.readouterr().err
    assert cli.main(["remix", str(out), str(new)]) == 0
    assert r"new\xe9" in capsys.readouterr().out
    with sabiprep.open_dataset(new) as dataset:
        assert dataset.path == new and len(dataset.train) > 0
    report = sabiprep.pack(latin, out, PackOptions(overwrite=True))
    assert report.out == out
    assert cli.main(["pack", str(latin), str(out)]) == 1
    assert "holds a dataset" in capsys.readouterr().err
    assert json.loads((out / "manifest.json").read_text("utf-8"))["inputs"][0]["path"] == "a.txt"


def test_a_file_whose_name_is_not_utf_8_is_not_passed_over(latin: Path) -> None:
    edit(latin / "corpus.toml", "a.txt", "*.txt")
    Path(os.fsdecode(os.fsencode(latin) + b"/donn\xe9es.txt")).write_text(TEXT, "utf-8")
    with pytest.raises(
        InputError, match=r"(?s)^\*\.txt, source 'a': .*donn\\xE9es.txt.*not UTF-8.*rename it"
    ):
        sabiprep.pack(latin, latin.parent / "out")


# A system out of threads


def test_a_system_without_threads_is_an_error_not_a_panic(folder: Path) -> None:
    """Each thread would need more memory than there are addresses for."""
    (folder / "a.txt").write_text(TEXT, "utf-8")
    command = [sys.executable, "-m", "sabiprep", "pack", str(folder), str(folder.parent / "out")]
    environment = {**os.environ, "RUST_MIN_STACK": str(1 << 50)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 1 and "panicked" not in ran.stderr and "Traceback" not in ran.stderr
    assert (
        "the system has no thread left" in ran.stderr and "Remedy: end other programs" in ran.stderr
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on addresses is Linux's")
def test_one_thread_does_the_work_where_there_are_no_more(folder: Path) -> None:
    """There are addresses for the stack of one thread, and not of two."""
    stack = 2 << 30
    (folder / "a.txt").write_text(TEXT, "utf-8")
    room = stack * 7 // 4
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({room}, {room}))"
    program = f"{limit}; import sys; from sabiprep import cli; sys.exit(cli.main())"
    environment = {**os.environ, "RUST_MIN_STACK": str(stack)}
    out = folder.parent / "out"
    for arguments in (
        ["pack", folder, out, "--threads", "8", "--split-bytes", "500", "--spool-bytes", "0"],
        ["verify", out, "--against", folder],
        ["tokenizer", "train", folder, folder.parent / "new.json", "--vocab-size", "300"],
    ):
        command = [sys.executable, "-c", program, *map(str, arguments)]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
    sabiprep.pack(folder, folder.parent / "same")
    assert files_of(out) == files_of(folder.parent / "same")


def test_a_run_that_cannot_be_written_to_is_named_in_any_encoding(latin: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(latin.parent) + b"/fil\xe9"))
    file.write_text("x", "utf-8")
    with pytest.raises(OutputError, match="is not a folder"):
        sabiprep.pack(latin, file)
