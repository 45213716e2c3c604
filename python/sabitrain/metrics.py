"""The record of a run: one JSON object a line in ``metrics.jsonl``, and lines for people on the console."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from rich.console import Console
from rich.text import Text
from torch import Tensor

from sabitrain.evaluate import Evaluation, Score, TargetLoss
from sabitrain.files import Log
from sabitrain.flops import Flops
from sabitrain.generate import Answer
from sabitrain.guard import TAKEN, UPDATES


class Metrics:
    """Writes both; a context manager that closes the file.

    Every line of the file has a ``kind``: ``start``, ``resume``, ``train`` (one a step), ``validation``, ``stopped``,
    ``answer`` and ``end``. The times and speeds aside, a run on the CPU writes the same lines again.

    Attributes:
        not_finite: Steps skipped because their loss or gradient was no number, as of the last line written.
        spikes: Steps skipped because one of them was far above the others.
    """

    def __init__(self, file: Path, steps: int, log_every: int, peak_flops: float | None = None, keep: int = 0) -> None:
        """Start the record of a run of ``steps`` steps, or go on after the first ``keep`` bytes of an earlier session.

        ``peak_flops`` is what the device can do in a second, if known.
        """
        self._log = Log(file, keep)
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._steps = steps
        self._log_every = log_every
        self._peak_flops = peak_flops
        self.not_finite = self.spikes = 0
        self._pending: list[tuple[int, float, float, Tensor, int, int, Flops]] = []
        self._clear_interval()
        self._began = time.perf_counter()

    def say(self, line: str, style: str = "") -> None:
        """A line for people."""
        self._console.print(Text(line, style))

    def start(self, **facts: Any) -> None:
        """What is being run."""
        self._write("start", **facts)

    def resume(self, **facts: Any) -> None:
        """From where an earlier session's run goes on."""
        self._write("resume", **facts)

    def sync(self) -> int:
        """Have the disk hold the record so far, and return its length in bytes."""
        self.flush()
        self._log.sync()
        return self._log.size

    def step(
        self,
        step: int,
        *,
        epoch: float,
        lr: float,
        outcome: Tensor,
        tokens: int,
        targets: int,
        flops: Flops,
    ) -> None:
        """An optimizer step, counted from 1; ``tokens`` are those of documents, padding aside.

        ``outcome`` is what `sabitrain.guard.StepGuard.judge` says of it. It is left on the device until the console has
        its next line, or `flush` is called: until then the device need not be waited for.
        """
        self._pending.append((step, epoch, lr, outcome, tokens, targets, flops))
        if step % self._log_every == 0 or step == self._steps:
            self.flush()
            mean = self._nats / self._learnt if self._learnt else math.nan
            skipped = f", {self.not_finite + self.spikes} steps skipped" if self.not_finite + self.spikes else ""
            self.say(
                f"step {step:{len(str(self._steps))}}/{self._steps}  epoch {epoch:5.2f}  loss {mean:.4f}  lr {lr:.2e}  "
                f"grad {self._grad_norm:5.2f}  {self._tokens / self._seconds:,.0f} tokens/s, "
                f"{self._targets / self._seconds:,.0f} targets/s, {self._utilisation()}, "
                f"{1 - self._executed / self._dense:.0%} skipped{skipped}"
            )
            self._clear_interval()

    def flush(self) -> None:
        """Write the lines of the steps so far.

        Times and speeds are means over the steps since the last flush, since between them nothing was waited for.
        ``mfu`` is of the operations that were executed; what a dense computation would have to do in the same time to
        keep up is labelled so. A loss or norm that is no number is null.
        """
        if not self._pending:
            return
        outcomes = torch.stack([outcome for _, _, _, outcome, *_ in self._pending]).tolist()
        now = time.perf_counter()
        seconds, self._began = (now - self._began) / len(self._pending), now
        for (step, epoch, lr, _, tokens, targets, flops), (loss, grad_norm, update, *counts) in zip(
            self._pending, outcomes, strict=True
        ):
            self._write(
                "train",
                step=step,
                epoch=round(epoch, 4),
                loss=_number(loss),
                lr=lr,
                grad_norm=_number(grad_norm),
                update=UPDATES[int(update)],
                tokens=tokens,
                targets=targets,
                seconds=seconds,
                tokens_per_second=tokens / seconds,
                targets_per_second=targets / seconds,
                flops=flops.executed,
                skipped=flops.skipped,
                flops_per_second=flops.executed / seconds,
                dense_equivalent_flops_per_second=flops.dense / seconds,
                mfu=None if self._peak_flops is None else flops.executed / seconds / self._peak_flops,
            )
            self.not_finite, self.spikes = (int(count) for count in counts)
            self._grad_norm = grad_norm
            self._seconds += seconds
            self._tokens += tokens
            self._targets += targets
            if int(update) == TAKEN:
                self._nats += loss * targets
                self._learnt += targets
            self._executed += flops.executed
            self._dense += flops.dense
        self._pending.clear()

    def stopped(self, step: int, records: Sequence[str]) -> None:
        """A step that stops the run, and the records in its batch."""
        self.flush()
        self._write("stopped", step=step, records=list(records))

    def validation(self, step: int, evaluation: Evaluation) -> None:
        """A validation after ``step`` steps."""
        self._write("validation", step=step, **dataclasses.asdict(evaluation))
        prompt = "" if evaluation.prompt is None else f"; prompts {evaluation.prompt.loss:.4f}"
        self.say(f"validation at step {step}: target loss {_score(evaluation.total)}{prompt}", "bold")
        for kind, scores in (("task", evaluation.tasks), ("language", evaluation.languages)):
            for name, score in scores.items():
                self.say(f"  {kind} {name}: {_score(score)}")
        self._began = time.perf_counter()

    def answers(self, answers: Sequence[Answer]) -> None:
        """Held-out prompts and what the model wrote."""
        for answer in answers:
            self._write("answer", **dataclasses.asdict(answer))
            self.say("")
            self.say(f"[{answer.task}] {_one_line(answer.prompt)}", "dim")
            self.say(f"  expected: {_one_line(answer.expected)}")
            mark = "exact" if answer.exact else "not exact"
            self.say(f"  produced: {_one_line(answer.produced)}  ({mark})", "green" if answer.exact else "yellow")
        if answers:
            self.say("")
            exact = Counter(answer.task for answer in answers if answer.exact)
            asked = Counter(answer.task for answer in answers)
            tasks = ", ".join(f"{task} {exact[task]}/{asked[task]}" for task in sorted(asked))
            self.say(f"{exact.total()} of {asked.total()} held-out answers are exact ({tasks})", "bold")

    def end(self, evaluation: Evaluation | None, baseline: TargetLoss | None, **facts: Any) -> None:
        """What came of it."""
        loss = None if evaluation is None else evaluation.total.loss
        skipped = {"not_finite": self.not_finite, "spikes": self.spikes}
        self._write(
            "end", **skipped, target_loss=loss, unigram_baseline=None if baseline is None else baseline.loss, **facts
        )
        if evaluation is None or baseline is None:
            self.say("held-out target loss: none, since the dataset has no validation targets", "bold")
            return
        side = "below" if evaluation.total.loss < baseline.loss else "NOT below"
        self.say(
            f"held-out target loss {evaluation.total.loss:.4f}, {side} the unigram-of-targets baseline "
            f"{baseline.loss:.4f} (nats per target, {baseline.targets:,} targets)",
            "bold",
        )

    def _clear_interval(self) -> None:
        """Begin what the next line on the console sums up."""
        self._seconds, self._tokens, self._targets, self._nats = 0.0, 0, 0, 0.0
        self._learnt, self._grad_norm = 0, 0.0
        self._executed, self._dense = 0.0, 0.0

    def _utilisation(self) -> str:
        """The operations executed a second, as a share of what the device can do where that is known."""
        rate = self._executed / self._seconds
        return f"{rate / 1e12:.2f} TFLOP/s" if self._peak_flops is None else f"MFU {rate / self._peak_flops:.1%}"

    def _write(self, kind: str, **values: Any) -> None:
        """One line of the file, there even if the run is killed right after."""
        self._log.write(json.dumps({"kind": kind, **values}, ensure_ascii=False))

    def __enter__(self) -> Self:
        """The record, closed at the end of the ``with``."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._log.close()


def _score(score: Score) -> str:
    """How well some targets are predicted, in words."""
    bits = "" if score.bits_per_byte is None else f", {score.bits_per_byte:.3f} bits per byte"
    return f"{score.loss:.4f}, {score.accuracy:.1%} of tokens right{bits}"


def _number(value: float) -> float | None:
    """A number as JSON has it, which knows neither NaN nor infinity."""
    return value if math.isfinite(value) else None


def _one_line(text: str) -> str:
    """A text on one line, its line breaks visible."""
    return text.replace("\r", "\\r").replace("\n", "\\n").strip()
