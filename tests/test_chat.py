"""Conversations: their text is what Jinja2 renders, set up as `transformers` does, and trained is
what a slow reading of the prefixes of the conversation says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

import sabiprep
from sabiprep import ConfigError, Role
from support import packer
from support.chats import BOS, EOS, NAMES, SPECIALS, known, tokenizer_file
from support.explaining import properties

Message = dict[str, Any]


def to_json(value: Any, indent: int | None = None, **others: Any) -> str:
    """JSON as `transformers` has templates write it."""
    return json.dumps(value, ensure_ascii=False, indent=indent, **others)


def raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


@cache
def compiled(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(template)


def rendered(
    template: str, messages: Sequence[Message], *, prompt: bool = False, **more: Any
) -> str:
    """The text of a conversation."""
    names = {"tools": None, "documents": None, "bos_token": BOS, "eos_token": EOS} | more
    return compiled(template).render(messages=messages, add_generation_prompt=prompt, **names)


def end_of_turn(text: str, start: int) -> int:
    """The end of the first control token at or after `start`."""
    for at in range(start, len(text)):
        for token in SPECIALS:
            if text.startswith(token, at):
                return at + len(token)
    raise AssertionError("a turn without an end")


def answers(template: str, messages: Sequence[Message]) -> list[tuple[int, int]]:
    """The spans of the answers: from the end of the prompt that asks for each, to the token that
    closes it.
    """
    spans = []
    text = rendered(template, messages)
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = rendered(template, messages[:index], prompt=True)
        assert text.startswith(prompt)
        content = message["content"].strip()
        shown = text.index(content, len(prompt))
        spans.append((len(prompt), end_of_turn(text, shown + len(content))))
    return spans


def without_edges(text: str, spans: list[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
    """A document without the EOS at its end, which the configuration puts there."""
    trimmed = text.rstrip()
    if trimmed.endswith(EOS):
        text = trimmed.removesuffix(EOS)
    return text, [(start, min(end, len(text))) for start, end in spans if start < len(text)]


def targets(explained: sabiprep.Explanation) -> tuple[str, list[tuple[int, int]]]:
    """The text of a document, and its spans that are trained."""
    text, spans = "", list[tuple[int, int]]()
    for span in explained.spans:
        if span.role == Role.TARGET:
            if spans and spans[-1][1] == len(text):
                spans[-1] = (spans[-1][0], len(text) + len(span.text))
            else:
                spans.append((len(text), len(text) + len(span.text)))
        text += span.text
    return text, spans


Explain = Callable[..., sabiprep.Explanation]


@pytest.fixture(scope="module")
def explain(tmp_path_factory: pytest.TempPathFactory) -> Explain:
    """Explains a record of a source of chats."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "a.jsonl").write_text("{}\n")
    (folder / "tokenizer.json").write_text(tokenizer_file(), "utf-8")

    def one(
        record: Mapping[str, Any],
        *,
        tokenizer: Mapping[str, str] | None = None,
        seq_len: int = 1 << 20,
        source: Mapping[str, Any] | None = None,
        **chat: Any,
    ) -> sabiprep.Explanation:
        chat = {"messages": "messages"} | chat
        named = {"name": "a", "files": ["a.jsonl"], "chat": chat} | dict(source or {})
        packer.write_config(
            folder, [named], tokenizer={"file": "tokenizer.json", **(tokenizer or {})}
        )
        return sabiprep.explain(record, "a", corpus=folder, seq_len=seq_len)

    return one


# `str.strip` and Jinja2 know white space that Python alone has.
letters = st.text(
    st.one_of(st.characters(exclude_categories=["Cs", "Cc"]), st.sampled_from("\n\t <>|{}%")),
    max_size=12,
)
texts = st.lists(
    st.one_of(letters, st.sampled_from([*SPECIALS, "assistant", "{{ x }}", "<think>", "ẹ\u0301"])),
    max_size=4,
).map("".join)
contents = texts.filter(lambda text: text.strip() != "")


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """A conversation of one to six exchanges, with a system message or without."""
    messages = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(texts)})
    for _ in range(draw(st.integers(1, 6))):
        messages.append({"role": "user", "content": draw(texts)})
        messages.append({"role": "assistant", "content": draw(contents)})
    return messages


def unambiguous(messages: Sequence[Message]) -> list[Message]:
    """The conversation with contents that the slow reading can find."""
    return [
        message | {"content": message["content"].replace("<", "(").replace("[", "(")}
        for message in messages
    ]


