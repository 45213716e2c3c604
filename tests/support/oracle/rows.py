"""The oracle of rows and accounts: what breaks M1 to M7."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from support.oracle.corpus import loss_mask
from support.oracle.text import CONTROL, DATA, TARGET, TEMPLATE


def check_row(
    row: Mapping[str, Any],
    *,
    pad_id: int,
    eos_id: int,
    policies: Mapping[int, str] | None = None,
    cuts: bool = False,
) -> list[str]:
    """What breaks M1 to M6, or contradicts itself, in a row of the loader.

    ``policies`` names the policy of sources by id; the others' is "target_only". With ``cuts``, a
    document that is a piece of a longer one (a later window, or not closed) may have nothing to
    learn.
    """
    columns: dict[str, Any] = {
        name: value if isinstance(value, int) else value.tolist() for name, value in row.items()
    }
    if "doc_weights" in columns:
        weights = [
            weight if bit else 0.0
            for weight, length in zip(columns["doc_weights"], columns["seq_lengths"], strict=True)
            for bit in [True] * length
        ]
        weights += [0.0] * (len(columns["input_ids"]) - len(weights))
        of_trained = [
            w if bit else 0.0 for w, bit in zip(weights, columns["loss_mask"], strict=True)
        ]
        if columns["loss_weights"] != of_trained:
            return ["loss_weights are not the weights of the trained tokens' documents"]
    ids, mask, roles = columns["input_ids"], columns["loss_mask"], columns["roles"]
    problems = []

    def expect(right: bool, problem: str) -> None:
        if not right:
            problems.append(problem)

    lengths = columns["seq_lengths"]
    used, seq_len = sum(lengths), len(ids)
    if not 0 < used <= seq_len or min(lengths) < 1:
        return [f"M6: documents of {lengths} tokens in a row of {seq_len}"]
    expect(not any(mask[used:]), "M2: padding is trained")
    expect(
        all(token == pad_id for token in ids[used:]), "M6: what is left of the row is not padding"
    )
    expect(not any(roles[used:]), "M6: padding has a role")
    start = 0
    positions: list[int] = []
    boundaries = [0]
    for i, length in enumerate(lengths):
        policy = (policies or {}).get(columns["source_ids"][i], "target_only")
        place, end = f"document {i}", start + length
        own_mask, own_roles = mask[start:end], roles[start:end]
        expect(not own_mask[0], f"M1: the first token of {place} is trained")
        is_cut = cuts and (columns["doc_parts"][i] & 0xFFFF > 0 or own_roles[-1] != CONTROL)
        expect(any(own_mask) or is_cut, f"M3: nothing of {place} is trained")
        if policy in ("target_only", "last_turn"):
            expect(
                not any(
                    bit
                    for bit, role in zip(own_mask, own_roles, strict=True)
                    if role in (TEMPLATE, DATA)
                ),
                f"M4: a token of the prompt of {place} is trained",
            )
        if policy != "last_turn":
            expect(
                all(
                    bit
                    for bit, role in zip(own_mask[1:], own_roles[1:], strict=True)
                    if role == TARGET
                ),
                f"M5: a target token of {place} is not trained",
            )
        if own_roles[-1] == CONTROL and length > 1:
            expect(ids[end - 1] == eos_id, f"M5: the control token that closes {place} is not EOS")
            expect(own_mask[-1], f"M5: the EOS that closes {place} is not trained")
        expect(CONTROL not in own_roles[1:-1], f"a control token within {place}")
        # Which target of a piece is its document's last is known of the whole document alone.
        if policy != "last_turn" or not is_cut:
            expect(
                own_mask == loss_mask(own_roles, policy),
                f"the mask of {place} is not its policy's",
            )
        positions += range(length)
        boundaries.append(end)
        start = end
    if used < seq_len:
        positions += range(seq_len - used)
        boundaries.append(seq_len)
    labels = [token if bit else -100 for token, bit in zip(ids, mask, strict=True)]
    expect(columns["labels"] == labels, "labels are not the ids that are trained")
    expect(columns["position_ids"] == positions, "positions do not restart with each segment")
    expect(columns["cu_seqlens"] == boundaries, "cu_seqlens are not the ends of the segments")
    expect(columns["n_targets"] == sum(mask), "n_targets is not the number of true bits")
    for name in ("source_ids", "record_ids", "doc_parts"):
        expect(len(columns[name]) == len(lengths), f"{name} does not have one value a document")
    return problems


def check_accounts(source: Mapping[str, Any]) -> list[str]:
    """What breaks M7 in a source's entry of the manifest: every record read is kept, or dropped for
    one reason.
    """
    dropped = sum(source["drops"].values())
    problems = []
    if source["records"] != source["kept"] + dropped:
        problems.append(
            f"M7: {source['records']} records, but {source['kept']} kept and {dropped} dropped"
        )
    if source["truncated"] > source["kept"]:
        problems.append("M7: more records truncated than kept")
    return problems
