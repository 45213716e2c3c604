"""Terminals that keep all that they are sent."""

from __future__ import annotations

import io

from rich.console import Console

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
# What tells rich what it is shown on, whatever that is.
SWITCHES = ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


def terminal(width: int = 120) -> Console:
    """A terminal that keeps what it is sent."""
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        force_interactive=True,
        color_system=None,
        legacy_windows=False,
        record=True,
        width=width,
        height=40,
        soft_wrap=True,
    )


def sent(console: Console) -> str:
    """All that went to a console."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