@pytest.mark.parametrize("name", NAMES)
@settings(properties, max_examples=100)
@given(messages=conversations())
def test_a_conversation_is_rendered_and_trained_as_its_prefixes_say(
    explain: Explain, name: str, messages: list[Message]
) -> None:
    template = known(name)
    if name == "mistral":
        # Its system message moves to the last question, so prefixes differ from the whole.
        messages = [message for message in messages if message["role"] != "system"]
    seen = explain({"messages": messages}, template=name, tokenizer={"bos": BOS})
    assert seen.dropped is None, seen.dropped
    # Roles are the template's and found without contents, so those may be any text.
    plain = unambiguous(messages)
    text, _ = without_edges(rendered(template, messages), [])
    other, spans = without_edges(rendered(template, plain), answers(template, plain))
    begin = len(BOS) if text.startswith(BOS) else 0
    assert len(text) == len(other)
    expected = [(start - begin, end - begin) for start, end in spans]
    assert targets(seen) == (text[begin:], expected)
    ids = {token: id for token, id in control_ids().items()}
    placed = [id for id in seen.tokens["id"].to_pylist() if id in ids.values()]
    spelled = rendered(template, plain)[begin:].rstrip().removesuffix(EOS)
    assert placed == [ids[BOS], *controls_in(spelled), ids[EOS]]


@cache
def control_ids() -> dict[str, int]:
    return {token["content"]: token["id"] for token in json.loads(tokenizer_file())["added_tokens"]}


def controls_in(text: str) -> list[int]:
    """The ids of the control tokens that a text spells."""
    found, at, ids = [], 0, control_ids()
    while at < len(text):
        token = next((token for token in SPECIALS if text.startswith(token, at)), None)
        found += [ids[token]] if token else []
        at += len(token) if token else 1
    return found


CHATML = known("chatml")


def user(text: Any) -> Message:
    return {"role": "user", "content": text}


def answer(text: Any, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


def trained(explained: sabiprep.Explanation) -> list[str]:
    """The texts that are trained."""
    assert explained.dropped is None, explained.dropped
    text, spans = targets(explained)
    return [text[start:end] for start, end in spans]


@pytest.mark.parametrize(
    ("train_on", "expected"),
    [
        ("assistant", ["b<|im_end|>", "d<|im_end|>"]),
        ("last", ["d<|im_end|>"]),
        ("all", ["s<|im_end|>", "a<|im_end|>", "b<|im_end|>", "c<|im_end|>", "d<|im_end|>"]),
        (["user"], ["a<|im_end|>", "c<|im_end|>"]),
        (["system", "gpt"], ["s<|im_end|>", "b<|im_end|>", "d<|im_end|>"]),
    ],
)
def test_train_on_chooses_the_messages(explain: Explain, train_on: Any, expected: Any) -> None:
    messages = [{"from": "system", "value": "s"}, {"from": "human", "value": "a"}]
    messages += [{"from": "gpt", "value": "b"}, {"from": "human", "value": "c"}]
    messages += [{"from": "gpt", "value": "d"}]
    seen = explain({"messages": messages}, template="chatml", train_on=train_on)
    assert trained(seen) == expected
    # What follows the last trained message is left out.
    assert ("d<|im_end|>" in targets(seen)[0]) == (train_on != ["user"])
    whole = explain({"messages": [*messages, {"from": "human", "value": "e"}]}, template="chatml")
    assert targets(whole) == targets(explain({"messages": messages}, template="chatml"))


def test_contents_in_parts_and_null_fields(explain: Explain) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": " b"}]
    messages = [user(parts) | {"tool_calls": None}, answer(parts[:1], name=None)]
    assert targets(
        explain({"data": {"turns": messages}}, messages="data.turns", template="chatml")
    )[0] == ("<|im_start|>user\na b<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n")


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"x": [1, 2.5, None]}}}
CALLS = [
    user("q"),
    answer(
        None,
        tool_calls=[
            {"type": "function", "function": {"name": "f", "arguments": {"x": "ẹ", "n": 7}}}
        ],
    ),
    {"role": "tool", "name": "f", "content": "12"},
    {"role": "tool", "name": "f", "content": "13"},
    answer("It is 12."),
]


@pytest.mark.parametrize("name", ["qwen-2.5", "qwen-3"])
@pytest.mark.parametrize("as_text", [False, True])
def test_tool_calls_are_trained(explain: Explain, name: str, as_text: bool) -> None:
    tools = json.dumps([TOOL]) if as_text else [TOOL]
    seen = explain({"messages": CALLS, "tools": tools}, template=name, tools="tools")
    call = '<tool_call>\n{"name": "f", "arguments": {"x": "ẹ", "n": 7}}\n</tool_call><|im_end|>'
    last = "<think>\n\n</think>\n\nIt is 12." if name == "qwen-3" else "It is 12."
    # The template of 2.5 has the line break before a call, where the prompt has it too.
    assert trained(seen) == [call, f"{last}<|im_end|>"]
    assert targets(seen)[0] == rendered(known(name), CALLS, tools=[TOOL])


