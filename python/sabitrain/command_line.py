"""The command line of a run: a preset, a TOML file over it, and over both what stands on the line itself.

A field of a section is spelt ``--optim.lr``.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from sabitrain.config import PresetName, TrainConfig
from sabitrain.config_file import CONFIG_FILE, resolve


@dataclass(frozen=True)
class _Base:
    """The options that decide the defaults of all others."""

    data: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    data_end: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    preset: PresetName | None = None
    config: Path | None = None
    run: Path | None = None
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False

    def file(self) -> Path | None:
        """The TOML file to read; that of the run to resume where no other is named."""
        if self.config is None and self.resume and self.run is not None and (self.run / CONFIG_FILE).exists():
            return self.run / CONFIG_FILE
        return self.config


def parse_command_line(
    arguments: Sequence[str] | None = None, prog: str = "python -m sabitrain", run: Any = tyro.MISSING
) -> TrainConfig:
    """The configuration that the command line (by default the process's own) asks for.

    Args:
        arguments: What stands on it.
        prog: The command, for its help.
        run: The run folder where none is named; by default one must be.

    Raises:
        ConfigError: If the TOML file or a value cannot be right.
        SystemExit: If the command line itself is wrong (2), or asked for help (0).
    """
    base, _ = tyro.cli(_Base, prog=prog, args=arguments, return_unknown_args=True, add_help=False)
    default = resolve(base.preset, base.file(), {"data": tyro.MISSING, "run": run})
    # tyro adds what may be given several times to its default, so what the file says goes where there is another.
    named = {name: tyro.MISSING for name in ("data", "data_end") if getattr(base, name)}
    if "data" in named:
        named.setdefault("data_end", ())
    config = tyro.cli(TrainConfig, prog=prog, args=arguments, default=dataclasses.replace(default, **named))
    if not config.data:  # of what may be given several times tyro wants none
        print("sabitrain: --data is required: name the OUT of sabiprep pack", file=sys.stderr)
        raise SystemExit(2)
    return config
