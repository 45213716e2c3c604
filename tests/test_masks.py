"""What is trained, by source: policies, spans of a text, and the weights of documents."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sabiprep
from sabiprep import ConfigError, PackOptions
from sabiprep.dataset import PackedDataset, open_dataset
from sabiprep.inspection import inspect
from sabiprep.torch import RowDataset
from support import oracle, packer
from support.files import files_of
from support.one_source import one_source
from support.strategies import tokenizer_json

TEXT = [{"target": "{{ text }}"}]
TURNS = [
    {"prompt": "<q> {{ a }} <x>"},
    {"target": " {{ b }}"},
    {"prompt": " <q> {{ a }}"},
    {"target": " {{ c }}"},
    {"prompt": " ."},
]
RECORDS = [{"a": f"bẹ́ẹ̀ {n}", "b": f"kò {n * 7}", "c": f"ó dàbọ̀ {n}"} for n in range(30)]


def trained(dataset: PackedDataset) -> list[list[str]]:
    """The trained text of each document by its runs, EOS left out; whole documents alone."""
    decode = decoder()
    found = []
    for split in (dataset.train, dataset.validation):
        for row in split:
            for start, end in zip(row["cu_seqlens"], np.cumsum(row["seq_lengths"]), strict=False):
                runs: list[list[int]] = []
                before = False
                for at in range(start, end):
                    if row["roles"][at] == 0:
                        continue
                    if row["loss_mask"][at]:
                        runs = runs if before else [*runs, []]
                        runs[-1].append(int(row["input_ids"][at]))
                    before = bool(row["loss_mask"][at])
                found.append([decode(run) for run in runs])
    return found


def decoder() -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tokenizer_json("bytes")).decode


@pytest.mark.parametrize("policy", ["target_only", "full", "template_masked", "last_turn"])
@pytest.mark.parametrize("pack", ["best_fit", "concat"])
def test_each_policy_trains_what_it_says_and_verify_agrees(
    tmp_path: Path, policy: str, pack: str
) -> None:
    corpus = corpus_of(tmp_path, RECORDS, segments=TURNS, loss=policy, pack={"pack": pack})
    sabiprep.pack(corpus, tmp_path / "out")
    assert not sabiprep.verify(tmp_path / "out").failures
    dataset = open_dataset(tmp_path / "out")
    documents: dict[int, list[tuple[int, list[int], list[bool]]]] = {}
    for row in dataset.train:
        problems = oracle.check_row(
            row,
            pad_id=dataset.pad_id,
            eos_id=dataset.eos_id,
            policies={0: policy},
            cuts=pack == "concat",
        )
        assert not problems
        start = 0
        for record, part, length in zip(
            row["record_ids"].tolist(), row["doc_parts"].tolist(), row["seq_lengths"], strict=True
        ):
            own = slice(start, start + length)
            roles, mask = row["roles"][own].tolist(), row["loss_mask"][own].tolist()
            documents.setdefault(record, []).append((part & 0xFFFF, roles, mask))
            start += length
    cut = 0
    for pieces in documents.values():
        roles, mask = [], []
        for window, of_roles, of_mask in sorted(pieces):
            # The first token of a piece is the last of the one before, and trained there.
            roles += of_roles[window > 0 :]
            mask += of_mask[window > 0 :]
        assert mask == oracle.loss_mask(roles, policy)
        cut += len(pieces) > 1
    assert (cut > 3) == (pack == "concat")
    assert dataset.manifest["format_version"] == 1


def corpus_of(
    folder: Path,
    records: Sequence[Mapping[str, Any]],
    *,
    pack: Mapping[str, Any] | None = None,
    name: str = "corpus",
    **source: Any,
) -> Path:
    corpus = folder / name
    corpus.mkdir()
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (corpus / "a.jsonl").write_text(lines, "utf-8")
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    packer.write_config(
        corpus,
        [{"name": "a", "files": ["a.jsonl"], **source}],
        tokenizer={"file": "tokenizer.json"},
        pack={"seq_len": 64, "max_bad_fraction": 1.0, **(pack or {})},
    )
    return corpus


# Spans


def slow_trained(text: str, spans: Sequence[Sequence[int]]) -> list[str]:
    """The text in spans, touching ones joined, empty ones left out."""
    joined: list[list[int]] = []
    for start, end in sorted(map(list, spans)):
        if start == end:
            continue
        if joined and joined[-1][1] == start:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    return [text[start:end] for start, end in joined]


@st.composite
def spanned(draw: st.DrawFn) -> dict[str, Any]:
    text = draw(st.text("abẹ́🌍 n", min_size=1, max_size=40))
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)))
    return {"text": text, "s": [list(pair) for pair in zip(cuts[::2], cuts[1::2], strict=False)]}


@settings(deadline=None, max_examples=25)
@given(st.lists(spanned(), min_size=1, max_size=8), st.booleans())
def test_only_the_text_in_spans_is_trained(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]], prompted: bool
) -> None:
    """Against slices of Python's strings, whose positions are code points too."""
    segments = [*([{"prompt": "<t> "}] if prompted else []), *TEXT]
    expected = [slow_trained(record["text"], record["s"]) for record in records]
    kept = [text for text in expected if any(not packer.is_blank(run) for run in text)]
    # A record by which the run does not stop where all others are dropped.
    records = [*records, {"text": "one more", "s": [[0, 3]]}]
    folder = tmp_path_factory.mktemp("spans")
    dataset = one_source(folder, records, 512, segments=segments, spans="s")
    # A document's first token is predicted by nothing.
    found = sorted(map(json.dumps, (run for run in trained(dataset))))
    if prompted:
        assert found == sorted(map(json.dumps, [*kept, ["one"]]))
    [source] = dataset.manifest["sources"]
    assert source["kept"] == len(kept) + 1 and source["spans"] == "s"
    assert source["drops"] == (
        {"empty target": len(expected) - len(kept)} if len(kept) < len(expected) else {}
    )
    assert not packer.verify(dataset.path)["failures"]


