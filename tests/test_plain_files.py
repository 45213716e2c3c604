"""Names that lead to no plain file: wherever one is read, it is refused at once, by name."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from sabiprep import DatasetError, PackReport, cli, open_dataset
from sabiprep.files import open_regular, read_whole

HUGE = 1 << 41  # bytes that take no room: the file is sparse


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, HUGE)


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


NO_FILES: dict[str, Callable[[Path], None]] = {
    "a FIFO": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "No such device or address": bound,
    "Too many levels of symbolic links": lambda path: path.symlink_to(path.name),
    "no plain file": lambda path: path.symlink_to("/proc/self/maps"),
    "bytes, where at most": sparse,
    "No such file": lambda path: None,
}


@pytest.mark.parametrize("why", NO_FILES)
def test_what_is_no_plain_file_is_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, why: str
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    NO_FILES[why](Path("file"))
    with pytest.raises(OSError, match=why):
        read_whole("file", 1 << 20)


def test_a_plain_file_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content in (b"", b"one", bytes(1000)):
        file.write_bytes(content)
        assert read_whole(file, 1000) == content
    (tmp_path / "link").symlink_to(file)
    assert read_whole(tmp_path / "link", 1000) == bytes(1000)
    with pytest.raises(OSError, match="1,000 bytes, where at most 999"):
        read_whole(file, 999)
    with pytest.raises(OSError, match="NUL"):
        open_regular("a\0b")


@pytest.fixture
def out(packed: PackReport, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed.out, tmp_path / "out"))


@pytest.mark.parametrize("why", ["a FIFO", "a device", "a folder", "bytes, where"])
@pytest.mark.parametrize("name", ["manifest.json", "train/shard-00000.arrow"])
def test_a_dataset_of_no_plain_files_is_refused(out: Path, name: str, why: str) -> None:
    (out / name).unlink()
    if why == "a device":
        (out / name).symlink_to(out / "zero")
        os.mkfifo(out / "zero")  # inside of the dataset, so that the link alone is no reason
        why = "a FIFO"
    else:
        NO_FILES["bytes, where at most" if why == "bytes, where" else why](out / name)
    with pytest.raises(DatasetError, match=why) as caught:
        open_dataset(out)
    assert caught.value.file == str(out / name) and caught.value.remedy


@pytest.mark.parametrize("name", ["tokenizer.json", "train/shard-00000.arrow"])
def test_a_link_out_of_a_dataset_is_refused(out: Path, tmp_path: Path, name: str) -> None:
    outside = (out / name).rename(tmp_path / "outside")
    (out / name).symlink_to(outside)
    with pytest.raises(DatasetError, match="a link out of the dataset's folder") as caught:
        open_dataset(out)
    assert caught.value.file == str(out / name) and caught.value.remedy
    # One that stays inside is as good as the file.
    (out / name).unlink()
    outside.rename(out / "inside")
    (out / name).symlink_to(out / "inside")
    assert len(open_dataset(out).train) > 0
    # So is the dataset's folder by another name.
    (tmp_path / "other").symlink_to(out)
    assert len(open_dataset(tmp_path / "other").train) > 0


def test_verify_follows_no_link_out_of_a_dataset(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train/shard-00000.arrow", "tokenizer.json"):
        (out / name).rename(tmp_path / "outside")
        (out / name).symlink_to(tmp_path / "outside")
        assert cli.main(["verify", str(out)]) == 1
        assert "a link out of the dataset's folder" in capsys.readouterr().out
        (out / name).unlink()
        (tmp_path / "outside").rename(out / name)
    assert cli.main(["verify", str(out)]) == 0


def test_a_name_that_is_not_utf8_is_worked_with_and_shown_escaped(
    packed: PackReport, shared_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(packed.out, os.fsdecode(os.fsencode(tmp_path) + b"/out\xe9")))
    assert len(open_dataset(out).train) == packed.train.rows
    assert cli.main(["inspect", str(out)]) == 0
    assert cli.main(["verify", str(out)]) == 0
    assert r"out\xe9: in order" in capsys.readouterr().out
    assert cli.main(["verify", str(out), "--against", str(shared_corpus)]) == 0
    assert cli.main(["inspect", str(out / "nowhere")]) == 1
    assert r"out\xe9/nowhere: no such folder" in capsys.readouterr().err


def test_an_exception_nobody_foresaw_is_no_traceback(
    packed: PackReport, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(path: Path) -> None:
        raise RuntimeError("no one \x1b[2J foresaw this")

    monkeypatch.setattr("sabiprep.open_dataset", fails)
    assert cli.main(["inspect", str(packed.out)]) == 1
    err = capsys.readouterr().err
    assert err.startswith(r"sabiprep: RuntimeError: no one \x1b[2J foresaw this (line ")
    assert "in fails)" in err and "Remedy: this is a bug" in err and "Traceback" not in err
