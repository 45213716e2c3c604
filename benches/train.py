"""Training steps by what they compute, beside peers: ``python benches/train.py [--out
build/train.jsonl]``.

Each cell (model, share of prompt tokens, method) is a process of its own, with the same weights and
batches: a step to warm up, after which memory is read; then ``--steps`` timed ones, optimizer
included, each beside one of ``dense`` that goes before or after it in turn, so that what else the
machine does slows both; speeds are those of the fastest, and the saving is the median over the
pairs, with that of the fastest steps beside it. On a CPU one thread computes, and its own time
counts. A cell is a line of JSON in OUT; cells that are there already are not run again, so a run
that was cut off goes on. At the end it prints a table of all cells, the saving that FLOPs promise
beside the one reached, and fails if the first loss of any differs from ``dense``'s.

Methods: ``dense``, ``head`` and ``full`` of sabitrain; ``linear_cross_entropy``, its model under
torch's chunked ``F.linear_cross_entropy`` over all positions; ``transformers``,
``LlamaForCausalLM`` with all logits; ``trl``, the same under the fused head of TRL's trainer, where
TRL is installed: on a GPU it takes target positions alone, on a CPU all.

On a GPU: presets 125m (all shares) and 1b (.7) with a vocabulary of 52,000, in bf16. On a CPU:
``quarter``, 125m with width, MLP and vocabulary divided by four, so that every part takes the share
of the whole that it takes there.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sabiprep.dataset import BatchDict
from sabitrain.config import PRESETS, ModelConfig, OptimConfig
from sabitrain.data.batches import Batch, Step, make_batch
from sabitrain.data.settings import Compute
from sabitrain.device import peak_flops, precision
from sabitrain.models.flops import step_flops
from sabitrain.models.llama import Llama
from sabitrain.models.loss import predicting_states, weighted_loss
from sabitrain.optim.optimizers import make_optimizers

SHARES = (0.0, 0.5, 0.7, 0.9)
OURS = ("dense", "head", "full")
METHODS = (*OURS, "linear_cross_entropy", "transformers", "trl")
SEQ_LEN, DOCUMENT = 2048, 128


@dataclass(frozen=True)
class Subject:
    """A model to train: its shape, its vocabulary, and the rows of a step."""

    shape: ModelConfig
    vocab_size: int
    rows: int


SUBJECTS = {
    "quarter": Subject(ModelConfig(layers=12, width=192, heads=3, mlp_width=512), 13_000, 1),
    "125m": Subject(ModelConfig(**PRESETS["125m"]["model"]), 52_000, 16),
    "1b": Subject(ModelConfig(**PRESETS["1b"]["model"]), 52_000, 4),
}


@dataclass(frozen=True)
class Cell:
    """One thing to measure."""

    model: str
    prompt: float
    method: str


def make_rows(subject: Subject, prompt: float) -> BatchDict:
    """Rows of documents of `DOCUMENT` random tokens, the first ``prompt`` of each a prompt, the
    rest trained.
    """
    shape = subject.rows, SEQ_LEN
    positions = np.tile(np.arange(DOCUMENT), subject.rows * SEQ_LEN // DOCUMENT).reshape(shape)
    mask = positions >= max(1, round(prompt * DOCUMENT))
    ids = np.random.default_rng(0).integers(0, subject.vocab_size, shape)
    return cast(
        BatchDict,
        {
            "input_ids": ids,
            "labels": np.where(mask, ids, -100),
            "loss_mask": mask,
            "position_ids": positions,
            "cu_seqlens": np.arange(0, ids.size + 1, DOCUMENT, dtype=np.int32),
            "seq_lengths": np.full(ids.size // DOCUMENT, DOCUMENT, np.int32),
            "max_seqlen": DOCUMENT,
        },
    )


def sabitrain_loss(model: Llama, batch: Batch, compute: Compute) -> Callable[[], Tensor]:
    """The loss as `sabitrain.trainer.Trainer` computes it."""
    return lambda: weighted_loss(predicting_states(model, batch, compute), model.head_VC, batch)[0]


def linear_cross_entropy_loss(model: Llama, batch: Batch, rows: BatchDict) -> Callable[[], Tensor]:
    """The same model; head and loss by torch's chunked function, positions that are not trained
    ignored.
    """
    labels_N = torch.from_numpy(np.append(rows["labels"].reshape(-1)[1:], -100)).to(
        batch.ids_N.device
    )
    options = torch.nn.LinearCrossEntropyOptions()

    def loss() -> Tensor:
        hidden_NC = predicting_states(model, batch, "dense")
        if torch.is_autocast_enabled(hidden_NC.device.type):
            hidden_NC = hidden_NC.to(torch.get_autocast_dtype(hidden_NC.device.type))
        head_VC = model.head_VC.to(hidden_NC.dtype)
        return F.linear_cross_entropy(
            hidden_NC, head_VC, labels_N, ignore_index=-100, options=options
        )

    return loss


def transformers_loss(
    model: Llama, rows: BatchDict, device: torch.device, fused: bool
) -> tuple[torch.nn.Module, Callable[[], Tensor]]:
    """``LlamaForCausalLM`` with the same weights, its documents told apart by their positions, as
    it packs them.

    ``fused`` gives it TRL's head, which makes logits in tiles.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = model.config
    peer = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=model.vocab_size,
            hidden_size=shape.width,
            intermediate_size=shape.mlp_width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_heads,
            max_position_embeddings=shape.context,
            rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
            rms_norm_eps=shape.norm_eps,
            tie_word_embeddings=True,
            use_cache=False,
        )
    ).to(device)
    peer.load_state_dict(model.state_dict(), strict=False)
    peer.tie_weights()
    ids, labels, positions = (
        torch.from_numpy(rows[name]).to(device) for name in ("input_ids", "labels", "position_ids")
    )
    if not fused:
        return peer, lambda: peer(input_ids=ids, labels=labels, position_ids=positions).loss
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(peer)
    return (
        peer,
        lambda: peer(input_ids=ids, labels=labels, position_ids=positions, fused_lm_head=True).loss,
    )


