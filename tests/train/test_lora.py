"""Adapters: loaded by ``peft`` onto the base in ``transformers``, merged, resumed, counted."""

from __future__ import annotations

import errno
import functools
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

import sabitrain
from sabiprep.errors import ConfigError, SabiprepError, TrainError
from sabitrain.__main__ import main
from sabitrain.checkpoints import files
from sabitrain.checkpoints.pretrained import load_pretrained, open_pretrained
from sabitrain.config import ModelConfig, OptimConfig
from sabitrain.data.batches import Step, make_batch
from sabitrain.memory import MicroBatch, memory_of
from sabitrain.models.architecture import CausalModel, make_model, trained_in
from sabitrain.models.flops import step_flops
from sabitrain.models.loss import predicting_states, weighted_loss
from sabitrain.partial.settings import LoraConfig, PartialConfig
from sabitrain.partial.trained import set_trained
from sabitrain.planning import describe
from sabitrain.trainer import run_training
from sabitrain.training_state import make_training_state
from support.train import tear
from support.train.bases import damaged_copy, from_base, make_base, weights
from support.train.families import FAMILIES, VOCAB_SIZE, logits_alone
from support.train.runs import read, spoil_trained, without_times
from support.train.tiny import VOCAB_SIZE as TINY
from support.train.tiny import random_rows, write_tiny

LENGTHS = [7, 1, 12]
KINDS = {
    "lora": LoraConfig(rank=4, alpha=16.0),
    "rslora": LoraConfig(rank=3, rslora=True, targets=("q_proj", "down_proj")),
    "dora": LoraConfig(rank=2, dora=True),
}


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


def lora(data: Path, run: Path, base: Path, kind: str = "lora", **options: object):
    optim = OptimConfig(lr=2e-2)
    return from_base(
        data, run, base, **{"train": "lora", "lora": KINDS[kind], "optim": optim, **options}
    )


def our_logits(model: CausalModel, ids: torch.Tensor) -> torch.Tensor:
    bounds = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    with torch.no_grad():
        return F.linear(model(ids, positions, bounds, max(LENGTHS)), model.head_VC)


# peft asks transformers by an older name.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize(
    ("family", "kind"),
    [*((family, "lora") for family in FAMILIES), ("llama", "rslora"), ("qwen2", "dora")],
)
def test_peft_loads_the_adapter_onto_the_base_with_our_logits(data, tmp_path, family, kind):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = make_base(data, tmp_path / "base", family)
    report = run_training(lora(data, tmp_path / "run", base, kind))
    folder = report.checkpoint
    assert not (folder / "model.safetensors").exists()
    assert AutoTokenizer.from_pretrained(folder).vocab_size > 0
    ids = torch.randint(0, VOCAB_SIZE, (sum(LENGTHS),), generator=torch.Generator().manual_seed(3))
    theirs = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        before = logits_alone(theirs, ids, LENGTHS)
        theirs = PeftModel.from_pretrained(theirs, folder).eval()
        expected = logits_alone(theirs, ids, LENGTHS)
    assert (expected - before).abs().max() > 0.1, "an adapter that does nothing would show nothing"
    # Merged, so rounded otherwise; the run's own module is compared below.
    merged = sabitrain.load_checkpoint(folder)
    torch.testing.assert_close(our_logits(merged, ids), expected, rtol=2e-5, atol=2e-5)
    state = make_training_state(
        lora(data, tmp_path / "run", base, kind, model=merged.config),
        VOCAB_SIZE,
        torch.device("cpu"),
        False,
        print,
        open_pretrained(base),
    )
    state.restore(folder)
    torch.testing.assert_close(our_logits(state.model, ids), expected, rtol=1e-5, atol=1e-5)
    assert main(["merge", str(folder), str(tmp_path / "merged")]) == 0
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        found = logits_alone(whole, ids, LENGTHS)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)
    assert set(weights(tmp_path / "merged")) == set(weights(base))


@pytest.mark.parametrize(("kind", "name"), [("lora", "adamw"), ("dora", "adamw"), ("lora", "muon")])
def test_a_resumed_run_is_the_whole_one(data, tmp_path, kind, name):
    base = make_base(data, tmp_path / "base")
    before = (base / "model.safetensors").read_bytes()
    options = {"optim": OptimConfig(lr=2e-2, name=name)}
    run_training(lora(data, tmp_path / "run", base, kind, **options))
    copy = damaged_copy(tmp_path / "run", tmp_path / "copy")
    run_training(lora(data, copy, base, kind, resume=True, **options))
    assert tear.outcome(copy) == tear.outcome(tmp_path / "run")
    assert (base / "model.safetensors").read_bytes() == before
    start = read(tmp_path / "run")[0]
    adapter = load_file(tmp_path / "run" / "checkpoint" / "adapter_model.safetensors")
    assert start["trained_parameters"] == sum(value.numel() for value in adapter.values())


