"""What is left in ``.work`` and damaged there: never another dataset, never a panic, and a remedy
that works.

Bits are flipped and files cut, at random places, in what a run keeps or leaves. What is made of it
is either byte for byte what an undamaged folder gives, or an error of ours. ``SABIPREP_TEST_FLIPS``
sets how often, a few times if unset.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import DatasetError, InternalError, OutputError, PackOptions, SabiprepError
from test_cli import edit, files_of

FLIPS = int(os.environ.get("SABIPREP_TEST_FLIPS", "60"))
ZEROS = "0" * 64
SPLIT_BYTES = 1500


@pytest.fixture(scope="module")
def corpus(shared_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared corpus in shards of a few rows, of some records shortened to fit a row."""
    folder = tmp_path_factory.mktemp("damage") / "corpus"
    shutil.copytree(shared_corpus, folder)
    edit(folder / "corpus.toml", "seq_len = 128", "seq_len = 64\nshard_tokens = 1000")
    with (folder / "sums.jsonl").open("a", encoding="utf-8") as file:
        for i in range(6):
            file.write(
                json.dumps(
                    {"a": "one two three " * 30 + str(i), "b": "4", "words": "w", "yor": "y"}
                )
                + "\n"
            )
    return folder


@pytest.fixture(scope="module")
def clean(corpus: Path) -> dict[str, bytes]:
    """What the corpus gives."""
    sabiprep.pack(corpus, corpus.parent / "clean")
    return files_of(corpus.parent / "clean")


@pytest.fixture(scope="module")
def kept(corpus: Path) -> Path:
    """The corpus packed, its spool kept."""
    sabiprep.pack(
        corpus, corpus.parent / "kept", PackOptions(keep_spool=True, split_bytes=SPLIT_BYTES)
    )
    return corpus.parent / "kept"


@pytest.fixture(scope="module")
def stopped(corpus: Path, clean: dict[str, bytes]) -> list[Path]:
    """Folders of runs that were aborted while they mapped, made shards, and moved the dataset into
    place.
    """
    found: dict[str, list[Path]] = {}
    for step in (60, 90, 150, 180, 210, 225, 240):
        out = corpus.parent / f"stopped-{step}"
        command = [
            sys.executable,
            "-m",
            "sabiprep",
            "pack",
            corpus,
            out,
            "--split-bytes",
            SPLIT_BYTES,
        ]
        environment = {**os.environ, "SABIPREP_TEST_FAULT": f"abort:{step}"}
        ran = subprocess.run(
            [str(word) for word in [*command, "--spool-bytes", 0, "--threads", 1]],
            env=environment,
            capture_output=True,
        )
        if ran.returncode != -signal.SIGABRT:
            break
        state = json.loads((out / ".work" / "state.json").read_text("utf-8"))
        stage = (
            state["stage"]
            if not list((out / ".work").glob("done/*"))
            else state["stage"] + ", shards"
        )
        found.setdefault(stage, []).append(out)
    assert (
        set(found) == {"working", "working, shards", "moving", "moving, shards"} or len(found) >= 3
    ), found
    return [out for folders in found.values() for out in folders[-2:]]


def damage(work: Path, chance: random.Random) -> str:
    """Flip a bit of a file, or cut it; what was done."""
    file = chance.choice(
        sorted(path for path in work.rglob("*") if path.is_file() and path.stat().st_size)
    )
    data = bytearray(file.read_bytes())
    at = chance.randrange(len(data))
    if chance.random() < 0.1:
        file.write_bytes(data[:at])
        return f"{file.name} cut to {at} bytes"
    bit = chance.randrange(8)
    data[at] ^= 1 << bit
    file.write_bytes(data)
    return f"bit {bit} of byte {at} of {file.name}"


def attempt(run: Callable[[], Any], made: Path, clean: dict[str, bytes], what: str) -> str:
    """Run it: how it ended, in a word. Whatever ends otherwise fails the test."""
    try:
        run()
    except InternalError as error:
        raise AssertionError(f"{what}: {error}") from error
    except SabiprepError as error:
        assert error.file and error.remedy and "panicked" not in str(error), f"{what}: {error}"
        return "refused"
    found = {name: data for name, data in files_of(made).items() if not name.startswith(".work")}
    assert found == clean, f"{what}: another dataset"
    return "the same bytes"


