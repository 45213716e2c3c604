"""Tokens and masks of a thousand conversations, beside `apply_chat_template` of `transformers`.

Each known template is written with `{% generation %}` around what must be trained, which
`transformers` asks for; the packer finds it in the template as it is known.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

import sabiprep
from sabiprep.dataset import open_dataset
from support import packer
from support.chats import BOS, EOS, NAMES, known, tokenizer_file

Message = dict[str, Any]
COUNT = 91
"""Conversations for each template: a thousand of all."""

CHATML = (
    "{{- '<|im_start|>' + message.role + '\\n' + CONTENT + '<|im_end|>\\n' -}}",
    "{{- '<|im_start|>' + message.role + '\\n' -}}"
    "{%- if message.role == 'assistant' -%}"
    "{%- generation -%}{{- CONTENT + '<|im_end|>' -}}{%- endgeneration -%}"
    "{%- else -%}{{- CONTENT + '<|im_end|>' -}}{%- endif -%}{{- '\\n' -}}",
)
PLAIN = [part.replace("CONTENT", "message.content") for part in CHATML]
TURN = "{%- if message.role == 'assistant' -%}{%- generation -%}ALL{%- endgeneration -%}"
TURN += "{%- else -%}ALL{%- endif -%}"


def turn(shown: str) -> str:
    """What a template shows of a message, generated if an assistant writes it."""
    return TURN.replace("ALL", shown)


TRIMMED = "{{- message.content | trim -}}\n    "
MARKED: dict[str, list[tuple[str, str]]] = {
    "chatml": [(PLAIN[0], PLAIN[1])],
    "smollm-2": [(PLAIN[0], PLAIN[1])],
    "gemma": [
        (
            TRIMMED + "{{- '<end_of_turn>\\n' -}}",
            turn(TRIMMED + "{{- '<end_of_turn>' -}}") + "{{- '\\n' -}}",
        )
    ],
    "llama-2": [
        (
            "{{- ' ' + message.content.strip() + ' ' + eos_token -}}",
            "{%- generation -%}{{- ' ' + message.content.strip() + ' ' + eos_token -}}"
            "{%- endgeneration -%}",
        )
    ],
    "llama-3": [(TRIMMED + "{{- '<|eot_id|>' -}}", turn(TRIMMED + "{{- '<|eot_id|>' -}}"))],
    "mistral": [
        (
            "{{- ' ' + message.content | trim + eos_token -}}",
            "{%- generation -%}{{- ' ' + message.content | trim + eos_token -}}"
            "{%- endgeneration -%}",
        )
    ],
    "olmo-2": [
        (
            "{{- '<|assistant|>\\n' + message.content + eos_token -}}",
            "{{- '<|assistant|>\\n' -}}{%- generation -%}{{- message.content + eos_token -}}"
            "{%- endgeneration -%}",
        )
    ],
    "phi-3": [
        (
            "message.content + '<|end|>\\n' -}}",
            "'' -}}" + turn("{{- message.content + '<|end|>' -}}") + "{{- '\\n' -}}",
        )
    ],
    "zephyr": [
        (
            "message.content + eos_token + '\\n' -}}",
            "'' -}}" + turn("{{- message.content + eos_token -}}") + "{{- '\\n' -}}",
        )
    ],
    "qwen-2.5": [
        (PLAIN[0], PLAIN[1]),
        ("{{- '<|im_start|>assistant' -}}", "{{- '<|im_start|>assistant\\n' -}}{%- generation -%}"),
        ("{{- '\\n' + message.content -}}", "{{- message.content -}}"),
        (
            "{{- '\\n' -}}\n            {{- call(tool_call) -}}",
            "{{- '\\n' if message.content or not loop.first -}}{{- call(tool_call) -}}",
        ),
        (
            "{%- endfor -%}\n        {{- '<|im_end|>\\n' -}}\n    {%- elif",
            "{%- endfor -%}{{- '<|im_end|>' -}}{%- endgeneration -%}{{- '\\n' -}}{%- elif",
        ),
    ],
    "qwen-3": [
        (
            "{{- '<|im_start|>assistant\\n' -}}\n        {%- if",
            "{{- '<|im_start|>assistant\\n' -}}{%- generation -%}{%- if",
        ),
        (
            "{%- endfor -%}\n        {{- '<|im_end|>\\n' -}}\n    {%- elif",
            "{%- endfor -%}{{- '<|im_end|>' -}}{%- endgeneration -%}{{- '\\n' -}}{%- elif",
        ),
    ],
}
"""For each known template, what is written otherwise."""


def marked(name: str) -> str:
    """A known template with `{% generation %}` around what is trained."""
    template = known(name)
    for old, new in MARKED[name]:
        assert template.count(old) == 1, (name, old)
        template = template.replace(old, new)
    return template


WORDS = ["ọ̀rọ̀", "sannu", "你好", "😀", "cafe\u0301", "say", "it", "{", "}", "{{x}}", "<b>"]
WORDS += ["[1]", "\\n", "'q'", '"r"', "3.14", "#", "--"]
EDGES = ["", " ", "\n", "\n\n", "\t", "  \n"]
CALL = {"name": "look", "arguments": {"place": "Ìbàdàn", "n": 2}}
SHAPES = [
    "one exchange",
    "a system message",
    "an empty system message",
    "ten exchanges",
    "long texts",
    "white space at the ends",
    "several lines",
    "silent users",
    "texts of one letter",
    "equal texts",
    "a question without an answer",
    "tools",
]


def conversation(shape: str, rng: random.Random) -> list[Message]:
    """A conversation of a shape."""

    def text() -> str:
        count = {"long texts": 300, "texts of one letter": 1}.get(shape, rng.randint(1, 12))
        between = "\n" if shape == "several lines" else " "
        made = between.join(rng.choice(WORDS) for _ in range(count))
        made = made[0] if shape == "texts of one letter" else made
        if shape == "white space at the ends":
            made = rng.choice(EDGES) + made + rng.choice(EDGES)
        return "the same" if shape == "equal texts" else made

    messages: list[Message] = []
    if "system" in shape:
        messages.append({"role": "system", "content": "" if "empty" in shape else text()})
    exchanges = {"one exchange": 1, "ten exchanges": 10}.get(shape, rng.randint(1, 4))
    for _ in range(exchanges):
        question = rng.choice(EDGES) if shape == "silent users" else text()
        messages.append({"role": "user", "content": question})
        if shape == "tools":
            calls = [{"type": "function", "function": CALL}] * rng.randint(1, 2)
            messages.append({"role": "assistant", "content": "", "tool_calls": calls})
            messages.append({"role": "tool", "content": text()})
        messages.append({"role": "assistant", "content": text()})
    if shape == "a question without an answer":
        messages.append({"role": "user", "content": text()})
    return messages


def conversations(name: str) -> list[list[Message]]:
    """Conversations of every shape that a template knows."""
    rng = random.Random(name)
    shapes = [shape for shape in SHAPES if shape != "tools" or "qwen" in name]
    return [conversation(shapes[nth % len(shapes)], rng) for nth in range(COUNT)]


def documents(out: Path) -> Iterator[tuple[list[int], list[bool]]]:
    """The ids and the mask of each document, in order of their records."""
    with open_dataset(out) as dataset:
        found = {}
        for row in (dataset["train"][nth] for nth in range(len(dataset["train"]))):
            ends = row["cu_seqlens"].tolist()
            for nth, record in enumerate(row["record_ids"].tolist()):
                own = slice(ends[nth], ends[nth + 1])
                found[record] = row["input_ids"][own].tolist(), row["loss_mask"][own].tolist()
    yield from (found[record] for record in sorted(found))


@pytest.mark.parametrize("name", NAMES)
def test_tokens_and_masks_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    template, chats = marked(name), conversations(name)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer_file()), bos_token=BOS, eos_token=EOS
    )
    (tmp_path / "tokenizer.json").write_text(tokenizer_file(), "utf-8")
    lines = [json.dumps({"messages": messages}, ensure_ascii=False) for messages in chats]
    (tmp_path / "chat.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    names = {"bos": BOS} if template.startswith("{{- bos_token") or name == "llama-2" else {}
    chat = {"messages": "messages", "template": name}
    source = {"name": "chat", "files": ["chat.jsonl"], "chat": chat}
    pack = {"seq_len": 65536, "duplicates": "keep"}
    packer.write_config(
        tmp_path, [source], tokenizer={"file": "tokenizer.json", **names}, pack=pack
    )
    report = sabiprep.pack(tmp_path, tmp_path / "out")
    assert report.train.documents == COUNT
    eos = tokenizer.eos_token_id
    for messages, (ids, mask) in zip(chats, documents(tmp_path / "out"), strict=True):
        last = max(nth for nth, message in enumerate(messages) if message["role"] == "assistant")
        other = tokenizer.apply_chat_template(
            messages[: last + 1],
            chat_template=template,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        expected, trained = other["input_ids"], [bool(it) for it in other["assistant_masks"]]
        # One EOS closes a document: that of the template, or the one that the packer adds.
        end = len(tokenizer.decode(expected).rstrip())
        if tokenizer.decode(expected)[:end].endswith(EOS):
            cut = len(expected) - 1 - expected[::-1].index(eos)
            expected, trained = expected[:cut], trained[:cut]
        assert any(trained) and not all(trained)
        assert ids == [*expected, eos], messages
        assert mask == [*trained, True], messages