@pytest.mark.parametrize("recompute", ["off", "on"])
def test_dropout_is_of_the_seed_and_the_step(data, tmp_path, recompute, monkeypatch):
    """A resumed run drops out as the whole one, and so does one that has drawn other numbers."""
    base = make_base(data, tmp_path / "base")
    options = {
        "lora": replace(KINDS["lora"], dropout=0.5),
        "recompute": recompute,
        "eval_every": 3,
    }
    run_training(lora(data, tmp_path / "run", base, **options))
    copy = damaged_copy(tmp_path / "run", tmp_path / "copy")
    run_training(lora(data, copy, base, resume=True, **options))
    assert tear.outcome(copy) == tear.outcome(tmp_path / "run")
    losses = {
        name: [line["loss"] for line in read(tmp_path / name) if line["kind"] == "train"]
        for name in ("run", "copy")
    }
    for name, changed in (("other", {"seed": 1}), ("none", {"lora": KINDS["lora"]})):
        run_training(lora(data, tmp_path / name, base, **{**options, **changed}))
        losses[name] = [line["loss"] for line in read(tmp_path / name) if line["kind"] == "train"]
    # The first loss is of adapters that do nothing yet, whatever they drop out.
    assert losses["run"] == losses["copy"] and losses["run"][0] == losses["none"][0]
    assert losses["run"][1:] != losses["none"][1:] and losses["run"] != losses["other"]
    written = json.loads((tmp_path / "run" / "checkpoint" / "adapter_config.json").read_text())
    assert written["lora_dropout"] == 0.5


@pytest.mark.parametrize("recompute", [False, True])
def test_dropout_is_in_training_alone_and_its_gradients_are_those_of_what_was_dropped(
    data, tmp_path, recompute
):
    base = make_base(data, tmp_path / "base")
    config = lora(data, tmp_path / "run", base)
    opened = open_pretrained(base)
    config = replace(
        config,
        lora=replace(config.lora, dropout=0.5),
        model=load_pretrained(opened).config,
    )
    cpu = torch.device("cpu")
    state = make_training_state(config, VOCAB_SIZE, cpu, False, print, opened)
    state.model.recompute(recompute)
    for name, value in state.model.trained().items():
        if "lora_B" in name:
            value.data.fill_(0.05)
    ids = torch.randint(0, VOCAB_SIZE, (sum(LENGTHS),), generator=torch.Generator().manual_seed(3))
    assert torch.equal(our_logits(state.model, ids), our_logits(state.model, ids))
    rows = random_rows(1, 2, 64, 20, 0.5)
    batch = make_batch(rows, rows["loss_mask"].reshape(-1) / 50)

    def loss_of(step: int) -> torch.Tensor:
        state.clear_gradients()
        state.seed_dropout(step)
        loss = state.accumulate([batch], Never())
        assert loss is not None and not state.model.training
        return loss

    assert torch.equal(loss_of(3), loss_of(3)) and not torch.equal(loss_of(3), loss_of(4))
    loss = loss_of(3)
    chosen = next(v for name, v in state.model.trained().items() if ".2.mlp.up_proj.lora_B" in name)
    grad = chosen.grad[0, 0].item()
    before, step = chosen.data[0, 0].item(), 1e-2
    ends = []
    for sign in (1, -1):
        chosen.data[0, 0] = before + sign * step
        ends.append(loss_of(3).item())
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(grad, rel=0.05)
    assert loss.item() != ends[0] != ends[1]


class Never:
    @staticmethod
    def is_requested() -> bool:
        return False


def test_killed_at_every_fifth_operation_of_the_disk(data, tmp_path):
    """In children, as `support.train.tear` does; here without the resumed runs torn too."""
    base = make_base(data, tmp_path / "base")
    options = {"max_steps": 2, "answers": 0}
    tear.train(lora(data, tmp_path / "whole", base, **options), None)
    whole = tear.outcome(tmp_path / "whole")
    killed = 0
    for operation in range(3, 60, 19):
        run = tmp_path / f"torn-{operation}"
        killed += tear.train(lora(data, run, base, **options), operation) != 0
        tear.train(lora(data, run, base, resume=True, **options), None)
        assert tear.outcome(run) == whole, operation
    assert killed >= 2


