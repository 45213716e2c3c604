"""The command line of a run: its options over a TOML file, and the file over a preset.

A field of a section is spelt ``--optim.lr``.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro

from sabiprep.cache import run_folder
from sabiprep.errors import ConfigError
from sabiprep.object_stores import Bucket
from sabiprep.places import checked, is_remote, join, place_of
from sabitrain.config import TrainConfig
from sabitrain.config_file import CONFIG_FILE, check_preset, resolve

# tyro puts a line that begins with a letter behind the one before, however long that gets.
DESCRIPTION = """\
Train a causal language model on a packed dataset, learning from the target
 tokens only.

`python -m sabitrain plan`, with the same options, says what a run will take;
`python -m sabitrain adapt` changes a checkpoint to start from;
`python -m sabitrain merge` merges a trained adapter into its base;
`python -m sabitrain selftest` tries a GPU in four minutes."""
PLAN_DESCRIPTION = """\
Say what a run with these options will take: parameters, steps, GPU memory, the
 largest micro-batch that fits, operations a step. Nothing is trained or
 written, and no GPU is needed.

--suggest compares the ways to train (--train): memory, operations, hours, and
 which fits. One that --train names is planned alone."""


@dataclass(frozen=True)
class _Base:
    """The options that decide the defaults of all others."""

    data: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    data_end: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    eval_data: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    preset: str | None = None
    config: Path | None = None
    run: Path | None = None
    init: str | None = None
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False

    def file(self) -> Path | None:
        """Returns the TOML file to read; by default, the file of the run to resume."""
        if self.config is None and self.resume and self.run is not None:
            return _config_of(self.run)
        return self.config


def _config_of(run: Path) -> Path | None:
    """Returns the ``config.toml`` of a run, if there is one."""
    if is_remote(run):
        place = checked(run)
        # The store comes first: another machine may have gone on with the run.
        if Bucket(place).has(CONFIG_FILE):
            return Path(join(place, CONFIG_FILE))
        run = run_folder(place)
    return run / CONFIG_FILE if (run / CONFIG_FILE).exists() else None


def parse_command_line(
    arguments: Sequence[str] | None = None,
    prog: str = "python -m sabitrain",
    run: Any = tyro.MISSING,
    description: str = DESCRIPTION,
) -> TrainConfig:
    """Returns the configuration that a command line asks for.

    Args:
        arguments: The words after the command; by default those of the process.
        prog: The command, for its help.
        run: The default of the run folder; without one, the command line must name it.
        description: The description of the command, for its help.

    Raises:
        ConfigError: If the TOML file or a value cannot be right.
        SystemExit: If the command line itself is wrong (2), or asked for help (0).
    """
    # Parsed twice: preset and file decide the defaults that the second pass shows in its help.
    base, _ = tyro.cli(_Base, prog=prog, args=arguments, return_unknown_args=True, add_help=False)
    # Here rather than in `resolve`: a wrong word on the command line exits with 2.
    try:
        check_preset(base.preset or "nano", None)
    except ConfigError as error:
        _refuse(str(error))
    required = {"data": tyro.MISSING, "run": run, "init": base.init}
    default = resolve(base.preset, base.file(), required)
    # tyro adds repeated options to their default, so the file's datasets go if any is named.
    named = {
        name: tyro.MISSING for name in ("data", "data_end", "eval_data") if getattr(base, name)
    }
    if "data" in named:
        named.setdefault("data_end", ())
    default = dataclasses.replace(default, **named)
    config = tyro.cli(
        TrainConfig, prog=prog, args=arguments, default=default, description=description
    )
    # tyro is content with none of an option that may be repeated.
    if not config.data:
        if base.resume and base.run is not None and _config_of(base.run) is None:
            _refuse(
                f"{place_of(base.run)} holds no run to go on with\n"
                "Remedy: name the folder of a run with --run, or begin one with --data OUT"
            )
        _refuse("--data is required: name the OUT of sabiprep pack")
    return config


def _refuse(message: str) -> NoReturn:
    """Ends the process as a wrong command line does."""
    print(f"sabitrain: {message}", file=sys.stderr)
    raise SystemExit(2)
