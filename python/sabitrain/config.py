"""The configuration of a run: the sections of all wings put together, and the presets.

`sabitrain.config_file` reads and writes the configuration as TOML, and `sabitrain.command_line`
puts the command line over the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sabiprep.cache import run_folder
from sabiprep.places import checked, is_remote, place_of
from sabitrain.checkpoints.settings import CheckpointConfig
from sabitrain.data.settings import BatchConfig, DataConfig, LengthConfig, MaskingConfig
from sabitrain.evaluation.settings import EvaluationConfig
from sabitrain.models.settings import ComputeConfig, ModelConfig
from sabitrain.monitoring.settings import MonitoringConfig
from sabitrain.optim.settings import OptimConfig
from sabitrain.partial.settings import PartialConfig
from sabitrain.settings import MAY_CHANGE, THIS_SESSION, Section, require

__all__ = [
    "PRESETS",
    "BatchConfig",
    "CheckpointConfig",
    "ModelConfig",
    "OptimConfig",
    "TrainConfig",
]

PresetName = Literal["nano", "125m", "350m", "1b", "checkpoint"]
MAX_THREADS = 4096
"""Most threads of a run: with tens of thousands OpenMP's runtime ends the process with a
segmentation fault.
"""

_MOST_GB = 1e6
_DEVICES = re.compile(r"auto|cpu|cuda(:[0-9]+)?")


@dataclass(frozen=True, kw_only=True)
class DeviceConfig(Section):
    """The device, and the share of it that a run may take."""

    device: Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda|cuda:N")] = field(
        default="auto", metadata=MAY_CHANGE
    )
    """Where to train; auto takes a GPU if there is one, cuda:1 the second."""
    threads: int = field(default=0, metadata=MAY_CHANGE)
    """CPU threads to compute with; 0 leaves it to torch, which takes one for each core."""
    memory_limit: Annotated[float | Literal["auto"], tyro.conf.arg(metavar="auto|GB")] = field(
        default="auto", metadata=MAY_CHANGE
    )
    """GB (10^9 bytes) of a GPU's memory to use at most; auto takes what is free."""
    deterministic: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Let torch use only algorithms that give the same bits every time, on a GPU too; they may be
    slower.
    """

    def __post_init__(self) -> None:
        """Checks every setting."""
        super().__post_init__()
        require(
            0 <= self.threads <= MAX_THREADS,
            f"threads must be from 1 to {MAX_THREADS}, or 0 for one a core, not {self.threads}",
        )
        require(
            _DEVICES.fullmatch(self.device) is not None,
            f"device must be auto, cpu, cuda or cuda:N, not {self.device!r}"
            + (
                ": nothing has been tried there yet"
                if self.device.partition(":")[0] in ("mps", "rocm", "hip", "xpu")
                else ""
            ),
        )
        require(
            isinstance(self.memory_limit, str) or 0 < self.memory_limit < _MOST_GB,
            f"memory_limit must be auto or a number of GB above 0, not {self.memory_limit}",
        )


@dataclass(frozen=True, kw_only=True)
class RunConfig(Section):
    """The folder of a run, and how it begins or goes on."""

    run: Path = field(metadata=MAY_CHANGE)
    """The folder for this run: configuration, metrics and checkpoints. It must be empty or new. A
    URL of an object store (s3://BUCKET/RUN) is kept up from a folder of the cache."""
    preset: PresetName = field(default="nano", metadata=MAY_CHANGE)
    """Where the defaults below come from: nano trains on a CPU in minutes; checkpoint, the default
    with --init, trains on from one; the others are meant for a GPU.
    """
    init: Annotated[str | None, tyro.conf.arg(metavar="CHECKPOINT")] = None
    """Start from the weights of a checkpoint of Hugging Face's layout: a folder, its URL
    (s3://BUCKET/FOLDER), or hf://OWNER/NAME[@REVISION]. It decides the model's shape; the datasets
    must be packed with its tokenizer.
    """
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = field(
        default=None, metadata=THIS_SESSION
    )
    """A TOML file with any of these settings; the command line goes before it, and it before the
    preset.
    """
    seed: int = 0
    """Decides the initial weights, the order of the rows and the held-out prompts."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = field(
        default=False, metadata=THIS_SESSION
    )
    """Replace an earlier run in the same folder."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = field(
        default=False, metadata=THIS_SESSION
    )
    """Go on with the run in the folder from its newest checkpoint; where there is none yet, begin.
    Its settings are read from its config.toml."""
    # They change the training that is to come, which a session may do (`run_folder.take_up`).
    skip_batches: Annotated[tuple[int, ...], tyro.conf.arg(metavar="STEP ...")] = field(
        default=(), metadata=MAY_CHANGE
    )
    """Pass over the batches of these steps (numbered as in metrics.jsonl) and learn nothing from
    them. A run that three bad steps have stopped says which, to go on past them; it goes on passing
    over them when it is resumed again."""

    def __post_init__(self) -> None:
        """Checks every setting."""
        super().__post_init__()
        require(0 <= self.seed < 2**63, f"seed must be from 0 to below 2**63, not {self.seed}")
        require(
            min(self.skip_batches, default=1) >= 1,
            f"skip_batches counts steps from 1: not {self.skip_batches}",
        )
        require(
            self.preset != "checkpoint" or self.init is not None,
            "the preset checkpoint is for a run that starts from one: add --init CHECKPOINT",
        )
        require(
            not (self.resume and self.overwrite),
            "resume goes on with a run and overwrite removes it: use one",
        )

    @property
    def folder(self) -> Path:
        """The folder of the run on this machine: ``run``, or one of the cache for a URL."""
        return run_folder(checked(self.run)) if is_remote(self.run) else self.run

    @property
    def run_name(self) -> str:
        """The run as the user named it."""
        return place_of(self.run)


