"""What a run reads beside its dataset: configuration, checkpoints, tokenizer; each may be no file,
or forged.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from sabiprep.errors import ConfigError, DatasetError, TrainError
from sabitrain.__main__ import main
from sabitrain.checkpoints.checkpoint import load_checkpoint
from sabitrain.checkpoints.trainer_state import FACTS_FILE, read_progress
from sabitrain.config_file import read_toml
from sabitrain.data.tokenizer import open_tokenizer
from sabitrain.trainer import run_training
from support.train.tiny import tiny_config, write_tiny

TINY = [
    "--model.layers=1",
    "--model.width=8",
    "--model.heads=1",
    "--model.mlp-width=8",
    "--model.context=32",
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_tiny(folder / "data", train=12, held_out=0)
    return run_training(
        tiny_config(folder / "data", folder / "run", max_steps=1, answers=0)
    ).checkpoint.resolve()


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"a = " + b"[" * 5_000, b"a = " + b"9" * 10_000, b"\xff", b"a ="]
)
def test_a_configuration_that_is_no_toml(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "train.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="is not TOML") as caught:
        read_toml(file)
    assert caught.value.file == str(file) and caught.value.remedy


def test_a_configuration_that_is_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 1 << 41)
    for name, why in (
        ("fifo", "a FIFO"),
        ("zero", "a device"),
        ("huge", "at most"),
        ("none", "No such file"),
    ):
        with pytest.raises(ConfigError, match=why):
            read_toml(tmp_path / name)
    assert main(["--config", str(tmp_path / "fifo"), "--data", "x", "--run", "y"]) == 1
    assert "a FIFO, where a regular file should be" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["trainer.json", "trainer.safetensors", "model.safetensors"])
def test_a_checkpoint_of_no_plain_files(checkpoint: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))
    assert read_progress(folder).step == 1
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(TrainError, match="a FIFO") as caught:
        read_progress(folder)
    assert caught.value.file == str(folder / name)
    if name == "model.safetensors":
        with pytest.raises(TrainError, match="a FIFO"):
            load_checkpoint(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"version": None},
        {"files": []},
        {"step": -1},
        {"seconds": "1"},
        {"plan": {"steps": 0}},
        {"optimizers": {}},
    ],
)
def test_a_forged_trainer_json_is_a_damaged_checkpoint(
    checkpoint: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))
    facts = {**json.loads((folder / FACTS_FILE).read_bytes()), **change}
    facts.pop("sha256")
    facts["sha256"] = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    (folder / FACTS_FILE).write_text(json.dumps(facts))
    with pytest.raises(TrainError, match=r"cannot be right|of version None"):
        read_progress(folder)
    (folder / FACTS_FILE).write_text("[" * 100_000)
    with pytest.raises(TrainError, match="not the JSON that was written"):
        read_progress(folder)


def test_a_tokenizer_that_is_another_is_refused_by_its_sum(tmp_path: Path) -> None:
    dataset = write_tiny(tmp_path / "data", train=3, held_out=0)
    file = dataset.tokenizer_path
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(DatasetError, match="its sha256 is not the manifest's"):
        open_tokenizer(dataset)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DatasetError, match="a FIFO") as caught:
        open_tokenizer(dataset)
    assert caught.value.file == str(file) and caught.value.remedy


def test_names_that_are_not_utf8_are_planned_with_and_refused_for_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = os.fsdecode(os.fsencode(tmp_path) + b"/data\xe9")
    write_tiny(tmp_path / "data", train=12, held_out=0).path.rename(data)
    assert main(["plan", "--data", data, *TINY]) == 0
    # A long path ends its line.
    assert r"data\udce9: " in " ".join(capsys.readouterr().out.split())
    assert main(["--data", data, "--run", str(tmp_path / "run"), "--device=cpu", *TINY]) == 1
    err = capsys.readouterr().err
    assert (
        r"data\xe9" in err
        and "is not UTF-8" in err
        and "Remedy: give the folder another name" in err
    )
    assert not (tmp_path / "run").exists()


def test_an_exception_nobody_foresaw_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(config: object) -> None:
        raise RuntimeError("no one foresaw this")

    monkeypatch.setattr("sabitrain.planning.describe", fails)
    assert main(["plan", "--data", "x"]) == 1
    err = capsys.readouterr().err
    assert (
        err.startswith("sabitrain: RuntimeError: no one foresaw this (line ")
        and "Remedy: this is a bug" in err
    )