def test_bad_spans_are_dropped_by_what_is_wrong(tmp_path: Path) -> None:
    bad = [[[0, 99]], [[3, 1]], [[0, 3], [2, 4]], [["a", 1]], [[0]], {}, 7, None, [[-1, 2]], "x"]
    records = [{"text": "kò sí", "s": spans} for spans in [*bad, [[0, 2]]]]
    dataset = one_source(tmp_path, records, 64, segments=TEXT, spans="s")
    [source] = dataset.manifest["sources"]
    assert source["drops"] == {"malformed": 9, "missing field": 1} and source["kept"] == 1
    lines = (dataset.path / "dropped.jsonl").read_text("utf-8").splitlines()
    whys = [json.loads(line)["why"] for line in lines]
    for why in ("beyond the 5 characters", "ends before it begins", "overlap", "no pair of whole"):
        assert any(why in of for of in whys), why


def test_cleaning_moves_spans_with_their_text(tmp_path: Path) -> None:
    record = {"text": "e\u0323 k\u200bu\u0301 ise\u0323\u0301 o", "s": [[3, 7], [8, 13]]}
    clean = {"invisible": "remove"}
    dataset = one_source(
        tmp_path, [record], 64, segments=[{"prompt": "<t>"}, *TEXT], spans="s", clean=clean
    )
    assert trained(dataset) == [["k\u00fa", "is\u1eb9\u0301"]]
    [source] = dataset.manifest["sources"]
    assert source["cleaned"]["invisible"]["records"] == 1


