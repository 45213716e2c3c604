"""The oracle of masks, windows, duplicates, mixing and rows, on small cases."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabiprep.dataset import open_dataset
from support import oracle
from support.dataset_writer import Document, write_dataset
from support.oracle import CONTROL, DATA, TARGET, TEMPLATE


def test_the_loss_mask_of_each_policy() -> None:
    roles = [CONTROL, TEMPLATE, DATA, TARGET, TARGET, CONTROL]
    assert oracle.loss_mask(roles) == [False, False, False, True, True, True]
    assert oracle.loss_mask([TARGET, TARGET]) == [False, True]
    assert oracle.loss_mask(roles, "full") == [False] + [True] * 5
    assert oracle.loss_mask(roles, "template_masked") == [False, False] + [True] * 4
    turns = [TARGET, TEMPLATE, TARGET, TARGET, DATA, CONTROL]
    assert oracle.loss_mask(turns, "last_turn") == [False, False, True, True, False, True]
    assert oracle.loss_mask([CONTROL]) == [False]
    with pytest.raises(ValueError, match="no policy"):
        oracle.loss_mask(roles, "other")


@settings(deadline=None)
@given(st.integers(1, 4000), st.integers(2, 300))
def test_windows_train_every_token_once_and_the_last_two_are_balanced(n: int, seq_len: int) -> None:
    """Every token but the first is trained exactly once, in the fewest windows, the last two of one
    size.
    """
    found = oracle.windows(n, seq_len)
    trained = [i for start, end in found for i in range(start + 1, end)]
    assert trained == list(range(1, n))
    assert (found[0][0], found[-1][1]) == (0, n)
    sizes = [end - start for start, end in found]
    assert max(sizes) <= seq_len
    assert (len(found) - 1) * (seq_len - 1) < max(n - 1, 1)
    assert sizes[:-2] == [seq_len] * (len(found) - 2)
    if len(found) > 1:
        assert sizes[-2] - sizes[-1] in (0, 1)


def test_the_lowest_record_of_a_content_is_kept() -> None:
    """The lowest is kept, whatever dropped lower ones said; what is held out comes before that."""

    def drops(*records: tuple[str, str], held_out: int = -1) -> list[str | None]:
        copies = [
            oracle.Copy(policy, i == held_out, text, text.lower())
            for i, (policy, text) in enumerate(records)
        ]
        return oracle.drops_by_content(copies)

    assert drops(("normalised", "a"), ("normalised", "A"), ("normalised", "b")) == [
        None,
        "duplicate",
        None,
    ]
    assert drops(("exact", "a"), ("exact", "A"), ("exact", "a")) == [None, None, "duplicate"]
    assert drops(("keep", "a"), ("keep", "a"), ("exact", "a")) == [None, None, "duplicate"]
    assert drops(("keep", "a"), ("normalised", "A"), ("exact", "A")) == [None, "duplicate", None]
    assert drops(("keep", "a"), ("normalised", "A"), ("keep", "b"), held_out=1) == [
        "in validation",
        None,
        None,
    ]


def test_a_mix_makes_as_much_as_there_is_within_its_limit() -> None:
    def close(found: list[tuple[float, float]], *expected: tuple[float, float]) -> bool:
        return [pytest.approx(pair) for pair in expected] == found

    mixed = [oracle.Mixed("a", 100), oracle.Mixed("b", 400)]
    assert close(oracle.mix(mixed, 1), (1, 1), (1, 1))
    assert close(oracle.mix(mixed, 2), (5 / 3, 5 / 3), (5 / 6, 5 / 6))  # shares 1 : 2 of 500
    assert close(oracle.mix(mixed, 2, 1.5), (5 / 3, 1.5), (5 / 6, 350 / 400))
    weighted = [oracle.Mixed("a", 100, 1), oracle.Mixed("a", 200, 2), oracle.Mixed("b", 300, 1)]
    assert close(oracle.mix(weighted, 1), (1.5, 1.5), (1.5, 1.5), (0.5, 0.5))


def test_a_truncation_that_breaks_a_rule_is_named() -> None:
    before = oracle.render(
        [("prompt", "<t> {{ a }} {{ b }}:"), ("target", " {{ c }}")],
        {"a": "one two three", "b": "four", "c": "five six seven eight"},
    )

    def cut(index: int, text: str) -> str | None:
        return oracle.truncation_problem(
            before, [s._replace(text=text) if i == index else s for i, s in enumerate(before)]
        )

    for text in ("one two", "one two ", "one", ""):
        assert cut(1, text) is None
    assert cut(1, "one tw") == "the field was cut within a word"
    assert cut(1, "two three") == "the field was not cut from its end"
    assert cut(3, "") == "what was cut is not the longest data field"
    assert cut(6, "five") == "what was cut is not a data field of a prompt"
    assert cut(4, "") == "what was cut is not a data field of a prompt"
    assert cut(1, "one two three") == "0 spans changed"
    assert (
        oracle.truncation_problem(before, before[:-1])
        == "a span was lost, added or changed its role"
    )


def good_row(tmp_path: Any) -> dict[str, Any]:
    documents = [
        Document([5, 6, 7, 8, 1], [1, 2, 3, 3, 0], 0, 0),
        Document([0, 9, 9, 1], [0, 3, 3, 0], 1, 1),
        Document([4, 9, 9], [3, 3, 3], 1, 2),
    ]
    path = write_dataset(tmp_path / "out", documents, seq_len=16, vocab_size=10, eos_id=1, pad_id=2)
    row: dict[str, Any] = dict(open_dataset(path).train[0])
    return row


def check(row: dict[str, Any], **options: Any) -> str:
    return "; ".join(oracle.check_row(row, pad_id=2, eos_id=1, **options))


def test_check_row_passes_a_good_row(tmp_path: Any) -> None:
    assert check(good_row(tmp_path)) == ""


@pytest.mark.parametrize(
    ("column", "at", "value", "problem"),
    [
        ("loss_mask", 0, True, "M1: the first token of document 0"),
        ("loss_mask", 5, True, "M1: the first token of document 1"),
        ("loss_mask", 14, True, "M2"),
        ("loss_mask", slice(9, 12), False, "M3: nothing of document 2"),
        ("loss_mask", 1, True, "M4"),
        ("loss_mask", 3, False, "M5: a target token of document 0"),
        ("loss_mask", 4, False, "M5: the EOS that closes document 0"),
        ("input_ids", 4, 9, "M5: the control token that closes document 0 is not EOS"),
        ("input_ids", 13, 3, "M6: what is left of the row is not padding"),
        ("roles", 13, 3, "M6: padding has a role"),
        ("roles", 2, 0, "a control token within document 0"),
        ("roles", 6, 1, "M4"),
        ("seq_lengths", 0, 20, "M6: documents of"),
        ("seq_lengths", 2, 0, "M6: documents of"),
        ("seq_lengths", 2, 4, "M5: the control token that closes document 2 is not EOS"),
        ("labels", 3, -100, "labels"),
        ("position_ids", 5, 5, "positions"),
        ("cu_seqlens", 1, 4, "cu_seqlens"),
    ],
)
def test_check_row_finds_what_is_broken(
    tmp_path: Any, column: str, at: Any, value: Any, problem: str
) -> None:
    row = good_row(tmp_path)
    row[column][at] = value
    assert problem in check(row)


def test_check_row_knows_policies_and_counts(tmp_path: Any) -> None:
    row = good_row(tmp_path)
    assert "the mask of document 0 is not its policy's" in check(row, policies={0: "full"})
    row["loss_mask"][1] = True
    row["labels"][1] = 6
    assert check(row) != ""
    row["n_targets"] += 1
    assert check(row, policies={0: "full"}) == ""
    assert "n_targets" in check({**row, "n_targets": 3})
    assert "record_ids" in check({**row, "record_ids": row["record_ids"][:1]})


def test_records_that_are_not_accounted_for_are_named() -> None:
    good = {"records": 10, "kept": 7, "truncated": 2, "drops": {"malformed": 1, "empty target": 2}}
    assert oracle.check_accounts(good) == []
    assert len(oracle.check_accounts({**good, "kept": 8})) == 1
    assert len(oracle.check_accounts({**good, "truncated": 8})) == 1
