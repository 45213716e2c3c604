"""Fixtures that several test files share: a small corpus with every kind of record, its tokenizer,
its dataset.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import sabiprep
from sabiprep import PackOptions
from support.small_corpus import write_corpus


@pytest.fixture(scope="session", autouse=True)
def heeds_ctrl_c() -> Iterator[None]:
    """A shell's background jobs ignore Ctrl-C, and what they start does too: tests of it need it
    heeded.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE trained on the corpus; its EOS is ``</s>``."""
    folder = tmp_path_factory.mktemp("tokenizer")
    file = folder / "tokenizer.json"
    sabiprep.train_tokenizer(write_corpus(folder / "corpus"), file, 400)
    return file


@pytest.fixture
def corpus(tmp_path: Path, tokenizer_file: Path) -> Path:
    """A corpus of the test's own, tokenizer included."""
    folder = write_corpus(tmp_path / "corpus")
    (folder / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    return folder


@pytest.fixture(scope="session")
def shared_corpus(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Path:
    """The corpus of `packed`, to be read only."""
    folder = write_corpus(tmp_path_factory.mktemp("shared") / "corpus")
    (folder / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    return folder


@pytest.fixture(scope="session")
def packed(shared_corpus: Path) -> sabiprep.PackReport:
    """The report of `shared_corpus` packed; the dataset is in its ``out``, to be read only."""
    return sabiprep.pack(shared_corpus, shared_corpus.parent / "out", PackOptions(threads=2))
