"""The words of a corpus: the stretches of text within which a merge may join tokens.

The base's own pre-tokenizer cuts text into them. That of a SentencePiece BPE leaves whole lines in
one; they are cut further, as SentencePiece cuts them before it trains: before a space, between
letters and signs, and at every digit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from tokenizers import Regex, Tokenizer, pre_tokenizers

from sabitrain.adapt.texts import Stretch
from sabitrain.adapt.tokenizer_file import SPACE, BpeFile

# A space goes with the word after it. Of several spaces the others are one word.
_WORDS = Regex(
    rf"{SPACE}?[\p{{L}}\p{{M}}]+|\p{{N}}|\s|{SPACE}+(?={SPACE})"
    rf"|{SPACE}?[^\s{SPACE}\p{{L}}\p{{M}}\p{{N}}]+|{SPACE}"
)


class WordCutter:
    """Cuts the text of stretches into words."""

    def __init__(self, file: BpeFile) -> None:
        """Takes a tokenizer, whose pre-tokenizer cuts first."""
        bare: Tokenizer = file.bare()
        self._own = bare.pre_tokenizer
        further = pre_tokenizers.Split(_WORDS, "isolated")
        self._further = further if file.kind == "SentencePiece" else None

    def cut(self, text: str) -> Iterator[str]:
        """Yields the words of a text, spelt as pieces are."""
        cut = [text] if self._own is None else (w for w, _ in self._own.pre_tokenize_str(text))
        for word in cut:
            if self._further is None:
                yield word
            else:
                yield from (part for part, _ in self._further.pre_tokenize_str(word))


def count_words(stretches: Iterable[Stretch], file: BpeFile) -> Counter[str]:
    """Returns the occurrences of each word in some stretches, held-out ones aside."""
    cutter = WordCutter(file)
    counts: Counter[str] = Counter()
    for stretch in stretches:
        # Held-out text decides nothing: its scores would be better than those of new text.
        if not stretch.held_out:
            counts.update(cutter.cut(stretch.text))
    return counts
