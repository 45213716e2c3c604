"""Errors that are Python's own too: a missing file, an existing one, a folder where a file is
wanted.
"""

from __future__ import annotations

import copy
import errno
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import (
    ConfigError,
    DatasetError,
    InputError,
    OutputError,
    PackOptions,
    PackReport,
    SabiprepError,
    TokenizerError,
)
from sabiprep.errors import TrainError


def no_corpus(corpus: Path, out: Path) -> None:
    sabiprep.pack(corpus / "none", out)


def corpus_is_a_file(corpus: Path, out: Path) -> None:
    sabiprep.pack(corpus / "corpus.toml", out)


def no_corpus_toml(corpus: Path, out: Path) -> None:
    (corpus / "corpus.toml").unlink()
    # Whose fields are known packs without it.
    for file in [*corpus.glob("*.jsonl"), *corpus.glob("*.tsv"), *corpus.glob("*.txt")]:
        file.unlink()
    sabiprep.pack(corpus, out)


def no_tokenizer(corpus: Path, out: Path) -> None:
    (corpus / "tokenizer.json").unlink()
    sabiprep.pack(corpus, out)


def tokenizer_is_a_folder(corpus: Path, out: Path) -> None:
    (corpus / "base" / "tokenizer.json").mkdir(parents=True)
    sabiprep.pack(corpus, out, PackOptions(tokenizer=corpus / "base"))


def no_tokenizer_to_encode_with(corpus: Path, out: Path) -> None:
    sabiprep.Encoder.from_file(corpus / "none.json")


def no_input(corpus: Path, out: Path) -> None:
    (corpus / "sums.jsonl").unlink()
    sabiprep.pack(corpus, out)


def no_input_matches(corpus: Path, out: Path) -> None:
    config = corpus / "corpus.toml"
    config.write_text(config.read_text("utf-8").replace("sums.jsonl", "none*.jsonl"), "utf-8")
    sabiprep.pack(corpus, out)


def input_is_a_folder(corpus: Path, out: Path) -> None:
    (corpus / "sums.jsonl").unlink()
    (corpus / "sums.jsonl").mkdir()
    sabiprep.pack(corpus, out)


def out_holds_a_dataset(corpus: Path, out: Path) -> None:
    sabiprep.pack(corpus, out)
    sabiprep.pack(corpus, out)


def out_holds_other_files(corpus: Path, out: Path) -> None:
    out.mkdir()
    (out / "notes.txt").write_text("mine", "utf-8")
    sabiprep.pack(corpus, out)


def out_is_a_file(corpus: Path, out: Path) -> None:
    out.write_text("mine", "utf-8")
    sabiprep.pack(corpus, out)


def trained_tokenizer_exists(corpus: Path, out: Path) -> None:
    sabiprep.train_tokenizer(corpus, corpus / "tokenizer.json", 300)


def no_dataset_to_open(corpus: Path, out: Path) -> None:
    sabiprep.open_dataset(out)


def no_manifest_to_open(corpus: Path, out: Path) -> None:
    out.mkdir()
    sabiprep.open_dataset(out)


def dataset_is_a_file(corpus: Path, out: Path) -> None:
    sabiprep.open_dataset(corpus / "corpus.toml")


def manifest_is_a_folder(corpus: Path, out: Path) -> None:
    (out / "manifest.json").mkdir(parents=True)
    sabiprep.open_dataset(out)


def no_dataset_to_verify(corpus: Path, out: Path) -> None:
    sabiprep.verify(out)


def no_dataset_to_remix(corpus: Path, out: Path) -> None:
    sabiprep.remix(corpus.parent / "none", out)


@pytest.mark.parametrize(
    ("fail", "ours", "python", "number"),
    [
        (no_corpus, ConfigError, FileNotFoundError, errno.ENOENT),
        (corpus_is_a_file, ConfigError, NotADirectoryError, errno.ENOTDIR),
        (no_corpus_toml, InputError, FileNotFoundError, errno.ENOENT),
        (no_tokenizer, TokenizerError, FileNotFoundError, errno.ENOENT),
        (tokenizer_is_a_folder, TokenizerError, IsADirectoryError, errno.EISDIR),
        (no_tokenizer_to_encode_with, TokenizerError, FileNotFoundError, errno.ENOENT),
        (no_input, InputError, FileNotFoundError, errno.ENOENT),
        (no_input_matches, InputError, FileNotFoundError, errno.ENOENT),
        (input_is_a_folder, InputError, IsADirectoryError, errno.EISDIR),
        (out_holds_a_dataset, OutputError, FileExistsError, errno.EEXIST),
        (out_holds_other_files, OutputError, FileExistsError, errno.EEXIST),
        (out_is_a_file, OutputError, NotADirectoryError, errno.ENOTDIR),
        (trained_tokenizer_exists, OutputError, FileExistsError, errno.EEXIST),
        (no_dataset_to_open, DatasetError, FileNotFoundError, errno.ENOENT),
        (no_manifest_to_open, DatasetError, FileNotFoundError, errno.ENOENT),
        (dataset_is_a_file, DatasetError, NotADirectoryError, errno.ENOTDIR),
        (manifest_is_a_folder, DatasetError, IsADirectoryError, errno.EISDIR),
        (no_dataset_to_verify, DatasetError, FileNotFoundError, errno.ENOENT),
        (no_dataset_to_remix, DatasetError, FileNotFoundError, errno.ENOENT),
    ],
)
def test_a_failure_of_the_file_system_is_an_error_of_ours_and_of_python(
    corpus: Path,
    tmp_path: Path,
    fail: Callable[[Path, Path], None],
    ours: type[SabiprepError],
    python: type[OSError],
    number: int,
) -> None:
    with pytest.raises(python) as caught:
        fail(corpus, tmp_path / "out")
    error = caught.value
    assert isinstance(error, ours) and error.errno == number
    assert error.file and error.remedy and error.filename == error.file
    assert type(error).__name__ == ours.__name__
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error)
    assert vars(again) == vars(error) and again.errno == number