# The settings of the last section come first, in help and files.
@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    DeviceConfig,
    ComputeConfig,
    MonitoringConfig,
    EvaluationConfig,
    MaskingConfig,
    LengthConfig,
    PartialConfig,
    RunConfig,
    DataConfig,
):
    """Train a causal language model on a packed dataset, learning from the target tokens only."""

    model: ModelConfig = field(default_factory=ModelConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig, metadata=MAY_CHANGE)

    def step_plan(self, rows: int, seq_len: int, device: str) -> dict[str, int]:
        """Returns how steps are cut: ``steps``, ``rows_per_step`` and ``micro_rows``.

        A run decides this once, saves it with each checkpoint and keeps it when it is resumed.
        ``micro_rows`` is left out where the memory of a GPU decides (`sabitrain.fitting`).

        Args:
            rows: Rows of the training split.
            seq_len: Tokens of a row.
            device: The type of the device.
        """
        rows_per_step = self.batch.rows(seq_len)
        plan = {
            "steps": self.steps(rows, rows_per_step, seq_len),
            "rows_per_step": rows_per_step,
        }
        micro_rows = self.batch.micro_rows(seq_len, device)
        return plan if micro_rows is None else {**plan, "micro_rows": micro_rows}


# In the shape of the TOML file. nano is the defaults above: on the example corpus (216 k tokens,
# two CPU cores) four epochs in steps of 4,096 tokens got 13 of 40 held-out answers right, in steps
# of 1,024 19 of 20: so small a model wants many small steps. The other widths follow GPT-3's table
# (arXiv:2005.14165, table 2.1) with SwiGLU layers of about 8/3 of the width; 1b is the shape of
# Llama 3.2 1B. Rates fall with size as in that table.
PRESETS: Mapping[PresetName, Mapping[str, Any]] = {
    "nano": {},
    "125m": {
        "model": {"layers": 12, "width": 768, "heads": 12, "mlp_width": 2048},
        "batch": {"tokens": 262_144},
        "optim": {"lr": 6e-4, "warmup": 0.02, "floor": 0.1},
    },
    "350m": {
        "model": {"layers": 24, "width": 1024, "heads": 16, "mlp_width": 2816},
        "batch": {"tokens": 262_144},
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
        "batch": {"tokens": 524_288},
        "optim": {"lr": 2e-4, "warmup": 0.02, "floor": 0.1},
    },
    # A rate well below that of pre-training: a model that knows something is not to forget it.
    "checkpoint": {
        "batch": {"tokens": 65_536},
        "optim": {"lr": 5e-5, "warmup": 0.03, "floor": 0.1},
    },
}
