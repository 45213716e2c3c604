"""Byte-pair encoding that goes on from the merges of a base.

Words are given as the base's own merges leave them. The most frequent pair of neighbours becomes a
token, again and again; of pairs as frequent the one with the lower ids. No merge makes a token
that exists, so a merge never lets an earlier one apply: the tokenizer that has them all splits
each word as it was split here, and makes each new token from its own text.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

IdPair = tuple[int, int]

LEAST_FREQUENT = 2
"""The occurrences that a pair must have to become a token."""


class Merge(NamedTuple):
    """A merge: the two tokens that it joins and the token that it makes."""

    left: int
    right: int
    made: int


def continue_merges(
    words: Iterable[tuple[Sequence[int], int]],
    pieces: Mapping[int, str],
    closed: frozenset[int],
    next_id: int,
    wanted: int,
) -> list[Merge]:
    """Returns the merges that follow those of a base; fewer than wanted if no pair is left.

    Args:
        words: The tokens of each word, and its occurrences.
        pieces: The spelling of every token that exists, by id.
        closed: The tokens that no merge takes.
        next_id: The id of the first new token; the others follow it.
        wanted: The number of merges.
    """
    pairs = _Pairs(words, closed)
    known = set(pieces.values())
    spelt = dict(pieces)
    merges: list[Merge] = []
    while len(merges) < wanted:
        pair = pairs.most_frequent()
        if pair is None:
            break
        piece = spelt[pair[0]] + spelt[pair[1]]
        if piece in known:
            pairs.leave_out(pair)
            continue
        made = Merge(*pair, next_id + len(merges))
        spelt[made.made] = piece
        known.add(piece)
        merges.append(made)
        pairs.merge(made)
    return merges


class _Pairs:
    """The pairs of neighbours in all words, counted anew only where a merge changes a word."""

    def __init__(self, words: Iterable[tuple[Sequence[int], int]], closed: frozenset[int]) -> None:
        """Counts the pairs of all words."""
        self._words = [(list(ids), count) for ids, count in words if len(ids) > 1]
        self._closed = closed
        self._counts: Counter[IdPair] = Counter()
        # The words in which a pair was seen; it may have gone since.
        self._places: defaultdict[IdPair, set[int]] = defaultdict(set)
        self._left_out: set[IdPair] = set()
        for index, (ids, count) in enumerate(self._words):
            for pair in pairwise(ids):
                self._counts[pair] += count
                self._places[pair].add(index)
        # Entries may be stale, but never below the count of their pair.
        self._heap = [(-count, pair) for pair, count in self._counts.items()]
        heapq.heapify(self._heap)

    def most_frequent(self) -> IdPair | None:
        """Returns the pair to merge; None if no pair is frequent enough."""
        while self._heap:
            count, pair = self._heap[0]
            current = self._counts.get(pair, 0)
            if -count != current:
                heapq.heapreplace(self._heap, (-current, pair))
                continue
            if current < LEAST_FREQUENT:
                return None
            if pair not in self._left_out and self._closed.isdisjoint(pair):
                return pair
            heapq.heappop(self._heap)
        return None

    def leave_out(self, pair: IdPair) -> None:
        """Passes over a pair from now on."""
        self._left_out.add(pair)

    def merge(self, merge: Merge) -> None:
        """Joins the pair of a merge in every word."""
        pair = (merge.left, merge.right)
        changed: set[IdPair] = set()
        for index in self._places.pop(pair):
            ids, count = self._words[index]
            before = Counter(pairwise(ids))
            joined = join(ids, merge)
            after = Counter(pairwise(joined))
            self._words[index] = (joined, count)
            for seen in before.keys() | after.keys():
                change = after[seen] - before[seen]
                if change:
                    self._counts[seen] += change * count
                if change > 0:
                    changed.add(seen)
                    self._places[seen].add(index)
        for seen in changed:
            heapq.heappush(self._heap, (-self._counts[seen], seen))


def join(ids: Sequence[int], merge: Merge) -> list[int]:
    """Returns a word with each occurrence of a merge's pair joined, from the left."""
    joined: list[int] = []
    place = 0
    while place < len(ids):
        if ids[place] == merge.left and ids[place + 1 : place + 2] == [merge.right]:
            joined.append(merge.made)
            place += 2
        else:
            joined.append(ids[place])
            place += 1
    return joined


class Merges:
    """All merges of a BPE, which can grow; it splits one piece at a time."""

    def __init__(
        self,
        ids: Mapping[str, int],
        merges: Iterable[tuple[str, str]],
        bytes_: Mapping[int, int],
    ) -> None:
        """Takes the merges in their order.

        Args:
            ids: The id of each piece.
            merges: The two pieces of each merge.
            bytes_: The byte of each token to fall back to, by id.
        """
        self._ids = dict(ids)
        self._by_byte = {byte: id_ for id_, byte in bytes_.items()}
        self._ranks: dict[IdPair, IdPair] = {}
        for rank, (left, right) in enumerate(merges):
            # Of a merge that stands there twice, the library follows the last one.
            self._ranks[ids[left], ids[right]] = (rank, ids[left + right])
        self._next = len(self._ranks) and 1 + max(rank for rank, _ in self._ranks.values())

    def add(self, piece: str, id_: int, pair: IdPair | None) -> None:
        """Adds a token, and the merge that makes it unless it is a letter."""
        self._ids[piece] = id_
        if pair is not None:
            self._ranks[pair] = (self._next, id_)
            self._next += 1

    def split(self, piece: str, made: set[int] | None = None) -> list[int]:
        """Returns the tokens of a text spelt by letters, by merges alone.

        Args:
            piece: The text.
            made: A set that is given every token on the way, letters too.
        """
        ids = [id_ for letter in piece for id_ in self._letter(letter)]
        found = set(ids)
        while True:
            known = [(*self._ranks[pair], *pair) for pair in pairwise(ids) if pair in self._ranks]
            if not known:
                break
            _, joined, left, right = min(known)
            # One at a time, the leftmost first: another merge may come between two of them.
            place = next(
                place for place in range(len(ids)) if ids[place : place + 2] == [left, right]
            )
            ids[place : place + 2] = [joined]
            found.add(joined)
        if made is not None:
            made |= found
        return ids

    def _letter(self, letter: str) -> list[int]:
        """Returns the tokens of a letter: its own, or those of its bytes; there may be neither."""
        if letter in self._ids:
            return [self._ids[letter]]
        return [self._by_byte[byte] for byte in letter.encode() if byte in self._by_byte]
