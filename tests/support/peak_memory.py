"""How much memory packing takes, measured in a process that nothing else has made large."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")

PACK = """
import json, sys, sabiprep
sabiprep.pack(*sys.argv[1:3], sabiprep.PackOptions(**json.loads(sys.argv[3])))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


def peak_of(corpus: Path, out: Path, **options: Any) -> int:
    """Packs in a process of its own; the most memory it had, in bytes.

    By the process itself: what the system tells of a child begins with what its parent had when it
    was started.
    """
    command = [sys.executable, "-c", PACK, str(corpus), str(out), json.dumps(options)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 1024
