"""Lists of conversations and of tagged texts: each element is shortened as a record of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import ConfigError
from support.document_corpus import pack, write
from support.document_texts import by_record, texts_of

TAGGED = {"open": ["<translate>"], "action": ["<yor>:"]}
CHAT = {
    "template": "{% for m in messages %}<{{ m.role }}>{% generation %}{{ m.content }}"
    "{% endgeneration %}</s>{% endfor %}"
}


def conversation(turns: int) -> list[dict[str, str]]:
    """A conversation of so many exchanges."""
    return [
        {"role": role, "content": f"{role} {nth}"}
        for nth in range(turns)
        for role in ("user", "assistant")
    ]


def tagged(words: int) -> str:
    """A tagged text of so many words."""
    return f"<translate> {' '.join(f'w{nth}' for nth in range(words))} <yor>: target {words}"


WAYS: dict[str, tuple[dict[str, Any], dict[str, Any], list[Any]]] = {
    "tagged": (
        {"tagged": {**TAGGED, "text": "item"}},
        {"tagged": {**TAGGED, "text": "it"}},
        [tagged(words) for words in (3, 400, 20, 90, 35, 41)],
    ),
    "tagged in objects": (
        {"tagged": {**TAGGED, "text": "item.text"}},
        {"tagged": {**TAGGED, "text": "it.text"}},
        [{"text": tagged(words)} for words in (200, 3, 50)],
    ),
    "chat": (
        {"chat": {**CHAT, "messages": "item"}},
        {"chat": {**CHAT, "messages": "it"}},
        [conversation(turns) for turns in (2, 30, 5, 11, 12)],
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_long_elements_are_shortened_as_records_of_their_own(tmp_path: Path, way: str) -> None:
    of_list, alone, elements = WAYS[way]
    lines = [{"parts": elements[nth:]} for nth in range(len(elements))]
    write(tmp_path / "list", lines, [{**of_list, "each": "parts"}], seq_len=128)
    write(tmp_path / "alone", [{"it": it} for it in elements], [alone], seq_len=128)
    out, manifest = pack(tmp_path / "list")
    expected = [
        text for [text] in by_record(texts_of(pack(tmp_path / "alone")[0]), "news/1").values()
    ]
    made = by_record(texts_of(out), "news/1").values()
    assert list(made) == [expected[nth:] for nth in range(len(elements))]
    [entry] = manifest["sources"]
    assert entry["drops"] == {} and entry["truncated"] > 1


def test_a_list_with_an_element_that_cannot_be_shortened_enough_is_too_long(tmp_path: Path) -> None:
    lines = [
        {"parts": [tagged(3), f"<translate> a b <yor>: {'word ' * 100}"]},
        {"parts": [tagged(3)]},
    ]
    table = {"tagged": {**TAGGED, "text": "item"}, "each": "parts"}
    write(tmp_path / "c", lines, [table], seq_len=128)
    _, manifest = pack(tmp_path / "c")
    [entry] = manifest["sources"]
    assert entry["drops"] == {"too long": 1} and entry["kept"] == 1
    assert "its target leaves no room" in entry["examples"][0]["why"]


def test_a_long_conversation_is_filtered_by_its_whole_text(tmp_path: Path) -> None:
    source = {"chat": {**CHAT, "messages": "it"}, "filter": {"min_chars": 200}}
    write(tmp_path / "c", [{"it": conversation(30)}], [source], seq_len=128)
    _, manifest = pack(tmp_path / "c")
    [entry] = manifest["sources"]
    assert (entry["drops"], entry["truncated"]) == ({}, 1)


@pytest.mark.parametrize(
    ("keys", "message", "remedy"),
    [
        (
            {"chat": {"messages": "messages"}},
            "`chat` reads `messages` beside it",
            'chat = { messages = "item" }',
        ),
        ({"tagged": TAGGED}, "`tagged` reads `text` beside it", '"item.text"'),
    ],
)
def test_a_text_that_all_elements_would_share_is_refused(
    tmp_path: Path, keys: dict[str, Any], message: str, remedy: str
) -> None:
    write(tmp_path / "c", [{"parts": []}], [{**keys, "each": "parts"}])
    with pytest.raises(ConfigError) as error:
        sabiprep.pack(tmp_path / "c", tmp_path / "out")
    assert message in str(error.value) and remedy in (error.value.remedy or "")
