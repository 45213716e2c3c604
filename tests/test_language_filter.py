"""Records in another language than their source's: `filter = { min_language = … }`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import ConfigError
from support import packer
from support.strategies import tokenizer_json

TEXTS = {
    "yor": "Àwọn ọmọ ilé ẹ̀kọ́ náà ń lọ sí ọjà láti ra àwọn ìwé tuntun fún ẹ̀kọ́ wọn.",
    "hau": "Yara suna zuwa makaranta kowace rana domin su koyi karatu da rubutu a garinmu.",
    "ibo": "Ụmụ akwụkwọ na-aga ụlọ akwụkwọ kwa ụbọchị ka ha mụta ịgụ na ide ihe n'obodo anyị.",
    "swa": "Watoto wanaenda shuleni kila siku ili wajifunze kusoma na kuandika katika mji wetu.",
    "eng": "The children go to school every day so that they learn to read and write in our town.",
}
"""A sentence of each language, written for these tests."""


@pytest.fixture
def needs_py3langid() -> None:
    """Skip where the extra is absent."""
    pytest.importorskip("py3langid", reason="needs the extra: pip install sabiprep[language]")


def corpus_of(folder: Path, lang: str, **table: Any) -> Path:
    """All texts, as one source of `lang`."""
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    lines = "".join(text + "\n" for text in TEXTS.values())
    (folder / "a.txt").write_text(lines + "2024 12 31\n", "utf-8")
    source = {"name": "a", "files": ["a.txt"], "lang": lang, "filter": table}
    tokenizer = {"file": "tokenizer.json"}
    packer.write_config(folder, [source], tokenizer=tokenizer, pack={"max_bad_fraction": 1.0})
    return folder


@pytest.mark.usefixtures("needs_py3langid")
@pytest.mark.parametrize("lang", [*TEXTS, "swh", "Yoruba", "yor_Latn", "ha"])
def test_texts_in_the_language_of_the_source_alone_are_kept(tmp_path: Path, lang: str) -> None:
    corpus = corpus_of(tmp_path / "c", lang, min_language=0.5)
    for threads in (1, 2):
        out = tmp_path / str(threads)
        manifest = packer.pack(
            corpus, out, tokenizer=corpus / "tokenizer.json", threads=threads, split_bytes=100
        )
        [source] = manifest["sources"]
        assert source["kept"] == 1 and source["drops"] == {"filtered": len(TEXTS)}
        assert packer.verify(out)["failures"] == []
    lines = (out / "dropped.jsonl").read_text("utf-8").splitlines()
    whys = [json.loads(line)["why"] for line in lines]
    assert all(why.startswith("min_language: ") for why in whys)
    assert any("looks like" in why and "at least 50.0 %" in why for why in whys)
    [config] = manifest["config"]["source"]
    name, code = config["filter"]["identifier"]
    assert name.startswith("py3langid ") and len(code) in (2, 3)


@pytest.mark.usefixtures("needs_py3langid")
def test_another_language_may_be_expected_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "c", "yor", min_language=0.5, language="swa")
    manifest = packer.pack(corpus, tmp_path / "o", tokenizer=corpus / "tokenizer.json")
    assert manifest["config"]["source"][0]["filter"]["identifier"][1] == "sw"
    assert manifest["sources"][0]["kept"] == 1
    corpus_of(corpus, "tiv", min_language=0.5)
    with pytest.raises(ConfigError, match="does not know the language 'tiv'") as caught:
        packer.pack(corpus, tmp_path / "other", tokenizer=corpus / "tokenizer.json")
    assert caught.value.source == "a" and " sw " in str(caught.value.remedy)
    assert caught.value.file and caught.value.file.endswith("corpus.toml")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"min_language": 1.5}, "min_language = 1.5: must be from 0 to 1"),
        ({"language": "swa"}, "`language` without `min_language` does nothing"),
        ({"min_languages": 0.5}, "min_languages"),
    ],
)
def test_tables_without_sense_are_refused(
    tmp_path: Path, table: dict[str, Any], message: str
) -> None:
    corpus = corpus_of(tmp_path / "c", "yor", **table)
    with pytest.raises(ConfigError, match=message):
        packer.pack(corpus, tmp_path / "o", tokenizer=corpus / "tokenizer.json")


def test_without_the_library_the_remedy_is_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "py3langid", None)
    monkeypatch.delitem(sys.modules, "py3langid.langid", raising=False)
    sys.modules.pop("sabiprep.languages", None)
    corpus = corpus_of(tmp_path / "c", "yor", min_language=0.5)
    with pytest.raises(ConfigError, match="needs a library that identifies") as caught:
        sabiprep.pack(corpus, tmp_path / "o")
    assert 'pip install "sabiprep[language]"' in str(caught.value.remedy)


@pytest.mark.usefixtures("needs_py3langid")
def test_plan_and_explain_say_what_is_dropped(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "c", "hau", min_language=0.5)
    [source] = sabiprep.plan(corpus).sources
    assert source.drops == {"filtered": len(TEXTS)}
    assert any("looks like" in (record.dropped or "") for record in source.records)
    explained = sabiprep.explain({"text": TEXTS["eng"]}, "a", corpus=corpus)
    assert explained.dropped is not None and "looks like en" in explained.dropped.why
