"""`sabiprep.Encoder`: the ids of the `tokenizers` library, as Arrow, and which engine made them."""

from __future__ import annotations

import _thread
import json
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

import sabiprep

TEXTS = [
    "",
    "Ẹ kú àárọ̀, ọ̀rẹ́ mi!  How are you?\n\n",
    "e\u0301ko\u0323\u0301 we're IT'S 12345",
    "</s> <yor>  x</s>",
    "👩\u200d👧 中文 \t",
    "a" * 1000,
]
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def trained(file: Path, pattern: str = PATTERN) -> Tokenizer:
    """A small byte-level BPE, written to a file."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken("</s>", special=True), AddedToken("<yor>", lstrip=True)],
    )
    tokenizer.train_from_iterator(TEXTS * 5, trainer)
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class Unlike(list[str]):
    """A list that holds other strings than it gives."""

    def __init__(self, held: list[str], given: list[str]) -> None:
        super().__init__(held)
        self.given = given

    def __iter__(self) -> Iterator[str]:
        return iter(self.given)


def library(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [
        encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    ]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("pattern", [PATTERN, r"\w+|\W"])
def test_ids_are_those_of_the_library(tmp_path: Path, pattern: str, threads: int) -> None:
    tokenizer = trained(tmp_path / "tokenizer.json", pattern)
    encoder = sabiprep.Encoder.from_file(tmp_path / "tokenizer.json")
    texts = TEXTS * 200
    expected = library(tokenizer, texts)
    kinds = [pa.string(), pa.large_string(), pa.string_view()]
    chunked = pa.chunked_array([texts[:7], texts[7:]])
    for given in [
        texts,
        Unlike(["not", "these"], texts),
        tuple(texts),
        chunked,
        *(pa.array(texts, kind) for kind in kinds),
        pa.array(["x", *texts])[1:],
    ]:
        ids = encoder.encode(given, threads=threads)
        assert ids.type.value_type == pa.uint32()
        assert ids.to_pylist() == expected
    assert encoder.encode([]).to_pylist() == []


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_texts_of_many_shares_keep_their_order(tmp_path: Path, threads: int) -> None:
    tokenizer = trained(tmp_path / "tokenizer.json")
    encoder = sabiprep.Encoder.from_file(tmp_path / "tokenizer.json")
    texts = [f"{nth} kú " * (nth * 37 % 400) for nth in range(1200)] + ["ọ̀rẹ́ " * 90_000, "", "end"]
    assert sum(map(len, texts)) > 16 << 17, "a thread takes an eighth of a MiB at once"
    expected = library(tokenizer, texts)
    assert encoder.encode(texts, threads=threads).to_pylist() == expected
    assert encoder.encode(pa.array(texts), threads=threads).to_pylist() == expected
    with pytest.raises(TypeError, match=f"text {len(texts)} of the list is int"):
        encoder.encode([*texts, 3], threads=threads)  # type: ignore[list-item]
    # Texts that the engine cannot take as they lie, among others that it can.
    mixed = [*texts[:400], "an end</s> and e\u0301", *texts[400:]]
    assert encoder.encode(mixed, threads=threads).to_pylist() == library(tokenizer, mixed)


def test_ctrl_c_stops_encoding(tmp_path: Path) -> None:
    trained(tmp_path / "tokenizer.json")
    encoder = sabiprep.Encoder.from_file(tmp_path / "tokenizer.json")
    texts = ["a word " * 30_000] * 2_000  # 400 MB to encode, 0.2 MB in memory
    timer = threading.Timer(0.2, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        encoder.encode(texts, threads=2)
    timer.join()
    assert len(encoder.encode(texts[:2])) == 2


@pytest.mark.parametrize("grows", [False, True])
def test_a_list_that_changes_size_is_refused(tmp_path: Path, grows: bool) -> None:
    trained(tmp_path / "tokenizer.json")
    encoder = sabiprep.Encoder.from_file(tmp_path / "tokenizer.json")
    texts = ["a word " * 30_000] * 2_000  # 400 MB to encode, some tenths of a second
    done = threading.Event()

    def change() -> None:
        while not done.wait(0.01):
            texts.append("more") if grows else texts.pop()

    other = threading.Thread(target=change)
    other.start()
    with pytest.raises(RuntimeError, match="the list changed size while it was encoded"):
        encoder.encode(texts, threads=2)
    done.set()
    other.join()
    assert len(encoder.encode(texts[:2])) == 2


def test_the_engine_is_named_and_why(tmp_path: Path) -> None:
    trained(tmp_path / "known.json")
    trained(tmp_path / "unknown.json", r"\w+|\W")
    known = sabiprep.Encoder.from_file(tmp_path / "known.json").engine
    assert known.startswith("sabiprep ")
    assert "tokenizers 0.23" in known
    unknown = sabiprep.Encoder.from_file(tmp_path / "unknown.json").engine
    assert unknown.startswith("tokenizers 0.23")
    assert unknown.endswith("(its split pattern is not one of those known)")


def test_what_is_no_list_of_texts_is_refused(tmp_path: Path) -> None:
    trained(tmp_path / "tokenizer.json")
    encoder = sabiprep.Encoder.from_file(tmp_path / "tokenizer.json")
    wrong: list[tuple[Any, type[Exception], str]] = [
        ("text", TypeError, "one str"),
        (["a", 3], TypeError, "text 1 of the list is int, not str"),
        (["a", None], TypeError, "text 1 of the list is NoneType, not str"),
        (
            ["a", "b", "c\ud800"],
            ValueError,
            "text 2 of the list is not valid Unicode.*surrogates not allowed",
        ),
        (pa.array([1, 2]), TypeError, "not strings"),
        (pa.array(["a", None]), ValueError, "1 of the texts are null"),
    ]
    for given, error, words in wrong:
        with pytest.raises(error, match=words):
            encoder.encode(given)
    for threads in (0, 4097, "2"):
        with pytest.raises(sabiprep.ConfigError, match="threads"):
            encoder.encode(["a"], threads=threads)  # type: ignore[arg-type]


def test_a_file_that_is_no_tokenizer_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    for text in ("{", "{}", json.dumps({"model": {"type": "BPE"}})):
        file.write_text(text)
        with pytest.raises(sabiprep.TokenizerError, match=r"tokenizer\.json"):
            sabiprep.Encoder.from_file(file)
    with pytest.raises(sabiprep.TokenizerError, match="no such file"):
        sabiprep.Encoder.from_file(tmp_path / "none.json")


def test_an_engine_that_differs_is_reported(tmp_path: Path) -> None:
    class Differing:
        def __init__(self, file: object) -> None:
            self.warning = "the fast engine differs"

    trained(tmp_path / "tokenizer.json")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr("sabiprep._core.TextEncoder", Differing)
        with pytest.warns(RuntimeWarning, match="differs"):
            sabiprep.Encoder.from_file(tmp_path / "tokenizer.json")