def test_no_flipped_bit_of_a_kept_spool_is_silent(
    corpus: Path,
    clean: dict[str, bytes],
    kept: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    chance, ends = random.Random(1), Counter[str]()
    for nth in range(FLIPS // 2):
        shutil.copytree(kept, tmp_path / "kept")
        what = damage(tmp_path / "kept" / ".work", chance)
        made = tmp_path / "made"
        if nth % 3:
            end = attempt(
                lambda: sabiprep.remix(tmp_path / "kept", tmp_path / "made"), made, clean, what
            )
        else:
            made = tmp_path / "kept"
            again = PackOptions(overwrite=True, keep_spool=True, split_bytes=SPLIT_BYTES)
            run = partial(sabiprep.pack, corpus, made, again)
            end = attempt(run, made, clean, what)
        ends[end] += 1
        for folder in ("kept", "made"):
            shutil.rmtree(tmp_path / folder, ignore_errors=True)
    err = capfd.readouterr().err
    assert ends["refused"] > ends["the same bytes"] > 0 and "panicked" not in err, ends
    print(dict(ends))


def test_no_flipped_bit_of_a_stopped_run_is_silent(
    corpus: Path,
    clean: dict[str, bytes],
    stopped: list[Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    chance, ends = random.Random(2), Counter[str]()
    for nth in range(FLIPS - FLIPS // 2):
        out = tmp_path / "out"
        shutil.copytree(stopped[nth % len(stopped)], out)
        what = damage(out / ".work", chance)
        resume = partial(sabiprep.pack, corpus, out, PackOptions(resume=True))
        ends[attempt(resume, out, clean, what)] += 1
        shutil.rmtree(out)
    err = capfd.readouterr().err
    assert ends["refused"] > 0 < ends["the same bytes"] and "panicked" not in err, ends
    print(dict(ends))


def test_a_damaged_spool_that_is_removed_is_mapped_again(
    corpus: Path, clean: dict[str, bytes], kept: Path, tmp_path: Path
) -> None:
    """The remedy of the error is right."""
    shutil.copytree(kept, tmp_path / "kept")
    spools = sorted((tmp_path / "kept" / ".work" / "spool").iterdir())
    data = bytearray(spools[0].read_bytes())
    data[8] ^= 2
    spools[0].write_bytes(data)
    with pytest.raises(
        DatasetError, match=r"(?s)no whole spool.*checksum.*remove this file"
    ) as refused:
        sabiprep.remix(tmp_path / "kept", tmp_path / "made")
    assert refused.value.file == str(spools[0]) and not (tmp_path / "made").exists()
    spools[0].unlink()
    mixed = sabiprep.remix(tmp_path / "kept", tmp_path / "made")
    assert 0 < mixed.reused_splits[0] <= mixed.reused_splits[1]
    assert files_of(tmp_path / "made") == clean


def test_a_finished_shard_that_was_damaged_is_made_again(
    corpus: Path, clean: dict[str, bytes], stopped: list[Path], tmp_path: Path
) -> None:
    of_shards = next(
        out
        for out in stopped
        if list(out.glob(".work/done/*")) and list(out.glob(".work/train/*.arrow"))
    )
    shutil.copytree(of_shards, tmp_path / "out")
    state = json.loads((tmp_path / "out" / ".work" / "state.json").read_text("utf-8"))
    shard = next((tmp_path / "out").glob(".work/train/*.arrow"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    if state["stage"] == "moving":
        with pytest.raises(OutputError, match=r"(?s)was damaged.*checksum.*--overwrite"):
            sabiprep.pack(corpus, tmp_path / "out", PackOptions(resume=True))
        sabiprep.pack(corpus, tmp_path / "out", PackOptions(overwrite=True))
    else:
        sabiprep.pack(corpus, tmp_path / "out", PackOptions(resume=True))
    assert files_of(tmp_path / "out") == clean


def reseal(file: Path, **changes: object) -> None:
    """Change values of a state file, and its digest with them."""
    state = {**json.loads(file.read_text("utf-8")), **changes, "sha256": ZEROS}
    text = json.dumps(state, indent=2, ensure_ascii=False)
    file.write_text(text.replace(ZEROS, hashlib.sha256(text.encode()).hexdigest(), 1), "utf-8")


def test_values_of_a_state_file_are_checked_whatever_its_seal(
    corpus: Path, clean: dict[str, bytes], stopped: list[Path], tmp_path: Path
) -> None:
    for changes, named in [
        ({"split_bytes": 0}, "split_bytes is 0"),
        ({"split_bytes": -1}, "invalid value"),
        ({"stage": "done"}, "unknown variant"),
        ({"corpus": 5}, "corpus|AnyPath|data did not match"),
    ]:
        shutil.copytree(stopped[0], tmp_path / "out")
        reseal(tmp_path / "out" / ".work" / "state.json", **changes)
        with pytest.raises(
            OutputError, match=rf"(?s)state.json.*damaged: .*({named}).*remove the folder .work"
        ):
            sabiprep.pack(corpus, tmp_path / "out", PackOptions(resume=True))
        shutil.rmtree(tmp_path / "out")
    # What is only resealed goes on: the digest is that of the text, as this test computes it.
    shutil.copytree(stopped[0], tmp_path / "out")
    reseal(tmp_path / "out" / ".work" / "state.json")
    sabiprep.pack(corpus, tmp_path / "out", PackOptions(resume=True))
    assert files_of(tmp_path / "out") == clean


# Links


def plant(folder: Path, victim: Path) -> int:
    """Put links to a folder, to a file and to nowhere into every folder below ``folder``, and into
    itself.
    """
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for at in folders:
        for name, target in (
            ("to-folder", victim),
            ("to-file", victim / "a"),
            ("nowhere", victim / "none"),
        ):
            (at / name).symlink_to(target)
    return len(folders)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder that must stay as it is."""
    (tmp_path / "victim" / "train" / "sub").mkdir(parents=True)
    for name in ("a", "train/b", "train/sub/c"):
        (tmp_path / "victim" / name).write_text("keep", "utf-8")
    return tmp_path / "victim"


def assert_intact(victim: Path) -> None:
    assert files_of(victim) == dict.fromkeys(("a", "train/b", "train/sub/c"), b"keep")


def test_overwriting_never_follows_a_link(
    corpus: Path, clean: dict[str, bytes], kept: Path, victim: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(kept, out)
    assert plant(out, victim) >= 5  # OUT, train, validation, .work and its spool
    (out / "validation" / "shard-00000.arrow").unlink()
    (out / "validation" / "shard-00000.arrow").symlink_to(victim / "a")
    sabiprep.pack(corpus, out, PackOptions(overwrite=True))
    assert_intact(victim)
    assert {name: data for name, data in files_of(out).items() if name in clean} == clean
    assert not list((out / "train").glob("*to-*")) and not (out / ".work").exists()
    # A folder of the dataset that is a link itself is replaced by a folder.
    shutil.rmtree(out / "train")
    (out / "train").symlink_to(victim / "train")
    sabiprep.pack(corpus, out, PackOptions(overwrite=True))
    assert_intact(victim)
    assert not (out / "train").is_symlink() and sabiprep.verify(out).ok


def test_a_stopped_run_is_cleared_without_following_links(
    corpus: Path, clean: dict[str, bytes], stopped: list[Path], victim: Path, tmp_path: Path
) -> None:
    for nth, left in enumerate(stopped):
        out = tmp_path / f"out-{nth}"
        shutil.copytree(left, out)
        plant(out / ".work", victim)
        (out / ".work" / ".state.json.sabiprep-tmp").unlink(missing_ok=True)
        (out / ".work" / ".state.json.sabiprep-tmp").symlink_to(victim / "a")
        sabiprep.pack(corpus, out, PackOptions(resume=nth % 2 == 0, overwrite=nth % 2 == 1))
        assert_intact(victim)
        # Links that lay among shards moved with them, as links.
        assert {
            name: data for name, data in files_of(out).items() if not name.endswith("to-file")
        } == clean
        assert not (out / ".work").exists()


@pytest.mark.parametrize("name", ["", "train", "spool", "done", "lock", "state.json"])
def test_a_work_folder_that_leads_elsewhere_is_refused(
    corpus: Path, stopped: list[Path], victim: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(stopped[0], out)
    at = out / ".work" / name
    if at.is_dir():
        shutil.rmtree(at)
    else:
        at.unlink(missing_ok=True)
    at.symlink_to(victim / "train" if name not in ("lock", "state.json") else victim / "a")
    for options in ({"resume": True}, {"overwrite": True}, {}):
        with pytest.raises(OutputError, match=r"(?s)is a link.*remove the link"):
            sabiprep.pack(corpus, out, PackOptions(**options))
    assert_intact(victim)


def test_out_may_be_a_link_to_a_folder(
    corpus: Path, clean: dict[str, bytes], kept: Path, tmp_path: Path
) -> None:
    """The dataset it leads to is the one that is replaced; the link stays."""
    shutil.copytree(kept, tmp_path / "real")
    (tmp_path / "real" / ".work" / "state.json").unlink()
    shutil.rmtree(tmp_path / "real" / ".work")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OutputError, match="holds a dataset"):
        sabiprep.pack(corpus, tmp_path / "link")
    sabiprep.pack(corpus, tmp_path / "link", PackOptions(overwrite=True))
    assert (tmp_path / "link").is_symlink() and files_of(tmp_path / "real") == clean
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    with pytest.raises(OutputError, match=r"(?s)is a link that leads nowhere.*remove the link"):
        sabiprep.pack(corpus, tmp_path / "dangling", PackOptions(overwrite=True))
