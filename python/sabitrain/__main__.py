"""Runs ``python -m sabitrain`` (train), its ``plan``, ``adapt``, ``merge`` and ``selftest``.

Errors become exit codes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sabiprep.errors import Interrupted, SabiprepError, unforeseen
from sabiprep.terminal import accept_any_text, harmless
from sabitrain.command_line import PLAN_DESCRIPTION, parse_command_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    The code is 0 if all went well, 1 if it could not be done, 130 if it was stopped.
    """
    accept_any_text()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["selftest"]:
            from sabitrain.selftest.run import main as selftest

            return selftest(given[1:])
        if given[:1] == ["adapt"]:
            from sabitrain.adapt.command import main as adapt

            return adapt(given[1:])
        if given[:1] == ["merge"]:
            from sabitrain.merging import main as merge

            return merge(given[1:])
        if given[:1] == ["plan"]:
            return _plan(given[1:])
        config = parse_command_line(given)
        # Only now: help and mistakes need not wait for torch.
        from sabitrain.trainer import run_training

        run_training(config)
    except BrokenPipeError:
        # The reader of our output left, as `head` does. What is still buffered must not be written
        # at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SabiprepError as error:
        print(f"sabitrain: {harmless(str(error))}", file=sys.stderr)
        return 130 if isinstance(error, Interrupted) else 1
    except KeyboardInterrupt:
        print("sabitrain: stopped by Ctrl-C before it began", file=sys.stderr)
        return 130
    except Exception as error:
        print(f"sabitrain: {harmless(unforeseen(error))}", file=sys.stderr)
        return 1
    return 0


def _plan(given: Sequence[str]) -> int:
    """Runs ``plan`` and returns its exit code."""
    words = [word for word in given if word != "--suggest"]
    config = parse_command_line(words, "python -m sabitrain plan", Path("run"), PLAN_DESCRIPTION)
    # Only now: help and mistakes need not wait for torch.
    if len(words) < len(given):
        from sabitrain.suggesting import describe_ways

        print(describe_ways(config, partial(print, file=sys.stderr, flush=True)), flush=True)
    else:
        from sabitrain.planning import describe

        print(describe(config), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
