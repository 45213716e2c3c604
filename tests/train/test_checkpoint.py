"""Checkpoints: read by ``transformers`` with the same logits, whole or absent, nothing pickled."""

from __future__ import annotations

import json
import os

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from tiny import BOS, EOS, PAD, VOCAB_SIZE, write_tiny
from transformers import AutoTokenizer, LlamaForCausalLM

from sabiprep.errors import OutputError, TrainError
from sabitrain.checkpoint import FILES, load_checkpoint, save_checkpoint
from sabitrain.config import ModelConfig
from sabitrain.model import Llama


@pytest.fixture
def dataset(tmp_path):
    return write_tiny(tmp_path / "data", bos_id=BOS)


def make_model(kv_heads: int = 2) -> Llama:
    """A model far from its start, so that every weight matters."""
    torch.manual_seed(1)
    config = ModelConfig(
        layers=2, width=32, heads=4, kv_heads=kv_heads, mlp_width=40, context=48, rope_theta=500.0, norm_eps=1e-3
    )
    model = Llama(config, VOCAB_SIZE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def logits(model: Llama, ids: torch.Tensor) -> torch.Tensor:
    n = len(ids)
    with torch.no_grad():
        return F.linear(model(ids, torch.arange(n), torch.tensor([0, n]).int(), n), model.head_VC)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_transformers_gives_equal_logits(dataset, tmp_path, kv_heads):
    model = make_model(kv_heads)
    save_checkpoint(tmp_path / "checkpoint", model, dataset)
    theirs, report = LlamaForCausalLM.from_pretrained(tmp_path / "checkpoint", output_loading_info=True)
    assert not any(report.values()), report
    assert theirs.dtype == torch.float32 and theirs.lm_head.weight is theirs.model.embed_tokens.weight
    ids = torch.randint(VOCAB_SIZE, (48,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = theirs.eval()(ids[None]).logits[0]
    assert want.std() > 0.5, "logits near zero would agree whatever the model"
    torch.testing.assert_close(logits(model, ids), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        logits(load_checkpoint(tmp_path / "checkpoint"), ids), logits(model, ids), rtol=0, atol=0
    )


def test_the_files(dataset, tmp_path):
    save_checkpoint(tmp_path / "checkpoint", make_model(), dataset)
    folder = tmp_path / "checkpoint"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert folder.joinpath("tokenizer.json").read_bytes() == dataset.tokenizer_path.read_bytes()
    controls = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
    for name in ("config.json", "generation_config.json"):
        written = json.loads(folder.joinpath(name).read_text())
        assert {key: written[key] for key in controls} == controls
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert "lm_head.weight" not in weights.keys()  # noqa: SIM118 - not a dict
        assert weights.metadata() == {"format": "pt"}


def test_transformers_reads_the_tokenizer_as_it_is(dataset, tmp_path):
    save_checkpoint(tmp_path / "checkpoint", make_model(), dataset)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "checkpoint")
    assert tokenizer.encode("t7 t9", add_special_tokens=False) == [7, 9]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (BOS, EOS, PAD)


def test_it_is_there_whole_or_not_at_all(dataset, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    folder = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OutputError, match="No space left"):
            save_checkpoint(folder, make_model(), dataset)
    assert not folder.exists()
    save_checkpoint(folder, make_model(), dataset)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "data"]
    with pytest.raises(OutputError, match="already"):
        save_checkpoint(folder, make_model(), dataset)


def test_what_is_no_checkpoint_is_refused(dataset, tmp_path):
    with pytest.raises(TrainError, match="not a checkpoint"):
        load_checkpoint(tmp_path)
    save_checkpoint(tmp_path / "checkpoint", make_model(), dataset)
    weights = tmp_path / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(TrainError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "checkpoint")
