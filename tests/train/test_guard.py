"""Steps that are no number or spike: judged as a slow list would, leaving no trace, counted, and
stopping the run.
"""

from __future__ import annotations

import copy
import math
import re
import shlex
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from sabiprep.errors import ConfigError, TrainError
from sabitrain import trainer
from sabitrain.command_line import parse_command_line
from sabitrain.config import CheckpointConfig, ModelConfig, OptimConfig, TrainConfig
from sabitrain.data.datasets import open_datasets
from sabitrain.data.masking import Masking
from sabitrain.data.order import make_order
from sabitrain.models.llama import Llama
from sabitrain.optim import guard as guard_module
from sabitrain.optim.guard import UPDATES, StepGuard, records_of
from sabitrain.optim.optimizers import clip_gradient, make_optimizers, skip_where
from sabitrain.trainer import run_training
from support.train import tear
from support.train.runs import read, spoil, stop_after
from support.train.tiny import SOURCES, documents, tiny_config, write_tiny

SHAPE = ModelConfig(layers=2, width=16, heads=2, kv_heads=1, mlp_width=40, context=8)
CPU = torch.device("cpu")


def slow(steps: list[tuple[float, float]], spike: float, window: int) -> list[str]:
    """What becomes of each step, with lists."""
    seen: list[tuple[float, float]] = []
    updates: list[str] = []
    for step in steps:
        last = seen[-window:]
        full = last + [(math.inf, math.inf)] * (window - len(last))
        limits = [
            max(1.0, spike * statistics.median_low([entry[i] for entry in full])) for i in range(2)
        ]
        if updates[-3:] and len(updates) >= 3 and all(update != "taken" for update in updates[-3:]):
            updates.append("stopped")
        elif not all(math.isfinite(value) for value in step):
            updates.append("not finite")
        elif spike and any(value > limit for value, limit in zip(step, limits, strict=True)):
            updates.append("spike")
        else:
            updates.append("taken")
            if step[0] > 0:
                seen.append(step)
    return updates


numbers = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 9.0, 40.0, math.nan, math.inf])


@given(
    steps=st.lists(st.tuples(numbers, numbers), max_size=40),
    spike=st.sampled_from([0.0, 2.0, 10.0]),
)
def test_steps_are_judged_as_with_lists(steps, spike):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard_module, "WINDOW", 8)
        guard, updates = StepGuard(CPU, spike), []
        for number, step in enumerate(steps, 1):
            skip, told = guard.judge(*torch.tensor(step), number, 1)
            updates.append(UPDATES[int(told[2])])
            assert skip.item() == (updates[-1] != "taken")
            assert told[:2].tolist() == pytest.approx(step, nan_ok=True)
            assert told[3:].tolist() == [updates.count("not finite"), updates.count("spike")]
    assert updates == slow(steps, spike, 8)
    stopping = guard.stopping_steps()
    first = updates.index("stopped") if "stopped" in updates else None
    ends = len(updates) >= 3 and all(update != "taken" for update in updates[-3:])
    last = first if first is not None else len(steps) if ends else None
    assert stopping == ([] if last is None else [last - 2, last - 1, last])


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("before", [0, 3])
def test_a_skipped_step_leaves_no_trace(name, before):
    """A NaN in one gradient: weights and state stay as they were to the bit, and later steps as if
    it had not been.
    """

    def steps(with_nan: bool) -> list[Any]:
        torch.manual_seed(0)
        model = Llama(SHAPE, 30)
        optimizers = make_optimizers(model, model.units(), OptimConfig(name=name, lr=0.1))
        guard, random = StepGuard(CPU, 10.0), torch.Generator().manual_seed(1)
        for step in range(before + 1 + with_nan):
            bad = with_nan and step == before
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=None if bad else random)
            if bad:
                model.model.layers[0].mlp.up_proj.weight.grad[0, 0] = math.nan
                kept = copy.deepcopy(
                    [model.state_dict(), *(optimizer.state_dict() for optimizer in optimizers)]
                )
            skip, _ = guard.judge(torch.tensor(2.0), clip_gradient(model, 1.0), step + 1, 1)
            skip_where(optimizers, skip)
            for optimizer in optimizers:
                optimizer.step()
            assert skip.item() == bad
            now = [model.state_dict(), *(optimizer.state_dict() for optimizer in optimizers)]
            if bad and before:
                assert bits(now) == bits(kept)
            elif bad:
                assert bits(now[0]) == bits(kept[0])
        return now

    assert bits(steps(True)) == bits(steps(False))


