"""The command ``python -m sabitrain adapt BASE NEW``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import tyro

from sabiprep.terminal import Verbatim, show, unobeyed
from sabitrain.adapt.settings import AdaptConfig

# tyro puts a line that begins with a letter behind the one before, however long that gets.
DESCRIPTION = """\
Change a checkpoint without training: more tokens, fewer tokens, fewer layers,
 narrower ones. The changes are made in this order, whatever the order of the
 options: --extend, --add-language, --trim, --drop-layers, --prune-width.
 docs/adapt.md shows each of them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Adapts a checkpoint, prints the report and returns the exit code 0.

    Raises:
        SabiprepError: If the checkpoint cannot be adapted, with place and remedy.
        SystemExit: If the command line is wrong (2), or asked for help (0).
    """
    config = tyro.cli(
        AdaptConfig, prog="python -m sabitrain adapt", args=arguments, description=DESCRIPTION
    )
    # Only now: help and mistakes need not wait for torch.
    from sabitrain.adapt.run import adapt

    report = adapt(config)
    text = unobeyed(json.dumps(report.json(), ensure_ascii=False, indent=1))
    show(Verbatim(text) if config.json else report, sys.stdout)
    return 0
