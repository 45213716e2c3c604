"""`max_bad_fraction`: too many unfit records end a run, at its start where the start shows it."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import ConfigError, InputError, PackOptions
from support import packer
from support.strategies import tokenizer_json

PAIR = [{"prompt": "{{ a }}:"}, {"target": " {{ b }}"}]


def write(
    folder: Path,
    records: str,
    *,
    source: dict[str, Any] | None = None,
    file: str = "p.jsonl",
    **pack: Any,
) -> Path:
    """Write a corpus of two sources, the second of which holds `records`."""
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    (corpus / "good.jsonl").write_text(pairs(50, 0), "utf-8")
    content = records.encode()
    (corpus / file).write_bytes(gzip.compress(content) if file.endswith(".gz") else content)
    sources = [
        {"name": "good", "files": ["good.jsonl"], "segments": PAIR},
        {"name": "s", "files": [file], "segments": PAIR, **(source or {})},
    ]
    packer.write_config(
        corpus, sources, tokenizer={"file": "tokenizer.json"}, pack={"seq_len": 64, **pack}
    )
    return corpus


def pairs(count: int, bad: int, *, last: bool = False) -> str:
    """JSON Lines of `count` pairs, the first or the last `bad` of which are none."""
    lines = [json.dumps({"a": f"one {nth}", "b": f"two {nth}"}) for nth in range(count)]
    places = range(count - bad, count) if last else range(bad)
    for nth in places:
        lines[nth] = '{"a": "x"}' if nth % 3 == 0 else "{"
    return "".join(line + "\n" for line in lines)


def refusal(corpus: Path, out: Path, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        sabiprep.pack(corpus, out, PackOptions(**{"threads": 2, **options}))
    assert not out.exists(), "nothing is left of a refused run"
    return caught.value


@pytest.mark.parametrize("last", [False, True])
def test_more_than_one_record_in_twenty_is_too_many_from_a_hundred_records_on(
    tmp_path: Path, last: bool
) -> None:
    error = refusal(write(tmp_path, pairs(2000, 101, last=last)), tmp_path / "out")
    assert error.source == "s" and error.file is not None and "corpus.toml" in error.file
    assert "101 of its" in str(error) and "max_bad_fraction = 0.05" in str(error)
    assert error.remedy is not None and "max_bad_fraction" in error.remedy
    first = 1900 if last else 1
    assert f"p.jsonl:{first}" in error.remedy and "missing field" in error.remedy
    assert "malformed" in error.remedy
    sabiprep.pack(write(tmp_path, pairs(2000, 100, last=last)), tmp_path / "out")
    # Below a hundred records, a few bad ones are no share to go by.
    sabiprep.pack(write(tmp_path, pairs(99, 60, last=last)), tmp_path / "few")


@pytest.mark.parametrize("where", ["source", "pack"])
def test_a_share_that_the_user_writes_holds_for_any_number_of_records(
    tmp_path: Path, where: str
) -> None:
    def corpus(share: float, records: str) -> Path:
        at_source = {"max_bad_fraction": share} if where == "source" else None
        at_pack = {"max_bad_fraction": share} if where == "pack" else {"max_bad_fraction": 0.0}
        return write(tmp_path, records, source=at_source, **at_pack)

    error = refusal(corpus(0.1, pairs(10, 2)), tmp_path / "out")
    assert "2 of its 10 records (20.0 %)" in str(error)
    assert "1 malformed, 1 missing field" in str(error) and "= 0.1 " in str(error)
    sabiprep.pack(corpus(0.2, pairs(10, 2)), tmp_path / "met")
    sabiprep.pack(corpus(1.0, pairs(1000, 999)), tmp_path / "off")
    refusal(corpus(0.0, pairs(1000, 1)), tmp_path / "none")


def test_the_share_is_no_part_of_the_dataset(tmp_path: Path) -> None:
    records = pairs(200, 8)
    sabiprep.pack(write(tmp_path, records), tmp_path / "one")
    sabiprep.pack(write(tmp_path, records, max_bad_fraction=0.5), tmp_path / "two")
    names = ["manifest.json", "dropped.jsonl", "train/shard-00000.arrow"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_drops_by_choice_are_not_bad(tmp_path: Path) -> None:
    records = '{"a": "same", "b": "same"}\n' * 500
    corpus = write(tmp_path, records, duplicates="exact", max_bad_fraction=0.0)
    report = sabiprep.pack(corpus, tmp_path / "out")
    assert report.total.drops == {"duplicate": 499}


@pytest.mark.parametrize("file", ["p.jsonl", "p.jsonl.gz"])
def test_a_source_that_is_mostly_bad_stops_the_run_before_it_is_mapped(
    tmp_path: Path, file: str
) -> None:
    # 40 MB that would take seconds, of which the first thousand records tell enough.
    corpus = write(tmp_path, pairs(1200, 900) + pairs(1000, 0) * 700, file=file)
    phases = []
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        sabiprep.pack(corpus, tmp_path / "out", progress=lambda phase, *_: phases.append(phase))
    took = time.monotonic() - began
    assert "900 of its first 1000 records (90.0 %)" in str(caught.value)
    assert "map" not in phases and not (tmp_path / "out").exists()
    assert took < 5, "about a tenth of a second, on a machine that does nothing else"


def test_bad_records_at_the_start_that_a_large_file_outweighs_are_no_error(tmp_path: Path) -> None:
    corpus = write(tmp_path, pairs(1200, 400) + pairs(10_000, 0))
    report = sabiprep.pack(corpus, tmp_path / "out")
    assert report.sources[1].dropped == 400
    # The same start in a file that it is too much for.
    corpus = write(tmp_path, pairs(1200, 400) + pairs(2000, 0))
    assert "400 of its first 1000 records" in str(refusal(corpus, tmp_path / "small"))


def test_the_error_depends_on_no_thread_or_split(tmp_path: Path) -> None:
    for bad, last in [(1500, False), (300, True)]:
        corpus = write(tmp_path, pairs(3000, bad, last=last))
        errors = {
            str(refusal(corpus, tmp_path / "out", threads=threads, split_bytes=size))
            for threads, size in [(1, None), (4, 1000), (3, 7777)]
        }
        assert len(errors) == 1


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_what_is_no_share_is_refused(tmp_path: Path, share: float) -> None:
    for corpus in (
        write(tmp_path, pairs(5, 0), max_bad_fraction=share),
        write(tmp_path, pairs(5, 0), source={"max_bad_fraction": share}),
    ):
        with pytest.raises(ConfigError, match=r"max_bad_fraction = .*: must be from 0 to 1"):
            sabiprep.pack(corpus, tmp_path / "out")


def test_notes_on_templates_do_not_count_the_first_look(tmp_path: Path) -> None:
    segments = [{"prompt": "<q> {{ a | upper }}{{ '%.2s' | format(a) }}:"}, {"target": " {{ b }}"}]
    corpus = write(tmp_path, pairs(50, 0), source={"segments": segments})
    report = sabiprep.pack(corpus, tmp_path / "out")
    for note in report.template_notes:
        assert "(renders: 50)" in note
