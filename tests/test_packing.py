"""What the core packs, read back by the loader, is what the oracle makes of every line of the
corpus.

The corpora are small and adversarial: several sources of several formats, some over one file, with
lines that are no records. `slow_reader` is the slow and obvious reader; the outcome of each record
is worked out from it alone, but for two things that only the seed decides, which are read from the
dataset and checked for what must be true of them: the side a record falls on, and whether a
fraction of an epoch takes it.
"""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

from hypothesis import example, given, settings

from sabiprep.dataset import open_dataset
from sabiprep.errors import InputError
from support import oracle, packer
from support.any_corpus import Corpus, Source, corpora, properties, write_corpus
from support.expected_packing import UNFIT, Expectations, content
from support.one_source import LABEL, one_source
from support.oracle import DATA
from support.packing_check import check, check_rows
from support.slow_reader import File, read
from support.strategies import tokenizer_json

number = count()

MARKED = [File("a.txt", "text", b"one\n\xef\xbb\xbftwo\n\n\xef\xbb\xbf\n\xef\xbb\xbf<translate>")]
PUT_TOGETHER = Source(
    "a",
    MARKED,
    [("target", "{{ text }}")],
    "drop",
    epochs=1.0,
    loss="target_only",
    duplicates="keep",
)
"""Files put together, with the mark that each began with."""


@settings(properties, max_examples=150)
@given(corpora())
@example(Corpus([PUT_TOGETHER], frozenset(), "bytes", False, 64, 0.0, 0, "best_fit"))
def test_a_dataset_holds_what_the_oracle_makes_of_its_corpus(
    tmp_path: Path, corpus: Corpus
) -> None:
    folder = tmp_path / f"corpus{next(number)}"
    out = folder.with_suffix(".out")
    tokenizer = write_corpus(folder, corpus)
    try:
        packer.pack(folder, out, tokenizer=tokenizer, threads=2, split_bytes=97)
    except InputError as error:
        if "none of its records" in str(error):
            [source] = [source for source in corpus.sources if source.name == error.source]
            expected = Expectations(corpus, source)
            reasons = {
                expected.outcome(record).reason
                for file in source.files
                for _, _, record in read(file)
            }
            assert reasons and reasons <= UNFIT
            return
        assert "no training document" in str(error)
        if corpus.validation == 0 and all(source.epochs >= 1 for source in corpus.sources):
            outcomes = [
                (content(outcome.text), file.name in corpus.held_out)
                for source in corpus.sources
                for file in source.files
                for _, _, record in read(file)
                if (outcome := Expectations(corpus, source).outcome(record)).reason is None
            ]
            held_out = {text for text, is_held_out in outcomes if is_held_out}
            assert held_out.issuperset(text for text, _ in outcomes)
        assert not out.exists()
        return
    with open_dataset(out) as dataset:
        check(corpus, dataset)
        check_rows(dataset, corpus.pack)
    assert packer.verify(out)["failures"] == []


def test_what_is_reported_is_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Ọjọ́ Ajé\n", "utf-8")
    packer.write_config(tmp_path, [{"name": "a", "files": ["a.txt"]}])
    (tmp_path / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    manifest = packer.pack(tmp_path, tmp_path / "out", tokenizer=tmp_path / "tokenizer.json")
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))


def test_rows_hold_prompt_data_as_such(tmp_path: Path) -> None:
    """The roles of a row tell template from data, so that they serve any masking strategy."""
    with one_source(tmp_path, [{"a": "x", "b": "y", "c": "z"}], 64, segments=LABEL) as dataset:
        row = dataset.train[0]
    assert DATA in row["roles"] and oracle.TEMPLATE in row["roles"]
