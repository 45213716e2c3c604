"""What is left in ``.work`` and damaged there: never another dataset, never a panic, and a remedy
that works.

Bits are flipped and files cut, at random places, in what a run keeps or leaves. What is made of it
is either byte for byte what an undamaged folder gives, or an error of ours. ``SABIPREP_TEST_FLIPS``
sets how often, a few times if unset.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import DatasetError, InternalError, OutputError, PackOptions, SabiprepError
from support.files import files_of, reseal
from support.stopped_runs import SPLIT_BYTES, count, state_of
from support.stopped_runs import clean as clean
from support.stopped_runs import corpus as corpus
from support.stopped_runs import kept as kept
from support.stopped_runs import stopped as stopped

FLIPS = int(os.environ.get("SABIPREP_TEST_FLIPS", "60"))


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
    stages = []
    for nth, of_shards in enumerate(stopped):
        if not count(of_shards, ".work/done/*") or not count(of_shards, ".work/train/*.arrow"):
            continue
        out = Path(shutil.copytree(of_shards, tmp_path / str(nth)))
        shard = next(out.glob(".work/train/*.arrow"))
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
        stages.append(state_of(out)["stage"])
        if stages[-1] == "moving":
            with pytest.raises(OutputError, match=r"(?s)was damaged.*checksum.*--overwrite"):
                sabiprep.pack(corpus, out, PackOptions(resume=True))
            sabiprep.pack(corpus, out, PackOptions(overwrite=True))
        else:
            sabiprep.pack(corpus, out, PackOptions(resume=True))
        assert files_of(out) == clean
    assert set(stages) == {"working", "moving"}


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
