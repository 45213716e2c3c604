"""Phases of a run, and learning rates by pattern."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from sabiprep.errors import ConfigError
from sabitrain.command_line import parse_command_line
from sabitrain.config import CheckpointConfig, OptimConfig, TrainConfig
from sabitrain.config_file import resolve, to_toml
from sabitrain.memory import MicroBatch, memory_of
from sabitrain.optim.schedule import learning_rate
from sabitrain.partial.phases import span_at, spans_of
from sabitrain.partial.settings import PartialConfig, Phase
from sabitrain.planning import describe
from sabitrain.trainer import run_training
from support.train.bases import from_base, make_base, weights
from support.train.runs import read
from support.train.tear import outcome
from support.train.tiny import tiny_config, write_tiny

ALL_KEPT = CheckpointConfig(every=1, keep_last=10)
TWO = (Phase(train="new-rows", steps=3), Phase(train="all", lr=0.5, freeze=("*norm*",)))


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


def phased(data: Path, run: Path, base: Path, **options: object) -> TrainConfig:
    return from_base(
        data,
        run,
        base,
        **{"phase": TWO, "new_rows": (12, 18), "checkpoint": ALL_KEPT, **options},
    )


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_each_phase_trains_its_own_and_goes_on_from_any_step(data, tmp_path, name):
    base = make_base(data, tmp_path / "base")
    options = {"skip_batches": (4,), "optim": OptimConfig(lr=1e-2, name=name)}
    run_training(phased(data, tmp_path / "run", base, **options))
    before = weights(base)
    first, second = (
        weights(tmp_path / "run" / "checkpoints" / f"step-0000000{step}") for step in (3, 6)
    )
    for key, value in before.items():
        moved = torch.nonzero((first[key] != value).reshape(len(value), -1).any(1)).flatten()
        assert moved.tolist() == (list(range(12, 18)) if "embed" in key else []), key
        assert torch.equal(first[key], second[key]) is ("norm" in key), key
    lines = read(tmp_path / "run")
    (phase,) = (line for line in lines if line["kind"] == "phase")
    assert (phase["step"], phase["phase"], phase["train"]) == (3, 2, "all")
    rates = [line["lr"] for line in lines if line["kind"] == "train"]
    optim = OptimConfig(lr=1e-2)
    expected = [learning_rate(optim, step, 3) for step in range(3)]
    assert rates == [*expected, *(0.5 * rate for rate in expected[1:])]
    whole = outcome(tmp_path / "run")
    for step in range(1, 6):
        copy = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "run", copy, symlinks=True)
        for later in range(step + 1, 7):
            shutil.rmtree(copy / "checkpoints" / f"step-0000000{later}")
        run_training(phased(data, copy, base, resume=True, **options))
        assert outcome(copy) == whole, step


def test_a_new_model_may_be_trained_in_phases_by_share(data, tmp_path):
    phases = (Phase(train="embeddings", share=0.25), Phase(train="last:1", share=0.5), Phase())
    config = tiny_config(data, tmp_path / "run", max_steps=8, phase=phases, eval_every=0)
    spans = spans_of(config, 8)
    assert [(span.first, span.end) for span in spans] == [(0, 2), (2, 6), (6, 8)]
    assert [span_at(spans, step).number for step in (0, 1, 2, 5, 6, 8)] == [1, 1, 2, 2, 3, 3]
    text = describe(config)
    assert "of them trained" not in text
    planned = [line for line in text.splitlines() if line.startswith("phase ")]
    assert [line.partition(": ")[0] for line in planned] == [
        "phase 1, steps 1 to 2",
        "phase 2, steps 3 to 6",
        "phase 3, steps 7 to 8",
    ]
    run_training(config)
    trained = [line["trained_parameters"] for line in read(tmp_path / "run") if "phase" in line]
    assert trained[-1] == read(tmp_path / "run")[0]["parameters"]
    for line, count, train in zip(planned[1:], trained, ("last:1", "all"), strict=True):
        assert line.endswith(f"train {train}, {count:,} parameters")
    size = MicroBatch(64, 32, 4)
    last = tiny_config(data, tmp_path / "run", train="last:1")
    one = tiny_config(data, tmp_path / "run")
    assert memory_of(config, 20, size) == memory_of(one, 20, size) != memory_of(last, 20, size)


def test_the_rate_of_a_pattern_is_a_factor(data, tmp_path):
    base = make_base(data, tmp_path / "base", "qwen2-untied")
    rates = ("model.layers.0.*=0.125", "*.q_proj.*=4", "lm_head.*=4")
    optim = OptimConfig(lr=1e-3, rates=rates, weight_decay=0.0, clip=0.0, warmup=0.0)
    config = from_base(data, tmp_path / "run", base, optim=optim, max_steps=1)
    report = run_training(config)
    before, after = weights(base), weights(report.checkpoint)
    for key, value in before.items():
        factor = 0.125 if ".layers.0." in key else 4 if "q_proj" in key or "lm_head" in key else 1
        # The first update of AdamW is the rate itself, wherever the gradient is not tiny.
        largest = (after[key] - value).abs().max().item()
        assert largest == pytest.approx(1e-3 * factor, rel=0.02), key
    for name in ("adamw", "muon"):
        optim = OptimConfig(lr=1e-3, rates=rates, name=name)
        run_training(from_base(data, tmp_path / name, base, optim=optim))
        copy = tmp_path / f"{name}-copy"
        shutil.copytree(tmp_path / name, copy, symlinks=True)
        shutil.rmtree(copy / "checkpoints" / "step-00000006")
        run_training(from_base(data, copy, base, optim=optim, resume=True))
        assert outcome(copy) == outcome(tmp_path / name)
    with pytest.raises(ConfigError, match=r"optim\.rates 'model\.heads\.\*' matches no parameter"):
        run_training(
            from_base(data, tmp_path / "x", base, optim=OptimConfig(rates=("model.heads.*=2",)))
        )


def test_phases_are_written_and_read(data, tmp_path):
    optim = OptimConfig(rates=("a*=0.5",))
    config = tiny_config(data, tmp_path / "run", phase=TWO[:0], freeze=("x", "y"), optim=optim)
    config = TrainConfig(
        **{**vars_of(config), "phase": (Phase(share=0.25, train="last:2"), Phase())}
    )
    file = tmp_path / "config.toml"
    file.write_text(to_toml(config))
    assert '[[phase]]\ntrain = "last:2"\nshare = 0.25\nlr = 1.0\nfreeze = []\n' in file.read_text()
    read_back = parse_command_line(["--config", str(file)])
    assert (read_back.phase, read_back.freeze) == (config.phase, config.freeze)
    assert read_back.optim == optim
    file.write_text("[[phase]]\ntran = 1\n")
    with pytest.raises(ConfigError, match=r"unknown key 'phase\.tran'(.|\n)*phase\.train"):
        resolve(None, file, {"data": ["x"], "run": Path("y")})
    file.write_text("phase = [1]\n")
    with pytest.raises(ConfigError, match=r"'phase' must be tables, each written as \[\[phase\]\]"):
        resolve(None, file, {"data": ["x"], "run": Path("y")})


def vars_of(config: TrainConfig) -> dict[str, object]:
    names = config.__dataclass_fields__
    return {name: getattr(config, name) for name in names}


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([{"train": "lora", "steps": 1}, {}], r"phase\.train must be all"),
        ([{"train": "last:0", "steps": 1}, {}], r"phase\.train must be all"),
        ([{"steps": 1}], "one .*phase.* is no phase"),
        ([{}, {}], "phase 1 must have steps or share"),
        ([{"steps": 1, "share": 0.5}, {}], "phase 1 must have steps or share"),
        ([{"steps": 1}, {"share": 0.5}], "the last phase has the steps that are left"),
        ([{"share": 1.0}, {}], r"phase\.share must be"),
        ([{"steps": 0}, {}], r"phase\.steps must be"),
        ([{"steps": 1, "lr": 0.0}, {}], r"phase\.lr must be"),
        ([{"steps": 4}, {}], "phase 1 would train steps 1 to 4 of 4"),
        ([{"steps": 1, "freeze": ("x.*",)}, {}], "freeze 'x.*' matches no parameter"),
    ],
)
def test_phases_that_cannot_be_right(data, tmp_path, phases, message):
    with pytest.raises(ConfigError, match=message):
        made = tuple(Phase(**phase) for phase in phases)
        run_training(tiny_config(data, tmp_path / "run", phase=made))
    assert not (tmp_path / "run").exists()


def test_what_is_trained_stands_in_the_phases_alone():
    with pytest.raises(ConfigError, match="train stands in each"):
        PartialConfig(train="embeddings", phase=(Phase(steps=1), Phase()))
    for rates in (("a",), ("=1",), ("a=0",), ("a=x",), ("a=1", "a=2")):
        with pytest.raises(ConfigError, match=r"optim\.rates"):
            OptimConfig(rates=rates)
