"""Training steps by what they compute, beside peers: ``python benches/train.py [--minutes 10]``.

A cell is a model, a share of prompt tokens and a method. Each is measured by a process of its own,
which has one model, whose weights and batches are those of the other methods, and the optimizer of
sabitrain. Some steps warm up, then ``--steps`` are timed, optimizer included; the speed is that of
the fastest. Each cell becomes a line of JSON in OUT. Cells run in the order of their importance
until the time is up; run again, the script goes on with the cells that have no line yet, so each
machine needs an OUT of its own. A cell that fails has a line with its error, and is tried again.
At the end there is a table for each model and share, with the cells that are missing and why. The
exit status is 1 if a first loss differs from that of ``dense``, or a method of sabitrain failed.

On a GPU the models are the presets 125m (16 rows of 2,048 tokens) and 1b (4 rows, recomputed), with
float32 weights and products in bf16. A step that does not fit the GPU is cut into micro-batches, as
few as will do. The saving is that over the cell ``dense`` of the same model and share.

On a CPU the model is ``quarter``, 125m with width, MLP and vocabulary divided by four, so that
every part takes the share of the whole that it takes there, in float32 on one thread. Other work on
the machine slows a cell by more than the saving, so each step has one of ``dense`` before or after
it, in turn, in the same process; memory is read before that second model is made.

``METHODS`` names the methods; the peers among them are installed with
``benches/peers/requirements.txt``.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import pairwise, product
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sabiprep.dataset import BatchDict
from sabitrain.attention.documents import document_attention
from sabitrain.config import PRESETS, ModelConfig, OptimConfig
from sabitrain.data.batches import Batch, Step, make_batch
from sabitrain.data.settings import Compute
from sabitrain.device import choose_device, peak_flops, peak_memory, precision, use_fast_products
from sabitrain.models.architecture import CausalModel, make_model
from sabitrain.models.compiling import compile_units, sizes_apart, what_compiles
from sabitrain.models.flops import step_flops
from sabitrain.models.llama import LlamaArchitecture
from sabitrain.models.loss import compiled_chunk, eager_chunk, predicting_states, weighted_loss
from sabitrain.optim.optimizers import make_optimizers
from sabitrain.settings import Switch

SHARES = (0.5, 0.7, 0.9, 0.0)
SEQ_LEN, DOCUMENT = 2048, 128
# Compilation and the states of the optimizer are made in the first step.
WARM_UP = 2
# The longest that a cell may take, in seconds: on a GPU, most of it would be compilation.
CELL_SECONDS = {"cuda": 150, "cpu": 600}

Line = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A model to train: its shape and vocabulary, the rows of a step, and whether it recomputes."""

    shape: ModelConfig
    vocab_size: int
    rows: int
    recompute: bool = False


SUBJECTS = {
    "quarter": Subject(ModelConfig(layers=12, width=192, heads=3, mlp_width=512), 13_000, 1),
    "125m": Subject(ModelConfig(**PRESETS["125m"]["model"]), 52_000, 16),
    # By `sabitrain.memory` dense takes 31.2 GB without recomputing, and 19.3 GB with it.
    "1b": Subject(ModelConfig(**PRESETS["1b"]["model"]), 52_000, 4, recompute=True),
}


@dataclass(frozen=True)
class Cell:
    """A model, a share of prompt tokens and a method."""

    model: str
    prompt: float
    method: str


@dataclass(frozen=True)
class Task:
    """What a method is given: our model with its initial weights, and the micro-batches of a step.

    ``targets`` are those of all micro-batches.
    """

    subject: Subject
    model: CausalModel
    micro_batches: Sequence[BatchDict]
    targets: int
    device: torch.device

    def batches(self, compute: Compute) -> list[Batch]:
        """Returns the micro-batches as the trainer makes them; their weights add up to one."""
        weights = [rows["loss_mask"].reshape(-1) / self.targets for rows in self.micro_batches]
        return [
            make_batch(rows, weights_N, compute)
            for rows, weights_N in zip(self.micro_batches, weights, strict=True)
        ]


@dataclass(frozen=True)
class Trained:
    """What a method makes: the model to train, and the loss of each micro-batch of a step."""

    model: nn.Module
    units: Sequence[nn.Module]
    losses: Sequence[Callable[[], Tensor]]
    attention: str


