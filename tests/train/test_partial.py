"""Partial training: the parameters that are chosen move, and no bit of any other."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from sabiprep.errors import ConfigError, TrainError
from sabitrain.config import ModelConfig, OptimConfig, TrainConfig
from sabitrain.data.batches import Step, make_batch
from sabitrain.memory import MicroBatch, memory_of
from sabitrain.models.architecture import CausalModel, make_model, trained_in
from sabitrain.models.flops import step_flops
from sabitrain.models.loss import predicting_states, weighted_loss
from sabitrain.partial.settings import PartialConfig
from sabitrain.partial.trained import set_trained
from sabitrain.planning import describe
from sabitrain.trainer import run_training
from support.train.bases import damaged_copy, from_base, make_base, weights
from support.train.runs import read
from support.train.tear import outcome
from support.train.tiny import VOCAB_SIZE, random_rows, tiny_config, write_tiny

SHAPE = ModelConfig(layers=3, width=16, heads=4, kv_heads=2, mlp_width=24, context=1024)
UNTIED = ModelConfig(
    layers=3, width=16, heads=4, kv_heads=2, mlp_width=24, context=1024, untied_head=True
)
QWEN2 = ModelConfig(
    architecture="qwen2", layers=3, width=16, heads=4, mlp_width=24, context=1024, untied_head=True
)
OLMO2 = ModelConfig(
    architecture="olmo2", layers=3, width=16, heads=4, mlp_width=24, context=1024, untied_head=True
)
WAYS = [
    PartialConfig(train="embeddings"),
    PartialConfig(train="last:1"),
    PartialConfig(train="last:2", freeze=("*norm*", "lm_head.*")),
    PartialConfig(train="new-rows", new_rows=(12, 18)),
    PartialConfig(freeze=("model.embed_tokens.weight", "model.layers.0.*")),
    PartialConfig(freeze=("*.weight",)),
    PartialConfig(freeze=("model.*",)),
    PartialConfig(
        freeze=("model.embed_tokens.*", "*.layers.0.*norm*", "*.layers.0.*.[qkvo]_proj*")
    ),
]


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


def gradients(model: CausalModel, batch) -> None:
    hidden = predicting_states(model, batch)
    weighted_loss(hidden, model.head_VC, batch, 1e-3, rows=model.head_rows)[0].backward()


@pytest.mark.parametrize(
    "shape", [SHAPE, UNTIED, QWEN2, OLMO2], ids=["tied", "untied", "qwen2", "olmo2"]
)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.train} {way.freeze}")
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_those_of_all_and_only_their_products_are_executed(shape, way, recompute):
    rows = random_rows(1, 2, 512, 100, 0.3)
    batch = make_batch(rows, rows["loss_mask"].reshape(-1) * 1.0)
    torch.manual_seed(0)
    whole = make_model(shape, VOCAB_SIZE).double()
    model = make_model(shape, VOCAB_SIZE).double()
    model.load_state_dict(whole.state_dict())
    try:
        set_trained(model, way)
    except ConfigError as error:
        # The head is the embedding, or there is no bias: then these freeze all.
        assert (
            "nothing is left to train" in error.message or "matches no parameter" in error.message
        )
        return
    model.recompute(recompute)
    gradients(whole, batch)
    pairs = sum(
        query + 1
        for start, end in itertools.pairwise(rows["cu_seqlens"].tolist())
        for query in range(end - start)
    )
    of_attention = 4 * pairs * shape.width
    counted = {
        torch.ops.sabitrain.document_attention: lambda *_, **__: of_attention,
        torch.ops.sabitrain.document_attention_backward: lambda *_, **__: 2 * of_attention,
    }
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        gradients(model, batch)
    trained = trained_in(model)
    flops = step_flops(shape, VOCAB_SIZE, Step([batch], 0, 0), "full", recompute, trained)
    assert flops.executed == counter.get_total_flops()
    assert (
        flops.executed
        < step_flops(shape, VOCAB_SIZE, Step([batch], 0, 0), "full", recompute).executed
    )
    for name, parameter in whole.named_parameters():
        own = model.get_parameter(name)
        if name in model.rows:
            first, rows_RC = model.rows[name]
            torch.testing.assert_close(
                rows_RC.grad, parameter.grad[first : first + len(rows_RC)], rtol=1e-10, atol=1e-12
            )
            assert own.grad is None
        elif own.requires_grad:
            torch.testing.assert_close(own.grad, parameter.grad, rtol=1e-10, atol=1e-12)
        else:
            assert own.grad is None


# What is trained of llama, of three blocks and a tied head.
LAST = ("model.layers.2.", "model.norm.")


@pytest.mark.parametrize(
    ("train", "family", "moves"),
    [
        ("last:1", "llama", LAST),
        ("last:1", "olmo2", (*LAST, "lm_head.")),
        ("embeddings", "qwen2-untied", ("model.embed_tokens.", "lm_head.")),
    ],
)
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_no_bit_of_a_frozen_parameter_moves_and_a_resumed_run_is_the_whole_one(
    data, tmp_path, train, family, moves, name
):
    base = make_base(data, tmp_path / "base", family)
    optim = OptimConfig(lr=1e-2, name=name)
    config = from_base(data, tmp_path / "run", base, train=train, optim=optim)
    report = run_training(config)
    before, after = weights(base), weights(report.checkpoint)
    for key, value in before.items():
        assert torch.equal(value, after[key]) is not key.startswith(moves), key
    kept = load_file(report.checkpoint / "trainer.safetensors")
    states = {key.split(".", 1)[1] for key in kept if key.startswith("optimizer.")}
    assert all(key.startswith(moves) for key in states)
    start = read(tmp_path / "run")[0]
    trained = sum(value.numel() for key, value in before.items() if key.startswith(moves))
    assert start["trained_parameters"] == trained < start["parameters"]
    copy = damaged_copy(tmp_path / "run", tmp_path / "copy")
    run_training(from_base(data, copy, base, train=train, optim=optim, resume=True))
    assert outcome(copy) == outcome(tmp_path / "run")


@pytest.mark.parametrize("family", ["llama", "qwen2-untied", "gemma3"])
def test_new_rows_alone_move_whatever_the_weight_decay(data, tmp_path, family):
    base = make_base(data, tmp_path / "base", family)
    (base / "adapt.json").write_text(json.dumps({"new_rows": [12, 18], "other": 1}))
    optim = OptimConfig(lr=1e-2, weight_decay=0.5)
    config = from_base(data, tmp_path / "run", base, train="new-rows", optim=optim)
    report = run_training(config)
    before, after = weights(base), weights(report.checkpoint)
    ends = {"model.embed_tokens.weight", "lm_head.weight"} & before.keys()
    for key, value in before.items():
        same = (value == after[key]).reshape(len(value), -1).all(1)
        moved = torch.zeros(len(value), dtype=torch.bool)
        if key in ends:
            moved[12:18] = True
        assert torch.equal(~same, moved), key
    state = load_file(report.checkpoint / "trainer.safetensors")
    assert {len(v) for k, v in state.items() if k.endswith("exp_avg")} == {6}
    assert json.loads((report.checkpoint / "adapt.json").read_text())["new_rows"] == [12, 18]
    # The same without the file of the base, and from the run's own.
    copy = damaged_copy(tmp_path / "run", tmp_path / "copy")
    (base / "adapt.json").unlink()
    run_training(from_base(data, copy, base, train="new-rows", optim=optim, resume=True))
    assert outcome(copy) == outcome(tmp_path / "run")
    with pytest.raises(ConfigError, match="does not say which rows are new"):
        run_training(from_base(data, tmp_path / "none", base, train="new-rows"))
    given = {"train": "new-rows", "new_rows": (12, 18), "optim": optim}
    again = run_training(from_base(data, tmp_path / "given", base, **given))
    found = weights(again.checkpoint)
    assert all(torch.equal(value, found[key]) for key, value in after.items())


def test_frozen_weights_have_no_gradient_and_no_state_in_memory():
    shape = ModelConfig(layers=4, width=64, heads=4, mlp_width=128, context=128)
    size = MicroBatch(128, 64, 4)

    def memory(**options: object):
        return memory_of(TrainConfig(data=("x",), run=Path(), model=shape, **options), 512, size)

    whole, last = memory(), memory(train="last:1")
    parameters = make_model(shape, 512)
    block = sum(value.numel() for value in parameters.units()[0].parameters())
    assert whole.gradients + whole.optimizer >= 12 * parameters.n_parameters()
    # Sizes are rounded up to 512 bytes.
    assert 8 * block <= last.optimizer <= 8 * block + 40_000
    assert last.gradients <= 4 * block + 20_000
    assert last.activations < 0.5 * whole.activations
    rows = memory(train="new-rows", new_rows=(500, 512))
    assert rows.optimizer < 10_000 and rows.activations > 0.7 * whole.activations


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": ("model.layer.0.*",)}, r"matches no parameter(.|\n)*model\.layers\.0\."),
        ({"freeze": ("*",)}, "nothing is left to train"),
        ({"train": "last:4"}, "the model has 3 blocks"),
        ({"train": "new-rows", "new_rows": (39, 41)}, "new_rows are 39 to 41"),
        ({"new_rows": (3,)}, "new_rows are trained by --train new-rows, not by --train all"),
        ({"train": "new-rows", "new_rows": (40,)}, "new_rows must be FIRST from 0"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_is_made(data, tmp_path, options, message):
    base = make_base(data, tmp_path / "base")
    with pytest.raises(ConfigError, match=message):
        run_training(from_base(data, tmp_path / "run", base, **options))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("written", ["[1]", '{"new_rows": [3]}', '{"new_rows": [-1, 3]}', "{}"])
def test_a_damaged_list_of_new_rows_is_refused(data, tmp_path, written):
    base = make_base(data, tmp_path / "base")
    (base / "adapt.json").write_text(written)
    with pytest.raises(TrainError, match=r"JSON object|new_rows cannot be right"):
        run_training(from_base(data, tmp_path / "run", base, train="new-rows"))


@pytest.mark.parametrize(
    "options",
    [
        {"train": "last:0"},
        {"train": "last"},
        {"train": "some"},
        {"train": "new-rows", "new_rows": (3, 3)},
        {"train": "new-rows", "new_rows": (-3,)},
        {"train": "new-rows", "new_rows": (1, 2, 3)},
    ],
)
def test_settings_that_cannot_be_right(options):
    with pytest.raises(ConfigError, match=r"train must|new_rows"):
        PartialConfig(**options)
    with pytest.raises(ConfigError, match="train new-rows needs a checkpoint"):
        run_training(TrainConfig(data=("x",), run=Path("y"), train="new-rows"))


def test_a_plan_counts_the_trained_ones(data, tmp_path):
    text = describe(tiny_config(data, tmp_path / "run", train="last:1"))
    assert "of them trained" in text
    assert "of them trained" not in describe(tiny_config(data, tmp_path / "run"))


def test_a_run_of_new_rows_cannot_go_on_with_all(data, tmp_path):
    """It was told of its new rows, which had not changed."""
    base = make_base(data, tmp_path / "base")
    new = {"train": "new-rows", "new_rows": (12, 18)}
    run_training(from_base(data, tmp_path / "run", base, **new, max_steps=2))
    other = {**new, "train": "all", "resume": True, "max_steps": 2}
    with pytest.raises(ConfigError, match="train is 'all', but this run was begun with 'new-rows'"):
        run_training(from_base(data, tmp_path / "run", base, **other))
