"""Fewer layers and narrower ones: what is measured, what is kept, what `transformers` loads."""

from __future__ import annotations

import json
import math

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

import sabiprep
from sabiprep.errors import DatasetError, TrainError
from sabitrain.adapt.draft import read_draft
from sabitrain.adapt.run import adapt
from sabitrain.adapt.sample import open_sample
from sabitrain.adapt.settings import AdaptConfig
from sabitrain.adapt.width import heads_of, importance
from support.train.adapt_bases import (
    ENGLISH,
    FAMILIES,
    GPT2,
    YORUBA,
    tokenizer_of,
    write_base,
    write_corpus,
)


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


def packed(tmp_path, texts=(*ENGLISH, *YORUBA)):
    """The texts, packed with the tokenizer of the base."""
    corpus = write_corpus(tmp_path / "corpus", {"mul": list(texts)})
    options = sabiprep.PackOptions(tokenizer=tmp_path / "base" / "tokenizer.json", seq_len=128)
    sabiprep.pack(corpus, tmp_path / "packed", options)
    return tmp_path / "packed"


def adapted(tmp_path, **options):
    config = AdaptConfig(
        base=str(tmp_path / "base"),
        new=tmp_path / "new",
        rows=tmp_path / "packed",
        row_count=100,
        **options,
    )
    report = adapt(config)
    new, loading = AutoModelForCausalLM.from_pretrained(
        tmp_path / "new", output_loading_info=True, dtype=torch.float32
    )
    assert not any(loading.values()), loading
    return report, new.eval()


def documents(tmp_path) -> list[list[int]]:
    """The ids of every text, with the EOS that closes a document."""
    tokenizer = Tokenizer.from_file(str(tmp_path / "base" / "tokenizer.json"))
    return [
        [*tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.token_to_id("<eos>")]
        for text in (*ENGLISH, *YORUBA)
    ]


def states(model, ids: list[int]) -> list[torch.Tensor]:
    """The input of each layer and the output of the last one, by hooks on `transformers`."""
    seen: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(
            lambda module, inputs, named: seen.append((*inputs, *named.values())[0]),
            with_kwargs=True,
        )
        for layer in (*model.model.layers, model.model.norm)
    ]
    with torch.no_grad():
        model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return [each[0] for each in seen]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_layers_of_least_angle_go(tmp_path, family, count):
    model = write_base(tmp_path / "base", family)
    packed(tmp_path)
    texts = documents(tmp_path)
    want = torch.zeros(4 - count + 1, dtype=torch.float64)
    for ids in texts:
        last = [each[-1].double() for each in states(model, ids)]
        for start in range(len(want)):
            cosine = torch.cosine_similarity(last[start], last[start + count], dim=0)
            want[start] += torch.arccos(cosine) / math.pi / len(texts)
    report, new = adapted(tmp_path, drop_layers=count)
    (step,) = report.steps
    torch.testing.assert_close(
        torch.tensor(step.numbers["distances"], dtype=torch.float64), want, rtol=1e-4, atol=1e-5
    )
    first = int(want.argmin())
    assert step.numbers["dropped"] == list(range(first, first + count))
    assert step.numbers["documents"] == len(texts)
    # The logits are those of the base without these layers.
    kept = [layer for layer in range(4) if layer not in step.numbers["dropped"]]
    model.model.layers = torch.nn.ModuleList(model.model.layers[layer] for layer in kept)
    model.config.num_hidden_layers = len(kept)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[layer] for layer in kept]
        assert new.config.layer_types == model.config.layer_types
    with torch.no_grad():
        ids = torch.tensor([texts[0]])
        torch.testing.assert_close(
            new(ids, use_cache=False).logits, model(ids, use_cache=False).logits
        )
    assert report.after.layers == 4 - count and report.after.parameters < report.before.parameters


def test_the_pattern_of_gemma_follows(tmp_path):
    # As the configurations of the first Gemma 3 have it: no list of layers.
    write_base(tmp_path / "base", "gemma3_text", num_hidden_layers=8)
    file = tmp_path / "base" / "config.json"
    config = json.loads(file.read_text("utf-8"))
    types = config.pop("layer_types")
    assert types.index("full_attention") == 5
    file.write_text(json.dumps({**config, "sliding_window_pattern": 6}), "utf-8")
    packed(tmp_path)
    report, new = adapted(tmp_path, drop_layers=2)
    dropped = report.steps[0].numbers["dropped"]
    assert new.config.layer_types == [
        kind for layer, kind in enumerate(types) if layer not in dropped
    ]


