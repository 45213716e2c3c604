"""What a training run is told: frozen dataclasses, each checked where it is made, and the presets.

`sabitrain.config_file` reads and writes them as TOML, `sabitrain.command_line` puts the command
line over that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sabiprep.errors import ConfigError

PresetName = Literal["nano", "125m", "350m", "1b"]
MAX_THREADS = 4096
"""Most threads of a run: with tens of thousands OpenMP's runtime ends the process with a
segmentation fault.
"""

Device = Literal["auto", "cpu", "cuda"]
MixSchedule = Literal["linear", "cosine"]
Compute = Literal["dense", "head", "full"]
Optimizer = Literal["adamw", "muon"]
Schedule = Literal["cosine", "wsd"]
Loss = Literal["target", "full", "template-masked"]
WeighBy = Literal["token", "example"]


def _require(right: bool, message: str) -> None:
    """Raise `ConfigError` unless a condition on a field holds."""
    if not right:
        raise ConfigError(message)


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the model; the vocabulary is the dataset's."""

    layers: int = 4
    """Transformer blocks."""
    width: int = 128
    """Size of the residual stream (Hugging Face: hidden_size)."""
    heads: int = 4
    """Query heads; width / heads is the size of a head, an even number."""
    kv_heads: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Key and value heads, a divisor of heads (grouped-query attention); as many as heads where not
    given.
    """
    mlp_width: int = 384
    """Inner size of the SwiGLU layer (Hugging Face: intermediate_size)."""
    context: int = 2048
    """Longest row the model takes, in tokens (Hugging Face: max_position_embeddings)."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    norm_eps: float = 1e-5
    """What RMSNorm adds to the mean square."""
    init_std: float = 0.02
    """Standard deviation of the initial weights; that of o_proj and down_proj is divided by sqrt(2
    layers).
    """

    def __post_init__(self) -> None:
        """Check every field, and that heads and width fit together."""
        for name in ("layers", "width", "heads", "mlp_width", "context"):
            _require(
                getattr(self, name) >= 1,
                f"model.{name} must be at least 1, not {getattr(self, name)}",
            )
        _require(
            self.width % (2 * self.heads) == 0,
            f"model.width must be a multiple of twice model.heads ({2 * self.heads}), not {self.width}",
        )
        _require(
            self.key_heads >= 1 and self.heads % self.key_heads == 0,
            f"model.kv_heads must divide model.heads: {self.key_heads} does not divide {self.heads}",
        )
        _require(self.rope_theta > 1, f"model.rope_theta must be above 1, not {self.rope_theta}")
        _require(
            0 < self.norm_eps < 1, f"model.norm_eps must be between 0 and 1, not {self.norm_eps}"
        )
        _require(
            0 < self.init_std < 1, f"model.init_std must be between 0 and 1, not {self.init_std}"
        )

    @property
    def head_size(self) -> int:
        """Dimensions of one head."""
        return self.width // self.heads

    @property
    def key_heads(self) -> int:
        """Key and value heads."""
        return self.heads if self.kv_heads is None else self.kv_heads


