"""Folders without ``corpus.toml``: recognised shapes pack to the documents that a person would have
written templates for; anything else is an error that names the file, its fields and the remedy.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sabiprep
from sabiprep import ConfigError, InputError, PackOptions
from support.unconfigured import COUNT, documents, json_lines, write_shapes, write_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty corpus."""
    (tmp_path / "corpus").mkdir()
    return tmp_path / "corpus"


@pytest.fixture
def options(tmp_path: Path) -> PackOptions:
    """The options that name a tokenizer."""
    return PackOptions(
        tokenizer=write_tokenizer(tmp_path / "tokenizer.json"), seq_len=256, threads=2
    )


QA = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(COUNT)]


def test_every_recognised_shape_packs_without_configuration(
    folder: Path, options: PackOptions
) -> None:
    expected = write_shapes(folder)
    out = folder.parent / "out"
    report = sabiprep.pack(folder, out, options)
    assert sorted(documents(out)) == sorted(expected)
    assert sabiprep.verify(out).ok
    assert not sabiprep.verify(out, against=folder, sample=None).failures
    # What was understood is said, source by source.
    for source in report.sources:
        assert any(f"source '{source.name}'" in note for note in report.notes), source.name
    by_name = {source.name: source for source in report.sources}
    assert by_name["tables-hau-Latn"].lang == "hau"
    assert (by_name["mt-eng-yor-en-yor"].task, by_name["mt-eng-yor-en-yor"].lang) == (
        "translate",
        "yor",
    )
    assert by_name["mt-eng-yor-yor-en"].lang == "eng"
    assert by_name["texts"].lang == "und"


def test_splits_and_shards_make_one_source(folder: Path, options: PackOptions) -> None:
    (folder / "qa").mkdir()
    for name, part in (
        ("train-00000-of-00002", QA[:4]),
        ("train-00001-of-00002", QA[4:8]),
        ("validation", QA[8:10]),
        ("test", QA[10:]),
    ):
        (folder / "qa" / f"{name}.jsonl").write_text(json_lines(part))
    out = folder.parent / "out"
    report = sabiprep.pack(folder, out, options)
    assert [source.name for source in report.sources] == ["qa"]
    assert sorted(documents(out)) == [("qa", f"q{i}\n", f"a{i}") for i in range(8)]
    assert sorted(documents(out, "validation")) == [("qa", f"q{i}\n", f"a{i}") for i in (8, 9)]
    assert any("test files" in note and "qa/test.jsonl" in note for note in report.notes)


def test_files_that_are_no_data_are_passed_over_and_said(
    folder: Path, options: PackOptions
) -> None:
    (folder / "qa.jsonl").write_text(json_lines(QA))
    for name in ("README.txt", "LICENSE", "card.md", "load.py", ".hidden.jsonl", "empty.jsonl"):
        (folder / name).write_text("" if name == "empty.jsonl" else "text\n")
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    (folder / "tokenizer.json").write_bytes(Path(str(options.tokenizer)).read_bytes())
    (folder / "image.png").write_bytes(b"\x89PNG")
    plan = sabiprep.plan(folder)
    assert [source.name for source in plan.sources] == ["qa"] and not plan.would_fail
    said = "\n".join(plan.understood)
    for name in ("README.txt", "LICENSE", "card.md", "load.py", ".hidden", "empty", "image.png"):
        assert name in said, name
    # The tokenizer of the folder is taken, with the EOS that is said beside it.
    assert plan.tokenizer is not None and plan.tokenizer["eos"] == "</s>"
    sabiprep.pack(folder, folder.parent / "out", PackOptions(seq_len=256))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("odd.jsonl", '{"left": "a", "right": "b"}\n', "`left`, `right`"),
        ("chat.jsonl", '{"messages": [{"content": "a"}]}\n', "`messages`"),
        ("chat.jsonl", '{"conversations": []}\n', "holds no message"),
        ("news.tsv", "text\tcategory\theadline\na\tb\tc\n", "`headline`"),
        ("three.jsonl", '{"translation": {"a": "1", "b": "2", "c": "3"}}\n', "3 languages"),
        ("broken.jsonl", '{"text": \n', "none of its first records"),
        ("odd.jsonl", '{"question": [1], "answer": {}}\n', "`question`, `answer`"),
    ],
)
def test_what_is_not_recognised_is_refused_by_name(
    folder: Path, options: PackOptions, name: str, text: str, message: str
) -> None:
    (folder / "qa.jsonl").write_text(json_lines(QA))
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        sabiprep.pack(folder, folder.parent / "out", options)
    assert raised.value.file == name
    plan = sabiprep.plan(folder, options)
    assert plan.would_fail and [source.name for source in plan.sources] == ["qa"]
    assert any(message in problem.message for problem in plan.errors)


def test_a_folder_with_nothing_recognised_names_the_remedy(
    folder: Path, options: PackOptions
) -> None:
    (folder / "image.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"no corpus\.toml") as raised:
        sabiprep.pack(folder, folder.parent / "out", options)
    assert "sabiprep init" in (raised.value.remedy or "")
    with pytest.raises(ConfigError):
        sabiprep.pack(folder / "nowhere", folder.parent / "out", options)


def test_no_usual_eos_is_an_error_that_lists_candidates(folder: Path, tmp_path: Path) -> None:
    (folder / "qa.jsonl").write_text(json_lines(QA))
    file = write_tokenizer(tmp_path / "two.json")
    tokenizer = json.loads(file.read_text("utf-8"))
    added = tokenizer["added_tokens"]
    added.append({**added[0], "id": 50_000, "content": "<eos>"})
    file.write_text(json.dumps(tokenizer), "utf-8")
    with pytest.raises(ConfigError, match="no EOS token"):
        sabiprep.pack(folder, tmp_path / "out", PackOptions(tokenizer=file))


def test_hostile_names_and_contents(folder: Path, options: PackOptions) -> None:
    for name in ('a"b\\c.jsonl', "x\x1b[31m\ny.jsonl", "[ab]*?.jsonl", "ọ̀rọ̀ {{ x }}.jsonl"):
        (folder / name).write_text(json_lines(QA))
    (folder / "loop").symlink_to(folder)
    (folder / "folder.jsonl").mkdir()
    long = '{"text": "' + "x" * (1 << 20) + '"}\n{"text": "a"}\n'
    (folder / "long.jsonl").write_text(long)
    (folder / "quote.csv").write_text('text,label\n"' + "never closed\n" * 10_000)
    (folder / "deep.jsonl").write_text("[" * 10_000)
    plan = sabiprep.plan(folder, options)
    assert plan.would_fail
    assert {source.files.names[0] for source in plan.sources} >= {'a"b\\c.jsonl', "[ab]*?.jsonl"}
    assert "\x1b" not in str(plan)
    for name in ("quote.csv", "deep.jsonl"):
        (folder / name).unlink()
    report = sabiprep.pack(folder, folder.parent / "out", options)
    assert report.total.kept == 4 * COUNT + 2
