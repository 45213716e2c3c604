"""The run folder: one run at a time, no way through a link, a full disk told in words."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sabiprep.errors import OutputError
from sabitrain import trainer
from sabitrain.checkpoints import files
from sabitrain.checkpoints.run_folder import LOCK_FILE, begin_run
from sabitrain.checkpoints.trainer_state import read_progress
from sabitrain.config import CheckpointConfig, TrainConfig
from sabitrain.monitoring.tensorboard import TensorBoard
from sabitrain.trainer import run_training
from support.train import tear
from support.train.tiny import tiny_config, write_tiny

OPTIONS: dict[str, Any] = {
    "threads": 1,
    "eval_every": 0,
    "answers": 0,
    "checkpoint": CheckpointConfig(every=2),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("data")).path


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended, to be copied."""
    run = tmp_path_factory.mktemp("done") / "run"
    run_training(tiny_config(data, run, **OPTIONS))
    return run


def hold(config: TrainConfig) -> int:
    """A process of its own that holds the run folder until it is killed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with begin_run(config):
            os.write(write, b"x")
            signal.pause()
        os._exit(1)
    assert os.read(read, 1) == b"x"
    os.close(read), os.close(write)
    return child


@pytest.mark.parametrize("mode", ["begin", "resume", "overwrite"])
def test_two_runs_in_one_folder(data, tmp_path, mode):
    run = tmp_path / "run"
    child = hold(tiny_config(data, run))
    options = {} if mode == "begin" else {mode: True}
    try:
        with pytest.raises(
            OutputError, match=rf"another run is at work in it \(process {child}\)"
        ) as refused:
            run_training(tiny_config(data, run, **OPTIONS, **options))
        assert refused.value.file == str(run) and "--run" in str(refused.value.remedy)
        assert sorted(path.name for path in run.iterdir()) == [LOCK_FILE, "config.toml"]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert (run / LOCK_FILE).exists(), "left by the killed process, and held by none"
    with begin_run(tiny_config(data, run, resume=True)):
        pass
    assert [path.name for path in run.iterdir()] == ["config.toml"]


def test_a_lock_whose_file_its_holder_has_just_removed_is_made_anew(tmp_path, monkeypatch):
    place, flock, seen = tmp_path / "lock", fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        if not seen:
            place.unlink()
        seen.append(descriptor)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with files.Lock(place):
        assert len(seen) == 2 and place.read_text() == f"{os.getpid()}\n"
        with pytest.raises(BlockingIOError, match=str(os.getpid())):
            files.Lock(place)
    assert not place.exists()


def listing(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


LINKS = {
    "metrics.jsonl": "file",
    "config.toml": "file",
    ".config.toml.unfinished": "file",
    LOCK_FILE: "file",
    "checkpoints": "folder",
    "checkpoints/step-00000009": "folder",
    "checkpoints/.step-00000009.unfinished": "folder",
    "checkpoints/step-00000004/model.safetensors": "file",
    "tensorboard": "folder",
    "tensorboard/events.out.tfevents.1": "file",
}


@pytest.mark.parametrize("mode", ["resume", "overwrite"])
@pytest.mark.parametrize("place", LINKS)
def test_nothing_behind_a_planted_link_is_touched(data, done, tmp_path, place, mode):
    run, victim = tmp_path / "run", tmp_path / "victim"
    shutil.copytree(done, run, symlinks=True)
    shutil.copytree(done / "checkpoints", victim / "folder")
    victim.joinpath("file").write_text("keep")
    before = listing(victim)
    files.remove(run / place)
    (run / place).parent.mkdir(exist_ok=True)
    (run / place).symlink_to(victim / LINKS[place])
    kept = listing(run)
    with pytest.raises(
        OutputError, match=f"it holds '{place}', a link, which no training run has written"
    ):
        run_training(tiny_config(data, run, **OPTIONS, **{mode: True}))
    assert listing(victim) == before and listing(run) == kept


def test_removal_takes_a_link_and_leaves_what_it_leads_to(tmp_path):
    victim = tmp_path / "victim"
    (victim / "sub").mkdir(parents=True)
    victim.joinpath("sub", "file").write_text("keep")
    doomed = tmp_path / "doomed" / "inner"
    doomed.mkdir(parents=True)
    for name, target in (
        ("folder", victim),
        ("file", victim / "sub" / "file"),
        ("dead", tmp_path / "nowhere"),
    ):
        doomed.joinpath(name).symlink_to(target)
        doomed.parent.joinpath(name).symlink_to(target)
    (tmp_path / "link").symlink_to(victim)
    files.remove(tmp_path / "doomed")
    files.remove(tmp_path / "link")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "sub", "victim"]


def test_a_run_folder_that_is_a_link_is_used_and_not_replaced(data, done, tmp_path):
    victim, run = tmp_path / "victim", tmp_path / "run"
    shutil.copytree(done, victim, symlinks=True)
    before = listing(victim)
    run.symlink_to(victim)
    with pytest.raises(
        OutputError, match=r"is a link to .*victim, and --overwrite removes nothing behind a link"
    ):
        run_training(tiny_config(data, run, overwrite=True, **OPTIONS))
    assert listing(victim) == before and run.is_symlink()
    run_training(tiny_config(data, run, resume=True, **OPTIONS))
    assert run.is_symlink() and len((victim / "metrics.jsonl").read_bytes()) > len(
        before["metrics.jsonl"] or b""
    )


def test_a_file_is_never_written_through_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("keep")
    (tmp_path / "link").symlink_to(victim)
    for write in (
        lambda: files.write_file(tmp_path / "link", b"x"),
        lambda: files.Log(tmp_path / "link", 0),
        lambda: files.Lock(tmp_path / "link"),
    ):
        with pytest.raises(OSError, match="symbolic links"):
            write()
    assert victim.read_text() == "keep"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Has the system refuse whatever goes beyond so many bytes in a file, as it does on a full
    disk.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("size", "what"), [(100, "the run cannot go on"), (7000, "the checkpoint cannot be written")]
)
def test_a_full_disk_is_told_and_the_run_goes_on_once_there_is_room(
    data, done, tmp_path, monkeypatch, size, what
):
    """It fills up at the third step, so that a line of metrics or the second checkpoint has no
    room.
    """
    run, step = tmp_path / "run", trainer.Loader.step
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self: Any, index: int) -> Any:
        if index == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        return step(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Loader, "step", fill)
        with pytest.raises(OutputError, match=what) as full:
            try:
                run_training(tiny_config(data, run, log_every=1, **OPTIONS))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "make room on that disk" in str(full.value.remedy) and "--resume" in str(
        full.value.remedy
    )
    assert os.listdir(run / "checkpoints") == ["step-00000002"]
    assert read_progress(run / "checkpoint").step == 2
    run_training(tiny_config(data, run, log_every=1, resume=True, **OPTIONS))
    assert tear.outcome(run) == tear.outcome(done)


def test_no_room_even_for_the_configuration(data, tmp_path):
    with (
        largest_file(10),
        pytest.raises(OutputError, match="cannot be written to: File too large") as full,
    ):
        run_training(tiny_config(data, tmp_path / "run", **OPTIONS))
    assert "make room" in str(full.value.remedy)
    run_training(tiny_config(data, tmp_path / "run", max_steps=1, **OPTIONS))


def test_tensorboard_without_room_raises_and_prints_nothing(tmp_path, capfd):
    hook = threading.excepthook
    board = TensorBoard(tmp_path / "board", 0)
    with largest_file(300), pytest.raises(OSError, match="File too large"):
        for step in range(100):
            board.add("train", {"step": step, "loss": 1.0})
        board.close()
    if threading.excepthook != hook:
        with pytest.raises(OSError, match="File too large"):
            board.close()
    assert threading.excepthook == hook
    assert capfd.readouterr().err == ""
