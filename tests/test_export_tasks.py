"""Held-out records as tasks of `lm-eval`: what is asked, token by token, and what scores it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import PackOptions, TasksReport
from sabiprep.dataset import open_dataset
from sabiprep.errors import ConfigError, OutputError
from sabiprep.handover.held_out import last_target, questions_of
from sabiprep.handover.texts import texts_of
from support.command import Run
from support.command import run as run
from support.handover import run_with

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: what it reads is not proved")

NAMES = ["heldout_sum-eng", "heldout_sum-yor", "heldout_label", "heldout_plain"]


def held_out_documents(out: Path) -> dict[str, list[tuple[list[int], list[int], list[int]]]]:
    """The prompt ids, target ids and closing ids of every held-out document, by source."""
    found: dict[str, list[tuple[list[int], list[int], list[int]]]] = {}
    with open_dataset(out) as dataset:
        for row in dataset.validation:
            start = 0
            for source, length in zip(row["source_ids"], row["seq_lengths"], strict=True):
                ids = row["input_ids"][start : start + length].tolist()
                roles = row["roles"][start : start + length].tolist()
                parts = [
                    [id_ for id_, role in zip(ids, roles, strict=True) if role in wanted]
                    for wanted in ((1, 2), (3,), (0,))
                ]
                found.setdefault(dataset.sources[source].name, []).append(tuple(parts))  # type: ignore[arg-type]
                start += length
    return found


def records(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines()]


def test_tasks_are_of_the_template_that_was_trained(corpus: Path, tmp_path: Path) -> None:
    report = sabiprep.export_tasks(corpus, tmp_path / "tasks")
    assert [task.name for task in report.tasks] == NAMES and report.without == ()
    lines = [
        json.loads(line)
        for line in (corpus / "sums.jsonl").read_text("utf-8").splitlines()
        if line.startswith('{"a": "') and line.endswith("}")
    ]
    for source, field in (("sum-eng", "words"), ("sum-yor", "yor")):
        trained = {
            (f"<sum> {line['a']} {line['b']} <{source[-3:]}>:", f" {line[field]}")
            for line in lines
            if field in line
        }
        asked = {
            (record["prompt"], record["target"])
            for record in records(tmp_path / "tasks", f"heldout_{source}")
        }
        assert asked and asked <= trained
    with (corpus / "sums.jsonl").open("rb") as file:
        for record in records(tmp_path / "tasks", "heldout_sum-eng"):
            file.seek(record["byte"])
            assert json.loads(file.readline())["words"] == record["target"].strip()


def test_tasks_of_a_corpus_are_those_of_its_dataset(corpus: Path, tmp_path: Path) -> None:
    sabiprep.pack(corpus, tmp_path / "out", PackOptions(threads=1))
    sabiprep.export_tasks(corpus, tmp_path / "of corpus")
    sabiprep.export_tasks(tmp_path / "out", tmp_path / "of dataset")
    for path in (tmp_path / "of corpus").iterdir():
        other = tmp_path / "of dataset" / path.name
        assert other.read_text("utf-8").replace("of dataset", "of corpus") == path.read_text(
            "utf-8"
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "corpus",
        "of corpus",
        "of dataset",
        "out",
    ]


def test_the_kind_follows_from_the_answers(corpus: Path, tmp_path: Path) -> None:
    report = sabiprep.export_tasks(corpus, tmp_path / "tasks")
    kinds = {task.source: task.kind for task in report.tasks}
    assert kinds == {
        "sum-eng": "generate_until",
        "sum-yor": "generate_until",  # 66 records of 11 answers: its copies are not counted
        "label": "multiple_choice",
        "plain": "loglikelihood_rolling",
    }
    task = yaml.safe_load((tmp_path / "tasks" / "heldout_label.yaml").read_text("utf-8"))
    assert task["doc_to_choice"] == [" bad", " good"]
    for record in records(tmp_path / "tasks", "heldout_label"):
        assert task["doc_to_choice"][record["label"]] == record["target"]


def test_yaml_reads_back_whatever_the_names_hold(corpus: Path, tmp_path: Path) -> None:
    name = "ẹ̀kọ́: #1 \\u0085 ‮ 😀"
    config = (corpus / "corpus.toml").read_text("utf-8")
    config = config.replace('name = "label"', f"name = {json.dumps(name, ensure_ascii=True)}")
    config = config.replace('name = "plain"', 'name = "_k_: _1 _u0085 _ _"')
    (corpus / "corpus.toml").write_text(config.replace("\\ud83d\\ude00", "😀"), "utf-8")
    sabiprep.export_tasks(corpus, tmp_path / "tasks")
    files = sorted((tmp_path / "tasks").glob("*.yaml"))
    read = [yaml.safe_load(file.read_text("utf-8")) for file in files]
    assert [task["task"] for task in read] == [file.stem for file in files]
    assert name in [task["metadata"]["source"] for task in read]
    for task in read:
        assert Path(task["dataset_kwargs"]["data_files"]["test"]).is_file()


def test_windows_of_a_long_text_are_one_question(corpus: Path, tmp_path: Path) -> None:
    text = " ".join(f"word{number}" for number in range(400))
    (corpus / "long.txt").write_text(text + "\n", "utf-8")
    with (corpus / "corpus.toml").open("a", encoding="utf-8") as file:
        file.write(
            '[[source]]\nname = "long"\nfiles = ["plain.txt"]\nvalidation_files = ["long.txt"]\n'
        )
    sabiprep.export_tasks(corpus, tmp_path / "tasks")
    targets = [record["target"] for record in records(tmp_path / "tasks", "heldout_long")]
    assert text in targets


def test_documents_that_rows_cut_are_put_together(corpus: Path, tmp_path: Path) -> None:
    config = (corpus / "corpus.toml").read_text("utf-8").replace("seq_len = 128", "seq_len = 64")
    asked = []
    for policy in ("best_fit", "concat"):
        text = config.replace("[pack]", f'[pack]\npack = "{policy}"')
        (corpus / "corpus.toml").write_text(text, "utf-8")
        report = sabiprep.export_tasks(corpus, tmp_path / policy)
        asked.append(
            {
                (task.name, record["byte"], record["prompt"], record["target"])
                for task in report.tasks
                for record in records(tmp_path / policy, task.name)
            }
        )
    assert asked[0] == asked[1] and len(asked[0]) > 15


def test_the_last_target_is_the_answer() -> None:
    import numpy as np

    assert last_target(np.array([1, 3, 3, 2, 3, 0], np.uint8)) == slice(4, 5)
    assert last_target(np.array([1, 3, 3, 0], np.uint8)) == slice(1, 3)
    assert last_target(np.array([3], np.uint8)) == slice(0, 1)
    assert last_target(np.array([1, 0], np.uint8)) == slice(2, 2)


def test_questions_have_the_text_of_every_held_out_document(
    packed: sabiprep.PackReport,
) -> None:
    with open_dataset(packed.out) as dataset:
        questions = list(questions_of(dataset, texts_of(dataset)))
        assert len(questions) == dataset.manifest["splits"]["validation"]["documents"]
        assert all(question.target and question.tokens for question in questions)


def test_a_corpus_that_holds_nothing_out_is_refused(corpus: Path, tmp_path: Path) -> None:
    config = (corpus / "corpus.toml").read_text("utf-8")
    (corpus / "corpus.toml").write_text(config.replace("validation = 0.1", ""), "utf-8")
    with pytest.raises(ConfigError, match=r"no record is held out[\s\S]*validation_files"):
        sabiprep.export_tasks(corpus, tmp_path / "tasks")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_options_are_for_a_corpus_alone(packed: sabiprep.PackReport, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="packed already"):
        sabiprep.export_tasks(packed.out, tmp_path / "tasks", PackOptions(seed=1))
    with pytest.raises(OutputError, match="lie in each other"):
        sabiprep.export_tasks(packed.out, Path(packed.out) / "tasks")


def test_the_command_names_the_tasks(run: Run, packed: sabiprep.PackReport, tmp_path: Path) -> None:
    ran = run("export-tasks", packed.out, tmp_path / "tasks")
    assert ran.code == 0
    assert "heldout_label: 4 documents, multiple_choice" in ran.out
    assert f"--include_path {tmp_path / 'tasks'} --tasks heldout" in ran.out
    assert run("export-tasks", packed.out, tmp_path / "tasks").code == 1
    assert run("export-tasks", packed.out, tmp_path / "tasks", "--overwrite").code == 0


def test_lm_eval_asks_what_was_trained_token_by_token(
    packed: sabiprep.PackReport, tmp_path: Path
) -> None:
    sabiprep.export_tasks(packed.out, tmp_path / "tasks")
    printed = run_with(
        "lm_eval",
        "transformers",
        program="score_with_lm_eval.py",
        arguments=[tmp_path / "tasks", Path(packed.out, "tokenizer.json"), tmp_path / "model"],
    )
    scored = json.loads(printed.splitlines()[-1])
    assert sorted(scored["results"]) == sorted(NAMES)
    for name, metric in zip(
        NAMES, ["exact_match", "exact_match", "acc", "bits_per_byte"], strict=True
    ):
        assert any(key.startswith(f"{metric},") for key in scored["results"][name]), name
    documents = held_out_documents(Path(packed.out))
    for name in NAMES:
        trained = documents[name.removeprefix("heldout_")]
        asked = scored["ids"][name]
        assert len(asked) == len(trained)
        if name == "heldout_plain":
            assert sorted(request[0][0] for request in asked) == sorted(
                target for _, target, _ in trained
            )
            continue
        assert sorted(request[0][0] for request in asked) == sorted(
            prompt for prompt, _, _ in trained
        )
        if name == "heldout_label":
            answers = {tuple(target) for _, target, _ in trained}
            for request in asked:
                assert answers <= {tuple(ids) for _, ids in request}


def test_the_report_prints(packed: sabiprep.PackReport, tmp_path: Path) -> None:
    report = sabiprep.export_tasks(packed.out, tmp_path / "tasks")
    assert isinstance(report, TasksReport)
    assert "heldout_plain: 4 documents, loglikelihood_rolling" in str(report)
