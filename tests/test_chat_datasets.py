"""Datasets of conversations: long ones by every policy, shown row by row, resumed, by language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import ConfigError, InputError, OutputError, PackOptions
from support import packer
from support.chats import known, tokenizer_file
from support.command import Run
from support.command import run as run  # the fixture
from support.files import files_of

SPLIT_BYTES = 4000


def conversation(nth: int, exchanges: int) -> list[dict[str, str]]:
    """A conversation of so many exchanges."""
    roles = ("user", "assistant")
    return [
        {"role": role, "content": f"{role} {nth} {turn}"}
        for turn in range(exchanges)
        for role in roles
    ]


def corpus(folder: Path, exchanges: list[int], **source: Any) -> Path:
    """A corpus of conversations of so many exchanges each."""
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer_file(), "utf-8")
    lines = [{"messages": conversation(nth, count)} for nth, count in enumerate(exchanges)]
    (folder / "chat.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    configure(folder, **source)
    return folder


def configure(folder: Path, template: str = "chatml", **source: Any) -> None:
    """Write the configuration of conversations."""
    chat = {"messages": "messages", "template": template}
    named = {"name": "chat", "files": ["chat.jsonl"], "chat": chat, **source}
    table = {"file": "tokenizer.json"}
    packer.write_config(folder, [named], tokenizer=table, pack={"seq_len": 256})


def source_of(out: Path) -> dict[str, Any]:
    """The only source of a manifest."""
    [source] = json.loads((out / "manifest.json").read_text("utf-8"))["sources"]
    return dict(source)


LONG = [1, 2, 12, 3]


def test_long_conversations_are_shortened_or_dropped_by_their_policy(tmp_path: Path) -> None:
    for overflow, truncated, drops in [
        (None, 1, {}),
        ("truncate", 1, {}),
        ("drop", 0, {"too long": 1}),
    ]:
        given = {} if overflow is None else {"overflow": overflow}
        folder = corpus(tmp_path / str(overflow), LONG, **given)
        out = tmp_path / f"{overflow}-out"
        sabiprep.pack(folder, out)
        source = source_of(out)
        assert (source["truncated"], source["drops"]) == (truncated, drops)
        assert source["kept"] == len(LONG) - sum(drops.values())
        assert sabiprep.verify(out, against=folder).failures == []


def test_a_policy_may_stop_at_a_long_conversation_and_none_splits_it(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "c", LONG, overflow="error")
    with pytest.raises(InputError, match=r"chat.jsonl:3, .*: 509 tokens, a row holds 256"):
        sabiprep.pack(folder, tmp_path / "out")
    configure(folder, overflow="split")
    with pytest.raises(ConfigError, match="plain text"):
        sabiprep.pack(folder, tmp_path / "out")


def test_rows_of_conversations_are_shown_with_what_is_trained(tmp_path: Path, run: Run) -> None:
    folder = corpus(tmp_path / "c", [2])
    sabiprep.pack(folder, tmp_path / "out")
    shown = run("inspect", tmp_path / "out", "--row", "0")
    assert shown.code == 0, shown.err
    text = "".join(shown.out.splitlines()[3:])
    assert text.count("⟦t+|assistant 0 ") == 2 and text.count("⟦t+|") == 2
    assert "⟦d|user 0 0⟧" in text and "<|im_start|>assistant" in text
    # The trained end of a turn belongs to the answer.
    assert "⟦t+|assistant 0 0<|im_end|>⟧" in text


def stopped(folder: Path, out: Path) -> Path:
    """A folder in which a run was stopped while it mapped."""

    def stop(*counts: object) -> None:
        if any((out / ".work" / "spool").glob("*.map")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        options = PackOptions(threads=1, spool_bytes=0, split_bytes=SPLIT_BYTES)
        sabiprep.pack(folder, out, options, progress=stop)
    assert list((out / ".work" / "spool").glob("*.map"))
    return out


def test_a_run_is_not_resumed_by_another_chat_template(tmp_path: Path) -> None:
    """Neither by another name, nor by another text, nor where the tokenizer's own was changed."""
    folder = corpus(tmp_path / "c", [1 + nth % 3 for nth in range(20_000)])
    out = stopped(folder, tmp_path / "out")
    before = files_of(out)
    for template in ("phi-3", known("chatml") + "!"):
        configure(folder, template)
        with pytest.raises(OutputError, match=r"(?s)cannot be resumed.*chat.*--overwrite"):
            sabiprep.pack(folder, out, PackOptions(resume=True))
        assert files_of(out) == before
    configure(folder)
    sabiprep.pack(folder, out, PackOptions(resume=True))
    sabiprep.pack(folder, tmp_path / "afresh")
    assert files_of(out) == files_of(tmp_path / "afresh")


