"""Spools kept, resumed and mixed again: bytes as packed afresh, and what no longer fits is named or
made again.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import DatasetError, InputError, OutputError, PackOptions
from support.files import edit, files_of, reseal
from support.varied_corpus import corpus as corpus  # the fixture

SPLIT_BYTES = 4000


def keep(corpus: Path, out: Path, **options: Any) -> sabiprep.PackReport:
    """Pack and keep the spool; everything in files."""
    return sabiprep.pack(
        corpus, out, PackOptions(keep_spool=True, split_bytes=SPLIT_BYTES, **options)
    )


def dataset_files(out: Path) -> dict[str, bytes]:
    """The files of a dataset, without a kept spool."""
    return {name: data for name, data in files_of(out).items() if not name.startswith(".work")}


def test_a_kept_spool_changes_no_byte(corpus: Path, tmp_path: Path) -> None:
    keep(corpus, tmp_path / "kept", threads=2)
    sabiprep.pack(corpus, tmp_path / "plain")
    assert dataset_files(tmp_path / "kept") == files_of(tmp_path / "plain")
    assert sabiprep.verify(tmp_path / "kept").ok


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("epochs = 2.5", "epochs = 0.7", "all"),
        ("validation = 0.1", "validation = 0.3", "all"),
        ("validation = 0.1", "validation = 0.0", "all"),
        ("seq_len = 64", "seq_len = 128", "all"),
        ("seq_len = 64", "seq_len = 512", "all"),
        ('overflow = "drop"', 'overflow = "truncate"', "all"),
        ('duplicates = "normalised"', 'duplicates = "exact"', "all"),
        ('validation_files = ["held.out"]', "validation_files = []", "all"),
        ('by = "source"', 'by = "lang"\nunit = "tokens"', "all"),
        ("seq_len = 64", 'seq_len = 64\npack = "concat"', "all"),
        ("seq_len = 64", 'seq_len = 128\npack = "none"', "all"),
        ("shard_tokens = 4096", "shard_tokens = 1000000", "all"),
        ('prompt = "<translate> {{ a }}', 'prompt = "<translate> {{ a }}!', "some"),
        ("seed = 0", "seed = 1", "none"),
        ("seed = 0", 'seed = 0\ndecontaminate = ["leaks.jsonl"]\ndecontaminate_ngram = 2', "none"),
    ],
)
def test_remix_gives_the_bytes_of_packing_afresh(
    corpus: Path, tmp_path: Path, old: str, new: str, same: str
) -> None:
    config = corpus / "corpus.toml"
    edit(config, "[pack]", "[pack]\nseed = 0")
    keep(corpus, tmp_path / "kept")
    before = files_of(tmp_path / "kept")
    edit(config, old, new)
    mixed = sabiprep.remix(tmp_path / "kept", tmp_path / "mixed", PackOptions(threads=2))
    sabiprep.pack(corpus, tmp_path / "afresh")
    assert files_of(tmp_path / "mixed") == files_of(tmp_path / "afresh")
    assert files_of(tmp_path / "kept") == before
    reused, splits = mixed.reused_splits
    assert {"all": reused == splits, "some": 0 < reused < splits, "none": reused == 0}[same], (
        mixed.reused_splits
    )


def test_what_was_kept_clean_stays_clean(corpus: Path, tmp_path: Path) -> None:
    edit(
        corpus / "corpus.toml",
        "[pack]",
        '[pack]\ndecontaminate = ["leaks.jsonl"]\ndecontaminate_ngram = 2',
    )
    kept = keep(corpus, tmp_path / "kept")
    assert any(source.drops.get("contaminated") for source in kept.sources)
    edit(corpus / "corpus.toml", "epochs = 2.5", "epochs = 0.7")
    mixed = sabiprep.remix(tmp_path / "kept", tmp_path / "mixed")
    assert mixed.reused_splits[0] == mixed.reused_splits[1]
    sabiprep.pack(corpus, tmp_path / "afresh")
    assert files_of(tmp_path / "mixed") == files_of(tmp_path / "afresh")


def test_a_new_source_maps_only_itself(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    splits = keep(corpus, out).reused_splits[1]
    (corpus / "new.jsonl").write_text('{"q": "Ọjọ́", "a": "Ajé"}\n', "utf-8")
    with (corpus / "corpus.toml").open("a", encoding="utf-8") as config:
        config.write(
            '[[source]]\nname = "new"\nfiles = ["new.jsonl"]\n'
            'segments = [{ prompt = "{{ q }}" }, { target = " {{ a }}" }]\n'
        )
    assert keep(corpus, out, overwrite=True).reused_splits == (splits, splits + 1)
    sabiprep.pack(corpus, tmp_path / "afresh")
    assert dataset_files(out) == files_of(tmp_path / "afresh")


def test_remix_finds_the_tokenizer_that_was_given(corpus: Path, tmp_path: Path) -> None:
    tokenizer = (corpus / "tokenizer.json").rename(tmp_path / "elsewhere.json")
    edit(corpus / "corpus.toml", 'file = "tokenizer.json"\n', "")
    keep(corpus, tmp_path / "kept", tokenizer=tokenizer)
    shutil.copytree(corpus, tmp_path / "moved")
    mixed = sabiprep.remix(tmp_path / "kept", tmp_path / "mixed", corpus=tmp_path / "moved")
    assert mixed.reused_splits[0] == mixed.reused_splits[1]
    assert files_of(tmp_path / "mixed") == dataset_files(tmp_path / "kept")


def test_a_spool_kept_again_is_whole(corpus: Path, tmp_path: Path) -> None:
    keep(corpus, tmp_path / "kept")
    sabiprep.remix(tmp_path / "kept", tmp_path / "second", PackOptions(keep_spool=True))
    shutil.rmtree(tmp_path / "kept")
    third = sabiprep.remix(tmp_path / "second", tmp_path / "third")
    assert third.reused_splits[0] == third.reused_splits[1]
    assert files_of(tmp_path / "third") == dataset_files(tmp_path / "second")


def test_a_dataset_without_a_spool_is_not_mixed_again(corpus: Path, tmp_path: Path) -> None:
    sabiprep.pack(corpus, tmp_path / "plain")
    with pytest.raises(DatasetError, match=r"(?s)keeps no spool.*--keep-spool"):
        sabiprep.remix(tmp_path / "plain", tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()


def test_a_damaged_spool_is_named(corpus: Path, tmp_path: Path) -> None:
    keep(corpus, tmp_path / "kept")
    spool = next((tmp_path / "kept" / ".work" / "spool").iterdir())
    spool.write_bytes(spool.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=f"{spool.name}.*no whole spool"):
        sabiprep.remix(tmp_path / "kept", tmp_path / "mixed")


@pytest.fixture
def stopped(corpus: Path, tmp_path: Path) -> Path:
    """A folder whose run stopped in the middle of mapping."""
    out = tmp_path / "out"

    def stop(*counts: object) -> None:
        if any((out / ".work" / "spool").glob("*.map")):
            raise KeyboardInterrupt

    with (corpus / "two.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"ọ̀rọ̀ {i} {i * 7919 % 104729} tí ó yàtọ̀\n" for i in range(60_000))
    with pytest.raises(KeyboardInterrupt):
        sabiprep.pack(
            corpus,
            out,
            PackOptions(threads=1, spool_bytes=0, split_bytes=SPLIT_BYTES),
            progress=stop,
        )
    assert not (out / "manifest.json").exists()
    return out


def test_a_resumed_run_maps_no_finished_split_again(
    corpus: Path, tmp_path: Path, stopped: Path
) -> None:
    done = len(list((stopped / ".work" / "spool").glob("*.map")))
    report = sabiprep.pack(corpus, stopped, PackOptions(resume=True))
    assert report.reused_splits[0] == done > 0
    sabiprep.pack(corpus, tmp_path / "afresh")
    assert files_of(stopped) == files_of(tmp_path / "afresh")
    assert (
        sabiprep.pack(corpus, stopped, PackOptions(resume=True)).train == report.train
    )  # finished: nothing to do


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("pairs.jsonl", '"b": "yes"', '"b": "no"', "the input pairs.jsonl was changed"),
        ("corpus.toml", "epochs = 2.5", "epochs = 2.0", "source.there.epochs was 2.5, it is 2.0"),
        (
            "corpus.toml",
            "validation = 0.1",
            "validation = 0.2",
            "pack.validation was 0.1, it is 0.2",
        ),
        ("tokenizer.json", '"version"', ' "version"', "the tokenizer file was changed"),
    ],
)
def test_resuming_with_a_change_is_refused_and_named(
    corpus: Path, stopped: Path, file: str, old: str, new: str, named: str
) -> None:
    edit(corpus / file, old, new)
    before = files_of(stopped)
    with pytest.raises(OutputError, match=f"(?s)cannot be resumed: .*{named}.*--overwrite"):
        sabiprep.pack(corpus, stopped, PackOptions(resume=True))
    assert files_of(stopped) == before
    assert sabiprep.pack(corpus, stopped, PackOptions(overwrite=True)).train.rows > 0


def test_resuming_with_another_version_is_refused_and_named(corpus: Path, stopped: Path) -> None:
    state = stopped / ".work" / "state.json"
    edit(state, f'"version": "{sabiprep_version()}"', '"version": "0.0.1"')
    reseal(state)
    with pytest.raises(
        OutputError, match=f"the program was sabiprep 0.0.1, it is sabiprep {sabiprep_version()}"
    ):
        sabiprep.pack(corpus, stopped, PackOptions(resume=True))


def sabiprep_version() -> str:
    from sabiprep import _core

    return _core.__version__


def test_an_unfinished_run_is_not_written_over_unasked(corpus: Path, stopped: Path) -> None:
    with pytest.raises(OutputError, match=r"(?s)unfinished run.*--resume.*--overwrite"):
        sabiprep.pack(corpus, stopped)


def test_an_input_written_to_meanwhile_stops_the_run(corpus: Path, tmp_path: Path) -> None:
    written = False

    def write(phase: str, *counts: int) -> None:
        nonlocal written
        if phase == "map" and not written:
            written = True
            with (corpus / "one.txt").open("a") as file:
                file.write("more\n")

    with (corpus / "two.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"ọ̀rọ̀ {i} {i * 7919 % 104729}\n" for i in range(60_000))
    with pytest.raises(InputError, match=r"one.txt: was changed while it was read"):
        sabiprep.pack(corpus, tmp_path / "out", PackOptions(threads=1), progress=write)
    assert written and not (tmp_path / "out").exists()


def test_the_state_names_no_host(corpus: Path, tmp_path: Path) -> None:
    """Only the work folder of a kept spool knows where its corpus was; the dataset does not."""
    keep(corpus, tmp_path / "kept")
    for name, data in dataset_files(tmp_path / "kept").items():
        assert str(tmp_path).encode() not in data, name
    state = json.loads((tmp_path / "kept" / ".work" / "state.json").read_text("utf-8"))
    assert state["corpus"] == str(corpus) and state["stage"] == "kept"
