"""A signal is acknowledged at once and honoured between batches, wherever a run is; what was saved
goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sabiprep.errors import Interrupted
from sabitrain import trainer, training_state, validation
from sabitrain.config import BatchConfig, CheckpointConfig, TrainConfig
from sabitrain.data import held_out
from sabitrain.evaluation import baseline, evaluate, generate
from sabitrain.stopping import StopRequest
from sabitrain.trainer import run_training
from support.train import tear
from support.train.tiny import tiny_config, write_tiny

LINE = "SIGTERM: the run ends after the batch at hand and saves; Ctrl-C once more ends it at once"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("data") / "data", held_out=60).path


def four(data: Path, run: Path, **options: object) -> TrainConfig:
    """Four steps of four micro-batches of a row each, a validation of seven rows after two and of
    all after four.
    """
    options = {
        "eval_rows": 7,
        "threads": 1,
        "checkpoint": CheckpointConfig(every=0, keep_every=2),
        **options,
    }
    return tiny_config(
        data, run, batch=BatchConfig(tokens=128, micro_tokens=32), log_every=1, **options
    )


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> dict[str, Any]:
    """What the run leaves that nothing stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    run_training(four(data, run))
    return tear.outcome(run)


def kinds(run: Path) -> list[str]:
    return [json.loads(line)["kind"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def signalled(
    of: Callable[..., Any], call: int, number: int = signal.SIGTERM
) -> Callable[..., Any]:
    """A function that sends this process a signal when it is called for the ``call``-th time, and
    then does its own.
    """
    calls = 0

    def wrapped(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), number)
        return of(*given, **named)

    return wrapped


# Where the signal comes: what is called then, for which time, the step that is saved, the
# validations by then.
PLACES = {
    "choosing rows": (held_out, "documents_of", 1, 0, 0),
    "counting": (baseline, "documents_of", 1, 0, 0),
    "in a step": (training_state, "weighted_loss", 6, 1, 0),
    "saving": (trainer, "plain_configuration", 1, 2, 0),
    "validating": (evaluate, "_predict", 2, 2, 0),
    "the last validation": (evaluate, "_predict", 10, 4, 1),
    "looking for prompts": (generate, "_questions", 1, 4, 2),
    "answering": (generate, "greedy", 1, 4, 2),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_signal_is_honoured_between_batches(data, tmp_path, capsys, monkeypatch, whole, place):
    module, name, call, step, validations = PLACES[place]
    run = tmp_path / "run"
    monkeypatch.setattr(held_out, "_ROWS_AT_ONCE", 4)
    monkeypatch.setattr(baseline, "_ROWS_AT_ONCE", 4)
    rows = []
    with monkeypatch.context() as patch:
        patch.setattr(module, name, signalled(getattr(module, name), call))
        predict = evaluate._predict
        patch.setattr(evaluate, "_predict", lambda *given: rows.append(1) or predict(*given))
        report = run_training(four(data, run))
    assert (report.stopped, report.steps, report.answers) == ("SIGTERM", step, ())
    assert report.checkpoint == run / "checkpoints" / f"step-{step:08d}"
    told = capsys.readouterr().out.splitlines()
    assert told.index(LINE) == len(told) - 3
    assert told[-2].startswith(
        f"stopped by SIGTERM after step {step}, all of it in {report.checkpoint}"
    )
    assert kinds(run).count("validation") == validations and "end" not in kinds(run)
    if place == "validating":
        assert len(rows) == 2, "no batch after the one at hand"
    report = run_training(four(data, run, resume=True))
    assert (report.stopped, report.steps) == (None, 4)
    outcome = tear.outcome(run)
    for name in ("checkpoint", "metrics.jsonl", "checkpoints/step-00000004/model.safetensors"):
        assert outcome[name] == whole[name]


@pytest.mark.parametrize("killed", [False, True])
def test_a_signal_ends_compiling_at_once(data, tmp_path, capsys, monkeypatch, whole, killed):
    """It may take minutes; Ctrl-C reaches the compiler too, which is then said to have failed."""
    run, options = tmp_path / "run", {"compile": "on"}

    def compiles(*_: object, **__: object) -> Callable[..., Any]:
        def forward(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            raise (
                RuntimeError("the compiler was killed") if killed else AssertionError("it went on")
            )

        return forward

    with monkeypatch.context() as patch:
        patch.setattr(torch, "compile", compiles)
        if killed:  # the error comes before Python hears of the signal
            patch.setattr(
                StopRequest,
                "_note",
                lambda stop, *_: stop.__dict__.update(signal="SIGTERM", _noted=True),
            )
        report = run_training(four(data, run, **options))
    assert (report.stopped, report.steps) == ("SIGTERM", 0)
    assert capsys.readouterr().out.splitlines()[-3] == LINE
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    assert run_training(four(data, run, resume=True, **options)).steps == 4
    weights = "checkpoints/step-00000004/model.safetensors"
    assert tear.outcome(run)[weights] == whole[weights]


def test_an_error_without_a_signal_is_an_error():
    with StopRequest() as stop, pytest.raises(ZeroDivisionError), stop.ends_at_once():
        _ = 1 / 0


def test_a_second_ctrl_c_ends_a_validation_at_once_and_says_what_is_saved(
    data, tmp_path, monkeypatch
):
    run = tmp_path / "run"

    def twice(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "_predict", twice)
        with pytest.raises(Interrupted, match=r"at once; saved is .*step-00000002(.|\n)*--resume"):
            run_training(four(data, run))
        patch.setattr(validation, "sample_rows", twice)
        with pytest.raises(Interrupted, match="no checkpoint is saved yet"):
            run_training(four(data, tmp_path / "other"))
    assert run_training(four(data, run, resume=True)).steps == 4


def test_it_is_acknowledged_while_python_runs_nothing():
    """One long call into C: handlers of Python's run after it, the line comes before."""
    told: list[str] = []
    with StopRequest() as stop:
        stop.say_by(told.append)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        for _ in range(200):
            hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2_000_000)
            told.append("computed")
            if stop.is_requested():
                break
        os.kill(os.getpid(), signal.SIGTERM)
        stop.wait_until_said()
    assert stop.signal == "SIGTERM"
    assert told[-2:] == [LINE, "computed"] and told.count(LINE) == 1


def test_a_console_that_is_gone_is_no_reason_to_die():
    def gone(_: str) -> None:
        raise BrokenPipeError

    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        stop.say_by(gone)
        os.kill(os.getpid(), signal.SIGTERM)
        stop.wait_until_said()
        assert stop.is_requested()
    assert signal.getsignal(signal.SIGTERM) is before
    assert not [thread for thread in threading.enumerate() if thread.name == "sabitrain-signals"]
