"""From a base to a run that starts from it adapted: what ``make adapt-demo`` does, in small."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import sabiprep
from sabitrain.__main__ import main
from sabitrain.adapt.settings import AdaptConfig
from support.train.adapt_bases import write_base

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("adapt_demo", ROOT / "examples/adapt_demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_run_starts_from_what_was_adapted(tmp_path, capsys, demo, family):
    demo.write_corpora(tmp_path, None)
    write_base(tmp_path / "base", family, rows_more=7, max_position_embeddings=256)
    settings = tmp_path / "base" / "tokenizer_config.json"
    written = json.loads(settings.read_text("utf-8"))
    for corpus in ("english", "yoruba"):
        file = tmp_path / corpus / "corpus.toml"
        file.write_text(file.read_text("utf-8").replace("</s>", written["eos_token"]), "utf-8")
    new = tmp_path / "adapted"
    capsys.readouterr()
    words = ["--add-language", tmp_path / "yoruba", "--vocab", "+100", "--json"]
    assert main(["adapt", str(tmp_path / "base"), str(new), *map(str, words)]) == 0
    (tmp_path / "adapted.json").write_text(capsys.readouterr().out, "utf-8")
    for run, base in (("kept", tmp_path / "base"), ("adapted", new)):
        data = tmp_path / f"{run}-data"
        options = sabiprep.PackOptions(tokenizer=base / "tokenizer.json")
        sabiprep.pack(tmp_path / "yoruba", data, options)
        words = ["--data", data, "--eval-data", f"yor={data}", "--init", base]
        words += ["--run", tmp_path / f"{run}-run", "--max-steps", 2, "--batch.tokens", 256]
        words += ["--eval-every", 0, "--answers", 0, "--device", "cpu", "--threads", 1]
        assert main([*map(str, words)]) == 0
    tokens = AutoTokenizer.from_pretrained(new)
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "adapted-run" / "checkpoint")
    ids = tokens("Ẹ kú àárọ̀", return_tensors="pt").input_ids
    assert torch.isfinite(trained(ids).logits).all()
    capsys.readouterr()
    demo.show_table(tmp_path)
    lines = capsys.readouterr().out.strip().splitlines()
    figures = [[float(word) for word in line.split()[-2:]] for line in lines[1:]]
    assert len(figures) == 4 and all(0 < bits < 20 for bits, _ in figures)
    assert figures[0][1] == figures[1][1] > figures[2][1] == figures[3][1]


def test_every_option_is_on_the_page():
    page = (ROOT / "docs" / "adapt.md").read_text("utf-8")
    named = set(re.findall(r"--([a-z-]+)", page))
    options = {field.name.replace("_", "-") for field in dataclasses.fields(AdaptConfig)}
    assert options - {"base", "new"} <= named