def test_a_missing_shard_is_a_missing_file(packed: PackReport, tmp_path: Path) -> None:
    out = shutil.copytree(packed.out, tmp_path / "out")
    (out / "train" / "shard-00000.arrow").unlink()
    with pytest.raises(FileNotFoundError) as caught, sabiprep.open_dataset(out) as dataset:
        dataset.check()
    assert isinstance(caught.value, DatasetError)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_a_refused_permission_is_a_permission_error(corpus: Path, tmp_path: Path) -> None:
    (corpus / "sums.jsonl").chmod(0)
    with pytest.raises(PermissionError) as caught:
        sabiprep.pack(corpus, tmp_path / "out")
    assert isinstance(caught.value, InputError) and caught.value.errno == errno.EACCES


def test_the_error_of_a_refused_permission_is_both() -> None:
    """Without the file system: root is refused nothing."""
    for cls in (ConfigError, InputError, TokenizerError, DatasetError, OutputError, TrainError):
        error = cls("permission denied", file="a.jsonl", errno=errno.EACCES)
        assert isinstance(error, PermissionError) and isinstance(error, cls)
        assert str(error) == "a.jsonl: permission denied"


def test_an_error_of_another_kind_is_none_of_the_system() -> None:
    for error in (InputError("wrong", line=3), InputError("wrong", errno=errno.EIO)):
        assert not isinstance(error, OSError) and error.errno is None
        assert type(pickle.loads(pickle.dumps(error))) is InputError
        assert vars(copy.deepcopy(error)) == vars(error)


@pytest.mark.parametrize("call", ["pack", "remix"])
def test_an_empty_name_of_the_dataset_never_means_the_working_folder(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    folder = tmp_path / "mine"
    (folder / "train").mkdir(parents=True)
    for name in ("train/mine.txt", "manifest.json", "tokenizer.json"):
        (folder / name).write_text("mine")
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match="out is an empty path"):
        getattr(sabiprep, call)(corpus, "")
    from sabiprep import _core

    # The core refuses it by itself, whoever calls it.
    options = replace(PackOptions(), threads=1)
    with pytest.raises(OutputError, match="empty name"):
        _core.pack(corpus, "", options, None)
    assert {path.read_text() for path in folder.rglob("*.*") if path.is_file()} == {"mine"}
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        "tokenizer.json",
        "train",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokenizer": 5},
        {"tokenizer": b"tokenizer.json"},
        {"tokenizer": ""},
        {"reuse": 3},
        {"overwrite": "yes"},
        {"resume": None},
        {"keep_spool": 1},
    ],
)
def test_an_option_of_a_wrong_type_is_named_with_its_value(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=rf"^{name} is .*\nRemedy: give"):
        PackOptions(**wrong)


def test_options_that_are_none_are_refused_by_name(corpus: Path, tmp_path: Path) -> None:
    for options in ({"threads": 1}, "x"):
        with pytest.raises(ConfigError, match=r"options are .*\nRemedy: .*PackOptions"):
            sabiprep.pack(corpus, tmp_path / "out", options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="remix names the dataset"):
        sabiprep.remix(tmp_path, tmp_path / "out", PackOptions(reuse=tmp_path))


def test_a_stopped_run_is_to_go_on_not_to_begin_again(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(DatasetError, match="--resume"):
        sabiprep.open_dataset(tmp_path / "out")


def test_another_corpus_is_told_in_short(corpus: Path, packed: PackReport, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(corpus, other)
    text = (other / "corpus.toml").read_text("utf-8")
    more = "".join(
        f'\n[[source]]\nname = "more{nth}"\nfiles = ["{next(other.glob("*.jsonl")).name}"]\n'
        "segments = [{ target = 'x{{ a }}' }]\n"
        for nth in range(40)
    )
    (other / "corpus.toml").write_text(text + more, "utf-8")
    with pytest.raises(InputError, match="the configuration was changed: source was") as caught:
        sabiprep.verify(packed.out, against=other)
    assert len(str(caught.value)) < 1000
