"""Runs that are stopped, killed, torn and damaged, and go on as if they had not been."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import sabitrain
from sabiprep.errors import ConfigError, DatasetError, OutputError, TrainError
from sabitrain import trainer
from sabitrain.__main__ import main
from sabitrain.checkpoints.disk import Disk
from sabitrain.checkpoints.trainer_state import restore_state
from sabitrain.config import CheckpointConfig, OptimConfig, TrainConfig
from sabitrain.optim.guard import StepGuard
from sabitrain.stopping import StopRequest
from sabitrain.trainer import run_training
from support.train import tear
from support.train.runs import begin, environment, wait_for
from support.train.tiny import VOCAB_SIZE, tiny_config, write_tiny
from support.train.torn_disk import TornDisk

EVERY_TEN = CheckpointConfig(every=10)


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


def twenty(data: Path, run: Path, **options: object) -> TrainConfig:
    """Twenty steps on one thread, a checkpoint after ten."""
    return tiny_config(
        data, run, **{"max_steps": 20, "eval_every": 0, "log_every": 1, "threads": 1, **options}
    )


def checkpoints(run: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").iterdir())


def test_twenty_steps_are_ten_a_kill_and_ten_more(data, tmp_path):
    run_training(twenty(data, tmp_path / "whole", checkpoint=EVERY_TEN))
    process = begin(twenty(data, tmp_path / "killed", max_steps=20, checkpoint=EVERY_TEN))
    wait_for(process, "step 13/")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    if checkpoints(tmp_path / "killed") != [10]:
        pytest.skip("the machine let the run end before the signal came")
    assert main(["--run", str(tmp_path / "killed"), "--resume"]) == 0
    assert tear.outcome(tmp_path / "killed") == tear.outcome(tmp_path / "whole")
    kinds = [
        json.loads(line)["kind"]
        for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    ]
    assert kinds == [
        "start",
        *["train"] * 10,
        "resume",
        *["train"] * 10,
        "validation",
        *["answer"] * 3,
        "end",
    ]


def test_torn_at_every_file_operation(data, tmp_path):
    done = subprocess.run(
        [sys.executable, tear.__file__, str(data), str(tmp_path)],
        env=environment(),
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    assert told["operations"] > 50


def test_every_kind_of_change_to_the_disk_can_be_torn():
    kinds = {name for name in vars(Disk) if not name.startswith("_")}
    assert kinds == {name for name in vars(TornDisk) if not name.startswith("_")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(data, tmp_path, number):
    run = tmp_path / "run"
    process = begin(twenty(data, run, max_steps=1_000_000))
    wait_for(process, "step")
    process.send_signal(number)
    try:
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, error) == (0, "")
    (step,) = checkpoints(run)
    last = out.splitlines()[-2:]
    assert last[0].startswith(
        f"stopped by {number.name} after step {step:,}, all of it in {run / 'checkpoints'}"
    )
    assert last[1] == f"go on with: python -m sabitrain --run {run} --resume"


def test_a_stopped_run_goes_on_as_if_it_had_not_been(data, tmp_path, monkeypatch):
    options = {"eval_every": 5, "checkpoint": CheckpointConfig(every=0, keep_every=20)}
    run_training(twenty(data, tmp_path / "whole", **options))

    class StopsAt(StopRequest):
        """Is asked to stop when a step has just been taken, or a validation is due."""

        asked = 0

        @property
        def signal(self) -> str | None:
            StopsAt.asked += 1
            return "SIGTERM" if StopsAt.asked > 4 else None

        @signal.setter
        def signal(self, _: str | None) -> None: ...

    sessions = 0
    config = twenty(data, tmp_path / "run", **options)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "StopRequest", StopsAt)
        while (report := run_training(config)).stopped and sessions < 20:
            assert report.stopped == "SIGTERM" and report.answers == ()
            sessions += 1
            StopsAt.asked = 0
            config = twenty(data, tmp_path / "run", resume=True, **options)
    assert sessions >= 3
    whole, run = (tear.outcome(tmp_path / name) for name in ("whole", "run"))
    for name in ("checkpoint", "metrics.jsonl", "checkpoints/step-00000020/trainer.json"):
        assert run[name] == whole[name]


def test_two_signals_and_the_handlers_of_before():
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        assert stop.signal is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before

    def listen() -> None:
        with StopRequest():
            found.append(signal.getsignal(signal.SIGINT))

    found: list[object] = []
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [before], "in another thread it leaves signals alone"


def damage_tensors(folder: Path) -> None:
    file = folder / "trainer.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def damage_facts(folder: Path) -> None:
    file = folder / "trainer.json"
    file.write_text(file.read_text().replace('"step": 20', '"step": 19'))


def cut_weights(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 100)


def lose_facts(folder: Path) -> None:
    folder.joinpath("trainer.json").unlink()


@pytest.mark.parametrize("damage", [damage_tensors, damage_facts, cut_weights, lose_facts])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(data, tmp_path, capsys, damage):
    run = tmp_path / "run"
    run_training(twenty(data, run, checkpoint=EVERY_TEN))
    whole = tear.outcome(run)
    damage(run / "checkpoints" / "step-00000020")
    capsys.readouterr()
    assert main(["--run", str(run), "--resume"]) == 0
    assert "; going back to the checkpoint before it" in capsys.readouterr().out.splitlines()[0]
    assert tear.outcome(run) == whole
    for folder in (run / "checkpoints").iterdir():
        damage(folder) if damage is not damage_facts else folder.joinpath(
            "trainer.json"
        ).write_text("[")
    assert main(["--run", str(run), "--resume"]) == 1
    error = capsys.readouterr().err
    assert "every checkpoint of this run is damaged" in error and "Remedy: remove" in error


def test_which_checkpoints_are_kept(data, tmp_path):
    run = tmp_path / "run"
    config = CheckpointConfig(every=2, keep_last=2, keep_every=6)
    run_training(twenty(data, run, max_steps=15, checkpoint=config))
    assert checkpoints(run) == [6, 12, 14, 15]
    assert os.readlink(run / "checkpoint") == "checkpoints/step-00000015"
    run_training(
        twenty(data, run, max_steps=15, resume=True, checkpoint=CheckpointConfig(keep_last=1))
    )
    assert checkpoints(run) == [15]


def test_a_changed_dataset_is_refused_by_what_changed(data, tmp_path):
    run = tmp_path / "run"
    run_training(tiny_config(data, run))
    moved = shutil.move(data, tmp_path / "moved")
    assert main(["--run", str(run), "--resume", "--data", str(moved)]) == 0, "moved is not changed"
    other = write_tiny(tmp_path / "other", train=57).path
    with pytest.raises(
        DatasetError,
        match=r"trained on so far: sources 'copying'\.records was 24 and is 23; .*more",
    ):
        run_training(tiny_config(other, run, resume=True))


def test_a_setting_that_changes_what_is_learnt_is_refused(data, tmp_path):
    run = tmp_path / "run"
    run_training(tiny_config(data, run))
    run_training(tiny_config(data, run, resume=True, log_every=3, answers=1))
    with pytest.raises(
        ConfigError,
        match=r"optim\.lr is 0\.02, but this run was begun with 0\.01(.|\n)*--optim\.lr",
    ):
        run_training(tiny_config(data, run, resume=True, optim=OptimConfig(lr=0.02)))
    with pytest.raises(
        ConfigError,
        match=r"max_steps is 5, but this run was begun with 4(.|\n)*leave --max-steps out",
    ):
        run_training(tiny_config(data, run, resume=True, max_steps=5))
    with pytest.raises(ConfigError, match="resume goes on with a run and overwrite removes it"):
        tiny_config(data, run, resume=True, overwrite=True)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_plan_of_the_first_session_binds(data, tmp_path, monkeypatch, name):
    options = {"checkpoint": EVERY_TEN, "optim": OptimConfig(name=name, lr=1e-2)}
    run_training(twenty(data, tmp_path / "whole", **options))
    shutil.copytree(tmp_path / "whole", tmp_path / "run", symlinks=True)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000020")
    monkeypatch.setattr(TrainConfig, "step_plan", lambda *_: pytest.fail("a plan was made again"))
    run_training(twenty(data, tmp_path / "run", resume=True, **options))
    assert tear.outcome(tmp_path / "run") == tear.outcome(tmp_path / "whole")


def test_a_checkpoint_of_another_model_is_refused(data, tmp_path):
    run = tmp_path / "run"
    run_training(tiny_config(data, run))
    shape, guard = tiny_config(data, run).model, StepGuard(torch.device("cpu"), 0.0)
    with pytest.raises(TrainError, match="not a checkpoint of this model"):
        restore_state(run / "checkpoint", sabitrain.make_model(shape, VOCAB_SIZE + 1), [], guard)
    model = sabitrain.make_model(shape, VOCAB_SIZE)
    with pytest.raises(TrainError, match="its parameters are grouped differently"):
        restore_state(
            run / "checkpoint",
            model,
            [torch.optim.AdamW(reversed(list(model.parameters())))],
            guard,
        )


def test_to_resume_what_never_began_begins_it(data, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    run.joinpath(".config.toml.unfinished").write_text("half of")
    report = run_training(tiny_config(data, run, resume=True))
    assert report.steps == 4 and report.stopped is None
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match=r"'thesis\.txt', which no training run has written"):
        run_training(tiny_config(data, tmp_path / "foreign", resume=True))


def test_deterministic_is_torchs_promise(data, tmp_path):
    config = tiny_config(data, tmp_path / "run", max_steps=1, answers=0, deterministic=True)
    try:
        run_training(config)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        run_training(tiny_config(data, tmp_path / "other", max_steps=1, answers=0))
    assert not torch.are_deterministic_algorithms_enabled()