class Trainer:
    """A model, its batch and its optimizer, trained by one method."""

    def __init__(self, cell: Cell, device: torch.device) -> None:
        subject = SUBJECTS[cell.model]
        rows, self.device = make_rows(subject, cell.prompt), device
        self.compute = cast(Compute, cell.method if cell.method in OURS else "dense")
        weights_N = rows["loss_mask"].reshape(-1) / rows["loss_mask"].sum()
        self.batch = make_batch(rows, weights_N, self.compute)
        batch = self.batch.to(device)
        torch.manual_seed(0)
        model = Llama(subject.shape, subject.vocab_size).to(device)
        trained: torch.nn.Module = model
        if cell.method in ("transformers", "trl"):
            trained, self.loss_of = transformers_loss(
                model, rows, device, fused=cell.method == "trl"
            )
        elif cell.method == "linear_cross_entropy":
            self.loss_of = linear_cross_entropy_loss(model, batch, rows)
        else:
            self.loss_of = sabitrain_loss(model, batch, self.compute)
        self.optimizers = make_optimizers(trained, model.units(), OptimConfig(lr=1e-4))

    def step(self) -> tuple[float, float]:
        """One step: its loss and its seconds, of the process where it computes."""
        clock = time.perf_counter if self.device.type == "cuda" else time.process_time
        synchronize(self.device)
        began = clock()
        with precision(self.device, self.device.type == "cuda"):
            loss = self.loss_of()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        synchronize(self.device)
        return loss.item(), clock() - began


def in_turn(trainer: Trainer, dense: Trainer, dense_first: bool) -> tuple[float, float]:
    """The seconds of a step of each, in turn: which goes first is worth a few percent."""
    if not dense_first:
        return trainer.step()[1], dense.step()[1]
    seconds = dense.step()[1]
    return trainer.step()[1], seconds


