"""A training run, top to bottom: ``python -m sabitrain --data OUT --run DIR``.

Opens the packed dataset, trains on its targets, validates, saves a checkpoint that ``transformers`` reads, and answers
a few held-out prompts. Everything it leaves lies in the run folder: ``config.toml`` (what was run), ``metrics.jsonl``
(what happened) and ``checkpoint/``.
"""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sabiprep.dataset import PackedDataset, open_dataset
from sabiprep.errors import DatasetError, Interrupted, OutputError, TrainError
from sabitrain import checkpoint
from sabitrain.attention import check_attention
from sabitrain.config import TrainConfig, to_toml
from sabitrain.data import RowOrder, make_step
from sabitrain.evaluate import Evaluation, TargetLoss, evaluate_split, precision, unigram_baseline
from sabitrain.flops import peak_flops, step_flops
from sabitrain.generate import Answer, answer_held_out, check_tasks
from sabitrain.loss import predicting_states, weighted_loss
from sabitrain.masking import Masking
from sabitrain.metrics import Metrics
from sabitrain.model import Llama
from sabitrain.optim import clip_gradient, make_optimizers, set_learning_rate
from sabitrain.schedule import learning_rate
from sabitrain.tokenizer import open_tokenizer


@dataclass(frozen=True)
class Report:
    """What came of a run.

    Attributes:
        steps: Optimizer steps taken.
        evaluation: The losses on the validation split at the end; None if it has no target.
        baseline: What predicting its targets without context costs; None likewise.
        answers: Held-out prompts and the model's answers.
        checkpoint: The folder of the checkpoint.
    """

    steps: int
    evaluation: Evaluation | None
    baseline: TargetLoss | None
    answers: Sequence[Answer]
    checkpoint: Path


def run_training(config: TrainConfig) -> Report:
    """Train as ``config`` says, and leave everything in the run folder.

    Raises:
        DatasetError: If the dataset cannot be read, or has nothing to train on.
        TrainError: If it does not fit the model, or the loss is no number any more.
        OutputError: If the run folder is not empty, or cannot be written to.
        Interrupted: If Ctrl-C stopped it.
    """
    with open_dataset(config.data) as dataset:
        check_dataset(config, dataset)
        device = choose_device(config.device)
        begin_run(config)
        steps = config.steps(len(dataset.train), dataset.seq_len)
        try:
            with Metrics(config.run / "metrics.jsonl", steps, config.log_every, peak_flops(device)) as metrics:
                return _run(config, dataset, device, steps, metrics)
        except KeyboardInterrupt:
            raise Interrupted(
                "stopped by Ctrl-C before it was done",
                file=str(config.run),
                remedy="start again with --overwrite; what happened so far is in metrics.jsonl",
            ) from None
        except torch.OutOfMemoryError as error:
            raise TrainError(
                "the GPU's memory is full", remedy=f"lower --batch.micro-tokens from {config.batch.micro_tokens}"
            ) from error
        except OSError as error:
            raise OutputError(f"the run cannot go on: {error.strerror}", file=str(config.run)) from error