def bits(value: Any) -> Any:
    """A nest of tensors with their bytes in their places."""
    if isinstance(value, Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: bits(inner) for key, inner in value.items()}
    return [bits(inner) for inner in value] if isinstance(value, list | tuple) else value


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


@pytest.mark.parametrize("log_every", [1, 4])
def test_a_run_skips_and_counts(data, tmp_path, monkeypatch, capsys, log_every):
    spoil(monkeypatch, {2, 3, 5})
    config = tiny_config(data, tmp_path / "run", max_steps=8, log_every=log_every, eval_every=0)
    assert run_training(config).steps == 8
    steps = [line for line in read(tmp_path / "run") if line["kind"] == "train"]
    bad = [line["step"] for line in steps if line["update"] == "not finite"]
    assert bad == [2, 3, 5] and all(
        line["grad_norm"] is None for line in steps if line["step"] in bad
    )
    end = read(tmp_path / "run")[-1]
    assert (end["not_finite"], end["spikes"]) == (3, 0)
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step 8")]
    assert shown[0].endswith(", 3 steps skipped") and "nan" not in shown[0]


def test_three_in_a_row_stop_the_run_and_name_their_records(data, tmp_path, monkeypatch):
    spoil(monkeypatch, {4, 6, 7, 8})
    run = tmp_path / "run"
    config = tiny_config(
        data, run, max_steps=40, log_every=5, eval_every=0, checkpoint=CheckpointConfig(every=3)
    )
    with pytest.raises(TrainError, match=r"step 8: the third in a row") as raised:
        run_training(config)
    *steps, stopped = read(run)[1:]
    assert [line["update"] for line in steps[3:]] == [
        *("not finite", "taken", *["not finite"] * 3, *["stopped"] * (len(steps) - 8))
    ]
    assert stopped["kind"] == "stopped" and stopped["step"] == 8
    with open_datasets([data]) as opened:
        rows = make_order(opened, config.mix, 4, config.seed, 40).step(7)
        batch = opened.rows.train.batch(rows)
    written = documents(60, 0)
    places = [
        (SOURCES[source]["name"], record) for source, record in zip(*ids_of(batch), strict=True)
    ]
    assert all(
        written[record].source_id == [s["name"] for s in SOURCES].index(name)
        for name, record in places
    )
    named = [
        f"source '{name}', {name}.jsonl at byte {record}" for name, record in dict.fromkeys(places)
    ]
    assert stopped["records"] == named
    assert all(name in str(raised.value) for name in named[:5])
    assert f"and {len(named) - 5} more" in str(raised.value) and "--optim.lr" in str(raised.value)


def ids_of(batch: Any) -> tuple[list[int], list[int]]:
    return batch["source_ids"].tolist(), batch["record_ids"].tolist()


