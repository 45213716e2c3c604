"""Several documents a record: document tables, conditions, lists taken apart, several templates,
beside a slow oracle, whatever the threads and the splits.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sabiprep
from sabiprep import InputError, PackOptions
from support import oracle, packer
from support.document_corpus import ANSWERS, BACK, HEADLINE, NAMES, TABLES, THERE, many, pack, write
from support.document_texts import by_record, contents, texts_of
from support.explaining import properties
from support.oracle.documents import NOT_CHOSEN, Text, documents_of

WORDS = ["", " ", "a", "ọ̀rọ̀", "one two", "<translate>", "</s>", "'", "\u200b", "0"]
words = st.lists(st.sampled_from(WORDS), max_size=3).map("".join)
answers = st.fixed_dictionaries({"text": words, "score": st.sampled_from([0, 1, None, "", "x"])})
records = st.fixed_dictionaries(
    {
        "text": words.map(lambda text: f"t{text}"),
        "en": words,
        "title": st.one_of(st.none(), words),
        "rating": st.integers(0, 5),
        "answers": st.lists(answers, max_size=4),
    }
)


@settings(parent=properties, max_examples=40)
@given(lines=st.lists(records, min_size=1, max_size=6))
def test_each_table_makes_the_documents_of_the_oracle(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    # One record that every table can use: a source of none is refused.
    whole = {"text": "t", "en": "e", "title": "y", "rating": 5}
    lines = [*lines, {**whole, "answers": [{"text": "z", "score": 1}]}]
    places = write(folder, lines)
    out, manifest = pack(folder)
    found = texts_of(out)
    kept = set()
    for name, table, entry in zip(NAMES, TABLES, manifest["sources"], strict=True):
        expected = {
            place: documents_of(table, line) for place, line in zip(places, lines, strict=True)
        }
        made = {place: made for place, made in expected.items() if not isinstance(made, str)}
        assert by_record(found, name) == made
        assert entry["name"] == name and entry["document_of"] == "news"
        assert entry["records"] == len(lines) and entry["kept"] == len(made)
        drops = Counter(reason for reason in expected.values() if isinstance(reason, str))
        assert entry["drops"] == drops
        assert not oracle.check_accounts(entry)
        assert entry["train"]["documents"] == sum(map(len, made.values()))
        kept |= set(made)
    records = {"source": "news", "records": len(lines), "kept": len(kept)}
    assert manifest["records"] == [{**records, "without": len(lines) - len(kept)}]


def test_a_dataset_of_many_documents_depends_on_no_thread_and_no_split(tmp_path: Path) -> None:
    styles = [[{"prompt": f"{letter} {{{{ text }}}}"}, {"target": " {{ en }}"}] for letter in "AB"]
    tables = [*TABLES, {"task": "style", "templates": styles}]
    write(tmp_path / "c", many(200), tables, validation=0.2, duplicates="normalised")
    first: dict[str, bytes] | None = None
    for threads, split_bytes, spool_bytes in ((1, None, 1 << 30), (3, 700, 1 << 30), (2, 3000, 1)):
        settings = {"threads": threads, "split_bytes": split_bytes, "spool_bytes": spool_bytes}
        out, _ = pack(tmp_path / "c", f"out{threads}", **settings)
        made = contents(out)
        first = made if first is None else first
        assert made == first


def test_all_documents_of_a_record_are_held_out_or_none_is(tmp_path: Path) -> None:
    write(tmp_path / "c", many(300), validation=0.3)
    out, manifest = pack(tmp_path / "c")
    sides = [{place.byte for place in texts_of(out, side)} for side in ("train", "validation")]
    assert not sides[0] & sides[1]
    assert len(sides[1]) > 50 and all(
        entry["validation"]["documents"] for entry in manifest["sources"]
    )
    assert {byte for side in sides for byte in side} == {place.byte for place in texts_of(out)}


def test_copies_are_those_of_the_table(tmp_path: Path) -> None:
    tables = [{**HEADLINE, "epochs": 3}, THERE, {**BACK, "epochs": 1.5}, {**ANSWERS, "epochs": 0.5}]
    write(tmp_path / "c", many(200), tables)
    out, manifest = pack(tmp_path / "c")
    found = texts_of(out)
    copies = {
        name: Counter(p.copy for p in found if p.source == name and not p.part) for name in NAMES
    }
    chosen = sum(isinstance(documents_of(HEADLINE, line), list) for line in many(200))
    assert copies["news/headline"] == {0: chosen, 1: chosen, 2: chosen}
    assert copies["news/2"] == {0: 200}
    assert 60 < copies["news/3"][1] < 140 and copies["news/3"][0] == 200
    entry = manifest["sources"][3]
    assert 0.3 < entry["kept"] / (entry["kept"] + entry["drops"]["not sampled"]) < 0.7
    # A record counts once, however many tables and copies it has.
    assert manifest["records"][0]["kept"] == 200


def test_documents_left_out_of_a_record_are_counted_with_the_first(tmp_path: Path) -> None:
    lines = many(1)
    lines[0]["answers"] = [
        {"text": text, "score": score}
        for text, score in [("a", 1), (" ", 1), ("b", 0), ("c", 2), ("", 3)]
    ]
    write(tmp_path / "c", lines)
    out, manifest = pack(tmp_path / "c")
    assert [text.target for text in by_record(texts_of(out), "news/4")[0]] == [" a", " c"]
    left_out = manifest["sources"][3]["left_out"]
    assert {reason: entry["documents"] for reason, entry in left_out.items()} == {
        "empty target": 2,
        NOT_CHOSEN: 1,
    }
    [example] = left_out["empty target"]["examples"]
    assert (example["file"], example["line"]) == ("news.jsonl", 1)
    assert example["why"] == "element 2: the target's data is empty"
    report = sabiprep.pack(tmp_path / "c", tmp_path / "again", PackOptions(overwrite=True))
    assert report.sources[3].left_out["empty target"].documents == 2
    assert "news/4: empty target: 2, first news.jsonl:1: element 2" in " ".join(str(report).split())
    with pytest.raises(InputError, match="element 2: the target's data is empty"):
        sabiprep.pack(tmp_path / "c", tmp_path / "strict", PackOptions(strict=True))


@pytest.mark.parametrize(("count", "reason"), [(256, None), (257, "too many documents")])
def test_a_record_makes_at_most_256_documents(
    tmp_path: Path, count: int, reason: str | None
) -> None:
    lines = [
        *many(6),
        {**many(6)[5], "answers": [{"text": f"a{k}", "score": 1} for k in range(count)]},
    ]
    places = write(tmp_path / "c", lines)
    out, manifest = pack(tmp_path / "c")
    made = by_record(texts_of(out), "news/4").get(places[-1], [])
    assert len(made) == (0 if reason else 256)
    assert manifest["sources"][3]["drops"].get("too many documents", 0) == (reason is not None)
    if reason:
        why = [e["why"] for e in manifest["sources"][3]["examples"] if e["reason"] == reason]
        assert why == ["the list `answers` has 257 elements, at most 256"]


def test_a_record_takes_one_of_several_templates_by_seed_or_all(tmp_path: Path) -> None:
    templates = [
        [{"prompt": f"{letter} {{{{ text }}}}"}, {"target": " {{ en }}"}] for letter in "ABC"
    ]
    one = {"name": "one", "templates": templates}
    every = {"name": "all", "templates": templates, "choose": "all"}
    write(tmp_path / "c", many(300), [one, every])
    out, _ = pack(tmp_path / "c")
    found = texts_of(out)
    chosen = {byte: texts for byte, texts in by_record(found, "news/one").items()}
    assert all(len(texts) == 1 for texts in chosen.values())
    counts = Counter(texts[0].prompt[0] for texts in chosen.values())
    assert sorted(counts) == ["A", "B", "C"] and min(counts.values()) > 70
    for byte, texts in by_record(found, "news/all").items():
        assert [text.prompt[0] for text in texts] == ["A", "B", "C"]
        assert chosen[byte][0] in texts
    # Another seed makes another choice; other tables beside it make none.
    write(tmp_path / "c", many(300), [HEADLINE, {**one, "epochs": 2}])
    again, _ = pack(tmp_path / "c", "beside")
    assert by_record(texts_of(again), "news/one") == chosen
    other, _ = pack(tmp_path / "c", "seed", seed=7)
    assert by_record(texts_of(other), "news/one") != chosen


def test_a_document_too_long_is_shortened_and_what_was_left_out_stays_out(tmp_path: Path) -> None:
    table = {**ANSWERS, "filter": {"min_chars": 3, "of": "target"}}
    line = {"text": "word " * 300, "answers": [{"text": t, "score": 1} for t in ("long one", "b")]}
    write(tmp_path / "c", [line], [table], seq_len=128)
    out, manifest = pack(tmp_path / "c")
    [[text]] = by_record(texts_of(out), "news/1").values()
    assert text.target == " long one" and text.prompt.startswith("word word")
    assert manifest["sources"][0]["truncated"] == 1
    assert manifest["sources"][0]["left_out"]["filtered"]["documents"] == 1


def test_elements_are_cleaned_and_shortened_where_they_lie(tmp_path: Path) -> None:
    table = {
        "each": "data.parts",
        "clean": {"invisible": "remove"},
        "segments": [{"prompt": "{{ item.q }} <qa>"}, {"target": " {{ item.a }}"}],
    }
    parts = [{"q": "a\u200bb " * 200, "a": "one"}, {"q": "short\u200b", "a": "t\u200bwo"}]
    write(tmp_path / "c", [{"data": {"parts": parts}}], [table], seq_len=128)
    out, manifest = pack(tmp_path / "c")
    [[first, second]] = by_record(texts_of(out), "news/1").values()
    assert second == Text("short <qa>", " two")
    assert (
        first.target == " one" and first.prompt.startswith("ab ab") and "\u200b" not in first.prompt
    )
    assert manifest["sources"][0]["cleaned"]["invisible"]["records"] == 1


def test_a_mix_gives_shares_to_the_tasks_of_tables(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    write(folder, many(200))
    config = (folder / "corpus.toml").read_text("utf-8")
    (folder / "corpus.toml").write_text(
        f'{config}\n[mix]\nby = "task"\ntemperature = 1000\n', "utf-8"
    )
    _, manifest = pack(folder)
    targets: Counter[str] = Counter()
    for entry in manifest["sources"]:
        targets[entry["task"]] += entry["train"]["targets"]
    assert set(targets) == {"headline", "translate", "qa"}
    assert max(targets.values()) < 1.3 * min(targets.values())


def test_tables_are_remixed_from_a_kept_spool_as_packed(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    write(folder, many(100), validation=0.2)
    options = PackOptions(keep_spool=True)
    sabiprep.pack(folder, tmp_path / "kept", options)
    write(folder, many(100), [{**HEADLINE, "epochs": 2}, THERE, BACK, ANSWERS], validation=0.2)
    report = sabiprep.remix(tmp_path / "kept", tmp_path / "mixed", corpus=folder)
    assert report.reused_splits[0] == report.reused_splits[1]
    fresh, _ = pack(folder)
    assert texts_of(tmp_path / "mixed") == texts_of(fresh)


def test_a_report_counts_each_record_once_and_a_forged_count_is_refused(tmp_path: Path) -> None:
    lines = many(20)
    for line in lines[:5]:
        line |= {"title": "", "en": " ", "text": f"{line['en']}", "answers": []}
    tables = [HEADLINE, {**THERE, "when": "{{ en.strip() }}"}, {**ANSWERS, "name": "qa"}]
    folder, out = tmp_path / "c", tmp_path / "out"
    write(folder, lines, tables)
    report = sabiprep.pack(folder, out)
    [counts] = report.records
    assert (counts.source, counts.records, counts.kept, counts.without) == ("news", 20, 15, 5)
    assert "news: 20 records, 15 with a document, 5 without" in str(report)
    assert [source.document_of for source in report.sources] == ["news"] * 3
    manifest = out / "manifest.json"
    text = manifest.read_text("utf-8")
    forged = text.replace('"kept": 15,\n      "without": 5', '"kept": 14,\n      "without": 6')
    assert forged != text
    raw = json.loads(text)
    zeros = "0" * 64
    sealed = forged.replace(raw["sha256"], zeros)
    sealed = sealed.replace(zeros, hashlib.sha256(sealed.encode()).hexdigest(), 1)
    manifest.write_text(sealed, "utf-8")
    assert any("M7: source 'news'" in failure for failure in packer.verify(out)["failures"])


def test_unfit_records_are_a_share_of_those_that_were_chosen(tmp_path: Path) -> None:
    """Few records are chosen, and none of them can be used: the table is wrong, not the data."""
    lines = [{"kind": "a" if nth % 50 else "b", "text": f"t{nth}"} for nth in range(1000)]
    table = {"when": "{{ kind == 'b' }}", "segments": [{"target": "{{ missing }}"}]}
    write(tmp_path / "c", lines, [{"segments": [{"target": "{{ text }}"}]}, table])
    config = (tmp_path / "c" / "corpus.toml").read_text("utf-8")
    (tmp_path / "c" / "corpus.toml").write_text(
        config.replace("max_bad_fraction = 1.0\n", ""), "utf-8"
    )
    with pytest.raises(InputError, match=r"none of its records \(20\) can be used"):
        pack(tmp_path / "c")
    [problem] = [it for it in sabiprep.plan(tmp_path / "c").problems if it.kind == "unfit"]
    assert problem.severity == "error"
    assert "20 of 20 chosen records (100 %) cannot be used" in problem.message


@pytest.mark.parametrize(
    "change",
    [
        {"when": "{{ rating > 3 }}"},
        {"each": "others"},
        {"templates": [[{"prompt": "{{ text }}"}, {"target": " {{ en }}"}]]},
        {"tagged": {"text": "tagged", "open": ["<translate>"], "action": ["<yor>:"]}},
    ],
)
def test_a_changed_table_is_tokenized_again_and_the_others_are_not(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    lines = [
        {**line, "others": [1, 2], "tagged": f"<translate> a <yor>: {nth}"}
        for nth, line in enumerate(many(30))
    ]
    plain = {"segments": [{"prompt": "{{ text }}:"}, {"target": " {{ en }}"}]}
    folder = tmp_path / "c"
    write(folder, lines, [HEADLINE, plain])
    sabiprep.pack(folder, tmp_path / "kept", PackOptions(keep_spool=True))
    way = {} if change.keys() & {"templates", "tagged"} else plain
    write(folder, lines, [HEADLINE, {**way, **change}])
    report = sabiprep.remix(tmp_path / "kept", tmp_path / "mixed", corpus=folder)
    assert report.reused_splits == (1, 2)
    fresh, _ = pack(folder)
    assert texts_of(tmp_path / "mixed") == texts_of(fresh)
