"""Checkpoints of the Hub to start from, served on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.hub import Hub, served
from support.train.families import make_theirs, save_theirs
from support.train.tiny import write_tiny

NAME = "owner/tiny-qwen3"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with served(Hub()) as hub:
        yield hub


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


@pytest.fixture
def files(data, tmp_path) -> dict[str, bytes]:
    tokenizer = (data / "tokenizer.json").read_bytes()
    base = save_theirs(make_theirs("qwen3"), tmp_path / "base", tokenizer)
    held = {path.name: path.read_bytes() for path in base.iterdir()}
    # Weights for other programs, which nothing here reads.
    return held | {"onnx/model.safetensors": b"x", "README.md": b"x", "model.bin": b"x"}


def sabitrain(hub: Hub, tmp_path: Path, *words: object, **env: str) -> subprocess.CompletedProcess:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    settings = {
        "HF_HOME": str(tmp_path / "cache"),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "sabitrain", *map(str, words)],
        env={**kept, **settings, **env},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )
    assert "Traceback" not in done.stderr
    return done


def test_a_run_starts_from_a_model_of_the_hub_and_notes_its_commit(hub, data, files, tmp_path):
    commit = hub.commit(NAME, files, kind="models")
    words = ["--data", data, "--init", f"hf://{NAME}@main", "--max-steps", 1, "--device", "cpu"]
    done = sabitrain(hub, tmp_path, *words, "--run", tmp_path / "run", "--answers", 0)
    assert done.returncode == 0, done.stderr
    start = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert start["init"] == f"hf://{NAME}@{commit}"
    asked = {request for request in hub.requests if "/resolve/" in request}
    assert not any("onnx" in each or "README" in each or ".bin" in each for each in asked)
    hub.requests.clear()
    done = sabitrain(hub, tmp_path, "plan", *words, HF_HOME=str(tmp_path / "another"))
    assert done.returncode == 0, done.stderr
    assert not any(".safetensors" in request for request in hub.requests), "a plan needs none"
    hub.requests.clear()
    words[3] = f"hf://{NAME}@{commit}"
    done = sabitrain(hub, tmp_path, "plan", *words, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert hub.requests == []


@pytest.mark.parametrize(
    ("init", "says"),
    [
        ("hf://owner/nothing", "no such model on the Hub, or it is private"),
        (f"hf://{NAME}@v9", "the model has no revision 'v9'"),
        ("hf://owner/pickled", "as a pickle (pytorch_model.bin), which can run any code"),
        ("hf://datasets/owner/x", "names no model of the Hub"),
        ("hf://tiny", "write hf://OWNER/NAME"),
    ],
)
def test_a_model_that_cannot_be_had_is_refused(hub, data, files, tmp_path, init, says):
    hub.commit(NAME, files, kind="models")
    hub.commit("owner/pickled", {"config.json": b"{}", "pytorch_model.bin": b""}, kind="models")
    done = sabitrain(hub, tmp_path, "plan", "--data", data, "--init", init)
    assert done.returncode == 1 and says in done.stderr and "Remedy: " in done.stderr
    assert not any(request.endswith(".bin") for request in hub.requests)
