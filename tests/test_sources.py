"""Sources without boilerplate: keys that sources share, languages in the names of files and in the
records, each beside the same corpus with every source written out.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

import sabiprep
from sabiprep import ConfigError, InputError, PackOptions, PackReport
from sabiprep.dataset import open_dataset
from support import packer
from support.strategies import tokenizer_json

PAIR = [{"prompt": "<translate> {{ t.en }} <{lang}>:"}, {"target": " {{ t.{lang} }}"}]


def write(corpus: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (corpus / name).parent.mkdir(parents=True, exist_ok=True)
        (corpus / name).write_text(text, "utf-8")
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    return corpus


def pack(
    corpus: Path, sources: list[dict[str, Any]], out: str = "out", **tables: Any
) -> PackReport:
    pack_table = {"seq_len": 64, "validation": 0.2, **tables.pop("pack", {})}
    named = {"file": "tokenizer.json"}
    packer.write_config(corpus, sources, tokenizer=named, pack=pack_table, tables=tables)
    return sabiprep.pack(corpus, corpus.with_name(out), PackOptions(threads=2))


def json_lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def pairs(lang: str, count: int = 30) -> str:
    return json_lines(*({"t": {"en": f"word {n}", lang: f"{lang} {n}"}} for n in range(count)))


def shards(out: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(out.glob("*/*.arrow"))]


def told(source: Any) -> tuple[str, str, str, int, int]:
    return source.name, source.task, source.lang, source.records, source.kept


def test_shared_keys_make_the_sources_that_each_would_write_out(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", {f"{lang}.jsonl": pairs(lang) for lang in ("hau", "yor")})
    segments = {
        lang: [{"prompt": f"{{{{ t.en }}}} <{lang}>:"}, {"target": f"{{{{ t.{lang} }}}}"}]
        for lang in ("hau", "yor")
    }
    whole = [
        {"name": lang, "files": [f"{lang}.jsonl"], "segments": segments[lang], "task": "translate"}
        | {"epochs": 2.0, "duplicates": "exact", "lang": lang}
        for lang in ("hau", "yor")
    ]
    pack(corpus, whole, "written")
    shared = [
        {"name": "hau", "files": ["hau.jsonl"], "template": "pair", "segments": segments["hau"]},
        {"name": "yor", "files": ["yor.jsonl"], "template": "pair", "lang": "yor"},
    ]
    template = {"segments": segments["yor"], "task": "translate", "lang": "hau"}
    defaults = {"epochs": 2.0, "duplicates": "exact", "task": "no such task"}
    report = pack(corpus, shared, defaults=defaults, **{"template.pair": template})
    assert [source.task for source in report.sources] == ["translate"] * 2
    assert shards(tmp_path / "out") == shards(tmp_path / "written")
    manifests = [
        json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("out", "written")
    ]
    assert manifests[0]["config"] == manifests[1]["config"], "what is shared is filled in"


def test_a_template_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", {"a.txt": "a\n"})
    source = {"name": "a", "files": ["a.txt"], "template": "pear"}
    with pytest.raises(ConfigError, match=r'corpus.toml:\d+: .*\[template.pear\](.|\n)*"pair"'):
        pack(corpus, [source], **{"template.pair": {"lang": "yor"}})


def test_a_source_for_each_language_of_its_files(tmp_path: Path) -> None:
    files = {f"eng-{lang}/train.jsonl": pairs(lang) for lang in ("hau", "ibo", "yor")}
    files |= {"eng-hau/more.jsonl": pairs("hau", 7), "eng-yor/test.jsonl": pairs("yor", 5)}
    corpus = write(tmp_path / "corpus", files)
    whole = [
        {
            "name": f"pair-{lang}",
            "task": "pair",
            "lang": lang,
            "files": [f"eng-{lang}/train.jsonl"] + ["eng-hau/more.jsonl"] * (lang == "hau"),
            "validation_files": ["eng-yor/test.jsonl"] * (lang == "yor"),
            "segments": [
                {part: text.replace("{lang}", lang) for part, text in segment.items()}
                for segment in PAIR
            ],
        }
        for lang in ("hau", "ibo", "yor")
    ]
    pack(corpus, whole, "written")
    source = {
        "name": "pair",
        "files": ["eng-{lang}/train.jsonl", "eng-{lang}/more.jsonl"],
        "validation_files": ["eng-{lang:yor}/test.jsonl"],
        "segments": PAIR,
    }
    report = pack(corpus, [source])
    assert [told(source)[:4] for source in report.sources] == [
        ("pair-hau", "pair", "hau", 37),
        ("pair-ibo", "pair", "ibo", 30),
        ("pair-yor", "pair", "yor", 35),
    ]
    assert shards(tmp_path / "out") == shards(tmp_path / "written")


def test_the_language_stands_where_the_source_says(tmp_path: Path) -> None:
    files = {f"eng-{lang}.jsonl": pairs(lang, 9) for lang in ("hau", "yor-Latn")}
    corpus = write(tmp_path / "corpus", files)
    segments = [{"prompt": "{{ t['{lang}'] }} {{lang | default('x')}}"}, {"target": "{{ t.en }}"}]
    source = {"name": "from-{lang}", "files": ["eng-{lang}.jsonl"], "segments": segments}
    report = pack(corpus, [{**source, "task": "to-{lang}", "lang": "eng"}])
    assert [told(source)[:4] for source in report.sources] == [
        ("from-hau", "to-hau", "eng", 9),
        ("from-yor-Latn", "to-yor-Latn", "eng", 9),
    ]
    record = {"t": {"en": "e", "yor-Latn": "y"}, "lang": "field"}
    tokenizer = corpus / "tokenizer.json"
    found = packer.explain(corpus, "from-yor-Latn", record, tokenizer=tokenizer, seq_len=64)
    assert "".join(text for text, _, _ in found.spans) == "y fielde"
    # After a dot it would be a subtraction.
    with pytest.raises(ConfigError, match=r'(?s)yor-Latn.*{{ translation\["{lang}"\] }}'):
        pack(corpus, [{**source, "segments": PAIR}], "again")


@pytest.mark.parametrize(
    "files, what",
    [
        (["no-{lang}.txt"], "no file matches"),
        (["{lang:ibo|hau}.txt"], "no such file"),
        (["{lang}.txt", "x/all.txt"], "`x/all.txt` names no language"),
        (["x/*-{lang}.txt"], "may be (b-yor or yor|yor or b-yor)"),
        (["{lang:a b}.txt"], "more than letters"),
        (["{lang:yor.txt"], "has no end"),
    ],
)
def test_files_without_a_clear_language_are_refused(
    tmp_path: Path, files: list[str], what: str
) -> None:
    names = ["hau.txt", "yor.txt", "x/all.txt", "x/a-b-yor.txt"]
    corpus = write(tmp_path / "corpus", {name: f"{name}\n" for name in names})
    with pytest.raises((ConfigError, InputError), match=what):
        pack(corpus, [{"name": "text", "files": files}])
    # A list is a way out of two readings.
    if files == ["x/*-{lang}.txt"]:
        report = pack(corpus, [{"name": "text", "files": ["x/*-{lang:yor}.txt", "{lang:hau}.txt"]}])
        assert [source.name for source in report.sources] == ["text-hau", "text-yor"]


def test_languages_are_found_in_folders_of_any_depth(tmp_path: Path) -> None:
    names = ["a/hau.txt", "a/b/yor.txt", "ibo.txt"]
    corpus = write(tmp_path / "corpus", {name: f"{name}\n" for name in names})
    report = pack(corpus, [{"name": "text", "files": "**/{lang}.txt"}])
    assert [source.lang for source in report.sources] == ["hau", "ibo", "yor"]


def test_a_file_that_is_itself_called_lang_is_no_language(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", {"{lang}.jsonl": pairs("yor")})
    segments = [{"prompt": '{{ "{lang}" }} {{ t.en }}'}, {"target": "{{ t.yor }}"}]
    source = {"name": "a", "files": ["{lang}.jsonl"], "segments": segments}
    report = pack(corpus, [source])
    assert [told(source)[:3] for source in report.sources] == [("a", "a", "und")]
    own = r"`name` holds {lang}, and `{lang}.jsonl` is itself the name of a file"
    with pytest.raises(ConfigError, match=own) as error:
        pack(corpus, [{**source, "name": "a{lang}"}])
    assert error.value.remedy == "rename the file, or leave {lang} out of `name`"
    with pytest.raises(ConfigError, match=r"`name` holds {lang}, and no entry of `files` does"):
        pack(corpus, [{**source, "name": "a{lang}", "files": ["*.jsonl"]}])


# Languages in the records. The slow form: the records sorted into a file a language by Python.

TALK = [{"prompt": "{{ text }} <{lang}>:"}, {"target": " {{ answer }}"}]


def mixed(count: int) -> list[dict[str, Any]]:
    langs = ["yor", "hau", "yo", "ibo", None, " hau ", "", 7]
    return [
        {"text": f"text {n}", "answer": f"answer {n}", "meta": {"lang": langs[n * n % 11 % 8]}}
        for n in range(count)
    ]


def group_of(record: dict[str, Any]) -> str:
    lang = record["meta"]["lang"]
    lang = lang.strip() if isinstance(lang, str) else ""
    return {"yo": "yor", "": "und"}.get(lang, lang)


def texts_of(out: Path) -> Counter[tuple[str, str]]:
    """(source, text) of every document of every split."""
    found: Counter[tuple[str, str]] = Counter()
    decode = Tokenizer.from_file(str(out / "tokenizer.json")).decode
    with open_dataset(out) as dataset:
        for side in ("train", "validation"):
            for i in range(len(dataset[side])):
                row = dataset[side][i]
                for nth in range(len(row["seq_lengths"])):
                    ids = row["input_ids"][row["cu_seqlens"][nth] : row["cu_seqlens"][nth + 1]]
                    name = dataset.sources[row["source_ids"][nth]].name
                    found[name, decode(ids.tolist(), skip_special_tokens=False)] += 1
    return found


@pytest.mark.parametrize("rendered", [False, True])
def test_a_source_for_each_language_of_its_records(tmp_path: Path, rendered: bool) -> None:
    records = mixed(300)
    prompt = "{% if true %}{{ text }}{% endif %} <{lang}>:" if rendered else "{{ text }} <{lang}>:"
    segments = [{"prompt": prompt}, {"target": " {{ answer }}"}]
    files = {"a.jsonl": json_lines(*records[:200]) + "not JSON\n"}
    files["b.jsonl"] = json_lines(*records[200:])
    files["c.jsonl"] = json_lines({"text": "c", "answer": "c", "meta": {"lang": "ibo"}})
    corpus = write(tmp_path / "corpus", files)
    source = {"name": "talk", "files": ["[ab].jsonl"], "validation_files": ["c.jsonl"]}
    source |= {"lang": "{{ meta.lang }}", "segments": segments}
    report = pack(corpus, [source], pack={"validation": 0.0})
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(group_of(record), []).append(record)
    expected = [(f"talk-{lang}", "talk", lang, len(groups[lang])) for lang in sorted(groups)]
    expected = [(*rest, n + (lang in ("ibo", "und"))) for *rest, lang, n in expected]  # type: ignore[misc]
    found = [told(source)[:4] for source in report.sources]
    assert [(name, task, n) for name, task, _, n in found] == expected
    assert [lang for _, _, lang, _ in found] == ["hau", "ibo", "und", "yor"]
    assert sum(source.records for source in report.sources) == len(records) + 2
    assert {source.name: dict(source.drops) for source in report.sources} == {
        "talk-hau": {},
        "talk-ibo": {},
        "talk-und": {"malformed": 1},
        "talk-yor": {},
    }
    assert packer.verify(tmp_path / "out")["failures"] == []
    against = sabiprep.verify(tmp_path / "out", against=corpus)
    assert against.failures == []
    # The same records as a file for each language.
    parts = {f"{lang}.jsonl": json_lines(*groups[lang]) for lang in groups}
    slow = write(tmp_path / "slow", {**parts, "test.jsonl": files["c.jsonl"]})
    sources = [
        {
            "name": f"talk-{lang}",
            "files": [f"{lang}.jsonl"],
            "segments": [
                {part: text.replace("{lang}", lang) for part, text in segment.items()}
                for segment in segments
            ],
        }
        for lang in sorted(groups)
    ]
    sources[1]["validation_files"] = ["test.jsonl"]
    pack(slow, sources, "slow-out", pack={"validation": 0.0})
    assert texts_of(tmp_path / "out") == texts_of(tmp_path / "slow-out")


def test_neither_threads_nor_splits_change_what_languages_are_found(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", {"a.jsonl": json_lines(*mixed(300))})
    source = {"name": "talk", "files": ["a.jsonl"], "lang": "{{ meta.lang }}", "segments": TALK}
    pack(corpus, [source])
    expected = shards(tmp_path / "out")
    for nth, (threads, split_bytes) in enumerate([(1, 1 << 20), (3, 256), (2, 1000)]):
        out = tmp_path / f"out-{nth}"
        tokenizer = corpus / "tokenizer.json"
        packer.pack(corpus, out, tokenizer=tokenizer, threads=threads, split_bytes=split_bytes)
        assert shards(out) == expected


def test_one_spelling_stays_and_columns_have_languages_too(tmp_path: Path) -> None:
    text = "text\tlang\n" + "".join(f"word {n}\t{'yo' if n % 3 else 'ha'}\n" for n in range(30))
    corpus = write(tmp_path / "corpus", {"a.tsv": text})
    segments = [{"prompt": "<{lang}>"}, {"target": "{{ text }}"}]
    source = {"name": "{lang}-text", "files": ["a.tsv"], "lang": "{{ lang }}", "segments": segments}
    report = pack(corpus, [{**source, "task": "text"}])
    found = [(source.name, source.task, source.lang, source.records) for source in report.sources]
    assert found == [("ha-text", "text", "hau", 10), ("yo-text", "text", "yor", 20)]
    record = {"text": "t", "lang": "yo"}
    tokenizer = corpus / "tokenizer.json"
    shown = packer.explain(corpus, "yo-text", record, tokenizer=tokenizer, seq_len=64)
    assert "".join(text for text, _, _ in shown.spans) == "<yo>t"


def test_kept_spools_serve_sources_by_language(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", {"a.jsonl": json_lines(*mixed(200))})
    source = {"name": "talk", "files": ["a.jsonl"], "lang": "{{ meta.lang }}", "segments": TALK}
    tables: dict[str, Any] = {"tokenizer": {"file": "tokenizer.json"}, "pack": {"seq_len": 64}}
    packer.write_config(corpus, [source], **tables)
    sabiprep.pack(corpus, tmp_path / "out", PackOptions(threads=2, keep_spool=True))
    again = sabiprep.pack(corpus, tmp_path / "out", PackOptions(threads=1, resume=True))
    assert len(again.sources) == 4
    report = sabiprep.remix(tmp_path / "out", tmp_path / "remixed", corpus=corpus)
    assert report.reused_splits[0] == report.reused_splits[1] > 0
    assert shards(tmp_path / "remixed") == shards(tmp_path / "out")


@pytest.mark.parametrize(
    "lang, what",
    [
        ("{{ text }}", "more than 500 different texts"),
        ("{{ long }}", "over 64 characters"),
        ("{{ missing }}", "no record has a text in `missing`"),
        ("{{ text | upper }}", "more than one field"),
        ("a {{ text }}", "more than one field"),
    ],
)
def test_a_field_that_names_no_language_is_refused(tmp_path: Path, lang: str, what: str) -> None:
    records = [{"text": f"t{n}", "long": "x" * 70} for n in range(600)]
    corpus = write(tmp_path / "corpus", {"a.jsonl": json_lines(*records)})
    source = {"name": "a", "files": ["a.jsonl"], "lang": lang}
    with pytest.raises(ConfigError, match=rf"source 'a'.*{what}"):
        pack(corpus, [{**source, "segments": [{"target": "{{ text }}"}]}])
