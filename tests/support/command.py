"""The command line, run in this process or in one of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from sabiprep import cli


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]

COMMANDS = [
    "init",
    "plan",
    "pack",
    "finish",
    "remix",
    "inspect",
    "verify",
    "explain",
    "export",
    "export-tasks",
    "tokenizer",
]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


def process(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """Starts ``python -m sabiprep`` with its streams piped."""
    command = [sys.executable, "-m", "sabiprep", *(str(argument) for argument in arguments)]
    pipes = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "encoding": "utf-8",
    }
    return subprocess.Popen(command, **{**pipes, **options})  # type: ignore[call-overload, no-any-return]
