"""Runs training again and again, each time torn at the next file operation and resumed: ``tear.py
DATA WORK``.

It is a process of its own because it forks: a child for each run, so that torch is imported once.
It prints, as JSON, how many operations a run has, and the runs that did not end like the one that
was left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from sabitrain.checkpoints import files
from sabitrain.config import BatchConfig, CheckpointConfig, TrainConfig
from sabitrain.trainer import run_training
from support.train.tiny import TIMES, tiny_config
from support.train.torn_disk import TornDisk


def config_of(data: Path, run: Path, **options: Any) -> TrainConfig:
    """Three steps, a checkpoint that is removed again, a validation and an answer, on the thread
    that a fork leaves.
    """
    return tiny_config(
        data,
        run,
        threads=1,
        max_steps=3,
        eval_every=0,
        answers=1,
        max_new_tokens=2,
        batch=BatchConfig(tokens=96, micro_tokens=64),
        checkpoint=CheckpointConfig(every=2, keep_last=1),
        **options,
    )


def train(config: TrainConfig, fault: int | None) -> int:
    """Train in a child; the signal that killed it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                if fault is not None:
                    files.disk = TornDisk(fault)
                run_training(config)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    if os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"a run failed, torn at {fault}: {config.run}")
    return 0


def outcome(run: Path) -> dict[str, Any]:
    """Everything a run leaves, the times and the lengths that follow from them aside."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.name == "metrics.jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            lines = [line for line in lines if line["kind"] != "resume"]
            found[name] = [
                {key: value for key, value in line.items() if key not in TIMES} for line in lines
            ]
        elif path.name == "trainer.json":
            facts = json.loads(path.read_text())
            found[name] = {
                key: facts[key] for key in ("step", "plan", "dataset", "optimizers", "files")
            }
        elif path.is_file():
            found[name] = files.sha256(path)
    found.pop("config.toml")
    return found


def main(data: Path, work: Path) -> None:
    """Tear a run at each of its operations, and, of every fifth, the run that resumes it too."""
    # In this process: what a first run imports, in seconds, no child need import again.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        run_training(config_of(data, work / "whole"))
    whole = outcome(work / "whole")
    wrong, operations, killed = [], 0, signal.SIGKILL
    while killed:
        operations += 1
        run = work / "torn"
        killed = train(config_of(data, run), operations)
        if killed and operations % 5 == 0:
            train(config_of(data, run, resume=True), 7)
        train(config_of(data, run, resume=True), None)
        if outcome(run) != whole:
            wrong.append(operations)
        shutil.rmtree(run)
    print(json.dumps({"operations": operations - 1, "wrong": wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
