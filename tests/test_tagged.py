"""Tagged text: the boundary between prompt and target from the roles of tags that stand in the
data, beside a slow oracle; and beside the template that would have written the same text.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sabiprep
from sabiprep import ConfigError, _core
from support import oracle, packer
from support.document_texts import by_record, contents, texts_of
from support.explaining import control_ids, properties
from support.oracle.documents import UNPARSED, Text, parse_tagged
from support.strategies import TOKENIZERS, token_id, tokenizer_json

OPENS, ACTIONS = ["<translate>", "<tr", "<ask>"], ["<yor>:", "<yor>", "<answer>:"]
TAGGED = {"open": OPENS, "action": ACTIONS}
PIECES = [*OPENS, *ACTIONS, "<hau>:", "</s>", "<", "yor>", ":", " ", "\n", "a", "ọ̀rọ̀", "two words"]
tagged_texts = st.lists(st.sampled_from(PIECES), max_size=7).map("".join)
sound_texts = st.tuples(
    st.sampled_from(OPENS[:1]), tagged_texts, st.sampled_from(ACTIONS), tagged_texts
).map("".join)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tokenizer and a file."""
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")
    (folder / "a.jsonl").write_text("{}\n", "utf-8")
    return folder


def explain(folder: Path, text: Any, **source: Any) -> packer.Explained:
    """A text explained as one of a source of tagged text."""
    source = {"name": "a", "files": ["a.jsonl"], "tagged": TAGGED, **source}
    packer.write_config(folder, [source])
    tokenizer = folder / "tokenizer.json"
    return packer.explain(folder, "a", {"text": text}, tokenizer=tokenizer, seq_len=1 << 16)


@properties
@given(text=st.one_of(tagged_texts, sound_texts))
def test_the_boundary_is_that_of_the_oracle_or_the_text_is_refused(folder: Path, text: str) -> None:
    expected = parse_tagged(text, OPENS, ACTIONS)
    shown = explain(folder, text)
    if isinstance(expected, str):
        assert shown.dropped == expected
        return
    assert shown.dropped is None
    assert "".join(part for part, _, _ in shown.spans) == text
    target = "".join(part for part, role, _ in shown.spans if role == oracle.TARGET)
    assert target == expected.target
    spelled = [part for part, _, literal in shown.spans if literal]
    assert len(spelled) == 2 and spelled[0] in OPENS and spelled[1] in ACTIONS


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tagged_text_gives_the_tokens_of_the_template_that_writes_it(
    folder: Path, name: str
) -> None:
    """The declared tags become control tokens, and nothing of the data does."""
    file = tokenizer_json(name)
    (folder / "tokenizer.json").write_text(file, "utf-8")
    segments = [("prompt", "<translate>{{ a }}<yor>:"), ("target", "{{ b }}")]
    for a, b in [(" one two ", " ọ̀rọ̀"), (" <|sep|> and </s> ", " <s> x"), ("", "y"), (":", ":")]:
        expected = oracle.document(file, segments, {"a": a, "b": b}, eos_id=token_id(name, "</s>"))
        shown = explain(
            folder,
            f"<translate>{a}<yor>:{b}",
            tagged={"open": ["<translate>"], "action": ["<yor>:"]},
        )
        assert (shown.ids, shown.loss_mask) == (expected["ids"], expected["loss_mask"]), (a, b)
        inner = [token for token in shown.ids[:-1] if token in control_ids(file)]
        assert inner == [token_id(name, "<translate>"), token_id(name, "<yor>:")]


def test_texts_that_do_not_parse_are_counted_with_their_fault(folder: Path) -> None:
    lines = [
        "<translate> good day <yor>: ẹ káàsán",
        "no tag at all",
        "<translate> no action",
        "no open <yor>: a",
        "<translate> a <ask> b <yor>: c",
        "<translate> a <yor>: b <answer>: c",
        "<yor>: a <translate> b",
        "before <translate> a <yor>: b",
        "<translate> nothing follows <yor>:  ",
        "  <ask> why <answer>: because",
    ]
    (folder / "a.txt").write_text("\n".join(lines) + "\n", "utf-8")
    source = {"name": "a", "files": ["a.txt"], "tagged": TAGGED}
    packer.write_config(folder, [source], pack={"max_bad_fraction": 1.0, "seq_len": 64})
    tokenizer, out = folder / "tokenizer.json", folder.with_name("out")
    manifest = packer.pack(folder, out, tokenizer=tokenizer)
    [entry] = manifest["sources"]
    assert entry["drops"] == {UNPARSED: 7, "empty target": 1} and entry["kept"] == 2
    listed = [json.loads(line) for line in (out / "dropped.jsonl").read_text("utf-8").splitlines()]
    assert {line["line"]: line["why"] for line in listed if "line" in line} == {
        2: "it has none of the tags",
        3: "`<translate>` without an action tag",
        4: "`<yor>:` without an open tag",
        5: "2 open tags, the second is `<ask>`",
        6: "2 action tags, the second is `<answer>:`",
        7: "`<yor>:` stands before `<translate>`",
        8: "text stands before `<translate>`",
        9: "nothing follows `<yor>:`",
    }
    found = [text for texts in by_record(texts_of(out), "a").values() for text in texts]
    assert Text("<translate> good day <yor>:", " ẹ káàsán") in found
    assert Text("  <ask> why <answer>:", " because") in found
    against = json.loads(_core.verify_against(out, folder, sample=None, threads=1, progress=None))
    assert against["failures"] == [] and packer.verify(out)["failures"] == []
    plan = sabiprep.plan(folder)
    assert plan.sources[0].drops[UNPARSED] == 7
    assert any("7 of 10 records dropped: unparsed tags" in str(p) for p in plan.problems)