THOUGHT = "<think>\nhm\n</think>\n\nyes"


def test_thoughts_are_trained_where_they_are_shown(explain: Explain) -> None:
    def qwen(messages: list[Message], **more: Any) -> sabiprep.Explanation:
        return explain({"messages": messages}, template="qwen-3", **more)

    assert trained(qwen([user("a"), answer(THOUGHT)])) == [f"{THOUGHT}<|im_end|>"]
    assert trained(qwen([user("a"), answer("yes", reasoning_content="hm")])) == [
        f"{THOUGHT}<|im_end|>"
    ]
    # The template leaves the thoughts of earlier answers out.
    several = [user("a"), answer(THOUGHT), user("b"), answer(THOUGHT)]
    seen = qwen(several)
    assert seen.dropped is not None and seen.dropped.reason == "template error"
    assert "message 2 (assistant) is not shown as it is written" in seen.dropped.why
    assert 'train_on = "last"' in seen.dropped.why
    assert trained(qwen(several, train_on="last")) == [f"{THOUGHT}<|im_end|>"]
    assert targets(qwen(several, train_on="last"))[0] == rendered(known("qwen-3"), several)


@pytest.mark.parametrize(
    ("messages", "reason", "why"),
    [
        ("text", "malformed", "no list"),
        (None, "missing field", "`messages`"),
        (["text"], "malformed", "message 1 is no object"),
        ([{"content": "a"}], "malformed", "neither `role` nor `from`"),
        ([{"role": 1, "content": "a"}], "malformed", "no text"),
        ([user(None), answer("a")], "malformed", "message 1 has no `content`"),
        ([user(1), answer("a")], "malformed", "neither text nor parts"),
        ([user(["a"]), answer("a")], "malformed", "a part that is no object"),
        ([user([{"type": "image"}]), answer("a")], "refused", "type 'image'"),
        ([user([{"type": "text"}]), answer("a")], "malformed", "without `text`"),
        ([], "empty target", "no message"),
        ([user("a")], "empty target", "no message of assistant, only of user"),
        ([user("a"), answer(" \n")], "empty target", "message 2 (assistant) is empty"),
        ([user("a"), user("b"), answer("c")], "template error", "take turns"),
        ([user("a"), answer(None, tool_calls=[{"name": "f"}])], "missing field", "null"),
    ],
)
def test_a_conversation_that_cannot_be_read_is_dropped_with_its_reason(
    explain: Explain, messages: Any, reason: str, why: str
) -> None:
    seen = explain({"messages": messages}, template="gemma")
    assert seen.dropped is not None
    assert seen.dropped.reason == reason
    assert why.replace("`messages`", "messages") in seen.dropped.why, seen.dropped


LOOP = "{% for m in messages %}<|im_start|>{{ m.role }}\n"
END = "{% endfor %}"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (LOOP + "{{ m.content }}{{ m.content }}<|im_end|>" + END, "shown twice"),
        (LOOP + "<|im_end|>" + END, "not shown"),
        (LOOP + "{{ m.content | upper }}<|im_end|>" + END, "not shown as it is written"),
        (LOOP + "{{ m.content }}\n" + END + "x", "closes an answer with no token"),
        (
            "{% for m in messages %}{{ m.content }}{% endfor %}"
            "{% for m in messages %}{{ m.content }}{% endfor %}<|im_end|>",
            "among others",
        ),
        ("{{ strftime_now('%Y') }}" + CHATML, "strftime_now"),
        ("{% if %}", "its chat template is wrong"),
        ("{{ raise_exception('not today') }}", "not today"),
        ("nope", "the name of no chat template"),
        ("chatlm", "the name of no chat template"),
        ("tokenizer", "no chat template: none lies beside"),
        ("tokenizer:rag", 'no chat template called "rag"'),
    ],
)
def test_a_template_that_leaves_open_what_is_trained_is_refused(
    explain: Explain, template: str, why: str
) -> None:
    with pytest.raises(ConfigError, match="Remedy") as caught:
        explain({"messages": [user("a"), answer("b")]}, template=template)
    assert why in str(caught.value)
    assert "source 'a'" in str(caught.value)


