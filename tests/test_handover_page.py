"""Every example of docs/handover.md, run in order in one folder."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import sabiprep
from sabiprep import cli

PAGE = (Path(__file__).parents[1] / "docs" / "handover.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PROGRAMS = [code for language, code in BLOCKS if language == "python"]


@pytest.fixture(scope="module")
def folder(packed: sabiprep.PackReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``out/``, and what the commands of the page make of it."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(packed.out, folder / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        commands = [
            line for language, code in BLOCKS if language == "sh" for line in code.split("\n")
        ]
        for command in filter(None, commands):
            words = shlex.split(command, comments=True)
            assert words[0] == "sabiprep" and cli.main(words[1:]) == 0, command
    return folder


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_programs_run(folder: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in re.findall(r"^(?:import|from) (\w+)", PROGRAMS[number], re.MULTILINE):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    (folder / f"program_{number}.py").write_text(PROGRAMS[number], "utf-8")
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(folder / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path(sabiprep.__file__).parents[1]))
    ran = subprocess.run(
        [sys.executable, f"program_{number}.py"], cwd=folder, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr[-4000:]


def test_configurations_name_folders_that_are_there(folder: Path) -> None:
    named = [
        path
        for language, code in BLOCKS
        if language == "yaml"
        for path in re.findall(r"(?:path|tokenized_path): (\S+/)$", code, re.MULTILINE)
    ]
    assert named == ["axolotl/", "axolotl/", "llamafactory/"]
    for path in named:
        for split in ("train", "validation"):
            assert (folder / path / split / "state.json").is_file()


def test_every_form_is_shown() -> None:
    from sabiprep.handover.exporting import FORMS

    for name in FORMS:
        assert f"--to {name}\n" in PAGE and f"`{name}`" in PAGE
