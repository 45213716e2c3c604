"""Hostile tokenizer files: none hangs, grows without bound or shows a panic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HOSTILE = int(os.environ.get("SABIPREP_HOSTILE_TOKENIZERS", "40"))
MEMORY = 3 << 30
"""Bytes of address space for a process that is given hostile files."""


CHILD = """
import json, resource, sys
from pathlib import Path
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
import sabiprep
from support import packer
from sabiprep.errors import SabiprepError, InternalError
from support.hostile_tokenizers import hostile_file
folder = Path(sys.argv[1])
texts = ["The children are going.", "a" * 30, "a" * 28 + "b b a", "</s> ẹ a", " ", "ﷺ x"]
lines = (json.dumps({"p": t, "t": "a " + t}) + "\\n" for t in texts)
(folder / "a.jsonl").write_text("".join(lines), "utf-8")
segments = [{"prompt": "<translate> {{ p }} <yor>:"}, {"target": " {{ t }}"}]
source = {"name": "a", "files": ["a.jsonl"], "segments": segments}
packer.write_config(folder, [source], pack={"seq_len": 512})
file = folder / "tokenizer.json"
options = sabiprep.PackOptions(tokenizer=file, threads=1, overwrite=True)
counts = {"loaded": 0, "encoded": 0, "packed": 0}
for number in range(int(sys.argv[3]), int(sys.argv[4])):
    print(number, file=sys.stdout, flush=True)
    file.write_bytes(hostile_file(number))
    def attempt(name, work):
        try:
            work()
            counts[name] += 1
        except InternalError:
            raise
        except SabiprepError as error:
            assert str(error)
    def encode():
        encoder = sabiprep.Encoder.from_file(file)
        counts["loaded"] += 1
        encoder.encode(texts, threads=1)
    attempt("encoded", encode)
    attempt("packed", lambda: sabiprep.pack(folder, folder / "out", options))
print(json.dumps(counts))
"""


def test_hostile_files_neither_hang_nor_grow_nor_show_a_panic(tmp_path: Path) -> None:
    """Changed files, in a process of little memory: each loads, or is refused as the tokenizer's
    fault.
    """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        CHILD,
        str(tmp_path),
        str(MEMORY),
        "0",
        str(HOSTILE),
    ]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=600 + HOSTILE, check=False
    )
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, ""), (lines[-1:], done.stderr[-2000:])
    counts = json.loads(lines[-1])
    assert counts["loaded"] > HOSTILE // 8 and counts["packed"] > HOSTILE // 20, counts