def test_spikes_skipped_batches_mixtures_and_masking_as_in_any_run(data, tmp_path, monkeypatch):
    base = make_base(data, tmp_path / "base")
    other = write_tiny(tmp_path / "other", kinds="ct").path
    mixed = {
        "prompt_weight": 0.5,
        "skip_batches": (3,),
        "optim": OptimConfig(lr=2e-2, spike=4.0),
    }

    def config(run: str, **options: object):
        made = lora(data, tmp_path / run, base, **mixed, **options)
        object.__setattr__(made, "data", (f"{data}=0.6", f"{other}=0.4"))
        made.__dict__.pop("mix", None)
        return made

    spoil_trained(monkeypatch, {2})
    run_training(config("run"))
    lines = [line for line in without_times(tmp_path / "run") if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [1, 2, 4, 5, 6]
    assert [line["update"] for line in lines] == ["taken", "not finite", *["taken"] * 3]
    copy = damaged_copy(tmp_path / "run", tmp_path / "copy")
    monkeypatch.undo()
    run_training(config("copy", resume=True))
    assert tear.outcome(copy) == tear.outcome(tmp_path / "run")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("freeze", [(), ("model.layers.0.*", "*.1.self_attn.q_proj.*")])
def test_the_products_of_adapters_are_counted_as_they_are_executed(kind, recompute, freeze):
    shape = ModelConfig(layers=3, width=16, heads=4, kv_heads=2, mlp_width=24, context=1024)
    rows = random_rows(1, 2, 512, 100, 0.3)
    batch = make_batch(rows, rows["loss_mask"].reshape(-1) * 1.0)
    model = make_model(shape, TINY)
    set_trained(model, PartialConfig(train="lora", lora=KINDS[kind], freeze=freeze))
    model.recompute(recompute)
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
        hidden = predicting_states(model, batch)
        weighted_loss(hidden, model.head_VC, batch)[0].backward()
    trained = trained_in(model)
    flops = step_flops(shape, TINY, Step([batch], 0, 0), "full", recompute, trained)
    assert flops.executed == counter.get_total_flops()
    assert all(value.grad is not None for value in model.trained().values())


@pytest.mark.parametrize("train", ["lora", "last:1"])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_frozen_weights_in_bf16_give_the_gradients_that_bf16_gives_anyway(
    data, tmp_path, train, kind, monkeypatch
):
    """The switch is the last argument but two: a GPU is where a run turns it on."""
    base = make_base(data, tmp_path / "base", "qwen2-untied")
    if train == "last:1" or kind == "dora":
        state = load_file(base / "model.safetensors")
        rounded = {name: value.bfloat16().float() for name, value in state.items()}
        save_file(rounded, base / "model.safetensors", {"format": "pt"})
    shape = load_pretrained(open_pretrained(base)).config
    rows = random_rows(1, 2, 64, 20, 0.5)
    batch = make_batch(rows, rows["loss_mask"].reshape(-1) / 50)
    found = []
    for narrows in (True, False):
        with monkeypatch.context() as patch:
            if not narrows:
                patch.setattr("sabitrain.training_state.narrow_frozen", lambda _: False)
            config = lora(data, tmp_path / "run", base, kind, train=train, model=shape)
            cpu = torch.device("cpu")
            state = make_training_state(config, VOCAB_SIZE, cpu, True, print, open_pretrained(base))
        types = {value.dtype for value in state.model.parameters() if not value.requires_grad}
        assert (torch.bfloat16 in types) is narrows is state.narrowed
        assert {value.dtype for value in state.model.trained().values()} == {torch.float32}

        loss = state.accumulate([batch], Never())
        found.append((loss, [value.grad for value in state.model.trained().values()]))
    assert torch.equal(found[0][0], found[1][0])
    assert all(map(torch.equal, found[0][1], found[1][1]))


def test_compiled_blocks_take_adapters(data, tmp_path, monkeypatch):
    # What is compiled is traced and differentiated; C++ of it takes a minute.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    base = make_base(data, tmp_path / "base", "qwen3")
    options = {"max_steps": 3, "answers": 0}
    for compiles in ("off", "on"):
        run_training(lora(data, tmp_path / compiles, base, compile=compiles, **options))
    plain, fast = (
        [line["loss"] for line in read(tmp_path / run) if line["kind"] == "train"]
        for run in ("off", "on")
    )
    assert fast == pytest.approx(plain, rel=1e-4)


def test_what_cannot_be_is_refused(data, tmp_path, monkeypatch, capsys):
    base = make_base(data, tmp_path / "base")
    with pytest.raises(ConfigError, match=r"no linear layer 'q_prj'(.|\n)*did you mean q_proj"):
        run_training(lora(data, tmp_path / "a", base, lora=LoraConfig(targets=("q_prj",))))
    with pytest.raises(ConfigError, match="nothing is left to train"):
        run_training(lora(data, tmp_path / "a", base, freeze=("model.layers.*",)))
    with pytest.raises(ConfigError, match="matches no parameter"):
        run_training(lora(data, tmp_path / "a", base, freeze=("model.layer.*",)))
    with pytest.raises(ConfigError, match="train lora needs a checkpoint"):
        run_training(from_base(data, tmp_path / "a", base, train="lora", init=None))
    for wrong in ({"rank": 0}, {"alpha": 0.0}, {"targets": ()}, {"dropout": 1.0}):
        with pytest.raises(ConfigError, match=r"lora\."):
            LoraConfig(**wrong)
    assert not (tmp_path / "a").exists()
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(SabiprepError, match=r"the package peft(.|\n)*sabiprep\[lora\]"):
        run_training(lora(data, tmp_path / "a", base))
    assert not (tmp_path / "a").exists()


def test_an_adapter_on_another_base_is_refused(data, tmp_path, capsys):
    base = make_base(data, tmp_path / "base")
    report = run_training(lora(data, tmp_path / "run", base, max_steps=2))
    state = load_file(base / "model.safetensors")
    changed = {name: value + 1 for name, value in state.items()}
    save_file(changed, base / "model.safetensors", {"format": "pt"})
    for attempt in (
        lambda: run_training(lora(data, tmp_path / "run", base, max_steps=2, resume=True)),
        lambda: sabitrain.load_checkpoint(report.checkpoint),
    ):
        with pytest.raises(TrainError, match="trained on other weights than those of its base"):
            attempt()
    save_file(state, base / "model.safetensors", {"format": "pt"})
    file = report.checkpoint / "adapter_config.json"
    written = json.loads(file.read_text())
    for changes, message in (
        ({"peft_type": "IA3"}, "LORA alone can be merged"),
        ({"some_key": 1}, "peft does not take its settings"),
        ({"target_modules": ["q_proj"]}, "of no adapter of this model"),
        ({"r": 5}, "is no adapter for"),
        ({"base_model_name_or_path": None}, "names no base"),
        ({"base_model_name_or_path": "/no/such"}, "no folder of a checkpoint"),
    ):
        file.write_text(json.dumps({**written, **changes}))
        assert main(["merge", str(report.checkpoint), str(tmp_path / "out")]) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    file.write_text(json.dumps(written))
    (tmp_path / "out").mkdir()
    assert main(["merge", str(report.checkpoint), str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "there is a checkpoint already" in said and "Remedy: name another folder" in said


def test_a_checkpoint_in_the_place_of_an_adapter_was_called_unreadable(data, tmp_path, capsys):
    base = make_base(data, tmp_path / "base")
    out, nowhere = tmp_path / "out", tmp_path / "nowhere"
    for folder, message in (
        (base, "is a whole checkpoint, and no adapter"),
        (tmp_path, "holds no adapter_config.json"),
        (nowhere, "no folder of an adapter is there"),
    ):
        assert main(["merge", str(folder), str(out)]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert message in said and "name RUN/checkpoint of a run with --train lora" in said
    adapter = run_training(lora(data, tmp_path / "run", base, max_steps=1)).checkpoint
    other = Path(shutil.copytree(base, tmp_path / "changed"))
    state = load_file(base / "model.safetensors")
    changed = {name: value + 1 for name, value in state.items()}
    save_file(changed, other / "model.safetensors", {"format": "pt"})
    assert main(["merge", str(adapter), str(out), "--base", str(other)]) == 1
    said = capsys.readouterr().err
    assert str(other) in said and str(base) in said
    with pytest.raises(TrainError, match="is an adapter, and no checkpoint") as caught:
        run_training(from_base(data, tmp_path / "again", adapter))
    assert "sabitrain merge" in (caught.value.remedy or "")
    assert not out.exists()


def test_a_full_disk_had_merge_go_on_by_an_option_that_it_has_not(
    data, tmp_path, monkeypatch, capsys
):
    base = make_base(data, tmp_path / "base")
    report = run_training(lora(data, tmp_path / "run", base, max_steps=2))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.disk, "make_folder", full)
    assert main(["merge", str(report.checkpoint), str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "go on with: the same command" in told and "--resume" not in told


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_counts_adapters_alone(data, tmp_path, kind):
    base = make_base(data, tmp_path / "base")
    config = lora(data, tmp_path / "run", base, kind)
    run_training(config)
    trained = read(tmp_path / "run")[0]["trained_parameters"]
    assert f"{trained:,} of them trained" in describe(config)
    shape = load_pretrained(open_pretrained(base)).config
    planned = replace(config, model=replace(shape, vocab_size=VOCAB_SIZE))
    memory = memory_of(planned, VOCAB_SIZE, MicroBatch(64, 32, 4))
    tensors = len(make_training_state_of(planned, base).model.trained())
    # Sizes are rounded up to 512 bytes, and each state has a step.
    assert 8 * trained <= memory.optimizer <= 8 * trained + 3 * 512 * tensors
    assert memory.gradients <= 4 * trained + 512 * tensors


def make_training_state_of(config, base: Path):
    cpu = torch.device("cpu")
    return make_training_state(config, VOCAB_SIZE, cpu, False, print, open_pretrained(base))
