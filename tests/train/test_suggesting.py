"""The ways to train on a card, compared by ``plan --suggest``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sabiprep.dataset import open_dataset
from sabiprep.errors import ConfigError, DatasetError
from sabitrain.__main__ import main
from sabitrain.data.datasets import Datasets
from sabitrain.partial.settings import LoraConfig, Phase
from sabitrain.planning import plan_run
from sabitrain.suggesting import describe_ways
from support.train.bases import from_base, make_base
from support.train.tiny import tiny_config, write_tiny


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


def test_each_way_has_the_memory_of_its_plan_and_the_first_that_fits_is_named(data, tmp_path):
    config = tiny_config(data, tmp_path / "run")
    text = describe_ways(config)
    lines = [line.split() for line in text.splitlines()[1:] if line and line[0] != " "]
    words = ["all", "last:1", "embeddings"]
    assert [line[0] for line in lines[: len(words)]] == words
    with open_dataset(data) as dataset:
        for word, line in zip(words, lines, strict=False):
            plan = plan_run(dataclasses.replace(config, train=word), Datasets([dataset]))
            assert line[1] == f"{plan.trained_parameters:,}"
            assert line[2] == f"{plan.fit.memory.total / 1e9:.2f}"
    assert "--train all" in text and "not measured" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_a_limit_leaves_the_ways_that_train_less(data, tmp_path):
    config = tiny_config(data, tmp_path / "run")
    with open_dataset(data) as dataset:
        plans = {
            word: plan_run(dataclasses.replace(config, train=word), Datasets([dataset]))
            for word in ("all", "last:1")
        }
    sizes = [plan.fit.memory.total for plan in plans.values()]
    assert sizes[1] < sizes[0]
    between = sum(sizes) / 2 / 1e9
    text = describe_ways(dataclasses.replace(config, memory_limit=between, recompute="off"))
    assert "does not fit" in text.splitlines()[1] and "--train last:1" in text
    assert "nothing fits" in describe_ways(dataclasses.replace(config, memory_limit=0.5))


def test_new_rows_are_a_way_of_a_checkpoint_that_names_them(data, tmp_path):
    base = make_base(data, tmp_path / "base")
    config = from_base(data, tmp_path / "run", base, new_rows=(20,))
    lines = describe_ways(config).splitlines()
    assert [line.partition("  ")[0] for line in lines[1:9]] == [
        "all",
        "lora",
        "lora 8-bit",
        "lora 4-bit",
        "last:2",
        "last:1",
        "embeddings",
        "new-rows",
    ]


def test_a_way_that_was_named_was_replaced_without_a_word(data, tmp_path):
    base = make_base(data, tmp_path / "base")

    def ways(**options: object) -> tuple[list[str], str]:
        text = describe_ways(from_base(data, tmp_path / "run", base, **options))
        table, _, said = text.partition("\n\n")
        return [line.partition("  ")[0] for line in table.splitlines()[1:]], said

    for options, expected, given in (
        ({"train": "last:1"}, ["last:1"], "--train last:1 was given"),
        ({"train": "lora"}, ["lora", "lora 8-bit", "lora 4-bit"], "--train lora was given"),
        ({"train": "lora", "lora": LoraConfig(bits=4)}, ["lora 4-bit"], "--lora.bits 4"),
        ({"train": "new-rows", "new_rows": (20,)}, ["new-rows"], "--train new-rows was given"),
        (
            {"phase": (Phase(train="embeddings", steps=2), Phase(train="all"))},
            ["phases"],
            "[[phase]] was given",
        ),
    ):
        found, said = ways(**options)
        assert found == expected and given in said, options
    with pytest.raises(ConfigError, match="the model has 3 blocks"):
        ways(train="last:9")


def test_it_is_a_word_of_plan_and_its_errors_are_those_of_plan(data, tmp_path, capsys):
    assert main(["plan", "--data", str(data), "--suggest"]) == 0
    written = capsys.readouterr()
    assert written.out.startswith("--train")
    # Minutes for a large model, without a word.
    ways = [line.partition("  ")[0] for line in written.out.partition("\n\n")[0].splitlines()[1:]]
    assert written.err.splitlines() == [
        f"planning --train {way} ({number} of {len(ways)})" for number, way in enumerate(ways, 1)
    ]
    assert main(["plan", "--suggest", "--data", str(tmp_path / "nothing")]) == 1
    assert "Remedy" in capsys.readouterr().err
    with pytest.raises(DatasetError):
        describe_ways(tiny_config(tmp_path / "nothing", tmp_path / "run"))
