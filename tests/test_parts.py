"""A corpus packed in parts, by processes that know nothing of each other, is packed as by one."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sabiprep
from sabiprep import ConfigError, OutputError, PackOptions
from support import packer
from support.files import files_of
from support.strategies import tokenizer_json
from support.varied_corpus import write_corpus


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, a tokenizer and the dataset that one process makes of them."""
    place = tmp_path_factory.mktemp("parts")
    write_corpus(place / "corpus")
    (place / "tokenizer.json").write_text(tokenizer_json("bytes-nfc"), "utf-8")
    packer.pack(place / "corpus", place / "reference", tokenizer=place / "tokenizer.json")
    return place


def options(place: Path, **more: object) -> PackOptions:
    """The options of every process: input splits are small, so that there are many."""
    return PackOptions(tokenizer=place / "tokenizer.json", split_bytes=1000, threads=1, **more)  # type: ignore[arg-type]


def map_all(place: Path, out: Path, parts: int, **more: object) -> None:
    """Packs every part, in no order."""
    order = list(range(1, parts + 1))
    random.Random(parts).shuffle(order)
    for part in order:
        sabiprep.pack_part(place / "corpus", out, part, parts, options(place, **more))


@pytest.mark.parametrize("parts", [1, 2, 7, 50])
def test_any_number_of_parts_gives_the_bytes_of_one_process(
    place: Path, tmp_path: Path, parts: int
) -> None:
    out = tmp_path / "out"
    map_all(place, out, parts)
    report = sabiprep.finish(place / "corpus", out, options(place))
    assert files_of(out) == files_of(place / "reference")
    # A job that is queued again has nothing to do.
    again = sabiprep.finish(place / "corpus", out, options(place))
    assert again.total == report.total and files_of(out) == files_of(place / "reference")
    assert report.reused_splits[0] == report.reused_splits[1] > 7