def test_a_run_is_not_resumed_by_another_template_of_the_tokenizer(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "c", [1 + nth % 3 for nth in range(20_000)])
    beside = folder / "tokenizer_config.json"
    beside.write_text(json.dumps({"chat_template": known("chatml")}), "utf-8")
    source = {"name": "chat", "files": ["chat.jsonl"], "chat": {"messages": "messages"}}
    packer.write_config(
        folder, [source], tokenizer={"file": "tokenizer.json"}, pack={"seq_len": 256}
    )
    out = stopped(folder, tmp_path / "out")
    beside.write_text(json.dumps({"chat_template": known("phi-3")}), "utf-8")
    with pytest.raises(OutputError, match=r"(?s)cannot be resumed.*--overwrite"):
        sabiprep.pack(folder, out, PackOptions(resume=True))


def test_a_changed_chat_template_is_tokenized_again_where_a_spool_is_mixed(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "c", [1 + nth % 3 for nth in range(30)])
    sabiprep.pack(folder, tmp_path / "kept", PackOptions(keep_spool=True))
    configure(folder, "phi-3")
    report = sabiprep.remix(tmp_path / "kept", tmp_path / "mixed", corpus=folder)
    assert report.reused_splits == (0, 1)
    sabiprep.pack(folder, tmp_path / "afresh")
    of_mixed, afresh = files_of(tmp_path / "mixed"), files_of(tmp_path / "afresh")
    assert of_mixed["train/shard-00000.arrow"] == afresh["train/shard-00000.arrow"]


def by_language(folder: Path, chat: dict[str, str], **keys: Any) -> None:
    """Write the configuration of conversations in fields by language."""
    source = {"name": "chat", "files": ["chat-{lang}.jsonl"], "chat": chat, **keys}
    packer.write_config(folder, [source], tokenizer={"file": "tokenizer.json"})


TEMPLATE = known("chatml").replace("'<|im_start|>'", "'<|im_start|>' + '{lang} '", 1)


def test_a_language_stands_in_the_fields_and_the_template_of_a_chat(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "c", [1])
    for lang in ("hau", "yor"):
        line = {f"chat_{lang}": conversation(0, 1), "lang": lang}
        (folder / f"chat-{lang}.jsonl").write_text(json.dumps(line) + "\n", "utf-8")
    both = (folder / "chat-hau.jsonl").read_text() + (folder / "chat-yor.jsonl").read_text()
    (folder / "both.jsonl").write_text(both, "utf-8")
    chat = {"messages": "chat_{lang}", "template": TEMPLATE}
    for keys in ({}, {"files": ["both.jsonl"], "lang": "{{ lang }}"}):
        by_language(folder, chat, **keys)
        plan = sabiprep.plan(folder)
        assert [source.name for source in plan.sources] == ["chat-hau", "chat-yor"]
        for source, lang in zip(plan.sources, ("hau", "yor"), strict=True):
            text = "".join(span.text for span in source.records[0].spans)
            assert f"<|im_start|>{lang} user\nuser 0 0<|im_end|>" in text


@pytest.mark.parametrize("key", ["messages", "tools", "documents", "template"])
def test_a_language_in_a_chat_that_no_file_names_is_refused(tmp_path: Path, key: str) -> None:
    folder = corpus(tmp_path / "c", [1])
    chat = {"messages": "messages", "template": "chatml"}
    chat[key] = known("chatml") + "{lang}" if key == "template" else "of_{lang}"
    by_language(folder, chat, files=["chat.jsonl"])
    with pytest.raises(ConfigError, match=r"`chat` holds \{lang\}, and no entry of `files` does"):
        sabiprep.pack(folder, tmp_path / "out")