def test_a_source_whose_texts_do_not_parse_stops_the_run(folder: Path) -> None:
    (folder / "a.txt").write_text("<translate> a <yor> b\n" * 200, "utf-8")
    tagged = {"open": ["<translate>"], "action": ["<yor>:"]}
    packer.write_config(folder, [{"name": "a", "files": ["a.txt"], "tagged": tagged}])
    with pytest.raises(sabiprep.InputError, match="`<translate>` without an action tag"):
        packer.pack(folder, folder.with_name("out"), tokenizer=folder / "tokenizer.json")


def test_a_long_prompt_loses_its_last_words_and_never_a_tag_or_the_target(folder: Path) -> None:
    prompt = " ".join(f"word{nth}" for nth in range(200))
    lines = [
        f"<translate> {prompt} <yor>: target of some words",
        f"<translate> a b <yor>: {prompt}",
    ]
    (folder / "a.txt").write_text("\n".join(lines) + "\n", "utf-8")
    source = {"name": "a", "files": ["a.txt"], "tagged": TAGGED}
    packer.write_config(folder, [source], pack={"seq_len": 128})
    out = folder.with_name("out")
    manifest = packer.pack(folder, out, tokenizer=folder / "tokenizer.json")
    [entry] = manifest["sources"]
    assert entry["truncated"] == 1 and entry["drops"] == {"too long": 1}
    assert "its target leaves no room" in entry["examples"][0]["why"]
    [[text]] = by_record(texts_of(out), "a").values()
    assert text.target == " target of some words" and text.prompt.endswith(" <yor>:")
    kept = text.prompt.removeprefix("<translate> ").removesuffix(" <yor>:")
    assert prompt.startswith(kept + " ") and kept.count(" ") > 10
    against = json.loads(_core.verify_against(out, folder, sample=None, threads=1, progress=None))
    assert against["failures"] == [] and packer.verify(out)["failures"] == []
    # No longer prompt would have fit.
    longer = prompt[: prompt.index(" ", len(kept) + 1)]
    assert len(explain(folder, f"<translate> {longer} <yor>: target of some words").ids) > 128


def test_tagged_texts_pack_alike_whatever_the_threads_and_lists_of_them_too(folder: Path) -> None:
    records = [
        {
            "texts": [
                f"<translate> w{nth} {k} <yor>: ọ̀rọ̀ {nth}" if (nth + k) % 5 else "none"
                for k in range(nth % 4)
            ]
        }
        for nth in range(150)
    ]
    (folder / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), "utf-8")
    tagged = {**TAGGED, "text": "item"}
    source = {"name": "a", "files": ["a.jsonl"], "each": "texts", "tagged": tagged}
    pack = {"seq_len": 64, "validation": 0.1, "max_bad_fraction": 1.0}
    packer.write_config(folder, [source], pack=pack)
    made = []
    for threads, split_bytes in ((1, None), (3, 500)):
        out = folder.with_name(f"out{threads}")
        settings: dict[str, Any] = {"threads": threads, "split_bytes": split_bytes}
        manifest = packer.pack(folder, out, tokenizer=folder / "tokenizer.json", **settings)
        made.append(contents(out))
    assert made[0] == made[1]
    texts = [text for record in records for text in record["texts"]]
    sound = Counter(text != "none" for text in texts)
    [entry] = manifest["sources"]
    alone = sum(all(t == "none" for t in r["texts"]) for r in records if r["texts"])
    assert entry["drops"][UNPARSED] == alone
    assert entry["train"]["documents"] + entry["validation"]["documents"] == sound[True]


def test_a_trained_tokenizer_has_a_token_for_each_tag(folder: Path) -> None:
    (folder / "a.txt").write_text("<translate> some words <yor>: ọ̀rọ̀ kan\n" * 50, "utf-8")
    tagged = {"open": ["<translate>"], "action": ["<yor>:"]}
    packer.write_config(folder, [{"name": "a", "files": ["a.txt"], "tagged": tagged}])
    trained = packer.train_tokenizer(folder, folder / "trained.json", 300)
    assert trained["specials"] == ["</s>", "<translate>", "<yor>"]


@pytest.mark.parametrize(
    ("tagged", "message", "remedy"),
    [
        ({"open": ["<a>"]}, "`tagged` has no `action`", "give it one: action ="),
        ({"open": [], "action": ["<b>"]}, "`open` names no tag", "tagged = {"),
        ({"open": ["<a>"], "action": [" "]}, "`action` names a tag without text", "tagged = {"),
        ({"open": ["<a>"], "action": ["<a>"]}, "the tag `<a>` is there twice", "begins a prompt"),
        ({**TAGGED, "text": "{{ text }}"}, "is no field", "without braces"),
        ({**TAGGED, "opens": ["<a>"]}, "no key `opens`", "did you mean `open`?"),
    ],
)
def test_tags_that_cannot_be_meant_are_refused(
    folder: Path, tagged: dict[str, Any], message: str, remedy: str
) -> None:
    packer.write_config(folder, [{"name": "a", "files": ["a.jsonl"], "tagged": tagged}])
    with pytest.raises(ConfigError) as error:
        packer.pack(folder, folder.with_name("out"), tokenizer=folder / "tokenizer.json")
    assert message in str(error.value) and remedy in (error.value.remedy or "")


@pytest.mark.parametrize(
    ("value", "reason"), [(None, "missing field"), (7, "malformed"), (["a"], "malformed")]
)
def test_a_field_without_text_is_counted(folder: Path, value: Any, reason: str) -> None:
    assert explain(folder, value).dropped == reason
