"""Families of checkpoints: our computation beside that of ``transformers``, and the way back."""

from __future__ import annotations

import json

import pytest
import torch

from sabiprep.errors import TrainError
from sabitrain.checkpoints.pretrained import load_pretrained, open_pretrained, shape_of
from sabitrain.models.architecture import architecture_of, make_model
from sabitrain.models.rotary import frequencies, rotary_tables
from sabitrain.models.settings import ModelConfig
from support.train.families import (
    FAMILIES,
    assert_equal_gradients,
    assert_equal_logits,
    make_theirs,
    save_theirs,
)


@pytest.fixture(params=FAMILIES)
def both(request, tmp_path):
    theirs = make_theirs(request.param)
    folder = save_theirs(theirs, tmp_path / "theirs", b"{}")
    return theirs, load_pretrained(open_pretrained(folder))


def test_packed_documents_have_the_logits_that_each_has_alone_in_transformers(both):
    assert_equal_logits(*both)


def test_gradients_equal_those_of_transformers_also_where_the_end_is_skipped(both):
    assert_equal_gradients(*both)


def test_what_is_written_back_is_what_was_read(both, tmp_path):
    theirs, ours = both
    architecture = architecture_of(ours.config.architecture)
    weights = architecture.to_weights(ours.state_dict())
    theirs_by_name = theirs.state_dict()
    tied = theirs.config.tie_word_embeddings
    assert set(weights) == set(theirs_by_name) - ({"lm_head.weight"} if tied else set())
    for name, value in weights.items():
        assert torch.equal(value, theirs_by_name[name])
    written = architecture.to_huggingface(ours.config, ours.vocab_size)
    assert architecture.from_huggingface(written) == (ours.config, ours.vocab_size)
    config = type(theirs.config).from_dict(written).to_dict()
    for key, value in theirs.config.to_dict().items():
        # Control tokens are the dataset's; a size of heads that is not written follows.
        if key not in ("dtype", "architectures", "use_cache") and not key.endswith("token_id"):
            assert config[key] == value or (key == "head_dim" and value is None), key


def test_older_rotary_settings_are_read_too(tmp_path):
    file = save_theirs(make_theirs("llama-3"), tmp_path / "a", b"{}") / "config.json"
    new = shape_of(open_pretrained(file.parent))
    written = json.loads(file.read_text())
    table = written.pop("rope_parameters")
    written |= {"rope_theta": table.pop("rope_theta"), "rope_scaling": table}
    file.write_text(json.dumps(written))
    assert shape_of(open_pretrained(file.parent)) == new
    file = save_theirs(make_theirs("gemma3-linear"), tmp_path / "b", b"{}") / "config.json"
    new = shape_of(open_pretrained(file.parent))
    written = json.loads(file.read_text())
    tables = written.pop("rope_parameters")
    written["rope_local_base_freq"] = tables["sliding_attention"]["rope_theta"]
    written["rope_theta"] = tables["full_attention"].pop("rope_theta")
    written["rope_scaling"] = tables["full_attention"]
    file.write_text(json.dumps(written))
    assert shape_of(open_pretrained(file.parent)) == new


