"""Runs that start from a checkpoint of ``transformers``, and what they leave for it."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sabiprep.errors import ConfigError, DatasetError, SabiprepError, TrainError
from sabitrain.__main__ import main
from sabitrain.checkpoints.checkpoint import load_checkpoint
from sabitrain.command_line import parse_command_line
from sabitrain.config import BatchConfig, CheckpointConfig, ModelConfig, OptimConfig, TrainConfig
from sabitrain.planning import describe
from sabitrain.trainer import run_training
from support.train.families import (
    FAMILIES,
    assert_equal_gradients,
    assert_equal_logits,
    make_theirs,
    save_theirs,
)
from support.train.runs import without_times
from support.train.tiny import EOS, write_tiny

# Ends of an answer, as a chat model has them beside its end of text.
ENDS = [3, 7]
CHAT_TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


def make_base(data: Path, folder: Path, family: str = "llama", **options) -> Path:
    """A checkpoint with the dataset's tokenizer, and more rows than that has tokens."""
    save_theirs(make_theirs(family), folder, (data / "tokenizer.json").read_bytes(), **options)
    generation = {"eos_token_id": ENDS, "temperature": 0.6, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "x", "legacy": False}))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return folder


def from_base(data: Path, run: Path, base: Path, **options: object) -> TrainConfig:
    return TrainConfig(
        data=(str(data),),
        run=run,
        init=str(base),
        batch=BatchConfig(tokens=64, micro_tokens=32),
        optim=OptimConfig(lr=1e-3),
        **{
            "max_steps": 4,
            "eval_every": 0,
            "answers": 1,
            "device": "cpu",
            "log_every": 1,
            "threads": 1,
            **options,
        },
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_trains_on_and_its_checkpoint_is_the_familys_own(data, tmp_path, family):
    from transformers import AutoModelForCausalLM

    base = make_base(data, tmp_path / "base", family)
    report = run_training(from_base(data, tmp_path / "run", base))
    losses = [x["loss"] for x in without_times(tmp_path / "run") if x["kind"] == "train"]
    assert len(losses) == 4
    before, after = weights(base), weights(report.checkpoint)
    assert set(after) == set(before)
    assert all(not torch.equal(after[name], before[name]) for name in before)
    theirs = AutoModelForCausalLM.from_pretrained(report.checkpoint)
    original = AutoModelForCausalLM.from_pretrained(base)
    assert type(theirs) is type(original)
    ours = load_checkpoint(report.checkpoint)
    assert_equal_logits(theirs.eval(), ours)
    assert_equal_gradients(theirs, ours)
    assert theirs.generation_config.eos_token_id == [*ENDS, EOS]
    assert theirs.generation_config.temperature == 0.6
    assert (report.checkpoint / "chat_template.jinja").read_text() == CHAT_TEMPLATE
    kept = json.loads((report.checkpoint / "tokenizer_config.json").read_text())
    assert kept["legacy"] is False and kept["eos_token"] != "x", "control tokens are the dataset's"


def test_the_first_loss_is_that_of_the_checkpoint_in_transformers(data, tmp_path):
    from sabiprep.dataset import open_dataset

    base = make_base(data, tmp_path / "base")
    config = from_base(data, tmp_path / "run", base, max_steps=1)
    run_training(config)
    first = next(x for x in without_times(tmp_path / "run") if x["kind"] == "train")
    theirs = make_theirs("llama")
    # Two rows are a step; which, the order decides: so all pairs are tried.
    with open_dataset(data) as dataset:
        rows = []
        for index in range(len(dataset.train)):
            row = dataset.train.batch([index])
            bounds = row["cu_seqlens"].tolist()
            ids = torch.from_numpy(row["input_ids"].copy()).reshape(-1)
            labels = torch.from_numpy(row["labels"].copy()).reshape(-1)
            loss = torch.zeros(())
            for start, end in itertools.pairwise(bounds):
                if end - start < 2:
                    continue
                with torch.no_grad():
                    logits = theirs(ids[None, start:end]).logits[0, :-1]
                wanted = labels[start + 1 : end]
                loss += torch.nn.functional.cross_entropy(
                    logits, wanted, ignore_index=-100, reduction="sum"
                )
            rows.append((float(loss), int((labels != -100).sum())))
    pairs = [
        (one + other) / (n + m) for i, (one, n) in enumerate(rows) for other, m in rows[i + 1 :]
    ]
    assert any(abs(first["loss"] - pair) < 1e-5 * pair for pair in pairs)


def test_a_resumed_run_ends_in_the_same_bits_and_needs_its_base_no_more(data, tmp_path):
    base = make_base(data, tmp_path / "base", "gemma3")
    every = CheckpointConfig(every=2)
    run_training(from_base(data, tmp_path / "whole", base, checkpoint=every))
    run = tmp_path / "run"
    run_training(from_base(data, run, base, checkpoint=every))
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    shutil.rmtree(base)
    assert main(["--run", str(run), "--resume"]) == 0
    whole, resumed = (
        {path.name: path.read_bytes() for path in (each / "checkpoint").iterdir()}
        for each in (tmp_path / "whole", run)
    )
    times = {"trainer.json"}
    assert {name for name in whole if whole[name] != resumed[name]} <= times


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_with_its_base(data, tmp_path):
    base = make_base(data, tmp_path / "base")
    config = from_base(data, tmp_path / "run", base)
    run_training(config)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "checkpoint").unlink()
    assert main(["--run", str(tmp_path / "run"), "--resume"]) == 0
    run_training(from_base(data, tmp_path / "other", base))
    first, second = (weights(tmp_path / name / "checkpoint") for name in ("run", "other"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_base_is_no_way_to_go_on(data, tmp_path):
    base = make_base(data, tmp_path / "base")
    run_training(from_base(data, tmp_path / "run", base, max_steps=1))
    other = make_base(data, tmp_path / "other")
    with pytest.raises(ConfigError, match=r"init is .*other"):
        run_training(from_base(data, tmp_path / "run", other, max_steps=1, resume=True))


def test_weights_may_lie_in_several_files_and_in_half_precision(data, tmp_path):
    theirs = make_theirs("qwen3").bfloat16()
    folder = tmp_path / "base"
    theirs.save_pretrained(folder, max_shard_size="4KB")
    shutil.copy(data / "tokenizer.json", folder)
    assert len(list(folder.glob("*.safetensors"))) > 1
    model = load_checkpoint(folder)
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, theirs.state_dict()[name].float())


def test_a_plan_is_made_of_the_checkpoints_shape_and_needs_no_weights(data, tmp_path):
    base = make_base(data, tmp_path / "base", "qwen2-untied")
    parameters = sum(value.numel() for value in weights(base).values())
    (base / "model.safetensors").unlink()
    text = describe(from_base(data, tmp_path / "run", base))
    assert f"{parameters:,} parameters" in text
    assert not (tmp_path / "run").exists()


def test_the_preset_of_a_run_from_a_checkpoint_has_a_lower_rate(tmp_path):
    words = ["--data", "d", "--run", str(tmp_path / "r")]
    with_one, without = (parse_command_line([*words, *more]) for more in (["--init", "x"], []))
    assert (with_one.preset, without.preset) == ("checkpoint", "nano")
    assert with_one.optim.lr < without.optim.lr / 10
    assert parse_command_line([*words, "--init", "x", "--preset", "nano"]).preset == "nano"
    with pytest.raises(ConfigError, match="add --init CHECKPOINT"):
        parse_command_line([*words, "--preset", "checkpoint"])
    file = tmp_path / "train.toml"
    file.write_text('init = "x"\n')
    assert parse_command_line([*words, "--config", str(file)]).preset == "checkpoint"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": ModelConfig(width=64)}, "model.width is 64, but 24 in the checkpoint"),
        (
            {"model": ModelConfig(architecture="qwen2")},
            "model.architecture is 'qwen2', but 'llama'",
        ),
    ],
)
def test_a_shape_that_is_not_the_checkpoints_is_refused(data, tmp_path, options, message):
    base = make_base(data, tmp_path / "base")
    with pytest.raises(ConfigError, match=message) as caught:
        run_training(from_base(data, tmp_path / "run", base, **options))
    assert "--init decides the shape" in str(caught.value.remedy)
    assert not (tmp_path / "run").exists()