def test_shards_made_in_parts_are_those_of_one_process(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    map_all(place, out, 3)
    shards = sabiprep.settle(place / "corpus", out, options(place))
    made = [
        sabiprep.finish_part(place / "corpus", out, part, 4, options(place)).tasks
        for part in (3, 1, 4, 2)
    ]
    assert sum(made) == shards > 4
    before = {path: path.stat().st_mtime_ns for path in (out / ".work").rglob("shard-*.arrow")}
    assert len(before) == shards
    sabiprep.finish(place / "corpus", out, options(place))
    assert files_of(out) == files_of(place / "reference")
    for path, changed in before.items():
        moved = out / path.relative_to(out / ".work")
        assert moved.stat().st_mtime_ns == changed, f"{path} was made again"


def test_finishing_names_the_parts_that_are_missing(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for part in (1, 3):
        sabiprep.pack_part(place / "corpus", out, part, 4, options(place))
    for attempt in (sabiprep.finish, sabiprep.settle):
        with pytest.raises(OutputError, match="part 2, 4 of 4") as refused:
            attempt(place / "corpus", out, options(place))
        assert "--part 2/4" in str(refused.value)
        # `finish` has no such option.
        assert "same command with --resume" not in str(refused.value)
    # What the remedies say works: the missing parts, or the rest on this machine.
    alone = tmp_path / "alone"
    shutil.copytree(out, alone)
    sabiprep.pack(place / "corpus", alone, options(place, resume=True))
    assert files_of(alone) == files_of(place / "reference")
    for part in (2, 4):
        sabiprep.pack_part(place / "corpus", out, part, 4, options(place))
    sabiprep.finish(place / "corpus", out, options(place))
    assert files_of(out) == files_of(place / "reference")


def test_a_part_done_twice_or_by_two_processes_at_a_time_changes_nothing(
    place: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "sabiprep", "pack", str(place / "corpus"), str(out)]
    command += ["--tokenizer", str(place / "tokenizer.json"), "--split-bytes", "1000"]
    processes = [
        subprocess.Popen([*command, "--part", f"{part}/2"], stdout=subprocess.PIPE, text=True)
        for part in (1, 2, 1, 2)
    ]
    for process in processes:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0 and "of 2 is done" in said
    again = sabiprep.pack_part(place / "corpus", out, 1, 2, options(place))
    assert again.reused == again.tasks > 0
    sabiprep.finish(place / "corpus", out, options(place))
    assert files_of(out) == files_of(place / "reference")


def test_killed_parts_are_run_again(place: Path, tmp_path: Path) -> None:
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    line = '{"text": "' + "one two three four " * 20 + '%d"}\n'
    (corpus / "a.jsonl").write_text("".join(line % n for n in range(20_000)), "utf-8")
    arguments = ["--tokenizer", str(place / "tokenizer.json"), "--split-bytes", "100000"]
    command = [sys.executable, "-m", "sabiprep", "pack", str(corpus), str(out), *arguments]
    spool = out / ".work" / "spool"
    for wanted in (1, 20):
        process = subprocess.Popen([*command, "--part", "1/2"])
        while process.poll() is None and len(list(spool.glob("*"))) < wanted:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert any(spool.iterdir()), "it was killed once it had begun"
    same = PackOptions(tokenizer=place / "tokenizer.json", split_bytes=100_000)
    for part in (1, 2):
        sabiprep.pack_part(corpus, out, part, 2, same)
    sabiprep.finish(corpus, out, same)
    sabiprep.pack(corpus, tmp_path / "reference", same)
    assert files_of(out) == files_of(tmp_path / "reference")


def test_a_damaged_spool_of_a_part_is_found_and_made_again(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    map_all(place, out, 2)
    spools = sorted((out / ".work" / "spool").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(spools[-1].read_bytes())
    content[len(content) // 3] ^= 1
    spools[-1].write_bytes(content)
    sabiprep.finish(place / "corpus", out, options(place))
    assert files_of(out) == files_of(place / "reference")


def test_parts_of_different_runs_do_not_mix(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sabiprep.pack_part(place / "corpus", out, 1, 2, options(place))
    with pytest.raises(OutputError, match="in 2 parts, not in 3"):
        sabiprep.pack_part(place / "corpus", out, 1, 3, options(place))
    with pytest.raises(OutputError, match="configuration was changed") as refused:
        sabiprep.pack_part(place / "corpus", out, 2, 2, options(place, seed=99))
    # No part takes --overwrite.
    assert "all parts take the same" in str(refused.value)
    assert "--overwrite" not in str(refused.value)
    with pytest.raises(OutputError, match="cannot be replaced by one part"):
        sabiprep.pack_part(place / "corpus", out, 2, 2, options(place, overwrite=True))
    with pytest.raises(OutputError, match="unfinished run"):
        sabiprep.pack(place / "corpus", out, options(place))
    with pytest.raises(OutputError, match="is not settled yet"):
        sabiprep.finish_part(place / "corpus", out, 1, 2, options(place))
    with pytest.raises(OutputError, match="holds a dataset"):
        sabiprep.pack_part(place / "corpus", place / "reference", 1, 2, options(place))
    with pytest.raises(OutputError, match="no run in parts"):
        sabiprep.finish(place / "corpus", tmp_path / "nothing", options(place))
    assert not (tmp_path / "nothing").exists()
    for part, parts in [(0, 2), (3, 2), (1, 0), (True, 2)]:
        with pytest.raises(ConfigError):
            sabiprep.pack_part(place / "corpus", tmp_path / "none", part, parts, options(place))


def test_a_file_that_changed_between_parts_is_named(place: Path, tmp_path: Path) -> None:
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    shutil.copytree(place / "corpus", corpus)
    same = options(place)
    sabiprep.pack_part(corpus, out, 1, 2, same)
    changed = max(corpus.glob("*.jsonl"), key=lambda path: path.stat().st_size)
    text = changed.read_text("utf-8")
    changed.write_text(text.replace("a", "b", 1), "utf-8")
    os.utime(changed, ns=(1, 1))
    sabiprep.pack_part(corpus, out, 2, 2, same)
    # Its size is what it was, so only what is packed of it can tell.
    with pytest.raises(OutputError, match="part 1"):
        sabiprep.finish(corpus, out, same)


def test_the_spool_of_parts_can_be_kept_and_mixed_again(place: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    map_all(place, out, 3, keep_spool=True)
    sabiprep.finish(place / "corpus", out, options(place))
    left = sorted(path.name for path in (out / ".work").iterdir())
    assert left == ["lock", "spool", "state.json"]
    report = sabiprep.remix(out, again, PackOptions(tokenizer=place / "tokenizer.json"))
    assert report.reused_splits[0] == report.reused_splits[1]
    assert files_of(again) == files_of(place / "reference")


def test_the_command_line_says_what_is_next(place: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "sabiprep", *words]
        command += ["--tokenizer", str(place / "tokenizer.json")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return done.stdout + done.stderr

    corpus = str(place / "corpus")
    assert "write 1/16 to 16/16" in run("pack", corpus, out, "--part", "0/4")
    assert "leave one of them out" in run("pack", corpus, out, "--part", "1/4", "--engine", "ray")
    for part in range(1, 5):
        assert f"part {part} of 4 is done" in run("pack", corpus, out, "--part", f"{part}/4")
    assert "shards to make" in run("finish", corpus, out, "--settle")
    assert "part 1 of 2 is done" in run("finish", corpus, out, "--part", "1/2")
    assert "settle once" in run("finish", corpus, out, "--part", "1/2", "--settle")
    assert "documents" in run("finish", corpus, out)
    assert files_of(Path(out)) == files_of(place / "reference")
