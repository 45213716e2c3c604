"""The command ``python -m sabitrain``: parses, trains, and turns errors into messages and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sabiprep.errors import Interrupted, SabiprepError
from sabitrain.config import parse_command_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 if all went well, 1 if it could not be done, 130 if it was stopped."""
    try:
        config = parse_command_line(arguments)
        from sabitrain.train import run_training  # only now: help and mistakes need not wait for torch

        run_training(config)
    except SabiprepError as error:
        print(f"sabitrain: {error}", file=sys.stderr)
        return 130 if isinstance(error, Interrupted) else 1
    except KeyboardInterrupt:
        print("sabitrain: stopped by Ctrl-C before it began", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