def test_a_template_may_ask_for_the_date_and_do_without(explain: Explain) -> None:
    date = "{{ strftime_now('%Y') if strftime_now is defined else '26 Jul 2024' }}"
    seen = explain({"messages": [user("a"), answer("b")]}, template=date + CHATML)
    assert targets(seen)[0].startswith("26 Jul 2024")


def test_bos_and_eos_that_the_template_spells_are_not_doubled(
    explain: Explain, tmp_path: Path
) -> None:
    messages = [user("a"), answer("b")]
    ids = control_ids()
    for tokenizer in ({}, {"bos": BOS}):
        seen = explain({"messages": messages}, template="llama-2", tokenizer=tokenizer)
        first = [ids[BOS]] if tokenizer else []
        got = seen.tokens["id"].to_pylist()
        assert [id for id in got if id in ids.values()] == [
            *first,
            ids["[INST]"],
            ids["[/INST]"],
            ids[EOS],
        ]
        assert got[-1] == ids[EOS] and seen.tokens["trained"].to_pylist()[-1] is True
    seen = explain({"messages": messages}, template="chatml", tokenizer={"eos": "<|im_end|>"})
    assert seen.tokens["id"].to_pylist().count(ids["<|im_end|>"]) == 2
    assert seen.tokens["id"].to_pylist()[-1] == ids["<|im_end|>"]
    assert targets(seen)[0].endswith("b")


def test_a_conversation_too_long_for_a_row_loses_its_oldest_exchanges(explain: Explain) -> None:
    messages: list[Message] = [{"role": "system", "content": "s"}]
    for number in range(9):
        messages += [user(f"q{number}" * 5), answer(f"a{number}")]
    seen = explain({"messages": messages}, template="chatml", seq_len=128)
    assert seen.truncated and len(seen.tokens["id"]) <= 128
    assert trained(seen) == [f"a{number}<|im_end|>" for number in (6, 7, 8)]
    assert targets(seen)[0].startswith("<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq6")
    last = explain(
        {"messages": [messages[0], user("q" * 200), answer("a")]}, template="chatml", seq_len=128
    )
    assert last.dropped is not None and last.dropped.reason == "too long"
    whole = explain(
        {"messages": messages}, template="chatml", seq_len=128, source={"overflow": "drop"}
    )
    assert whole.dropped is not None and whole.dropped.reason == "too long"
    with pytest.raises(ConfigError, match="plain text"):
        explain({"messages": messages}, template="chatml", source={"overflow": "split"})


GENERATED = {
    "chatml": LOOP + "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}"
    "{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}"
    + END
    + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama-3": "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content | trim }}{{ '<|eot_id|>' }}"
    "{% endgeneration %}{% else %}{{ m.content | trim }}{{ '<|eot_id|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "mistral": "{{ bos_token }}{%- for m in messages -%}\n"
    "  {%- if m.role == 'assistant' -%}\n"
    "    {%- generation -%}\n    {{- ' ' + m.content.strip() + eos_token -}}\n"
    "    {%- endgeneration -%}\n"
    "  {%- else -%}{{- '[INST] ' + m.content + '[/INST]' -}}{%- endif -%}\n"
    "{%- endfor -%}",
    "zephyr": "{% for m in messages %}\n{{ '<|' + m.role + '|>' }}\n"
    "    {% if m.role == 'assistant' %}\n{% generation %}\n{{ m.content + eos_token }}"
    "{% endgeneration %}{{ '\n' }}    {% else %}\n{{ m.content + eos_token + '\n' }}"
    "    {% endif %}\n{% endfor %}\n"
    "{% if add_generation_prompt %}\n{{ '<|assistant|>\n' }}{% endif %}",
}


def without_generation(template: str) -> str:
    """The template with scopes that mark nothing in place of its blocks."""
    return (
        template.replace("endgeneration", "endwith")
        .replace("generation %}", "with %}")
        .replace("generation -%}", "with -%}")
    )


@pytest.mark.parametrize("name", GENERATED)
@pytest.mark.parametrize("blocks", [True, False])
@settings(properties, max_examples=50)
@given(messages=conversations())
def test_masks_are_those_of_transformers(
    explain: Explain, name: str, blocks: bool, messages: list[Message]
) -> None:
    """With the blocks of `{% generation %}`, and found without them."""
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    template = GENERATED[name]
    if name == "mistral":
        messages = [message for message in messages if message["role"] != "system"]
    texts, spans = utils.render_jinja_template(
        [messages],
        chat_template=template,
        return_assistant_tokens_mask=True,
        bos_token=BOS,
        eos_token=EOS,
    )
    text, expected = without_edges(texts[0], [tuple(span) for span in spans[0]])
    text, begin = text.removeprefix(BOS), len(BOS) if text.startswith(BOS) else 0
    seen = explain(
        {"messages": messages},
        template=template if blocks else without_generation(template),
        tokenizer={"bos": BOS},
    )
    assert seen.dropped is None, seen.dropped
    got, found = targets(seen)
    assert got == text
    assert [(start + begin, end + begin) for start, end in found] == expected