def test_a_long_text_with_spans_is_split_and_windows_without_spans_are_kept(
    tmp_path: Path,
) -> None:
    text = "abc " * 200
    dataset = one_source(
        tmp_path, [{"text": text, "s": [[4, 7], [700, 790]]}], 64, segments=TEXT, spans="s"
    )
    assert not packer.verify(dataset.path)["failures"]
    [source] = dataset.manifest["sources"]
    assert source["train"]["documents"] > 5 and source["kept"] == 1
    decode = decoder()
    ids = [
        int(token)
        for row in dataset.train
        for token in row["input_ids"][row["loss_mask"] & (row["roles"] != 0)]
    ]
    assert sorted(decode(ids)) == sorted(text[4:7] + text[700:790])


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ({"segments": [{"target": "{{ a }} {{ b }}"}]}, "several fields"),
        ({"segments": [{"target": "{{ a | upper }}"}]}, "more than show a field"),
        ({"segments": [{"target": "{{ a }}"}], "loss": "full"}, "a `loss` that trains other"),
        ({"chat": {"messages": "m", "template": "chatml"}}, "both `spans` and `chat`"),
    ],
)
def test_spans_that_have_no_place_are_an_error(
    tmp_path: Path, source: dict[str, Any], problem: str
) -> None:
    corpus = corpus_of(tmp_path, RECORDS, spans="s", **source)
    with pytest.raises(ConfigError, match=problem) as refused:
        sabiprep.pack(corpus, tmp_path / "out")
    assert refused.value.source == "a" and refused.value.remedy


# Weights

WEIGHTED = [{"text": f"ọ̀rọ̀ {n}", "w": n / 4} for n in range(40)]


def weights_of(dataset: PackedDataset) -> dict[int, float]:
    """The weight of each record, which all of its documents share."""
    found: dict[int, set[float]] = {}
    for split in (dataset.train, dataset.validation):
        for row in split:
            assert not oracle.check_row(row, pad_id=dataset.pad_id, eos_id=dataset.eos_id)
            for record, weight in zip(
                row["record_ids"].tolist(), row["doc_weights"].tolist(), strict=True
            ):
                found.setdefault(record, set()).add(weight)
    assert all(len(of) == 1 for of in found.values())
    return {record: of.pop() for record, of in found.items()}


def test_the_weight_of_a_document_is_that_of_its_field(tmp_path: Path) -> None:
    """In copies and windows too, whatever memory holds and however the file is cut."""
    records = [*WEIGHTED, {"text": "abc " * 100, "w": "0.1"}]
    corpus = corpus_of(tmp_path, records, segments=TEXT, weight="w", epochs=2.5)
    lines = (corpus / "a.jsonl").read_bytes().split(b"\n")
    offsets = np.cumsum([0, *(len(line) + 1 for line in lines)]).tolist()
    expected = {
        offset: float(np.float32(record["w"]))
        for offset, record in zip(offsets, records, strict=False)
    }
    tokenizer = corpus / "tokenizer.json"
    first: dict[str, bytes] | None = None
    for nth, options in enumerate(
        [{}, {"threads": 2, "split_bytes": 100}, {"spool_bytes": 1, "split_bytes": 300}]
    ):
        out = tmp_path / f"out{nth}"
        manifest = packer.pack(corpus, out, tokenizer=tokenizer, **options)
        with open_dataset(out) as dataset:
            assert weights_of(dataset) == expected
        assert manifest["format_version"] == 2
        assert manifest["sources"][0]["loss_weight"] == "w"
        assert not packer.verify(out)["failures"]
        files = files_of(out)
        first = first or files
        assert files == first
    assert not sabiprep.verify(tmp_path / "out0", against=corpus).failures


def test_only_a_source_with_weights_has_them(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, WEIGHTED, segments=TEXT, loss_weight="w")
    with (corpus / "corpus.toml").open("a", encoding="utf-8") as config:
        config.write('[[source]]\nname = "b"\nfiles = ["b.txt"]\n')
    (corpus / "b.txt").write_text("one\ntwo\n", "utf-8")
    sabiprep.pack(corpus, tmp_path / "out")
    row = next(row for row in open_dataset(tmp_path / "out").train if 1 in row["source_ids"])
    assert set(row["doc_weights"][row["source_ids"] == 1].tolist()) == {1.0}


def test_a_weight_that_is_none_is_dropped_and_named(tmp_path: Path) -> None:
    bad = [-1, "x", True, [1], 1e39, 1e-60, "nan", "-0.5", {}, "", None]
    records = [*WEIGHTED, *({"text": "t", "w": weight} for weight in bad), {"text": "t"}]
    dataset = one_source(tmp_path, records, 64, segments=TEXT, weight="w")
    [source] = dataset.manifest["sources"]
    assert source["drops"] == {"malformed": len(bad) - 1, "missing field": 2}
    dropped = (dataset.path / "dropped.jsonl").read_text("utf-8")
    assert "the weight 'w' is -1: not a number of 32 bits, 0 or above" in dropped
    assert any("have the weight 0" in note for note in dataset.manifest["notes"])