def test_a_step_without_a_target_is_none_of_those_in_a_row():
    """Bad, none, bad, none, bad: the run stops for the three bad ones, by their numbers."""
    guard, updates = StepGuard(CPU, 10.0), []
    losses = [math.nan, 0.0, math.nan, 0.0, math.nan, 2.0, 0.0]
    for number, loss in enumerate(losses, 1):
        assert guard.stopping_steps() == ([1, 3, 5] if number > 5 else [])
        skip, told = guard.judge(torch.tensor(loss), torch.tensor(0.5), number, int(loss != 0))
        updates.append(UPDATES[int(told[2])])
        assert skip.item() == 1 and told[0].isnan().item() == (updates[-1] != "stopped")
    assert updates == [*("not finite", "no target") * 2, "not finite", "stopped", "no target"]
    assert guard.state["counts"].tolist() == [3, 0]


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_step_without_a_target_changes_nothing(data, tmp_path, monkeypatch, capsys, name):
    """Weights, momentum and decay are those of the step before, to the bit; file and console say so
    without a NaN.
    """
    optim = OptimConfig(name=name, lr=1e-2, weight_decay=0.5)
    options = {"max_steps": 4, "eval_every": 0, "log_every": 1, "answers": 0, "optim": optim}
    weights = Masking.weights
    asked = iter(
        [True, False, True, False, *[False] * 9]
    )  # the first is the look before the run begins

    def without(self: Masking, rows: Any) -> Any:
        return weights(self, rows) * next(asked)

    monkeypatch.setattr(Masking, "weights", without)
    run = tmp_path / "run"
    run_training(
        tiny_config(data, run, checkpoint=CheckpointConfig(every=1, keep_last=9), **options)
    )
    steps = [line for line in read(run) if line["kind"] == "train"]
    assert [step["update"] for step in steps] == ["no target", "taken", "no target", "no target"]
    assert [step["loss"] is None for step in steps] == [True, False, True, True]
    assert [step["targets"] > 0 for step in steps] == [False, True, False, False]
    kept = [run / "checkpoints" / f"step-{number:08d}" for number in (2, 3, 4)]
    assert len({path.joinpath("model.safetensors").read_bytes() for path in kept}) == 1
    states = [load_file(path / "trainer.safetensors") for path in kept]
    for state in states[1:]:
        assert all(
            torch.equal(state[key], states[0][key]) for key in state if key.startswith("optimizer.")
        )
    shown = capsys.readouterr().out
    assert not re.search(r"\bnan\b", shown) and shown.count("loss none") == 3


def test_a_mixture_names_the_dataset_too(data, tmp_path):
    other = write_tiny(tmp_path / "other", train=30).path
    with open_datasets([data, other]) as opened:
        mixture = opened.rows
        batch = mixture.train.batch([len(mixture.train) - 1])
        first = batch["source_ids"][0] - len(SOURCES), batch["record_ids"][0]
        name = SOURCES[first[0]]["name"]
        assert (
            records_of(mixture, batch)[0]
            == f"source '{name}', {other}: {name}.jsonl at byte {first[1]}"
        )


def test_resuming_keeps_the_counters(data, tmp_path, monkeypatch):
    """Two bad steps, a checkpoint and a stop: with a third one after it the run ends, with a good
    one it goes on.
    """
    options = {
        "threads": 1,
        "max_steps": 12,
        "eval_every": 0,
        "checkpoint": CheckpointConfig(every=5),
    }
    with monkeypatch.context() as patch:
        spoil(patch, {2, 4, 5, 7})
        run_training(tiny_config(data, tmp_path / "whole", **options))
    with monkeypatch.context() as patch:
        spoil(patch, {2, 4, 5})
        patch.setattr(trainer.Loader, "step", stop_after(5, trainer.Loader.step))
        with pytest.raises(KeyError):
            run_training(tiny_config(data, tmp_path / "run", **options))
    shutil.copytree(tmp_path / "run", tmp_path / "again", symlinks=True)
    with monkeypatch.context() as patch:
        spoil(patch, {2})
        run_training(tiny_config(data, tmp_path / "run", resume=True, **options))
    assert tear.outcome(tmp_path / "run") == tear.outcome(tmp_path / "whole")
    end = read(tmp_path / "run")[-1]
    assert (end["not_finite"], end["spikes"]) == (4, 0)
    with monkeypatch.context() as patch:
        spoil(patch, {1})
        with pytest.raises(TrainError, match="step 6: the third in a row"):
            run_training(tiny_config(data, tmp_path / "again", resume=True, **options))


