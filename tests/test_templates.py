"""Templates against Python itself: `json.loads` and Jinja2 as `transformers` sets it up are the
oracle.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import PackOptions
from support.jinja_records import PLAIN, RECORDS, RENDERED, records, rendered
from support.template_corpus import append, documents, drops, write_corpus


@pytest.mark.parametrize("templates", [PLAIN, RENDERED], ids=["compiled", "rendered"])
def test_templates_render_what_json_and_jinja2_render(tmp_path: Path, templates: list[str]) -> None:
    rng = random.Random(0)
    count = -(-RECORDS // len(PLAIN + RENDERED))
    lines = [json.dumps(records(rng), ensure_ascii=rng.random() < 0.5) for _ in range(count)]
    spelled = write_corpus(tmp_path / "corpus", templates, lines)
    sabiprep.pack(tmp_path / "corpus", tmp_path / "out", PackOptions(threads=2))
    offsets, at = {}, 0
    for index, line in enumerate(lines):
        offsets[at] = index
        at += len(line.encode()) + 1
    seen = {
        (source, offsets[record]): text
        for source, record, text in documents(tmp_path / "out", spelled)
    }
    loaded = [json.loads(line) for line in lines]
    for source, template in enumerate(templates):
        for index, record in enumerate(loaded):
            expected = rendered(template, record)
            shown = seen.get((source, index))
            assert shown == (None if expected is None else expected + "."), (template, lines[index])


def test_what_no_text_can_hold_costs_the_record_only_where_it_is_read(tmp_path: Path) -> None:
    lines = [
        '{"s": "a", "x": NaN}',
        '{"s": "b", "x": {"deep": ["\\ud800"]}, "\\udc00": 1}',
        '{"s": "c", "x": 1e999}',
        '{"s": "d", "x": 1}',
    ]
    templates = [
        "{{ s }}",
        "{% if true %}{{ s }}{% endif %}",
        "{{ s }}{{ x }}",
        "{% if true %}{{ x | tojson }}{% endif %}",
    ]
    spelled = write_corpus(tmp_path / "corpus", templates, lines)
    sabiprep.pack(tmp_path / "corpus", tmp_path / "out")
    kept = sorted((source, text) for source, _, text in documents(tmp_path / "out", spelled))
    assert kept == [
        (0, "a."),
        (0, "b."),
        (0, "c."),
        (0, "d."),
        (1, "a."),
        (1, "b."),
        (1, "c."),
        (1, "d."),
        (2, "d1."),
        (3, "1."),
        (3, "null."),
        (3, "null."),
    ]
    read = drops(tmp_path / "out", 2)
    assert [(line, reason) for line, reason, _ in read] == [
        (1, "missing field"),
        (2, "malformed"),
        (3, "missing field"),
    ]
    assert [
        word in why
        for word, (_, _, why) in zip(["is null", "\\ud800", "is null"], read, strict=True)
    ] == [True] * 3
    assert "template line 1, column" in drops(tmp_path / "out", 3)[0][2]


@pytest.mark.parametrize(
    ("template", "record", "reason", "words"),
    [
        ("{{ n }}", {"n": None}, "missing field", ["field 'n' is null"]),
        (
            "{% if true %}{{ n }}{% endif %}",
            {"n": None},
            "missing field",
            ["field 'n' is null", "column 17", "{{ n }}"],
        ),
        (
            "a\n{% for x in ms %}{{ x }}{% endfor %}",
            {"m": []},
            "missing field",
            ["'ms' is missing", "line 2", "fields: m"],
        ),
        (
            "{{ pad }}{% if 1 %}{{ d.a.b }}{% endif %}",
            {"pad": "", "d": {"a": {}}},
            "missing field",
            ["'d.a.b' is missing"],
        ),
        ("{{ en-US }}", {"en-US": "x"}, "template error", ['{{ record["en-US"] }}']),
        (
            "{{ m | tojson(indnt=2) }}",
            {"m": 1},
            "template error",
            ["indnt", "{{ m | tojson(indnt=2) }}"],
        ),
        ("{{ strftime_now('%d') }}", {"m": 1}, "template error", ["each day"]),
        ("{{ raise_exception('odd ' ~ m) }}", {"m": 1e-7}, "template error", ["odd 1e-07"]),
        ("{{ '%(a)s' | format(a=m) }}", {"m": 1}, "template error", ["%(name)s"]),
        ("{{ '%9999999d' | format(m) }}", {"m": 1}, "template error", ["wider than"]),
        ("{{ m > 1 }}", {"m": 10**50}, "template error", ["an integer of 51 digits"]),
    ],
)
def test_a_record_that_a_template_cannot_render_is_named_with_the_place(
    tmp_path: Path, template: str, record: dict[str, Any], reason: str, words: list[str]
) -> None:
    write_corpus(tmp_path / "corpus", [template], [json.dumps(record)])
    told = sabiprep.explain(record, "t0", corpus=tmp_path / "corpus")
    assert told.dropped is not None
    dropped = str(told.dropped)
    assert reason in dropped
    assert [word for word in words if word not in dropped] == []


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            "{q} and {{ Tweet text }}",
            ['{{ record["Tweet text"] }}', "line 1, column", "{{ Tweet text }}"],
        ),
        ("Question: {q}", ["show no field", "write {{ q }} for {q}"]),
        ("\n{{ a | nope }}", ["nope", "line 2"]),
    ],
)
def test_a_wrong_template_is_refused_with_what_was_meant(
    tmp_path: Path, template: str, words: list[str]
) -> None:
    write_corpus(tmp_path / "corpus", [template], ['{"q": "x", "a": "y"}'])
    with pytest.raises(sabiprep.SabiprepError) as caught:
        sabiprep.pack(tmp_path / "corpus", tmp_path / "out")
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_header_is_not_a_record(tmp_path: Path) -> None:
    def corpus(name: str, keys: str, first: str) -> Path:
        folder = tmp_path / name
        write_corpus(folder, [], [])
        (folder / "a.tsv").write_text(f"{first}\none\ttwo\n", "utf-8")
        source = f'[[source]]\nname = "a"\nfiles = ["a.tsv"]\n{keys}\n'
        source += 'segments = [{ prompt = "{{ p }}" }, '
        append(folder / "corpus.toml", source + '{ target = "{{ t }}" }]\n')
        return folder

    columns = 'columns = ["p", "t"]'
    for first in ("Tweet text\tLabel", "P\tt"):
        with pytest.raises(sabiprep.SabiprepError, match="looks like a header") as caught:
            sabiprep.pack(corpus(f"unsaid {first[:1]}", columns, first), tmp_path / "out")
        assert "header = true" in str(caught.value)
    for name, keys, first, wanted in [
        ("skipped", columns + "\nheader = true", "Tweet text\tLabel", 1),
        ("kept", columns + "\nheader = false", "Tweet text\tLabel", 2),
        ("none", columns, "good morning to all of you\tẹ káàárọ̀", 2),
        ("named", "header = true", "p\tt", 1),
    ]:
        sabiprep.pack(corpus(name, keys, first), tmp_path / f"{name}.out")
        manifest = json.loads((tmp_path / f"{name}.out" / "manifest.json").read_text("utf-8"))
        assert (manifest["sources"][0]["records"], manifest["sources"][0]["kept"]) == (
            wanted,
            wanted,
        ), name


def test_a_conversation_shorter_than_its_segments_says_what_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    write_corpus(folder, [], ['{"m": ["q", "a", "q", "a"]}', '{"m": ["q", "a"]}'])
    turns = [("prompt", "{{ m[0] }}"), ("target", "{{ m[1] }}")]
    turns += [
        (kind, f"{{% if m | length > 2 %}}{{{{ m[{i}] }}}}{{% endif %}}")
        for i, kind in ((2, "prompt"), (3, "target"))
    ]
    segments = ", ".join(f'{{ {kind} = "{template}" }}' for kind, template in turns)
    append(
        folder / "corpus.toml",
        f'[[source]]\nname = "a"\nfiles = ["a.jsonl"]\nsegments = [{segments}]\n',
    )
    sabiprep.pack(folder, tmp_path / "out")
    ((line, reason, why),) = drops(tmp_path / "out")
    assert (line, reason) == (2, "empty target")
    assert "target 2 of 2" in why and "are read by `chat`" in why


def test_record_is_the_field_of_that_name_where_there_is_one(tmp_path: Path) -> None:
    lines = [
        '{"a b": "whole"}',
        '{"record": {"a b": "field"}, "a b": "whole"}',
        '{"a b": "whole", "record": "text"}',
    ]
    templates = ['{{ record["a b"] }}', '{% generation %}{{ record["a b"] }}{% endgeneration %}']
    spelled = write_corpus(tmp_path / "corpus", templates, lines)
    sabiprep.pack(tmp_path / "corpus", tmp_path / "out")
    kept = sorted(
        (source, record, text) for source, record, text in documents(tmp_path / "out", spelled)
    )
    second = len(lines[0]) + 1
    assert kept == [
        (source, at, text) for source in (0, 1) for at, text in ((0, "whole."), (second, "field."))
    ]
    assert [drop[:2] for source in (0, 1) for drop in drops(tmp_path / "out", source)] == [
        (3, "missing field")
    ] * 2