@pytest.mark.parametrize(
    ("family", "key", "value", "message"),
    [
        ("llama", "model_type", "gpt2", "no architecture 'gpt2'"),
        ("gemma3", "text_config", {}, "a model of more than text"),
        ("llama", "architectures", ["LlamaForTokenClassification"], "…ForCausalLM"),
        ("llama", "attention_bias", True, "attention_bias must be False"),
        ("llama", "hidden_act", "gelu", "hidden_act must be silu"),
        ("llama", "rope_parameters", {"rope_type": "yarn", "factor": 2.0}, "type default, linear"),
        ("llama", "rope_parameters", {"rope_type": "linear", "factor": -1}, "a number above 0"),
        (
            "llama",
            "rope_parameters",
            {"rope_type": "default", "x": 1},
            "rope_parameters.x = 1: a setting",
        ),
        ("llama", "quantization_config", {"bits": 4}, "the weights are quantised"),
        ("llama", "soft_cap", 30, "soft_cap = 30: a setting that this program does not know"),
        ("llama", "rope_interleaved", True, "rope_interleaved = True: a setting"),
        ("llama", "hidden_size", "many", "hidden_size must be a whole number"),
        ("llama", "num_hidden_layers", 2**30, "num_hidden_layers must be a whole number from 1"),
        ("gemma3", "num_hidden_layers", 2**30, "num_hidden_layers must be a whole number from 1"),
        ("llama", "hidden_size", True, "hidden_size must be a whole number"),
        ("llama", "num_attention_heads", None, "num_attention_heads is missing"),
        ("llama", "num_key_value_heads", 3, "must divide model.heads"),
        ("llama", "rms_norm_eps", "1e-6", "rms_norm_eps must be a number"),
        ("llama", "tie_word_embeddings", "yes", "must be true or false"),
        ("qwen2", "use_sliding_window", True, "use_sliding_window must be False"),
        ("qwen2", "layer_types", ["sliding_attention"] * 3, "layer_types must be"),
        ("qwen3", "attention_bias", True, "attention_bias must be False"),
        ("gemma3", "final_logit_softcapping", 30.0, "final_logit_softcapping must be nothing"),
        ("gemma3", "layer_types", ["full_attention"], "layer_types must name 7 layers"),
        ("olmo2", "attention_bias", True, "attention_bias must be False"),
    ],
)
def test_a_setting_that_is_not_computed_is_refused_by_name(tmp_path, family, key, value, message):
    file = save_theirs(make_theirs(family), tmp_path / "base", b"{}") / "config.json"
    written = json.loads(file.read_text())
    file.write_text(json.dumps({**written, key: value}))
    with pytest.raises(TrainError, match=message) as caught:
        load_pretrained(open_pretrained(file.parent))
    assert str(file.parent) in str(caught.value.file)


def test_gemma_3_that_sees_images_was_only_unknown(tmp_path):
    file = save_theirs(make_theirs("gemma3"), tmp_path / "base", b"{}") / "config.json"
    written = json.loads(file.read_text())
    file.write_text(json.dumps({"model_type": "gemma3", "text_config": written}))
    with pytest.raises(TrainError, match="'gemma3' is a model of more than text") as caught:
        shape_of(open_pretrained(file.parent))
    assert caught.value.remedy is not None and "gemma3_text" in caught.value.remedy


def test_a_context_of_a_million_takes_no_table_of_a_million(tmp_path):
    """Half a GB of cosines and sines were made for rows of any length."""
    short = make_model(ModelConfig(layers=1, width=8, heads=1, mlp_width=8, context=20_000), 10)
    long = make_model(ModelConfig(layers=1, width=8, heads=1, mlp_width=8, context=1 << 20), 10)
    long.load_state_dict(short.state_dict())
    assert sum(buffer.numel() for buffer in long.buffers()) < 100_000
    ids = torch.arange(12_000) % 10
    at = torch.tensor([11_999])
    bounds = torch.tensor([0, 12_000], dtype=torch.int32)
    one, other = (model(ids, torch.arange(12_000), bounds, 12_000, at) for model in (short, long))
    assert torch.equal(one, other)
    tables = rotary_tables(frequencies(8, 10_000.0), 12_000)
    assert torch.equal(long.model.cosines[0, :12_000], tables[0])


def test_settings_of_published_checkpoints_that_change_nothing_are_passed_over(tmp_path):
    """SmolLM2's and Qwen2.5's own files were refused."""
    file = save_theirs(make_theirs("llama"), tmp_path / "base", b"{}") / "config.json"
    before = shape_of(open_pretrained(file.parent))
    written = json.loads(file.read_text())
    harmless = {
        "is_llama_config": True,
        "rope_interleaved": False,
        "use_mrope": False,
        "max_sequence_length": 2048,
        "torchscript": False,
        "pruned_heads": {},
        "is_decoder": False,
        "tie_encoder_decoder": False,
        "transformers.js_config": {"dtype": "q4"},
    }
    file.write_text(json.dumps({**written, **harmless}))
    assert shape_of(open_pretrained(file.parent)) == before
    file.write_text(json.dumps({**written, "one": 1, "two": 2}))
    with pytest.raises(TrainError, match="one = 1, two = 2: settings that"):
        shape_of(open_pretrained(file.parent))
