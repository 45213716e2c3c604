"""Checkpoints: read by ``transformers`` with the same logits, whole or absent, nothing pickled."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaForCausalLM

from sabiprep.dataset import open_dataset
from sabiprep.errors import OutputError, TrainError
from sabitrain.checkpoints import files
from sabitrain.checkpoints.checkpoint import FILES, load_checkpoint, save_checkpoint
from sabitrain.config import ModelConfig
from sabitrain.models.architecture import CausalModel, make_model
from support.dataset_writer import write_dataset, write_manifest
from support.train.tiny import BOS, EOS, PAD, VOCAB_SIZE, write_tiny


@pytest.fixture
def dataset(tmp_path):
    return write_tiny(tmp_path / "data", bos_id=BOS)


def trained_model(kv_heads: int = 2) -> CausalModel:
    """A model far from its start, so that every weight matters."""
    torch.manual_seed(1)
    config = ModelConfig(
        layers=2,
        width=32,
        heads=4,
        kv_heads=kv_heads,
        mlp_width=40,
        context=48,
        rope_theta=500.0,
        norm_eps=1e-3,
    )
    model = make_model(config, VOCAB_SIZE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def logits(model: CausalModel, ids: torch.Tensor) -> torch.Tensor:
    n = len(ids)
    with torch.no_grad():
        return F.linear(model(ids, torch.arange(n), torch.tensor([0, n]).int(), n), model.head_VC)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_transformers_gives_equal_logits(dataset, tmp_path, kv_heads):
    model = trained_model(kv_heads)
    save_checkpoint(tmp_path / "checkpoint", model, dataset)
    theirs, report = LlamaForCausalLM.from_pretrained(
        tmp_path / "checkpoint", output_loading_info=True
    )
    assert not any(report.values()), report
    assert (
        theirs.dtype == torch.float32 and theirs.lm_head.weight is theirs.model.embed_tokens.weight
    )
    ids = torch.randint(VOCAB_SIZE, (48,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = theirs.eval()(ids[None]).logits[0]
    assert want.std() > 0.5, "logits near zero would agree whatever the model"
    torch.testing.assert_close(logits(model, ids), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        logits(load_checkpoint(tmp_path / "checkpoint"), ids), logits(model, ids), rtol=0, atol=0
    )


def test_the_files(dataset, tmp_path):
    save_checkpoint(tmp_path / "checkpoint", trained_model(), dataset)
    folder = tmp_path / "checkpoint"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    written, packed = (
        json.loads(path.joinpath("tokenizer.json").read_bytes()) for path in (folder, dataset.path)
    )
    assert (
        written.pop("post_processor")["type"] == "TemplateProcessing"
        and packed.pop("post_processor") is None
    )
    assert written == packed
    controls = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
    for name in ("config.json", "generation_config.json"):
        written = json.loads(folder.joinpath(name).read_text())
        assert {key: written[key] for key in controls} == controls
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert "lm_head.weight" not in weights.keys()  # noqa: SIM118 - not a dict
        assert weights.metadata() == {"format": "pt"}


def test_transformers_reads_the_tokenizer_as_it_is(dataset, tmp_path):
    save_checkpoint(tmp_path / "checkpoint", trained_model(), dataset)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "checkpoint")
    assert tokenizer.encode("t7 t9", add_special_tokens=False) == [7, 9]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (
        BOS,
        EOS,
        PAD,
    )


GOLDEN = Path(__file__).parents[1] / "golden"
BOUNDARY = json.loads((GOLDEN / "boundary.json").read_text("utf-8"))
_AROUND = {"bos": ("<s>", 1), "eos": ("</s>", 2)}
_TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "</s>", "type_id": 0}},
    ],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {
        text: {"id": text, "ids": [id_], "tokens": [text]} for text, id_ in _AROUND.values()
    },
}
_BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
POST_PROCESSORS = {
    "none": None,
    "template": _TEMPLATE,
    "sequence": {"type": "Sequence", "processors": [_BYTES, _TEMPLATE]},
    "roberta": {
        "type": "RobertaProcessing",
        "sep": ["</s>", 2],
        "cls": ["<s>", 1],
        "trim_offsets": True,
        "add_prefix_space": True,
    },
    "bytes": _BYTES,
}


def first_prompts(name: str, added: list[str]) -> list[tuple[str, list[int]]]:
    """The text of the first prompt of each golden case of a tokenizer, and its ids without BOS.

    Left out are those whose data spells a control token or keeps the halves of one apart: in one
    text it would be one.
    """
    found = []
    for case in BOUNDARY["cases"]:
        first = next(i for i, role in enumerate(case["roles"]) if role == 3)
        before = 0 if case["bos"] is None else 1
        spans = case["spans"][
            : next(i for i, span in enumerate(case["spans"]) if span["role"] == 3)
        ]
        text = "".join(span["text"] for span in spans)
        whose = [(i, span["data"]) for i, span in enumerate(spans) for _ in span["text"]]
        spelt = {
            (*whose[i], *whose[i + len(token) - 1])
            for token in added
            for i in range(len(text))
            if text.startswith(token, i)
        }
        if (
            case["tokenizer"] == name
            and text
            and all(one[:2] == one[2:] and not one[1] for one in spelt)
        ):
            found.append((text, case["ids"][before:first]))
    return found


@pytest.mark.parametrize("bos_id", [None, 1])
@pytest.mark.parametrize("post_processor", POST_PROCESSORS)
@pytest.mark.parametrize("name", BOUNDARY["tokenizers"])
def test_the_tokenizer_of_a_checkpoint_begins_a_prompt_as_the_rows_do(
    tmp_path, name, post_processor, bos_id
):
    tokenizer = json.loads((GOLDEN / BOUNDARY["tokenizers"][name]).read_text("utf-8"))
    tokenizer["post_processor"] = POST_PROCESSORS[post_processor]
    tokenizer["truncation"] = {
        "max_length": 3,
        "stride": 0,
        "strategy": "LongestFirst",
        "direction": "Right",
    }
    tokenizer["padding"] = {
        **{"strategy": {"Fixed": 40}, "direction": "Right", "pad_to_multiple_of": None},
        **{"pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"},
    }
    vocab_size = 1 + max(
        *tokenizer["model"]["vocab"].values(), *(token["id"] for token in tokenizer["added_tokens"])
    )
    prompts = first_prompts(name, [token["content"] for token in tokenizer["added_tokens"]])
    assert len(prompts) >= 4
    opening = [] if bos_id is None else [bos_id]
    rows = [
        ([*opening, *ids, 5, 2], [0] * len(opening) + [1] * len(ids) + [3, 0]) for _, ids in prompts
    ]
    sizes = {"seq_len": 64, "vocab_size": vocab_size, "eos_id": 2, "pad_id": 0, "bos_id": bos_id}
    out = write_dataset(
        tmp_path / "data", rows, tokenizer_json=json.dumps(tokenizer, ensure_ascii=False), **sizes
    )
    shape = ModelConfig(layers=1, width=8, heads=1, mlp_width=8, context=64)
    with open_dataset(out) as dataset:
        save_checkpoint(tmp_path / "checkpoint", make_model(shape, vocab_size), dataset)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "checkpoint")
    alone = Tokenizer.from_file(str(tmp_path / "checkpoint" / "tokenizer.json"))
    for text, ids in prompts:
        assert theirs(text)["input_ids"] == [*opening, *ids], text
        assert alone.encode(text).ids == [*opening, *ids], text
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (bos_id, 2, 0)


def test_the_chat_template_goes_along(dataset, tmp_path):
    template = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    manifest = json.loads(dataset.path.joinpath("manifest.json").read_text("utf-8"))
    manifest["tokenizer"]["chat_template"] = template
    write_manifest(dataset.path, manifest)
    with open_dataset(dataset.path) as opened:
        save_checkpoint(tmp_path / "checkpoint", trained_model(), opened)
    assert tmp_path.joinpath("checkpoint", "chat_template.jinja").read_text("utf-8") == template
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "checkpoint")
    chat = [{"role": "user", "content": "t7"}, {"role": "model", "content": "t9"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "<user>t7<model>t9"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_every_file_has_the_mode_that_the_umask_gives(dataset, tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        save_checkpoint(tmp_path / "checkpoint", trained_model(), dataset)
        files.save_tensors(tmp_path / "checkpoint" / "trainer.safetensors", {"a": torch.zeros(3)})
    finally:
        os.umask(before)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "checkpoint").iterdir()
    }
    assert modes == dict.fromkeys([*FILES, "trainer.safetensors"], mode)


def test_it_is_there_whole_or_not_at_all(dataset, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    folder = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OutputError, match="No space left") as full:
            save_checkpoint(folder, trained_model(), dataset)
    assert "make room" in str(full.value.remedy)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"], (
        "half a checkpoint takes room"
    )
    save_checkpoint(folder, trained_model(), dataset)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "data"]
    with pytest.raises(OutputError, match="already"):
        save_checkpoint(folder, trained_model(), dataset)


def test_what_is_no_checkpoint_is_refused(dataset, tmp_path):
    with pytest.raises(TrainError, match=r"holds no config\.json.*\n.*RUN/checkpoint"):
        load_checkpoint(tmp_path)
    save_checkpoint(tmp_path / "checkpoint", trained_model(), dataset)
    weights = tmp_path / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(TrainError, match=r"model\.safetensors: cannot be read"):
        load_checkpoint(tmp_path / "checkpoint")