@dataclass(frozen=True)
class BatchConfig:
    """How many rows make a step, given in tokens so that it holds for rows of any length."""

    tokens: int = 1024
    """Tokens (padding included) of an optimizer step, rounded down to whole rows, at least one."""
    micro_tokens: int = 4096
    """Most tokens in one forward and backward pass; a step of more accumulates over several. On a
    CPU 4096 at most.
    """

    def __post_init__(self) -> None:
        """Check every field."""
        _require(self.tokens >= 1, f"batch.tokens must be at least 1, not {self.tokens}")
        _require(
            self.micro_tokens >= 1,
            f"batch.micro_tokens must be at least 1, not {self.micro_tokens}",
        )

    def rows(self, seq_len: int) -> int:
        """Rows of an optimizer step."""
        return max(1, self.tokens // seq_len)

    def micro_rows(self, seq_len: int, device: str) -> int:
        """Most rows of a micro-batch on a device of that type; a CPU gains nothing from more than
        4096 tokens.
        """
        tokens = min(self.micro_tokens, 4096) if device == "cpu" else self.micro_tokens
        return max(1, tokens // seq_len)


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer, its schedule and clipping."""

    name: Optimizer = "adamw"
    """adamw for everything, or muon for the matrices of the blocks and adamw for embedding, head
    and norms.
    """
    lr: float = 2e-3
    """Highest learning rate, reached when the warm-up ends; muon's updates are scaled to share it.
    """
    schedule: Schedule = "cosine"
    """How the learning rate falls: along a cosine from the warm-up on, or wsd: stable, and falling
    at the end only.
    """
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises from 0."""
    decay: float = 0.2
    """Share of the steps in which it falls under wsd."""
    floor: float = 0.05
    """Learning rate at the last step, as a share of lr."""
    momentum: float = 0.95
    """Decay of muon's running mean of the gradient."""
    beta1: float = 0.9
    """Decay of adamw's running mean of the gradient."""
    beta2: float = 0.95
    """Decay of adamw's running mean of its square."""
    eps: float = 1e-8
    """What is added to the root of the latter."""
    weight_decay: float = 0.1
    """Decoupled weight decay, on matrices only: norms are left alone."""
    clip: float = 1.0
    """Largest norm of the whole gradient, once divided by the step's targets; 0 clips nothing."""
    spike: float = 10.0
    """Skip a step whose loss or gradient norm is above 1 and more than this times the median of the
    last 128 steps; 0
    skips only those that are no number. After three in a row the run stops."""

    def __post_init__(self) -> None:
        """Check every field."""
        _require(self.lr > 0, f"optim.lr must be above 0, not {self.lr}")
        _require(
            0 <= self.warmup < 1, f"optim.warmup is a share, from 0 to below 1, not {self.warmup}"
        )
        _require(0 <= self.floor <= 1, f"optim.floor is a share, from 0 to 1, not {self.floor}")
        _require(
            0 < self.decay <= 1, f"optim.decay is a share, from above 0 to 1, not {self.decay}"
        )
        for name in ("momentum", "beta1", "beta2"):
            _require(
                0 <= getattr(self, name) < 1,
                f"optim.{name} must be from 0 to below 1, not {getattr(self, name)}",
            )
        _require(self.eps > 0, f"optim.eps must be above 0, not {self.eps}")
        _require(
            self.weight_decay >= 0, f"optim.weight_decay must be 0 or more, not {self.weight_decay}"
        )
        _require(self.clip >= 0, f"optim.clip must be 0 or more, not {self.clip}")
        _require(
            self.spike == 0 or self.spike > 1, f"optim.spike must be 0 or above 1, not {self.spike}"
        )


@dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written, and which are kept."""

    every: int = 250
    """Steps between checkpoints; one is written before each validation and at the end too. 0: those
    alone.
    """
    keep_last: int = 2
    """Newest checkpoints to keep; of two, the older one stands in should the newest be damaged."""
    keep_every: int = 0
    """Beside those, keep the checkpoints of steps that are a multiple of this; 0 keeps no others.
    """

    def __post_init__(self) -> None:
        """Check every field."""
        _require(self.every >= 0, f"checkpoint.every must be 0 or more, not {self.every}")
        _require(
            self.keep_last >= 1, f"checkpoint.keep_last must be at least 1, not {self.keep_last}"
        )
        _require(
            self.keep_every >= 0, f"checkpoint.keep_every must be 0 or more, not {self.keep_every}"
        )


@dataclass(frozen=True)
class TrainConfig:
    """Train a causal language model on a packed dataset, learning from the target tokens only."""

    data: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="OUT[=WEIGHT]")
    ]
    """The packed dataset: the OUT of `sabiprep pack`. Several, each with its weight, are mixed, as
    --data A=0.7 --data
    B=0.3; the weights are shares of the rows of a step."""
    run: Path
    """The folder for this run: configuration, metrics and checkpoints. It must be empty or new."""
    data_end: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="OUT=WEIGHT")
    ] = ()
    """The weights of the same datasets at the last step, where the mix is to change over the run.
    """
    data_schedule: MixSchedule = "linear"
    """How the mix goes from the one to the other: along a line, or half a cosine."""
    preset: PresetName = "nano"
    """Where the defaults below come from: nano trains on a CPU in minutes, the others are meant for
    a GPU.
    """
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A TOML file with any of these settings; the command line goes before it, and it before the
    preset.
    """
    epochs: Annotated[float | None, tyro.conf.arg(metavar="N")] = None
    """Passes over the training split; 1 where neither this nor max-steps nor max-tokens is given.
    """
    max_steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Optimizer steps at most. The schedule ends where the first of epochs, max-steps and
    max-tokens is reached.
    """
    max_tokens: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Tokens (padding included) to train on at most, rounded down to whole steps, at least one."""
    hours: Annotated[float | None, tyro.conf.arg(metavar="N")] = None
    """Stop within so many hours, wherever the schedule is by then; the last checkpoint, validation
    and answers are
    counted in, so that training ends a little earlier."""
    eval_every: int = 100
    """Steps between validations; 0 validates at the end only."""
    eval_rows: int = 128
    """Held-out rows of a validation, the same each time, with some of every task in every language;
    0 for all. The
    last takes all of them if the hours allow or, without hours, if the run has trained on as many rows."""
    log_every: int = 10
    """Steps between figures on the console; metrics.jsonl has every step."""
    tensorboard: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write the numbers of metrics.jsonl for TensorBoard too, into the folder tensorboard of the
    run.
    """
    loss: Loss = "target"
    """Tokens to learn: target, those of the loss mask; full, all but a document's first;
    template-masked, all but that
    and the text that templates spell."""
    prompt_weight: Annotated[float | None, tyro.conf.arg(metavar="W")] = None
    """What a prompt's token counts for (with template-masked, one of its data); by default, what
    loss says: 0 or 1.
    """
    task_weights: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK=WEIGHT ...")] = ()
    """What every token of a task is multiplied by; 1 for tasks that are not named."""
    weigh_by: WeighBy = "token"
    """Whether each token counts the same, or each example (document), whatever its length."""
    z_loss: float = 0.0
    """Times the square of each prediction's log-sum-exp, added to its loss so that logits do not
    drift (PaLM: 1e-4).
    """
    compute: Compute = "full"
    """What to leave out where nothing is trained, with the same gradients: full, the end of the
    last block and the head;
    head, the head; dense, nothing."""
    answers: int = 8
    """Held-out prompts to answer greedily at the end."""
    answer_tasks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK ...")] = ()
    """Tasks to take those prompts from; all where none is named."""
    max_new_tokens: int = 64
    """Longest answer, in tokens."""
    seed: int = 0
    """Decides the initial weights, the order of the rows and the held-out prompts."""
    device: Device = "auto"
    """Where to train; auto takes a GPU if there is one."""
    threads: int = 0
    """CPU threads to compute with; 0 leaves it to torch, which takes one for each core."""
    recompute: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Keep of each block its input alone and compute the rest again in the backward pass
    (activation checkpointing): a
    third more computation for a fraction of the memory."""
    memory_limit: float = 24.0
    """GB (10^9 bytes) of a GPU's memory to use at most, on a larger one too."""
    compile: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Compile the model into one graph first (torch.compile), which takes a C compiler and a
    minute.
    """
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an earlier run in the same folder."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the run in the folder from its newest checkpoint; where there is none yet, begin.
    Its settings are
    read from its config.toml."""
    skip_batches: Annotated[tuple[int, ...], tyro.conf.arg(metavar="STEP ...")] = ()
    """Pass over the batches of these steps (numbered as in metrics.jsonl) and learn nothing from
    them. A run that three
    bad steps have stopped says which, to go on past them; it goes on passing over them when it is resumed again."""
    deterministic: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Let torch use only algorithms that give the same bits every time, on a GPU too; they may be
    slower.
    """
    model: ModelConfig = field(default_factory=ModelConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        """Check every field that is not a section of its own."""
        # A path alone is a dataset too, from Python and in a TOML file.
        if isinstance(self.data, str | Path):
            object.__setattr__(self, "data", (str(self.data),))
        if self.data is not tyro.MISSING and (len(self.data) > 1 or self.data_end):
            parse_mix(self.data, self.data_end)
        _require(
            self.epochs is None or self.epochs > 0, f"epochs must be above 0, not {self.epochs}"
        )
        _require(
            self.max_steps is None or self.max_steps >= 1,
            f"max_steps must be at least 1, not {self.max_steps}",
        )
        _require(
            self.max_tokens is None or self.max_tokens >= 1,
            f"max_tokens must be at least 1, not {self.max_tokens}",
        )
        _require(self.memory_limit > 0, f"memory_limit must be above 0, not {self.memory_limit}")
        _require(self.hours is None or self.hours > 0, f"hours must be above 0, not {self.hours}")
        _require(self.eval_every >= 0, f"eval_every must be 0 or more, not {self.eval_every}")
        _require(self.eval_rows >= 0, f"eval_rows must be 0 or more, not {self.eval_rows}")
        _require(self.log_every >= 1, f"log_every must be at least 1, not {self.log_every}")
        _require(
            self.prompt_weight is None or 0 <= self.prompt_weight < math.inf,
            f"prompt_weight must be 0 or more, not {self.prompt_weight}",
        )
        _require(0 <= self.z_loss < math.inf, f"z_loss must be 0 or more, not {self.z_loss}")
        self.weight_of_task()
        _require(self.answers >= 0, f"answers must be 0 or more, not {self.answers}")
        _require(
            self.max_new_tokens >= 1,
            f"max_new_tokens must be at least 1, not {self.max_new_tokens}",
        )
        _require(
            0 <= self.threads <= MAX_THREADS,
            f"threads must be from 1 to {MAX_THREADS}, or 0 for one a core, not {self.threads}",
        )
        _require(0 <= self.seed < 2**63, f"seed must be from 0 to below 2**63, not {self.seed}")
        _require(
            min(self.skip_batches, default=1) >= 1,
            f"skip_batches counts steps from 1: not {self.skip_batches}",
        )
        _require(
            not (self.resume and self.overwrite),
            "resume goes on with a run and overwrite removes it: use one",
        )

    def weight_of_task(self) -> dict[str, float]:
        """``task_weights`` as a mapping.

        Raises:
            ConfigError: If one is not ``task=weight``, or a task is named twice.
        """
        weights: dict[str, float] = {}
        for written in self.task_weights:
            task, _, number = written.rpartition("=")
            try:
                weight = float(number)
            except ValueError:
                weight = math.nan
            _require(
                task != "" and 0 <= weight < math.inf,
                f"task_weights must be given as task=weight, with a weight of 0 or more, not {written!r}",
            )
            _require(task not in weights, f"task_weights names {task!r} twice")
            weights[task] = weight
        return weights

    @property
    def datasets(self) -> list[Path]:
        """The folders of the datasets."""
        return (
            list(parse_mix(self.data, ())[0])
            if len(self.data) > 1 or self.data_end
            else [Path(self.data[0])]
        )

    def steps(self, rows: int, seq_len: int) -> int:
        """Optimizer steps of the whole run over a training split of ``rows`` rows: the horizon of
        the schedule.
        """
        limits = [] if self.max_steps is None else [self.max_steps]
        if self.max_tokens is not None:
            limits.append(max(1, self.max_tokens // (self.batch.rows(seq_len) * seq_len)))
        if self.epochs is not None or not limits:
            epochs = 1.0 if self.epochs is None else self.epochs
            limits.append(max(1, math.ceil(epochs * rows / self.batch.rows(seq_len))))
        return min(limits)

    def step_plan(self, rows: int, seq_len: int, device: str) -> dict[str, int]:
        """How steps are cut, decided once: a run saves it with each checkpoint, and it binds when
        the run is resumed.

        Args:
            rows: Rows of the training split.
            seq_len: Tokens of a row.
            device: The type of the device.
        """
        return {
            "steps": self.steps(rows, seq_len),
            "rows_per_step": self.batch.rows(seq_len),
            "micro_rows": self.batch.micro_rows(seq_len, device),
        }


def parse_mix(
    data: Sequence[str], data_end: Sequence[str]
) -> tuple[dict[Path, float], list[float] | None]:
    """The weight of each dataset of a mix, and those at its end, in the same order; None if they
    stay.

    Raises:
        ConfigError: If a weight is missing or no positive number, or the end is of other datasets.
    """
    weights = dict(_weighted(entry) for entry in data)
    _require(len(weights) == len(data), "data names a dataset twice: give it one weight")
    if not data_end:
        return weights, None
    at_end = dict(_weighted(entry) for entry in data_end)
    _require(at_end.keys() == weights.keys(), "data_end must weigh the datasets of data, each once")
    return weights, [at_end[path] for path in weights]


def _weighted(entry: str) -> tuple[Path, float]:
    """``OUT=WEIGHT`` in its parts."""
    path, _, weight = entry.rpartition("=")
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    _require(
        path != "" and 0 < value < math.inf,
        f"a mix has OUT=WEIGHT for each dataset, with WEIGHT > 0: not {entry!r}",
    )
    return Path(path), value


# In the shape of the TOML file. nano is the defaults above: on the example corpus (216 k tokens,
# two CPU cores) four epochs in steps of 4,096 tokens got 13 of 40 held-out answers right, in steps
# of 1,024 19 of 20: so small a model wants many small steps. The other widths follow GPT-3's table
# (arXiv:2005.14165, table 2.1) with SwiGLU layers of about 8/3 of the width; 1b is the shape of
# Llama 3.2 1B. Rates fall with size as in that table. Micro-batches fit 24 GB by `python -m
# sabitrain plan`.
PRESETS: Mapping[PresetName, Mapping[str, Any]] = {
    "nano": {},
    "125m": {
        "model": {"layers": 12, "width": 768, "heads": 12, "mlp_width": 2048},
        "batch": {"tokens": 262_144, "micro_tokens": 32_768},
        "optim": {"lr": 6e-4, "warmup": 0.02, "floor": 0.1},
    },
    "350m": {
        "model": {"layers": 24, "width": 1024, "heads": 16, "mlp_width": 2816},
        "batch": {"tokens": 262_144, "micro_tokens": 8_192},
        "optim": {"lr": 3e-4, "warmup": 0.02, "floor": 0.1},
    },
    "1b": {
        "model": {
            "layers": 16,
            "width": 2048,
            "heads": 32,
            "kv_heads": 8,
            "mlp_width": 8192,
            "context": 4096,
        },
        "recompute": True,
        "batch": {"tokens": 524_288, "micro_tokens": 8_192},
        "optim": {"lr": 2e-4, "warmup": 0.02, "floor": 0.1},
    },
}