@pytest.mark.parametrize("widths", [("heads=2",), ("mlp=20",), ("heads=2", "mlp=20")])
def test_the_largest_activations_stay(tmp_path, family, widths):
    model = write_base(tmp_path / "base", family)
    packed(tmp_path)
    _, new = adapted(tmp_path, prune_width=widths)
    config = new.config
    asked = dict(width.split("=") for width in widths)
    heads, channels = int(asked.get("heads", 4)), int(asked.get("mlp", 48))
    assert (config.num_attention_heads, config.num_key_value_heads) == (heads, heads // 2)
    assert config.intermediate_size == channels
    assert json.loads((tmp_path / "new" / "config.json").read_text("utf-8"))["head_dim"] == 8
    # The same as the base with what was dropped set to zero, where no norm is over all heads.
    draft = read_draft(tmp_path / "base")
    tokenizer = draft.files["tokenizer.json"]
    with open_sample(tmp_path / "base", tmp_path / "packed", 100, tokenizer) as sample:
        found = importance(sample, heads_of(draft.config))
    if family == "olmo2" and heads < 4:
        return
    with torch.no_grad():
        for layer, block in enumerate(model.model.layers):
            lost_F = found.channels_LF[layer].argsort(descending=True)[channels:]
            block.mlp.down_proj.weight[:, lost_F] = 0
            for group in found.heads_LK[layer].argsort(descending=True)[heads // 2 :].tolist():
                block.self_attn.o_proj.weight[:, group * 16 : group * 16 + 16] = 0
        ids = torch.tensor([documents(tmp_path)[0]])
        torch.testing.assert_close(new(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-5)


def test_importance_is_that_of_a_slow_count(tmp_path):
    model = write_base(tmp_path / "base")
    packed(tmp_path)
    draft = read_draft(tmp_path / "base")
    with open_sample(
        tmp_path / "base", tmp_path / "packed", 100, draft.files["tokenizer.json"]
    ) as sample:
        found = importance(sample, heads_of(draft.config))
    want_heads, want_channels = torch.zeros(4, 4), torch.zeros(4, 48)
    with sabiprep.open_dataset(tmp_path / "packed") as dataset:
        for row in dataset.train:
            ends = row["seq_lengths"].cumsum()
            heads, channels = torch.zeros(4, 4), torch.zeros(4, 48)
            for begin, end in zip([0, *ends[:-1]], ends, strict=True):
                kept: dict[str, torch.Tensor] = {}
                hooks = [
                    module.register_forward_pre_hook(
                        lambda module, inputs, name=name, kept=kept: kept.update(
                            {name: inputs[0][0]}
                        )
                    )
                    for name, module in model.named_modules()
                    if name.endswith(("o_proj", "down_proj"))
                ]
                with torch.no_grad():
                    model(torch.tensor(row["input_ids"][None, begin:end]))
                for hook in hooks:
                    hook.remove()
                for layer in range(4):
                    out = kept[f"model.layers.{layer}.self_attn.o_proj"].view(-1, 4, 8)
                    heads[layer] += out.norm(dim=-1).sum(0)
                    channels[layer] += kept[f"model.layers.{layer}.mlp.down_proj"].abs().sum(0)
            want_heads += (heads / ends[-1]) ** 2
            want_channels += (channels / ends[-1]) ** 2
    by_key_head = want_heads.sqrt().view(4, 2, 2).sum(-1)
    torch.testing.assert_close(found.heads_LK.float(), by_key_head, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        found.channels_LF.float(), want_channels.sqrt(), rtol=1e-4, atol=1e-6
    )


def test_all_steps_at_once(tmp_path):
    write_base(tmp_path / "base", "qwen2", rows_more=9)
    packed(tmp_path)
    corpus = tmp_path / "corpus"
    report, new = adapted(
        tmp_path,
        add_language=corpus,
        vocab=30,
        trim=(corpus,),
        drop_layers=1,
        prune_width=("heads=2", "mlp=24"),
    )
    names = [step.name for step in report.steps]
    assert names == ["add-language", "trim", "drop-layers", "prune-width"]
    assert new.config.num_hidden_layers == 3 and new.config.vocab_size == report.after.rows
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new")
    ids = tokenizer(YORUBA[0], return_tensors="pt").input_ids
    assert new(ids).logits.isfinite().all() and int(ids.max()) < report.after.rows
    assert sum(parameter.numel() for parameter in new.parameters()) == report.after.parameters
    assert report.languages["mul"].training.after < report.languages["mul"].training.before


@pytest.mark.parametrize(
    ("options", "message", "remedy"),
    [
        ({"drop_layers": 4}, "has 4 layers, and 4 are to be dropped", "below 4"),
        ({"prune_width": ("heads=3",)}, "3 cannot be kept", "keep one of 2, 4"),
        ({"prune_width": ("heads=8",)}, "8 cannot be kept", "keep one of 2, 4"),
        ({"prune_width": ("mlp=49",)}, "49 are to be kept", "up to 48"),
    ],
)
def test_numbers_that_do_not_fit_the_base(tmp_path, options, message, remedy):
    write_base(tmp_path / "base")
    packed(tmp_path)
    with pytest.raises(TrainError, match=message) as error:
        adapted(tmp_path, **options)
    assert remedy in str(error.value.remedy) and not (tmp_path / "new").exists()


def test_rows_that_do_not_fit_the_base(tmp_path):
    write_base(tmp_path / "base")
    packed(tmp_path)
    file = tmp_path / "base" / "config.json"
    config = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**config, "max_position_embeddings": 64}), "utf-8")
    with pytest.raises(TrainError, match="rows of 128 tokens, and the model takes 64"):
        adapted(tmp_path, drop_layers=1)
    tokenizer_of(GPT2, YORUBA, 80).save(str(tmp_path / "base" / "tokenizer.json"))
    with pytest.raises(DatasetError, match="was packed with another tokenizer"):
        adapted(tmp_path, drop_layers=1)
