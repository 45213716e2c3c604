"""Mixing: the copies of each source are the oracle's, and so the shares are those asked for."""

from __future__ import annotations

import math
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sabiprep
from sabiprep import ConfigError, PackOptions, PackReport
from support import oracle, packer
from support.strategies import tokenizer_json

number = count()
UNITS = {"examples": "documents", "tokens": "tokens", "targets": "targets"}


def pack(place: Path, sources: list[dict[str, Any]], records: list[int], **mix: Any) -> PackReport:
    """Pack sources of so many records each, of different lengths; a held-out and a repeated record
    beside them.
    """
    folder = place / f"corpus{next(number)}"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    (folder / "held.txt").write_text("record 0 of 0\n", "utf-8")
    for nth, lines in enumerate(records):
        text = "".join(f"record {i} of {nth}" + " o" * (i * nth % 30) + "\n" for i in range(lines))
        (folder / f"{nth}.txt").write_text(text + "record 0 of 1\n", "utf-8")
    described = [
        {
            "name": f"source{nth}",
            "files": [f"{nth}.txt"],
            "validation_files": ["held.txt"] if not nth else [],
            **source,
        }
        for nth, source in enumerate(sources)
    ]
    packer.write_config(
        folder,
        described,
        tokenizer={"file": "tokenizer.json"},
        pack={"seq_len": 64, "duplicates": "normalised"},
        tables={"mix": mix} if mix else {},
    )
    return sabiprep.pack(folder, folder / ".." / f"{folder.name}.out", PackOptions(threads=2))


@settings(
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_epochs_are_the_oracles(tmp_path: Path, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 4))
    names = st.sampled_from(["x", "y"])
    weighted = data.draw(st.booleans())
    sources: list[dict[str, Any]] = [
        {"task": data.draw(names), "lang": data.draw(names)} for _ in range(n)
    ]
    for source in sources[1:]:
        if data.draw(st.integers(0, 3)) == 0:
            source["epochs"] = data.draw(st.sampled_from([0.5, 3.0]))
    for source in sources:
        if weighted and "epochs" not in source:
            source["weight"] = data.draw(st.sampled_from([0.5, 1.0, 3.0]))
    by, unit = (
        data.draw(st.sampled_from(["task", "lang", "source"])),
        data.draw(st.sampled_from(sorted(UNITS))),
    )
    temperature = data.draw(st.sampled_from([1.0, 1.5, 5.0, 0.7]))
    limit = data.draw(st.sampled_from([None, 1.25, 4.0, 0.5]))
    options = {"by": by, "unit": unit, "temperature": temperature} | (
        {} if limit is None else {"max_epochs": limit}
    )
    report = pack(tmp_path, sources, [data.draw(st.integers(2, 60)) for _ in range(n)], **options)
    assert sabiprep.verify(report.out).ok

    mixed = [
        source for source, said in zip(report.sources, sources, strict=True) if "epochs" not in said
    ]
    key = {"source": "name"}.get(by, by)
    expected = oracle.mix(
        [
            oracle.Mixed(
                getattr(source, key),
                getattr(source.unique, UNITS[unit]),
                sources[nth].get("weight"),
            )
            for nth, source in enumerate(report.sources)
            if source in mixed
        ],
        temperature,
        math.inf if limit is None else limit,
    )
    for source, (asked, made) in zip(mixed, expected, strict=True):
        assert source.asked_epochs == pytest.approx(asked, abs=1e-6)
        assert source.epochs == pytest.approx(made, abs=1e-6)
    for source, said in zip(report.sources, sources, strict=True):
        if "epochs" in said:
            assert source.epochs == source.asked_epochs == said["epochs"]
        assert (
            source.records
            == source.unique.documents
            + source.validation.documents
            + source.dropped
            - source.drops.get("not sampled", 0)
        )


def test_shares_are_met_in_the_unit_asked_for(tmp_path: Path) -> None:
    """Equal weights: half of the trained tokens each, whatever the sizes; the other units come as
    they come.
    """
    report = pack(tmp_path, [{"weight": 1}, {"weight": 1}], [900, 300], unit="targets", by="source")
    for source in report.sources:
        asked, made = report.asked_shares([source]), report.made_shares([source])
        assert asked.targets == pytest.approx(0.5, abs=1e-6)
        assert made.targets == pytest.approx(0.5, abs=0.02)
        assert made.documents == pytest.approx(asked.documents, abs=0.02)
        assert made.tokens == pytest.approx(asked.tokens, abs=0.02)
    assert abs(report.asked_shares(report.sources[:1]).documents - 0.5) > 0.1
    total = sum(source.unique.targets for source in report.sources)
    assert report.train.targets == pytest.approx(total, rel=0.03)


def test_the_report_tells_copies_and_shares_and_warns_above_four(tmp_path: Path) -> None:
    report = pack(tmp_path, [{"weight": 1, "task": "t"}, {"weight": 9, "lang": "yor"}], [600, 40])
    table = str(report)
    [line] = [
        line
        for line in table.splitlines()
        if line.split()[:2] == ["source1", f"{report.sources[1].epochs:.4g}"]
    ]
    asked, made = report.asked_shares(report.sources[1:]), report.made_shares(report.sources[1:])
    for unit in UNITS.values():
        assert f"{getattr(asked, unit):.1%} → {getattr(made, unit):.1%}" in line
    assert report.sources[1].epochs > 4 > report.sources[0].epochs
    [warning] = report.warnings
    assert warning.startswith("source1: ") and f"Warning: {warning}" in table
    held_back = pack(tmp_path, [{"weight": 1}, {"weight": 9}], [600, 40], max_epochs=4)
    assert (
        held_back.warnings == ()
        and held_back.sources[1].asked_epochs > held_back.sources[1].epochs == 4.0
    )
    assert f"{held_back.sources[1].asked_epochs:.4g} → 4" in str(held_back)
    plain = pack(tmp_path, [{}, {}], [3, 3])
    assert plain.mix_by is None and "of documents" not in str(plain)


@pytest.mark.parametrize(
    ("sources", "mix", "message"),
    [
        ([{"weight": 1}, {"weight": 1e6}], {}, "repeats it .* at most 255 copies"),
        ([{"weight": 1}, {}], {}, "source1.*has no `weight`"),
        ([{"weight": 1, "epochs": 2.0}], {}, "has `epochs` and a `weight`"),
        ([{"epochs": 2.0}], {"by": "task"}, "every source has `epochs`"),
        ([{}], {"temperature": 0}, "temperature = 0"),
        ([{}], {"unit": "words"}, '`unit` under .mix. cannot be "words"'),
    ],
)
def test_what_cannot_be_mixed_is_refused(
    tmp_path: Path, sources: list[dict[str, Any]], mix: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}.*Remedy"):
        pack(tmp_path, sources, [2000, 2][: len(sources)], **mix)
