"""Document tables as people write and see them: keys, languages, explanations, plans, the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import ConfigError
from support import packer
from support.document_corpus import ANSWERS, HEADLINE, many, pack, write
from support.oracle.documents import NOT_CHOSEN
from support.strategies import tokenizer_json


def test_languages_of_files_and_of_fields_make_tables_of_each(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    for lang in ("hau", "yor"):
        line = {"t": f"text {lang}", "e": "word", "of": ["yo", "ha"][lang == "hau"]}
        (folder / f"{lang}.jsonl").write_text(json.dumps(line) + "\n", "utf-8")
    tables: list[dict[str, Any]] = [
        {"segments": [{"prompt": "{{ t }} <{lang}>:"}, {"target": " {{ e }}"}], "lang": "eng"},
        {
            "name": "back",
            "task": "back",
            "segments": [{"prompt": "{{ e }}"}, {"target": " {{ t }}"}],
            "when": "{{ '{lang}' in t }}",
        },
    ]
    source = {"name": "news", "files": ["{lang}.jsonl"], "document": tables}
    packer.write_config(folder, [source], pack={"seq_len": 64})
    _, manifest = pack(folder)
    shown = [(s["name"], s["task"], s["lang"], s["kept"]) for s in manifest["sources"]]
    assert shown == [
        ("news-hau/1", "news/1", "eng", 1),
        ("news-yor/1", "news/1", "eng", 1),
        ("news-hau/back", "back", "hau", 1),
        ("news-yor/back", "back", "yor", 1),
    ]
    tables[1] |= {"lang": "{{ of }}", "when": "{{ t }}"}
    packer.write_config(
        folder, [{**source, "files": ["*.jsonl"], "document": tables[1:]}], pack={"seq_len": 64}
    )
    _, manifest = pack(folder, "field")
    shown = [(s["name"], s["document_of"]) for s in manifest["sources"]]
    assert shown == [("news-ha/back", "news-ha"), ("news-yo/back", "news-yo")]


def test_every_document_of_a_record_is_explained(tmp_path: Path) -> None:
    write(tmp_path / "c", many(4))
    record = many(5)[4]
    shown = sabiprep.explain(record, "news", corpus=tmp_path / "c")
    parts = [(one.source, one.part) for one in (shown, *shown.others)]
    assert parts == [
        ("news/headline", ""),
        ("news/2", ""),
        ("news/3", ""),
        ("news/4", "element 1 of `answers`"),
        ("news/4", "element 2 of `answers`"),
        ("news/4", "element 4 of `answers`"),
    ]
    assert [refusal.reason for refusal in shown.others[2].left_out] == [NOT_CHOSEN]
    told = str(shown)
    assert "document 6 of 6, of source 'news/4', element 4 of `answers`" in told
    assert (
        "left out of the record: not chosen: element 3: `when` is false: {{ item.score }}" in told
    )
    alone = sabiprep.explain({**record, "rating": 0}, "news/headline", corpus=tmp_path / "c")
    assert alone.dropped is not None and alone.dropped.reason == NOT_CHOSEN
    with pytest.raises(ConfigError, match="no source is named 'nwes'"):
        sabiprep.explain(record, "nwes", corpus=tmp_path / "c")


def test_a_plan_shows_tables_and_says_what_their_conditions_name(tmp_path: Path) -> None:
    write(tmp_path / "c", many(30), [{**HEADLINE, "when": "{{ titel }}"}, ANSWERS])
    plan = sabiprep.plan(tmp_path / "c")
    assert [source.name for source in plan.sources] == ["news/headline", "news/2"]
    assert plan.sources[1].when == "{{ item.score }}" and plan.sources[1].each == "answers"
    said = [str(problem) for problem in plan.problems]
    assert any("ask for `titel`, which no record has" in problem for problem in said)
    assert any("30 of 30 records dropped: not chosen" in problem for problem in said)
    assert not any("`item`" in problem or "`answers` is a list" in problem for problem in said)


SEGMENTS = 'segments = [{ prompt = "{{ text }}" }, { target = "{{ en }}" }]\n'


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("[source.document]\n", "`document` is a list of tables", "[[source.document]]"),
        ("document = []\n", "`document` is an empty list", "[[source.document]]"),
        ("document = ['a']\n", "a document is a table", "[[source.document]]"),
        ("[[source.document]]\nfiles = ['a']\n", "no key `files`", "above the first"),
        ("[[source.document]]\nwehn = 'a'\n", "no key `wehn`", "did you mean `when`?"),
        ("[[source.document]]\nname = ''\n" + SEGMENTS, "name of a [[source.document]]", "number"),
        (
            "[[source.document]]\nname = '2'\n" + SEGMENTS + "[[source.document]]\n" + SEGMENTS,
            "two sources have this name",
            "rename one",
        ),
        ("when = 'rating > 3'\n" + SEGMENTS, "is not one expression", 'when = "{{ rating > 3 }}"'),
        ("when = '{{ a }}{{ b }}'\n" + SEGMENTS, "is not one expression", "when ="),
        ("when = '{{ a > }}'\n" + SEGMENTS, 'when = "{{ a > }}" is wrong', ""),
        ("each = '{{ answers }}'\n" + SEGMENTS, "is no field", 'each = "answers"'),
        ("choose = 'all'\n" + SEGMENTS, "`choose` without `templates`", "templates ="),
        ("choose = 'some'\n" + SEGMENTS, "`choose`", 'did you mean "one"?'),
        ("templates = []\n", "`templates` is an empty list", "templates ="),
        ("templates = [{ prompt = 'a' }]\n", "`templates` in a [[source]] takes", "[["),
        ("templates = [[{ prompt = '{{ a }}' }]]\n", "template 1 has no target", "target"),
        (
            "templates = [[{ target = '{{ a }}' }]]\n" + SEGMENTS,
            "both `segments` and `templates`",
            "",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_remedy(
    tmp_path: Path, text: str, message: str, remedy: str
) -> None:
    (tmp_path / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    (tmp_path / "a.jsonl").write_text(json.dumps(many(1)[0]) + "\n", "utf-8")
    head = "[tokenizer]\neos = '</s>'\n[[source]]\nname = 'a'\nfiles = ['a.jsonl']\n"
    (tmp_path / "corpus.toml").write_text(head + text, "utf-8")
    with pytest.raises(ConfigError) as error:
        sabiprep.pack(tmp_path, tmp_path / "out")
    assert message in str(error.value)
    assert remedy in (error.value.remedy or "")


def test_the_pages_example_gives_what_the_page_shows(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "records.md").read_text("utf-8")
    section = page.split("## Several documents of a record")[1].split("\n## ")[0]
    config, wordings = (block.split("```")[0] for block in section.split("```toml\n")[1:])
    record = section.split("```json\n")[1].split("```")[0]
    shown = section.split("```text\n")[1].split("```")[0]
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    (folder / "news.jsonl").write_text(record.replace("\n", " ") + "\n", "utf-8")
    head = '[tokenizer]\neos = "</s>"\n'
    (folder / "corpus.toml").write_text(head + config, "utf-8")
    explained = sabiprep.explain(record, "news", corpus=folder)
    lines = [line.split(maxsplit=1) for line in shown.splitlines()]
    for (source, text), one in zip(lines, (explained, *explained.others), strict=True):
        marks = {1: "p", 2: "d", 3: "t+"}
        assert source == one.source
        assert text == "".join(f"⟦{marks[span.role]}|{span.text}⟧" for span in one.spans)
    _, manifest = pack(folder)
    assert manifest["records"] == [{"source": "news", "records": 1, "kept": 1, "without": 0}]
    (folder / "reviews.jsonl").write_text('{"text": "good", "label": "positive"}\n', "utf-8")
    (folder / "corpus.toml").write_text(head + wordings, "utf-8")
    assert len(sabiprep.explain({"text": "a", "label": "b"}, "reviews", corpus=folder).others) == 1


def test_held_out_documents_are_a_task_for_each_table(tmp_path: Path) -> None:
    write(tmp_path / "c", many(60), validation=0.3)
    report = sabiprep.export_tasks(tmp_path / "c", tmp_path / "tasks")
    names = ["heldout_news_headline", "heldout_news_2", "heldout_news_3", "heldout_news_4"]
    assert [task.name for task in report.tasks] == names
    lines = (tmp_path / "tasks" / "heldout_news_4.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["document"] for line in lines} >= {0, 1}
