"""Programs that read exports with the tools that they are for, each run in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run_with(*needed: str, program: str, arguments: list[object]) -> str:
    """Runs a program of this folder and returns what it printed; skips where a package is absent.

    Tools warn, patch and set variables at will: this process stays as it is.
    """
    for package in needed:
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: what it reads is not proved here")
    command = [sys.executable, str(HERE / program), *(str(argument) for argument in arguments)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    ran = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **offline}, timeout=600
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    return ran.stdout