def make_rows(subject: Subject, prompt: float, parts: int) -> list[BatchDict]:
    """Returns the rows of a step, in so many micro-batches.

    Each document is `DOCUMENT` random tokens, the first ``prompt`` of them a prompt, the rest
    trained.
    """
    shape = subject.rows, SEQ_LEN
    positions = np.tile(np.arange(DOCUMENT), subject.rows * SEQ_LEN // DOCUMENT).reshape(shape)
    mask = positions >= max(1, round(prompt * DOCUMENT))
    ids = np.random.default_rng(0).integers(0, subject.vocab_size, shape)
    labels = np.where(mask, ids, -100)
    size = ids.size // parts
    documents = {
        "cu_seqlens": np.arange(0, size + 1, DOCUMENT, dtype=np.int32),
        "seq_lengths": np.full(size // DOCUMENT, DOCUMENT, np.int32),
        "max_seqlen": DOCUMENT,
    }
    columns = {"input_ids": ids, "labels": labels, "loss_mask": mask, "position_ids": positions}
    cut = {name: np.split(column, parts) for name, column in columns.items()}
    return [
        cast(BatchDict, documents | {name: column[part] for name, column in cut.items()})
        for part in range(parts)
    ]


# -- sabitrain, and losses of others over its states ------------------------------------------


def our_kernel(device: torch.device) -> str:
    """Returns the name of our attention on a device."""
    return "flash2" if device.type == "cuda" else "grouped"


def sabitrain(task: Task, compute: Compute, wanted: Switch = "auto") -> Trained:
    """The loss as `sabitrain.trainer.Trainer` computes it, with the ``--compile`` of the trainer.

    Raises:
        TrainError: If there is a GPU, and the compiler it needs is missing.
    """
    model, device = task.model, task.device
    if wanted == "auto" and device.type == "cuda":
        wanted = "on"  # An error where it is missing; auto would go on without.
    units, chunks, _ = what_compiles(wanted, device)
    if units:
        compile_units(model)
    model.recompute(task.subject.recompute)
    chunk = compiled_chunk() if chunks else eager_chunk

    def loss(batch: Batch) -> Tensor:
        with precision(device, device.type == "cuda"):
            hidden_MC = predicting_states(model, batch, compute)
            return weighted_loss(hidden_MC, model.head_VC, batch, chunk=chunk)[0]

    batches = [batch.to(device) for batch in task.batches(compute)]
    losses = [partial(loss, batch) for batch in batches]
    return Trained(model, model.units(), losses, our_kernel(device))


def over_our_states(task: Task, loss_of: Callable[[Tensor, Tensor], Tensor]) -> Trained:
    """Our model, compiled on a GPU, under a loss over the states and labels of all positions.

    Labels are shifted: the label of a position is the next token, or -100.
    """
    model, device = task.model, task.device
    if device.type == "cuda":
        compile_units(model)
    model.recompute(task.subject.recompute)

    def loss(batch: Batch, labels_N: Tensor) -> Tensor:
        with precision(device, device.type == "cuda"):
            return loss_of(predicting_states(model, batch, "dense"), labels_N)

    losses = [
        partial(loss, batch.to(device), torch.from_numpy(shifted).to(device))
        for batch, rows in zip(task.batches("dense"), task.micro_batches, strict=True)
        for shifted in [np.append(rows["labels"].reshape(-1)[1:], -100)]
    ]
    return Trained(model, model.units(), losses, our_kernel(device))


def linear_cross_entropy(task: Task) -> Trained:
    """Torch's chunked ``F.linear_cross_entropy``."""
    options = torch.nn.LinearCrossEntropyOptions()

    def loss_of(hidden_NC: Tensor, labels_N: Tensor) -> Tensor:
        # Autocast does not know the function.
        if torch.is_autocast_enabled(hidden_NC.device.type):
            hidden_NC = hidden_NC.to(torch.get_autocast_dtype(hidden_NC.device.type))
        head_VC = task.model.head_VC.to(hidden_NC.dtype)
        summed = F.linear_cross_entropy(
            hidden_NC, head_VC, labels_N, reduction="sum", ignore_index=-100, options=options
        )
        return summed / task.targets

    return over_our_states(task, loss_of)


def torchtitan(task: Task) -> Trained:
    """torchtitan's chunked loss, its cross-entropy compiled on a GPU, in its eight chunks."""
    from torchtitan.components.loss import ChunkedLossWrapper
    from torchtitan.config import CompileConfig

    compiled = CompileConfig(enable=task.device.type == "cuda", components=["loss"])
    chunked = ChunkedLossWrapper.Config().build(compile_config=compiled)
    head = nn.Linear(task.subject.shape.width, task.subject.vocab_size, bias=False, device="meta")
    head.weight = cast(nn.Parameter, task.model.head_VC)
    chunked.set_lm_head(head)
    targets = torch.tensor(float(task.targets), device=task.device)

    def loss_of(hidden_NC: Tensor, labels_N: Tensor) -> Tensor:
        loss: Tensor = chunked(hidden_NC.unsqueeze(0), labels_N.unsqueeze(0), targets)[0]
        return loss

    return over_our_states(task, loss_of)


# -- transformers, and libraries on top of it -------------------------------------------------


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    **_: Any,
) -> tuple[Tensor, None]:
    """Our attention as an attention function of ``transformers``: [1, heads, N, D] in and out."""
    # Under autocast the rotary embedding of transformers gives float32; values are in bf16.
    q_NHD, k_NKD, v_NKD = (
        tensor[0].transpose(0, 1).to(value.dtype) for tensor in (query, key, value)
    )
    out_NHD = document_attention(q_NHD, k_NKD, v_NKD, cu_seq_lens_q, max_length_q)
    return out_NHD.unsqueeze(0), None


def best_attention(device: torch.device) -> str:
    """Returns the fastest attention for packed documents that transformers can be given here.

    This is flash_attn where it is installed, and ours otherwise, registered: the attentions of
    transformers itself, sdpa and flex_attention, mask whole rows.
    """
    from transformers import AttentionInterface
    from transformers.utils.import_utils import is_flash_attn_2_available

    if device.type == "cuda" and is_flash_attn_2_available():
        return "flash_attention_2"
    AttentionInterface.register("sabitrain", packed_attention)
    return "sabitrain"


def make_peer(task: Task, attention: str) -> nn.Module:
    """Returns ``LlamaForCausalLM`` with the weights of our model."""
    from transformers import LlamaConfig, LlamaForCausalLM

    written = LlamaArchitecture().to_huggingface(task.subject.shape, task.subject.vocab_size)
    config = LlamaConfig.from_dict(written | {"use_cache": False}, attn_implementation=attention)
    with task.device:
        peer = LlamaForCausalLM(config).train()
    missing, unexpected = peer.load_state_dict(task.model.state_dict(), strict=False)
    assert missing in ([], ["lm_head.weight"]) and not unexpected, (missing, unexpected)
    peer.tie_weights()
    if task.subject.recompute:
        peer.gradient_checkpointing_enable({"use_reentrant": False})
    return cast(nn.Module, peer)


def inputs_of(rows: BatchDict, targets: int, packed: bool, device: torch.device) -> dict[str, Any]:
    """Returns the arguments of a micro-batch: packed into one row, or row by row."""
    names = "input_ids", "labels", "position_ids"
    inputs: dict[str, Any] = {name: torch.from_numpy(rows[name]).to(device) for name in names}  # type: ignore[literal-required]
    inputs["num_items_in_batch"] = targets
    if packed:
        bounds = torch.from_numpy(rows["cu_seqlens"]).to(device)
        inputs |= {name: inputs[name].reshape(1, -1) for name in names}
        inputs |= {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds}
        inputs |= {"max_length_q": rows["max_seqlen"], "max_length_k": rows["max_seqlen"]}
    return inputs


def transformers(
    task: Task,
    prepare: Callable[[Any], dict[str, Any]] = lambda peer: {},
    attention: str | None = None,
) -> Trained:
    """``LlamaForCausalLM``, changed by ``prepare``, which returns more arguments for its calls."""
    device, chosen = task.device, attention or best_attention(task.device)
    peer = make_peer(task, chosen)
    more = prepare(peer)

    def loss(inputs: dict[str, Any]) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            result: Tensor = peer(**inputs, **more).loss
            return result

    packed = chosen not in ("sdpa", "flex_attention")
    inputs = [inputs_of(rows, task.targets, packed, device) for rows in task.micro_batches]
    names = {"sabitrain": f"ours: {our_kernel(device)}", "flash_attention_2": "flash_attn"}
    units = cast(Sequence[nn.Module], cast(Any, peer).model.layers)
    return Trained(peer, units, [partial(loss, each) for each in inputs], names.get(chosen, chosen))


def compile_whole(peer: Any) -> dict[str, Any]:
    """Compiles a model, as ``TrainingArguments(torch_compile=True)`` does."""
    peer.compile()
    return {}


def fuse_trl_head(peer: Any) -> dict[str, Any]:
    """Gives a model the head and loss of TRL's ``SFTTrainer``, which makes logits in tiles."""
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(peer)
    return {"fused_lm_head": True}


def apply_liger(peer: Any) -> dict[str, Any]:
    """Gives a model Liger's kernels, and its fused head and loss."""
    from liger_kernel.transformers import apply_liger_kernel_to_llama

    apply_liger_kernel_to_llama(model=peer)
    return {}


# -- the table of methods ---------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """A method: how it is made, the packages it needs, and whether it needs a GPU."""

    make: Callable[[Task], Trained]
    packages: tuple[str, ...] = ()
    gpu: bool = False

    def missing(self, device_type: str) -> str:
        """Returns why the method cannot run here, or nothing."""
        absent = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if absent:
            return f"{', '.join(absent)} not installed"
        if self.make is linear_cross_entropy and not hasattr(F, "linear_cross_entropy"):
            return f"not in torch {torch.__version__}"
        return "needs a GPU" if self.gpu and device_type != "cuda" else ""


_HF, _TRL, _LIGER = ("transformers",), ("transformers", "trl"), ("transformers", "liger_kernel")
OURS: dict[str, Compute] = {"full": "full", "dense": "dense", "head": "head", "full_eager": "full"}
# In the order of their importance.
METHODS = {
    "full": Method(partial(sabitrain, compute="full")),
    "dense": Method(partial(sabitrain, compute="dense")),
    "transformers": Method(transformers, _HF),
    "trl": Method(partial(transformers, prepare=fuse_trl_head), _TRL),
    "liger": Method(partial(transformers, prepare=apply_liger), _LIGER, gpu=True),
    "transformers_compiled": Method(partial(transformers, prepare=compile_whole), _HF, gpu=True),
    "linear_cross_entropy": Method(linear_cross_entropy),
    "torchtitan": Method(torchtitan, ("torchtitan",)),
    "head": Method(partial(sabitrain, compute="head")),
    "full_eager": Method(partial(sabitrain, compute="full", wanted="off"), gpu=True),
    "transformers_sdpa": Method(partial(transformers, attention="sdpa"), _HF),
    "transformers_flex": Method(partial(transformers, attention="flex_attention"), _HF, gpu=True),
}
FIRST = ("full", "dense")


def cells(device_type: str) -> list[Cell]:
    """Returns the cells of a kind of device, the most important first."""
    if device_type != "cuda":
        return [Cell("quarter", *pair) for pair in product(SHARES, METHODS)]
    ordered = [
        *(Cell("125m", SHARES[0], method) for method in list(METHODS)[:8]),
        *(Cell("125m", *pair) for pair in product(SHARES[1:], FIRST)),
        *(Cell("1b", 0.7, method) for method in (*FIRST, "transformers", "trl", "liger")),
        *(Cell("125m", *pair) for pair in product(SHARES, METHODS)),
    ]
    return list(dict.fromkeys(ordered))


# -- one cell ---------------------------------------------------------------------------------


class Trainer:
    """A model, the micro-batches of its step and its optimizers, trained by one method."""

    def __init__(self, cell: Cell, device: torch.device, parts: int) -> None:
        subject, self.device = SUBJECTS[cell.model], device
        micro_batches = make_rows(subject, cell.prompt, parts)
        self.targets = sum(int(rows["loss_mask"].sum()) for rows in micro_batches)
        torch.manual_seed(0)
        with device:
            model = make_model(subject.shape, subject.vocab_size)
        task = Task(subject, model, micro_batches, self.targets, device)
        compute = OURS.get(cell.method, "dense")
        step = Step(task.batches(compute), 0, self.targets)
        self.flops = step_flops(subject.shape, subject.vocab_size, step, compute, subject.recompute)
        # A peer has a model of its own; ours is freed when this returns.
        self.trained = METHODS[cell.method].make(task)
        self.optimizers = make_optimizers(
            self.trained.model, self.trained.units, OptimConfig(lr=1e-4)
        )

    def step(self) -> Tensor:
        """Takes a step, and returns its loss."""
        total = torch.zeros((), device=self.device)
        for loss_of in self.trained.losses:
            loss = loss_of()
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return total

    def seconds(self) -> float:
        """Takes a step on a CPU, and returns the time of the process."""
        began = time.process_time()
        self.step()
        return time.process_time() - began


def warm_up(trainer: Trainer) -> tuple[float, float]:
    """Takes the first steps; returns the first loss, and the seconds of the first step."""
    began = time.perf_counter()
    with sizes_apart():
        loss = trainer.step().item()
    first = time.perf_counter() - began
    for _ in range(WARM_UP - 1):
        trainer.step()
    return loss, first


def time_on_gpu(trainer: Trainer, steps: int) -> tuple[list[float], int]:
    """Returns the seconds of steps that follow each other without waiting, and their peak bytes."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]  # type: ignore[no-untyped-call]
    events[0].record()
    for event in events[1:]:
        trainer.step()
        event.record()
    torch.cuda.synchronize()
    seconds = [before.elapsed_time(after) / 1e3 for before, after in pairwise(events)]
    return seconds, torch.cuda.max_memory_allocated()


def time_in_pairs(trainer: Trainer, dense: Trainer, steps: int) -> list[tuple[float, float]]:
    """Returns the seconds of steps of both: which goes first changes, being worth a few percent."""
    pairs = []
    for index in range(steps):
        if index % 2:
            other = dense.seconds()
            pairs.append((trainer.seconds(), other))
        else:
            pairs.append((trainer.seconds(), dense.seconds()))
    return pairs


def measure(cell: Cell, device: torch.device, steps: int, parts: int) -> Line:
    """Trains a cell's model for some steps, and returns its line."""
    trainer = Trainer(cell, device, parts)
    loss, first = warm_up(trainer)
    beside: Line = {}
    if device.type == "cuda":
        seconds, peak = time_on_gpu(trainer, steps)
    else:
        peak = peak_memory(device)
        dense = Trainer(replace(cell, method="dense"), device, parts)
        beside["dense_first_loss"] = warm_up(dense)[0]
        pairs = time_in_pairs(trainer, dense, steps)
        seconds = [own for own, _ in pairs]
        beside["dense_seconds"] = [other for _, other in pairs]
    best, ours = min(seconds), cell.method in OURS
    tokens, limit = SUBJECTS[cell.model].rows * SEQ_LEN, peak_flops(device)
    executed = trainer.flops.executed / best if ours else None
    return {
        **asdict(cell),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU, one thread",
        "torch": torch.__version__,
        "packages": {name: version(name) for name in METHODS[cell.method].packages},
        "attention": trainer.trained.attention,
        "micro_batches": parts,
        "tokens": tokens,
        "targets": trainer.targets,
        "first_loss": loss,
        "tokens_per_second": tokens / best,
        "targets_per_second": trainer.targets / best,
        "flops_per_second": executed,
        "mfu": executed / limit if executed and limit else None,
        "skipped": trainer.flops.skipped if ours else None,
        "peak_mb": peak / 1e6,
        "compile_seconds": max(0.0, first - statistics.median(seconds))
        if device.type == "cuda"
        else None,
        "seconds": seconds,
        **beside,
    }


def measure_fitting(cell: Cell, device: torch.device, steps: int) -> Line:
    """Measures a cell in as few micro-batches as fit the memory of the GPU.

    Raises:
        torch.OutOfMemoryError: If not even micro-batches of one row fit.
    """
    parts, rows = 1, SUBJECTS[cell.model].rows
    while parts < rows:
        try:
            return measure(cell, device, steps, parts)
        except torch.OutOfMemoryError:
            parts *= 2
        # Outside, where the exception holds no tensors any more.
        torch._dynamo.reset()
        gc.collect()
        torch.cuda.empty_cache()
    return measure(cell, device, steps, parts)


# -- all cells --------------------------------------------------------------------------------


def run_cell(cell: Cell, device_type: str, steps: int, left: float) -> Line | None:
    """Measures a cell in a process of its own.

    Returns:
        Its line, or one with the error; None if the ``left`` seconds are up.
    """
    limit = min(left, CELL_SECONDS[device_type])
    command = [sys.executable, __file__, "--device", device_type, "--steps", str(steps)]
    command += ["--cell", cell.model, str(cell.prompt), cell.method]
    failed = asdict(cell) | {"device": device_type, "torch": torch.__version__}
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        if limit == left:
            return None
        return failed | {"error": f"not done within {limit:.0f} s"}
    if ran.returncode == 0:
        line: Line = json.loads(ran.stdout.splitlines()[-1])
        return line
    sys.stderr.write(ran.stderr[-4000:])
    told = [text for text in ran.stderr.splitlines() if text.strip()]
    return failed | {"error": told[-1][:300] if told else f"exit status {ran.returncode}"}


def run_cells(wanted: Sequence[Cell], given: argparse.Namespace, device_type: str) -> list[Line]:
    """Measures the cells that have no line yet, until the time is up; returns the lines of all."""
    given.out.parent.mkdir(parents=True, exist_ok=True)
    written = given.out.read_text().splitlines() if given.out.exists() else []
    lines = {
        Cell(line["model"], line["prompt"], line["method"]): line
        for line in map(json.loads, written)
    }
    deadline = time.monotonic() + 60 * given.minutes
    for cell in wanted:
        if cell in lines and "error" not in lines[cell]:
            continue
        line = run_cell(cell, device_type, given.steps, max(0.0, deadline - time.monotonic()))
        if line is None:
            break
        lines[cell] = line
        with given.out.open("a") as file:
            file.write(json.dumps(lines[cell]) + "\n")
        said = lines[cell].get("error") or f"{lines[cell]['tokens_per_second']:,.0f} tokens/s"
        print(f"{cell.model} {cell.prompt:g} {cell.method}: {said}", file=sys.stderr)
    return [lines[cell] for cell in wanted if cell in lines]


# -- the tables -------------------------------------------------------------------------------

HEADINGS = [
    *("method", "tokens/s", "targets/s", "MFU", "peak MB", "compile"),
    *("FLOPs", "saved", "fastest", "attention"),
]


def percent(value: float | None) -> str:
    """Returns a share in percent; nothing for None."""
    return "" if value is None else f"{value:.1%}"


def savings(line: Line, dense: Line | None) -> tuple[float | None, float | None]:
    """Returns the time saved over ``dense``: by the median, and by the fastest step."""
    own, pairs = line["seconds"], line.get("dense_seconds")
    if pairs:
        ratios = [mine / other for mine, other in zip(own, pairs, strict=True)]
        return 1 - statistics.median(ratios), 1 - min(own) / min(pairs)
    if dense is None:
        return None, None
    other = dense["seconds"]
    return 1 - statistics.median(own) / statistics.median(other), 1 - min(own) / min(other)


def row_of(line: Line, dense: Line | None) -> list[str]:
    """Returns the row of a cell in its table."""
    compiled = line["compile_seconds"]
    return [
        line["method"],
        f"{line['tokens_per_second']:,.0f}",
        f"{line['targets_per_second']:,.0f}",
        percent(line["mfu"]),
        f"{line['peak_mb']:,.0f}",
        "" if compiled is None else f"{compiled:.0f} s",
        percent(line["skipped"]),
        *map(percent, savings(line, dense)),
        line["attention"],
    ]


def print_table(rows: list[list[str]]) -> None:
    """Prints a table in Markdown, its first and last column to the left."""
    last = len(HEADINGS) - 1
    rows = [HEADINGS, *rows]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rule = [
        "-" * width if index in (0, last) else "-" * (width - 1) + ":"
        for index, width in enumerate(widths)
    ]
    for row in (rows[0], rule, *rows[1:]):
        padded = (
            text.ljust(width) if index in (0, last) else text.rjust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        print(f"| {' | '.join(padded)} |")


def notes_on(line: Line, dense: Line | None) -> list[str]:
    """Returns what the table does not say of a cell; a loss that differs from that of ``dense``."""
    notes = []
    if line["micro_batches"] > 1:
        notes.append(f"{line['method']}: in {line['micro_batches']} micro-batches, as memory asks")
    reference = line.get("dense_first_loss", dense and dense["first_loss"])
    tolerance = 1e-4 if line["device"].startswith("CPU") else 1e-3  # bf16 on a GPU
    if line["method"] == "linear_cross_entropy":
        tolerance *= 20  # Of bf16 states it adds up the losses of its chunks in bf16 too.
    if reference is None:
        notes.append(f"{line['method']}: no dense to compare its first loss with")
    elif not abs(line["first_loss"] - reference) <= tolerance * reference:
        notes.append(f"{line['method']}: WRONG first loss {line['first_loss']}, not {reference}")
    return notes


def show(lines: list[Line], wanted: Sequence[Cell], device_type: str) -> bool:
    """Prints the tables and the cells that are missing; whether all is right."""
    fine = True
    measured = [line for line in lines if "error" not in line]
    for key in dict.fromkeys((line["model"], line["prompt"]) for line in measured):
        group = [line for line in measured if (line["model"], line["prompt"]) == key]
        dense = next((line for line in group if line["method"] == "dense"), None)
        first = group[0]
        print(
            f"\n{key[0]}, prompt share {key[1]:g}: {first['tokens']:,} tokens, "
            f"{first['targets']:,} targets a step; {first['device']}, torch {first['torch']}\n"
        )
        print_table([row_of(line, dense) for line in group])
        versions = {f"{name} {of}" for line in group for name, of in line["packages"].items()}
        if versions:
            print(f"\nwith {', '.join(sorted(versions))}")
        for note in [note for line in group for note in notes_on(line, dense)]:
            print(f"- {note}")
            fine = fine and "WRONG" not in note
    print()
    for line in lines:
        if "error" in line:
            print(f"failed: {line['model']} {line['prompt']:g} {line['method']}: {line['error']}")
            fine = fine and line["method"] not in OURS
    for name, method in METHODS.items():
        if reason := method.missing(device_type):
            print(f"left out: {name}: {reason}")
    names = {Cell(line["model"], line["prompt"], line["method"]) for line in lines}
    late = [f"{cell.model} {cell.prompt:g} {cell.method}" for cell in wanted if cell not in names]
    if late:
        print(f"not reached in time (run again): {', '.join(late)}")
    return fine


def parse() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/train.jsonl"), help="the lines")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--minutes", type=float, default=10.0, help="the time for all cells")
    parser.add_argument("--steps", type=int, help="timed steps: 20 on a GPU, 6 on a CPU")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES, metavar="SHARE")
    parser.add_argument(
        "--cell", nargs=3, metavar=("MODEL", "PROMPT", "METHOD"), help="print this one's line"
    )
    return parser.parse_args()


def main() -> int:
    given = parse()
    if given.cell:
        device = choose_device(given.device, lambda note: print(note, file=sys.stderr))
        if device.type == "cpu":
            torch.set_num_threads(1)
        use_fast_products(device)
        model, prompt, method = given.cell
        cell = Cell(model, float(prompt), method)
        print(json.dumps(measure_fitting(cell, device, given.steps or 6)))
        return 0
    # Without setting up CUDA, which would take memory from the cells.
    device_type = "cuda" if given.device != "cpu" and torch.cuda.is_available() else "cpu"
    if given.device == "cuda" and device_type == "cpu":
        sys.exit("torch sees no CUDA device")
    given.steps = given.steps or (20 if device_type == "cuda" else 6)
    wanted = [
        cell
        for cell in cells(device_type)
        if cell.method in given.only
        and cell.prompt in given.shares
        and not METHODS[cell.method].missing(device_type)
    ]
    lines = run_cells(wanted, given, device_type)
    return 0 if show(lines, wanted, device_type) else 1


if __name__ == "__main__":
    sys.exit(main())
