"""Training kept clean of tasks of `lm-eval`, and the list of what was found."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import ConfigError, InputError, PackOptions, SabiprepError
from sabiprep.dataset import open_dataset
from support import packer
from support.files import files_of
from support.strategies import tokenizer_json

QUESTIONS = [
    {"q": f"ìbéèrè {n} nípa ìlú Èkó àti Ìbàdàn", "choices": ["bẹ́ẹ̀ ni", "rárá o"], "gold": n % 2}
    for n in range(5)
]
RECORDS = [
    {"text": "ọjà ńlá kan wà ní ìlú"},
    {"text": "Ìbéèrè 3 nípa ìlú Èkó, àti Ìbàdàn!"},
    {"text": "one two three four five six"},
    {"text": "so: ìbéèrè 1 nípa ìlú Èkó àti Ìbàdàn bẹ́ẹ̀"},
]
TASK = """\
task: {task}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {file}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
metadata:
  version: 2.0
"""


def corpus_of(folder: Path, named: list[str], **pack: Any) -> Path:
    corpus = folder / "corpus"
    (corpus / "tasks").mkdir(parents=True)
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(of) + "\n" for of in QUESTIONS), "utf-8")
    task = TASK.format(task="yor_quiz", file=data)
    (corpus / "tasks" / "yor_quiz.yaml").write_text(task, "utf-8")
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS)
    (corpus / "a.jsonl").write_text(lines, "utf-8")
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    packer.write_config(
        corpus,
        [{"name": "a", "files": ["a.jsonl"], "segments": [{"target": "{{ text }}"}]}],
        tokenizer={"file": "tokenizer.json"},
        pack={"seq_len": 64, "decontaminate": named, "decontaminate_ngram": 5, **pack},
    )
    return corpus


def hits(out: Path) -> list[dict[str, Any]]:
    file = out / "dropped" / "contaminated.jsonl"
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_hits_name_the_n_gram_and_the_record_that_has_it(tmp_path: Path) -> None:
    """Of files too, with any number of threads; `verify` finds a change, and a new run takes the
    list away.
    """
    corpus = corpus_of(tmp_path, ["test.jsonl"])
    lines = "".join(json.dumps({"q": of["q"]}) + "\n" for of in QUESTIONS)
    (corpus / "test.jsonl").write_text(lines, "utf-8")
    sabiprep.pack(corpus, tmp_path / "out")
    found = hits(tmp_path / "out")
    assert found == [
        {
            "source": "a",
            "file": "a.jsonl",
            "line": line,
            "n_gram": f"ìbéèrè {number} nípa ìlú èkó",
            "held_out": "test.jsonl",
            "held_out_record": number,
        }
        for line, number in ((2, 3), (4, 1))
    ]
    sabiprep.pack(corpus, tmp_path / "two", PackOptions(threads=2, split_bytes=20))
    assert files_of(tmp_path / "two") == files_of(tmp_path / "out")
    [source] = open_dataset(tmp_path / "out").manifest["sources"]
    assert source["drops"] == {"contaminated": 2}
    assert not sabiprep.verify(tmp_path / "out").failures
    list_ = tmp_path / "out" / "dropped" / "contaminated.jsonl"
    list_.write_bytes(list_.read_bytes().replace(b"a.jsonl", b"b.jsonl", 1))
    assert "contaminated.jsonl" in str(sabiprep.verify(tmp_path / "out").failures)
    (corpus / "a.jsonl").write_text(json.dumps(RECORDS[0]) + "\n", "utf-8")
    sabiprep.pack(corpus, tmp_path / "out", PackOptions(overwrite=True))
    assert not (tmp_path / "out" / "dropped").exists()


def test_a_task_of_lm_eval_keeps_training_clean(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: its tasks are not proved")
    corpus = corpus_of(tmp_path, ["lm-eval:tasks/yor_quiz"])
    report = sabiprep.pack(corpus, tmp_path / "out")
    assert "contaminated" in str(report)
    found = hits(tmp_path / "out")
    name = "lm-eval:yor_quiz@2.0/test.jsonl"
    assert [(hit["line"], hit["held_out"], hit["held_out_record"]) for hit in found] == [
        (2, name, 3),
        (4, name, 1),
    ]
    manifest = open_dataset(tmp_path / "out").manifest
    assert manifest["benchmarks"] == [{"name": name, "documents": 5, "short": 0}]
    [entry] = [entry for entry in manifest["inputs"] if entry["path"] == name]
    assert entry["size"] > 0
    assert not sabiprep.verify(tmp_path / "out", against=corpus).failures
    # A second run has its texts in another place, and gives the same bytes.
    sabiprep.pack(corpus, tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(tmp_path / "out")


def test_an_answer_counts_with_its_question(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: its tasks are not proved")
    from sabiprep.benchmarks import benchmark_files

    corpus = corpus_of(tmp_path, ["lm-eval:tasks/yor_quiz"])
    files = benchmark_files(corpus)
    [(path, _)] = files["lm-eval:tasks/yor_quiz"]
    lines = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
    assert lines == [{"text": of["q"], "target": [of["choices"][of["gold"]]]} for of in QUESTIONS]
    del files
    assert not Path(path).exists()


@pytest.mark.parametrize(
    ("named", "problem", "remedy"),
    [
        ("lm-eval:tasks/yor_quizz", "no task 'yor_quizz'", "did you mean yor_quiz"),
        ("lm-eval:task/yor_quiz", "task is no folder of the corpus", "lm-eval:FOLDER/TASK"),
    ],
)
def test_a_task_that_is_not_there_is_an_error_with_the_nearest_name(
    tmp_path: Path, named: str, problem: str, remedy: str
) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: its tasks are not proved")
    corpus = corpus_of(tmp_path, [named])
    with pytest.raises(ConfigError, match=problem) as refused:
        sabiprep.pack(corpus, tmp_path / "out")
    assert refused.value.file == named and remedy in str(refused.value.remedy)


def test_data_that_cannot_be_had_offline_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: its tasks are not proved")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    corpus = corpus_of(tmp_path, ["lm-eval:tasks/yor_quiz"])
    (tmp_path / "questions.jsonl").unlink()
    with pytest.raises(InputError, match="its documents cannot be read") as refused:
        sabiprep.pack(corpus, tmp_path / "out")
    assert refused.value.file == "lm-eval:tasks/yor_quiz"
    assert "stay offline" in str(refused.value.remedy)


def test_without_lm_eval_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    corpus = corpus_of(tmp_path, ["lm-eval:arc_easy"])
    with pytest.raises(SabiprepError, match="need lm-eval") as refused:
        sabiprep.pack(corpus, tmp_path / "out")
    assert "sabiprep[lm-eval]" in str(refused.value.remedy)
    # The core alone, which loads nothing, says so too.
    with pytest.raises(ConfigError, match="a task of lm-eval"):
        packer.pack(corpus, tmp_path / "out", tokenizer=corpus / "tokenizer.json")
