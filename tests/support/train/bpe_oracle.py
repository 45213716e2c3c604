"""Continued BPE, slow and obvious: every pair is counted anew, on texts, for each merge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

Pair = tuple[str, str]


def slow_split(word: str, merges: Sequence[Pair]) -> list[str]:
    """The pieces of a word: each merge in turn, everywhere, until none applies."""
    pieces = list(word)
    for pair in merges:
        pieces = slow_join(pieces, pair)
    return pieces


def slow_join(pieces: list[str], pair: Pair) -> list[str]:
    """The pieces with a pair joined, from the left."""
    out: list[str] = []
    for piece in pieces:
        # A joined piece may look like the left one, so it is told apart by its kind.
        if out and not isinstance(out[-1], _Joined) and (out[-1], piece) == pair:
            out[-1] = _Joined(out[-1] + piece)
        else:
            out.append(piece)
    return [str(piece) for piece in out]


class _Joined(str):
    """A piece that was made in this pass."""


def slow_continue(
    words: Mapping[str, int],
    vocab: Mapping[str, int],
    merges: Sequence[Pair],
    wanted: int,
    closed: Sequence[str] = (),
) -> list[Pair]:
    """The merges that follow those of a base."""
    split = {word: slow_split(word, merges) for word in words}
    ids = dict(vocab)
    made: list[Pair] = []
    while len(made) < wanted:
        counts: Counter[Pair] = Counter()
        for word, pieces in split.items():
            for left, right in pairwise(pieces):
                if left not in closed and right not in closed and left + right not in ids:
                    counts[left, right] += words[word]
        frequent = [
            (-times, ids[pair[0]], ids[pair[1]], pair)
            for pair, times in counts.items()
            if times > 1
        ]
        if not frequent:
            break
        pair = min(frequent)[-1]
        ids["".join(pair)] = max(ids.values()) + 1
        made.append(pair)
        split = {word: slow_join(pieces, pair) for word, pieces in split.items()}
    return made