def broken(base: Path, how: str) -> None:
    """Breaks a checkpoint in one way."""
    file = base / "model.safetensors"
    held = load_file(file)
    match how:
        case "pickle":
            file.unlink()
            (base / "pytorch_model.bin").write_bytes(b"\x80\x02.")
        case "no weights":
            file.unlink()
        case "no config":
            (base / "config.json").unlink()
        case "no JSON":
            (base / "config.json").write_text("{")
        case "a list":
            (base / "config.json").write_text("[]")
        case "cut":
            file.write_bytes(file.read_bytes()[:-10])
        case "lacking":
            held.pop("model.norm.weight")
        case "more":
            held["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(24)
        case "shape":
            held["model.norm.weight"] = torch.zeros(23)
        case "NaN":
            held["model.norm.weight"][3] = torch.nan
        case "whole numbers":
            held["model.norm.weight"] = torch.zeros(24, dtype=torch.int8)
        case "another head":
            held["lm_head.weight"] = held["model.embed_tokens.weight"] + 1
        case "index":
            file.rename(base / "other.safetensors")
            table = {name: "other.safetensors" for name in held} | {"x": "other.safetensors"}
            (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
            return
        case "index outside":
            file.unlink()
            table = {"x": "../a.safetensors"}
            (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
        case "tokenizer":
            written = json.loads((base / "tokenizer.json").read_text())
            written["model"]["vocab"] = {
                name: (id_ + 1) % len(written["model"]["vocab"])
                for name, id_ in written["model"]["vocab"].items()
            }
            (base / "tokenizer.json").write_text(json.dumps(written))
        case "no tokenizer":
            (base / "tokenizer.json").unlink()
    if how in ("lacking", "more", "shape", "NaN", "whole numbers", "another head"):
        save_file(held, file, {"format": "pt"})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("pickle", "as a pickle .pytorch_model.bin."),
        ("no weights", "holds neither model.safetensors nor"),
        ("no config", "holds no config.json"),
        ("no JSON", "is no JSON"),
        ("a list", "is no JSON object"),
        ("cut", "cannot be read"),
        ("lacking", "its weights lack model.norm.weight"),
        ("more", "hold what llama has not: model.layers.0.self_attn.q_proj.bias"),
        ("shape", r"model.norm.weight is \[23\], not \[24\]"),
        ("NaN", "model.norm.weight holds a weight that is no finite number"),
        ("whole numbers", "quantised weights cannot be trained"),
        ("another head", "ties the head to the embedding, but lm_head.weight is another"),
        ("index", "as the file of x, which does not hold it"),
        ("index outside", "no safetensors file of its folder"),
        ("tokenizer", "was packed with another tokenizer than .*: they differ in vocabulary"),
        ("no tokenizer", "holds no tokenizer.json"),
    ],
)
def test_a_checkpoint_that_cannot_be_right_is_refused(data, tmp_path, how, message, capsys):
    base = make_base(data, tmp_path / "base")
    broken(base, how)
    with pytest.raises(SabiprepError, match=message) as caught:
        run_training(from_base(data, tmp_path / "run", base))
    assert caught.value.remedy and isinstance(caught.value, TrainError | DatasetError)
    words = ["--data", str(data), "--run", str(tmp_path / "again"), "--init", str(base)]
    assert main(words) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_tokenizer_that_only_begins_texts_otherwise_is_the_same(data, tmp_path):
    base = make_base(data, tmp_path / "base")
    file = base / "tokenizer.json"
    written = json.loads(file.read_text())
    written["truncation"] = {
        "direction": "Right",
        "max_length": 8,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    file.write_text(json.dumps(written, indent=1))
    run_training(from_base(data, tmp_path / "run", base, max_steps=1))


def test_a_model_with_fewer_rows_than_tokens_is_refused(data, tmp_path):
    base = make_base(data, tmp_path / "base")
    written = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**written, "vocab_size": 12}))
    held = weights(base)
    held["model.embed_tokens.weight"] = held["model.embed_tokens.weight"][:12].clone()
    save_file(held, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(TrainError, match="vocabulary has 20 tokens, and the model's embedding 12"):
        run_training(from_base(data, tmp_path / "run", base))


def test_rows_longer_than_the_checkpoints_context_are_refused(data, tmp_path):
    base = make_base(data, tmp_path / "base")
    written = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**written, "max_position_embeddings": 16}))
    with pytest.raises(TrainError, match="its rows have 32 tokens") as caught:
        run_training(from_base(data, tmp_path / "run", base))
    assert caught.value.remedy == "pack with a smaller --seq-len"