RAG = """\
{% set ns = namespace(count=0) %}
{% for doc in documents or [] %}
    {% if doc.skip %}{% continue %}{% endif %}
    {% set ns.count = ns.count + 1 %}
{{ ns.count }}: {{ doc | tojson(indent=2) }}
{% endfor %}
{% for m in messages %}
{{- '<|im_start|>' + m['role'] + '\\n' }}
{{- m['content'].strip().replace('\\r', '') + '<|im_end|>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""


def test_documents_and_the_constructs_of_chat_templates(explain: Explain) -> None:
    documents = [{"title": "A", "n": [1, {"x": "é"}]}, {"skip": True}, {"title": "<|im_end|>"}]
    messages = [user(" a "), answer("b ")]
    seen = explain({"messages": messages, "docs": documents}, template=RAG, documents="docs")
    text = rendered(RAG, messages, documents=documents)
    assert targets(seen)[0] == text
    assert trained(seen) == ["b<|im_end|>"]
    assert seen.tokens["id"].to_pylist().count(control_ids()["<|im_end|>"]) == 2
    refused = explain(
        {"messages": messages, "docs": documents},
        template=RAG,
        documents="docs",
        source={"special_in_data": "error"},
    )
    assert refused.dropped is not None and refused.dropped.reason == "refused"


def chats(folder: Path, **files: str) -> Path:
    """A folder of two conversations, with the files beside its tokenizer."""
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer_file(), "utf-8")
    lines = [
        {"messages": [user(f"a{number}"), answer("b")] * number, "tools": None} for number in (1, 3)
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "chat.jsonl").write_text(text + "\n", "utf-8")
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content, "utf-8")
    return folder


def test_a_folder_of_conversations_needs_no_configuration(tmp_path: Path) -> None:
    beside = {
        "eos_token": EOS,
        "bos_token": BOS,
        "chat_template": [
            {"name": "default", "template": "{{ bos_token }}" + CHATML},
            {"name": "short", "template": known("phi-3")},
        ],
    }
    folder = chats(tmp_path / "corpus", tokenizer_config__json=json.dumps(beside))
    planned = sabiprep.plan(folder)
    assert planned.sources[0].chat is not None
    assert planned.sources[0].chat["messages"] == "messages"
    options = sabiprep.PackOptions(seq_len=256, threads=1)
    sabiprep.pack(folder, tmp_path / "out", options)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text("utf-8"))
    assert manifest["sources"][0]["kept"] == 2
    # The template is a part of the configuration: derived again without the files beside it.
    (folder / "tokenizer_config.json").unlink()
    assert sabiprep.verify(tmp_path / "out", against=folder).failures == []
    # Another template of the tokenizer, by its name.
    (folder / "tokenizer_config.json").write_text(json.dumps(beside), "utf-8")
    source = {"name": "chat", "files": ["chat.jsonl"]}
    chat = {"messages": "messages", "template": "tokenizer:short"}
    packer.write_config(folder, [source | {"chat": chat}], tokenizer={"file": "tokenizer.json"})
    seen = sabiprep.explain({"messages": [user("a"), answer("b")]}, "chat", corpus=folder)
    assert trained(seen) == ["b<|end|>"]
    both = source | {"chat": chat, "segments": [{"target": "{{ x }}"}]}
    packer.write_config(folder, [both], tokenizer={"file": "tokenizer.json"})
    with pytest.raises(ConfigError, match="both `segments` and `chat`"):
        sabiprep.pack(folder, tmp_path / "none", options)


def test_a_tokenizer_is_trained_with_the_tokens_of_a_chat_template(tmp_path: Path) -> None:
    folder = chats(tmp_path / "corpus")
    chat = {"messages": "messages", "template": "chatml"}
    packer.write_config(folder, [{"name": "chat", "files": ["chat.jsonl"], "chat": chat}])
    made = packer.train_tokenizer(folder, tmp_path / "tokenizer.json", 300)
    assert {"<|im_start|>", "<|im_end|>"} <= set(made["specials"])
    options = sabiprep.PackOptions(seq_len=256, threads=1, tokenizer=tmp_path / "tokenizer.json")
    report = sabiprep.pack(folder, tmp_path / "out", options)
    assert report.notes == () or not any("one token" in note for note in report.notes)