def measure(cell: Cell, device: torch.device, steps: int) -> dict[str, Any]:
    """Train the cell's model for ``steps`` steps, beside ``dense``, and say how fast it went."""
    subject, ours = SUBJECTS[cell.model], cell.method in OURS
    trainer = Trainer(cell, device)
    loss, _ = trainer.step()
    megabytes = peak_megabytes(device)
    dense = Trainer(replace(cell, method="dense"), device)
    dense_loss, _ = dense.step()
    pairs = [in_turn(trainer, dense, dense_first=bool(i % 2)) for i in range(steps)]
    best = min(pair[0] for pair in pairs)
    flops = step_flops(
        subject.shape, subject.vocab_size, Step([trainer.batch], 0, 0), trainer.compute
    )
    peak = peak_flops(device)
    return {
        **asdict(cell),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else "CPU, one thread",
        "torch": torch.__version__,
        "tokens": len(trainer.batch.ids_N),
        "targets": trainer.batch.targets,
        "first_loss": loss,
        "first_loss_dense": dense_loss,
        "seconds": best,
        "seconds_dense": min(pair[1] for pair in pairs),
        "saved": 1 - statistics.median(own / other for own, other in pairs),
        "tokens_per_second": len(trainer.batch.ids_N) / best,
        "targets_per_second": trainer.batch.targets / best,
        "flops": flops.executed if ours else None,
        "skipped": flops.skipped if ours else None,
        "flops_per_second": flops.executed / best if ours else None,
        "mfu": flops.executed / best / peak if ours and peak else None,
        "peak_mb": megabytes,
    }


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_megabytes(device: torch.device) -> float:
    """The most memory that this process held: on the GPU, or resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def cells(device: torch.device) -> list[Cell]:
    """What there is to measure on a device; the methods of a share follow each other."""
    methods = [name for name in METHODS if name != "trl" or importlib.util.find_spec("trl")]
    if device.type != "cuda":
        return [Cell("quarter", *pair) for pair in product(SHARES, methods)]
    return [
        *(Cell("125m", *pair) for pair in product(SHARES, methods)),
        *(Cell("1b", 0.7, name) for name in OURS),
    ]


def show(results: list[dict[str, Any]]) -> bool:
    """Print the table; whether every method began with the loss of ``dense``."""
    agree = True
    speeds, savings = (
        "tokens/s | targets/s | TFLOP/s | MFU | peak MB",
        "saved by FLOPs | saved | by fastest",
    )
    print(f"| model | prompt | method | {speeds} | {savings} |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for result in results:
        rate = "" if result["flops"] is None else f"{result['flops_per_second'] / 1e12:.3f}"
        mfu = "" if result["mfu"] is None else f"{result['mfu']:.1%}"
        promised = "" if result["skipped"] is None else f"{result['skipped']:.1%}"
        speeds = (
            f"{result['tokens_per_second']:,.0f} | {result['targets_per_second']:,.0f} "
            f"| {rate} | {mfu}"
        )
        print(
            f"| {result['model']} | {result['prompt']:g} | {result['method']} | {speeds} | "
            f"{result['peak_mb']:,.0f} | {promised} | {result['saved']:.1%} | "
            f"{1 - result['seconds'] / result['seconds_dense']:.1%} |"
        )
        tolerance = 1e-4 if result["device"].startswith("CPU") else 1e-2  # bf16 on a GPU
        if (
            abs(result["first_loss"] - result["first_loss_dense"])
            > tolerance * result["first_loss_dense"]
        ):
            print(f"the losses differ: {result['first_loss']} and {result['first_loss_dense']}")
            agree = False
    return agree


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/train.jsonl"), help="where the lines are"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=6, help="timed steps of a cell")
    parser.add_argument(
        "--only", nargs="+", metavar="METHOD", default=METHODS, help="methods to measure"
    )
    parser.add_argument(
        "--cell",
        nargs=3,
        metavar=("MODEL", "PROMPT", "METHOD"),
        help="measure this one, print its line",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    if arguments.cell:
        model, prompt, method = arguments.cell
        print(json.dumps(measure(Cell(model, float(prompt), method), device, arguments.steps)))
        return 0

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    lines = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    done = {
        Cell(line["model"], line["prompt"], line["method"]): line for line in map(json.loads, lines)
    }
    for cell in sorted(cells(device), key=lambda cell: METHODS.index(cell.method)):
        if cell in done or cell.method not in arguments.only:
            continue
        command = [
            sys.executable,
            __file__,
            "--device",
            str(device),
            "--steps",
            str(arguments.steps),
        ]
        command += ["--cell", cell.model, str(cell.prompt), cell.method]
        line = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True
        ).stdout.splitlines()[-1]
        with arguments.out.open("a") as file:
            file.write(line + "\n")
        print(line, file=sys.stderr)
        done[cell] = json.loads(line)
    return 0 if show([done[cell] for cell in cells(device) if cell in done]) else 1


if __name__ == "__main__":
    sys.exit(main())