def _run(config: TrainConfig, dataset: PackedDataset, device: torch.device, steps: int, metrics: Metrics) -> Report:
    """The run itself, once everything is known to fit."""
    # Set up.
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    shape, bf16 = config.model, device.type == "cuda"
    check_attention(shape.heads, shape.key_heads, shape.head_size, device, torch.bfloat16 if bf16 else torch.float32)
    model = Llama(shape, dataset.vocab_size).to(device)
    forward = torch.compile(model, dynamic=True) if config.compile else model
    optimizers = make_optimizers(model, config.optim)
    order = RowOrder(dataset, config.batch.rows(dataset.seq_len), config.seed)
    micro_rows = config.batch.micro_rows(dataset.seq_len, device.type)
    masking = Masking(dataset.sources, config.loss, config.prompt_weight, config.weight_of_task(), config.weigh_by)
    metrics.start(
        dataset=dataset.fingerprint,
        parameters=model.n_parameters(),
        steps=steps,
        device=str(device),
        bf16=bf16,
        torch=torch.__version__,
        python=platform.python_version(),
    )
    metrics.say(
        f"{config.preset}: {model.n_parameters():,} parameters, vocabulary {dataset.vocab_size:,}, on {device}"
        f"{' in bf16' if bf16 else ''}\n"
        f"{config.data}: {len(dataset.train):,} rows of {dataset.seq_len} tokens to train on, "
        f"{len(dataset.validation):,} held out\n"
        f"{steps:,} steps of {order.rows_per_step} rows, {order.epoch(steps):.2f} epochs"
    )
    if order.rows_per_step > len(dataset.train):
        most = len(dataset.train) * dataset.seq_len
        metrics.say(f"note: one step repeats every row there is; --batch.tokens {most} would be one epoch")

    # Train.
    began = time.monotonic()
    done, evaluation = 0, None
    while done < steps:
        step = make_step(dataset.train, order.step(done), micro_rows, masking, config.compute)
        rate = learning_rate(config.optim, done, steps)
        loss = torch.zeros((), device=device)
        for batch in (batch.to(device) for batch in step.batches):
            with precision(device, bf16):
                hidden_MC = predicting_states(forward, batch, config.compute)
                to_minimise, cross_entropy = weighted_loss(hidden_MC, model.head_VC, batch, config.z_loss)
            torch.autograd.backward(to_minimise)
            loss += cross_entropy
        grad_norm = clip_gradient(model, config.optim.clip)
        set_learning_rate(optimizers, rate)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        done += 1
        if not torch.isfinite(loss + grad_norm):
            raise TrainError(
                f"step {done}: the loss is {loss.item()}, the gradient's norm {grad_norm.item()}",
                remedy="lower --optim.lr, or raise --optim.warmup",
            )
        metrics.step(
            done,
            epoch=order.epoch(done),
            loss=loss.item(),
            lr=rate,
            grad_norm=grad_norm.item(),
            tokens=step.tokens,
            targets=step.targets,
            flops=step_flops(shape, dataset.vocab_size, step, config.compute),
        )
        out_of_time = config.hours is not None and time.monotonic() - began >= 3600 * config.hours
        if out_of_time and done < steps:
            metrics.say(f"{config.hours:g} hours are over: stopping at step {done}, where the rate is {rate:.2e}")
        if out_of_time or done == steps or (config.eval_every and done % config.eval_every == 0):
            evaluation = evaluate_split(model, dataset, dataset.validation, micro_rows, bf16)
            if evaluation is not None:
                metrics.validation(done, evaluation)
        if out_of_time:
            break

    # Save, and show what was learnt.
    saved = config.run / "checkpoint"
    checkpoint.save_checkpoint(saved, model, dataset)
    metrics.say(f"saved {saved} after {time.monotonic() - began:.0f} s")
    answers = answer_held_out(
        model,
        dataset,
        config.answers,
        seed=config.seed,
        tasks=config.answer_tasks,
        max_new_tokens=config.max_new_tokens,
    )
    metrics.answers(answers)
    baseline = unigram_baseline(dataset)
    metrics.end(evaluation, baseline, steps=done, answers=len(answers), exact=sum(answer.exact for answer in answers))
    return Report(done, evaluation, baseline, answers, saved)


def check_dataset(config: TrainConfig, dataset: PackedDataset) -> None:
    """Refuse a dataset that this run cannot train on.

    Raises:
        DatasetError: If it has no row to train on, or its tokenizer is not the one it was packed with.
        TrainError: If its rows are longer than the model's context, or a task that is named is none of its own.
    """
    place = str(config.data)
    if len(dataset.train) == 0:
        raise DatasetError("there is no row to train on", file=place, remedy="pack it with more records")
    if dataset.seq_len > config.model.context:
        raise TrainError(
            f"its rows have {dataset.seq_len} tokens, the model's context {config.model.context}",
            file=place,
            remedy=f"use --model.context {dataset.seq_len}, or pack with a smaller --seq-len",
        )
    check_tasks(dataset, (*config.answer_tasks, *config.weight_of_task()))
    open_tokenizer(dataset)


def choose_device(wanted: str) -> torch.device:
    """The device to train on.

    Raises:
        TrainError: If a GPU is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TrainError("torch sees no CUDA device", remedy="use --device cpu, or install a CUDA build of torch")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def begin_run(config: TrainConfig) -> None:
    """Make the run folder, empty but for ``config.toml``; an earlier run in it goes only if ``overwrite`` says so.

    Raises:
        OutputError: If it holds something, or anything that is no run's.
    """
    run = config.run
    ours = {"config.toml", "metrics.jsonl", "checkpoint", checkpoint.unfinished_folder(run / "checkpoint").name}
    try:
        present = {path.name for path in run.iterdir()} if run.exists() else set()
        if present and not config.overwrite:
            raise OutputError("the run folder is not empty", file=str(run), remedy="name another, or use --overwrite")
        foreign = present - ours
        if (run / "checkpoint").is_dir():
            inside = {path.name for path in (run / "checkpoint").iterdir()}
            foreign |= {f"checkpoint/{name}" for name in inside - set(checkpoint.FILES)}
        if foreign:
            raise OutputError(
                f"it holds '{min(foreign)}', which no training run has written, so it is not overwritten",
                file=str(run),
                remedy="name another folder",
            )
        if present:
            shutil.rmtree(run)
        run.mkdir(parents=True, exist_ok=True)
        run.joinpath("config.toml").write_text(to_toml(config), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot be written to: {error.strerror}", file=str(run)) from error
