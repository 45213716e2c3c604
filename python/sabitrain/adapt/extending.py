"""More tokens for a base: from the texts of a language, or from another tokenizer's file.

Either way tokens are made by merges that come after the base's own, so that text without the new
pairs is split as before. A token that its own text does not give is left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise

from tokenizers import Tokenizer

from sabiprep.errors import TokenizerError
from sabitrain.adapt.merging import LEAST_FREQUENT, IdPair, Merges, continue_merges
from sabitrain.adapt.tokenizer_file import BpeFile, Pair

LETTER_COVERAGE = 0.9995
"""The share of a text's letters that have a token in the end, as SentencePiece has it."""


@dataclass(frozen=True)
class Extension:
    """More tokens for a tokenizer.

    Attributes:
        tokens: The id of each new piece, in the order of the ids.
        merges: The new merges, in order.
        letters: New pieces of one letter, which no merge makes.
        left_out: Tokens of a file that cannot be reached from the base's merges.
        present: Tokens of a file that the base has.
    """

    tokens: Mapping[str, int]
    merges: Sequence[Pair]
    letters: int
    left_out: int = 0
    present: int = 0


def merges_of(file: BpeFile) -> Merges:
    """Returns the merges of a tokenizer, to split by."""
    return Merges(file.vocab, file.merges, file.byte_ids)


def learn_tokens(file: BpeFile, words: Mapping[str, int], wanted: int) -> Extension:
    """Learns tokens from words by going on with the base's merges.

    Letters that a SentencePiece model spells by bytes come first.

    Args:
        file: The base's tokenizer.
        words: The occurrences of each word.
        wanted: New tokens; frequent pairs may run out before.
    """
    ids = count(file.end)
    letters = {letter: next(ids) for letter in _missing_letters(file, words)[:wanted]}
    grown = file.extended(letters, ()) if letters else file
    model = grown.bare().model
    # Sorted, so that nothing depends on the order of texts.
    split = [
        ([token.id for token in model.tokenize(word)], words[word])
        for word in sorted(words)
        if word
    ]
    merges = continue_merges(
        split, grown.pieces, grown.closed, grown.end, max(0, wanted - len(letters))
    )
    pieces = dict(grown.pieces)
    for merge in merges:
        pieces[merge.made] = pieces[merge.left] + pieces[merge.right]
    tokens = letters | {pieces[merge.made]: merge.made for merge in merges}
    pairs = [(pieces[merge.left], pieces[merge.right]) for merge in merges]
    return _reachable(file, Extension(tokens, pairs, len(letters)))


def take_tokens(file: BpeFile, other: BpeFile) -> Extension:
    """Takes the tokens of another tokenizer's file that the base lacks, in their order.

    The other file's control tokens are not taken. A token is made from the two tokens that the
    base and the merges so far leave of it. Where they leave more, tokens of the file that join some
    of them come first; a token that is left in more than two even so is left out.

    Args:
        file: The base's tokenizer.
        other: The other tokenizer.

    Raises:
        TokenizerError: If the files are not of one kind.
    """
    if file.kind != other.kind:
        raise TokenizerError(
            f"is a {other.kind} BPE, and that of {file.file} is a {file.kind} BPE",
            file=other.file,
            remedy="name a file of the same kind; for a byte-level one: sabiprep tokenizer train",
        )
    passed = other.closed | set(other.added.values())
    candidates = sorted((id_, piece) for piece, id_ in other.vocab.items() if id_ not in passed)
    missing = [piece for _, piece in candidates if piece not in file.ids]
    grown = _Growing(file, missing)
    for piece in missing:
        grown.make(piece)
    letters = sum(len(piece) == 1 for piece in grown.tokens)
    left_out = len(missing) - len(grown.tokens)
    present = len(candidates) - len(missing)
    return _reachable(file, Extension(grown.tokens, grown.merges, letters, left_out, present))


class _Growing:
    """A base that takes tokens one by one."""

    def __init__(self, file: BpeFile, missing: Iterable[str]) -> None:
        """Takes the base and the tokens that it may take."""
        self.tokens: dict[str, int] = {}
        self.merges: list[Pair] = []
        self._merges = merges_of(file)
        self._pieces = dict(file.pieces)
        self._closed = file.closed
        self._next = count(file.end)
        self._wanted = set(missing)

    def make(self, piece: str) -> None:
        """Makes a token, and tokens of the file on the way to it, if its text leads there."""
        while piece not in self.tokens:
            if len(piece) == 1:
                self._add(piece, None)
                return
            left = self._merges.split(piece)
            pair = self._pair_to_join(left)
            if pair is None:
                return
            self._add(self._pieces[pair[0]] + self._pieces[pair[1]], pair)

    def _pair_to_join(self, ids: Sequence[int]) -> IdPair | None:
        """Returns the first pair in a split piece whose text is a token to take."""
        for left, right in pairwise(ids):
            if self._closed.isdisjoint((left, right)):
                joined = self._pieces[left] + self._pieces[right]
                if joined in self._wanted and joined not in self.tokens:
                    return left, right
        return None

    def _add(self, piece: str, pair: IdPair | None) -> None:
        """Adds a token."""
        id_ = next(self._next)
        self.tokens[piece] = id_
        if pair is not None:
            self.merges.append((self._pieces[pair[0]], self._pieces[pair[1]]))
        self._pieces[id_] = piece
        self._merges.add(piece, id_, pair)


def _missing_letters(file: BpeFile, words: Mapping[str, int]) -> list[str]:
    """Returns the frequent letters that the model spells by bytes, the most frequent first."""
    if file.kind == "byte-level" or not file.byte_ids:
        return []
    occurrences: Counter[str] = Counter()
    for word, times in words.items():
        for letter in word:
            occurrences[letter] += times
    missing = sorted(
        ((times, letter) for letter, times in occurrences.items() if letter not in file.ids),
        key=lambda found: (-found[0], found[1]),
    )
    # The rare ones that the texts can do without are passed over: signs of other scripts, mostly.
    spare = (1 - LETTER_COVERAGE) * occurrences.total()
    while missing and (missing[-1][0] < LEAST_FREQUENT or missing[-1][0] <= spare):
        spare -= missing.pop()[0]
    return [letter for _, letter in missing if not letter.isspace()]


def _reachable(file: BpeFile, extension: Extension) -> Extension:
    """Returns an extension without the tokens that their own text does not give.

    The library itself splits the text, by merges alone. Dropping a token drops the merges that
    need it, so the rest is tried again.
    """
    while True:
        grown = file.extended(extension.tokens, extension.merges)
        lost = unreached(grown.bare_by_merges, extension.tokens)
        if not lost:
            return extension
        kept = [piece for piece in extension.tokens if piece not in lost]
        tokens = dict(zip(kept, count(file.end), strict=False))
        known = file.vocab.keys() | tokens.keys()
        merges = [
            pair
            for pair in extension.merges
            if pair[0] in known and pair[1] in known and pair[0] + pair[1] in known
        ]
        extension = Extension(
            tokens,
            merges,
            sum(len(piece) == 1 for piece in tokens),
            extension.left_out + len(lost),
            extension.present,
        )


def unreached(bare: Tokenizer, tokens: Iterable[str]) -> set[str]:
    """Returns the pieces that a tokenizer does not make of their own text."""
    model = bare.model
    return {
        piece for piece in tokens if [token.value for token in model.tokenize(piece)] != [piece]
    }