def test_a_corpus_without_weights_has_no_column_of_them(tmp_path: Path) -> None:
    dataset = one_source(tmp_path, WEIGHTED, 64, segments=TEXT)
    assert dataset.manifest["format_version"] == 1 and not dataset.weighted
    assert "doc_weights" not in dataset.train[0] and "loss_weights" not in dataset.train[0]
    assert "loss_weights" not in RowDataset(dataset)[0]


def test_a_source_has_a_weight_in_the_mix_and_weights_of_its_documents(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, WEIGHTED, segments=TEXT, weight=2.0, loss_weight="w")
    sabiprep.pack(corpus, tmp_path / "out")
    [source] = open_dataset(tmp_path / "out").manifest["config"]["source"]
    assert (source["weight"], source["loss_weight"]) == (2.0, "w")
    packer.write_config(
        corpus,
        [{"name": "a", "files": ["a.jsonl"], "segments": TEXT, "weight": 2.0}],
        tokenizer={"file": "tokenizer.json"},
        tables={"defaults": {"weight": "w"}},
    )
    sabiprep.pack(corpus, tmp_path / "other")
    [source] = open_dataset(tmp_path / "other").manifest["config"]["source"]
    assert (source["weight"], source["loss_weight"]) == (2.0, "w")


def test_weights_pass_through_remix_and_loader(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, WEIGHTED, segments=TEXT, weight="w")
    sabiprep.pack(corpus, tmp_path / "out", PackOptions(keep_spool=True))
    sabiprep.remix(tmp_path / "out", tmp_path / "longer", PackOptions(seq_len=128))
    sabiprep.pack(corpus, tmp_path / "afresh", PackOptions(seq_len=128))
    longer = files_of(tmp_path / "longer")
    afresh = files_of(tmp_path / "afresh")
    assert {name: longer[name] for name in afresh} == afresh
    rows = RowDataset(tmp_path / "longer")
    row = rows[0]
    assert row["loss_weights"].shape == row["labels"].shape
    assert ((row["loss_weights"] > 0) <= (row["labels"] != -100)).all()
    dataset = open_dataset(tmp_path / "longer")
    shown = str(inspect(dataset))
    weights = dataset.train[0]["doc_weights"].tolist()
    assert all(f" · weight {weight:g} · " in shown for weight in weights)


@pytest.mark.parametrize("to", ["parquet", "jsonl", "webdataset", "trl", "axolotl"])
def test_exports_have_weights_where_the_format_can(tmp_path: Path, to: str) -> None:
    dataset = one_source(tmp_path, WEIGHTED, 64, segments=TEXT, weight="w")
    report = sabiprep.export(dataset.path, tmp_path / "made", to)
    expected = sorted(record["w"] for record in WEIGHTED)
    if to == "parquet":
        import pyarrow.parquet as pq

        tables = [pq.read_table(file) for file in (tmp_path / "made").rglob("*.parquet")]
        found = [weight for table in tables for weight in table["weight"].to_pylist()]
    elif to == "jsonl":
        files = (tmp_path / "made").rglob("*.jsonl")
        lines = [line for file in files for line in file.read_text("utf-8").splitlines()]
        found = [json.loads(line)["weight"] for line in lines]
    elif to == "webdataset":
        import io
        import tarfile

        found = []
        for file in (tmp_path / "made").rglob("*.tar"):
            with tarfile.open(file) as tar:
                for member in tar.getmembers():
                    content = tar.extractfile(member)
                    assert content is not None
                    if member.name.endswith(".json"):
                        documents = json.loads(content.read())["documents"]
                        found += [document["weight"] for document in documents]
                    elif member.name.endswith(".loss_weights.npy"):
                        assert np.load(io.BytesIO(content.read())).dtype == np.float32
    else:
        assert "weights" in str(report) and to in str(report)
        return
    assert math.isclose(sum(found), sum(expected)) and sorted(found) == expected