STOPPABLE = {
    "threads": 1,
    "max_steps": 12,
    "eval_every": 0,
    "log_every": 1,
    "checkpoint": CheckpointConfig(every=5),
}


def go(patch: pytest.MonkeyPatch, bad: set[int], config: TrainConfig) -> None:
    """Run with the gradients of these steps, counted from where it begins, spoilt."""
    with patch.context() as spoilt:
        spoil(spoilt, bad)
        run_training(config)


def test_going_on_past_what_stopped_a_run(data, tmp_path, monkeypatch):
    """Once told to, it passes over the batches however often it is resumed, and ends as if it had
    from the start.
    """
    run = tmp_path / "run"
    with pytest.raises(TrainError, match="step 9: the third in a row"):
        go(monkeypatch, {7, 8, 9}, tiny_config(data, run, **STOPPABLE))
    with pytest.raises(TrainError, match="step 9: the third in a row"):
        go(monkeypatch, {2, 3, 4}, tiny_config(data, run, resume=True, **STOPPABLE))
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Loader, "step", stop_after(10, trainer.Loader.step))
        with pytest.raises(KeyError):
            run_training(
                tiny_config(data, run, resume=True, skip_batches=(2, 7, 8, 9), **STOPPABLE)
            )
    run_training(tiny_config(data, run, resume=True, **STOPPABLE))
    run_training(tiny_config(data, tmp_path / "whole", skip_batches=(7, 8, 9), **STOPPABLE))
    got, want = tear.outcome(run), tear.outcome(tmp_path / "whole")
    assert got.pop("metrics.jsonl")[1:] == want.pop("metrics.jsonl")[1:]
    assert got == want
    lines = read(run)
    assert [line["step"] for line in lines if line["kind"] == "train"] == [
        1,
        2,
        3,
        4,
        5,
        6,
        10,
        11,
        12,
    ]
    assert [line["skip_batches"] for line in lines if line["kind"] == "resume"] == [[7, 8, 9]] * 2
    assert lines[0]["skip_batches"] == [] and read(tmp_path / "whole")[0]["skip_batches"] == [
        7,
        8,
        9,
    ]


def test_the_command_that_goes_on_knows_of_every_stop(data, tmp_path, monkeypatch):
    run, bad, past = tmp_path / "run", {1, 2, 3}, "1 2 3"
    config = tiny_config(data, run, **STOPPABLE)
    for _ in range(2):
        with pytest.raises(TrainError) as stopped:
            go(monkeypatch, bad, config)
        (command,) = re.findall(
            r"go on without the three batches: python -m sabitrain (.*)", stopped.value.remedy
        )
        assert command == f"--run {run} --resume --skip-batches {past}"
        config, past = parse_command_line(shlex.split(command)), "1 2 3 4 5 6"
    go(monkeypatch, set(), config)
    # Whoever resumes it once more need not name them. Steps 4 and 5 came before the checkpoint it
    # went on from.
    assert parse_command_line(["--run", str(run), "--resume"]).skip_batches == (1, 2, 3, 6)


def test_a_spike_is_skipped(data, tmp_path, monkeypatch):
    monkeypatch.setattr(guard_module, "WINDOW", 8)
    spoil(monkeypatch, {9}, 1e6)
    run_training(tiny_config(data, tmp_path / "run", max_steps=10, eval_every=0, answers=0))
    steps = [line for line in read(tmp_path / "run") if line["kind"] == "train"]
    assert [line["step"] for line in steps if line["update"] == "spike"] == [9]
    with pytest.raises(ConfigError, match=r"optim\.spike must be 0 or above 1, not 0\.5"):
        OptimConfig(spike=0.5)
