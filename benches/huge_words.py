"""Compare words of 50 MB with ordinary text: ``python benches/huge_words.py TOKENIZER [options]``.

Options: ``--corpus DIR``, ``--rounds N``.

`sabiprep.Encoder` encodes, on one thread, the English of a corpus five times over, and then texts
of one word or of many random words. The output is the speed of each text in MB of UTF-8 a second of
processor time, the median of the rounds over the same text, and how many times slower than English
it is.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from peers.tokenization import arguments, command_line, texts_of

import sabiprep

SIZE = 50_000_000
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def inputs(corpus: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield names, and texts of some 50 MB of UTF-8; the first text is ordinary."""
    chance = random.Random(1)
    yield "English, five times over", texts_of(corpus, "english") * 5
    yield "random letters", ["".join(chance.choices(LETTERS, k=SIZE))]
    repeated = {
        "one letter": "a",
        "spaces": " ",
        "line feeds": "\n",
        "digits": "7",
        "one CJK character": "中",
    }
    repeated |= {"combining marks": "\u0301", "one Latin letter beyond ASCII": "ẹ"}
    for name, char in repeated.items():
        yield name, [char * (SIZE // len(char.encode()))]
    yield "a million spaces", [" " * 1_000_000]
    words = (
        "".join(chance.choices(LETTERS, k=chance.randint(4, 11))) for _ in range(SIZE * 2 // 17)
    )
    yield "random words", [" ".join(words)]


def main() -> None:
    """Print a line for each text."""
    given = arguments(command_line(__doc__, 3))
    encoder = sabiprep.Encoder.from_file(given.tokenizer)
    print("| text | MB | MB/s | times slower than English |\n| --- | ---: | ---: | ---: |")
    english = 0.0
    for name, texts in inputs(given.corpus):
        size = sum(len(text.encode()) for text in texts) / 1e6
        seconds = []
        for _ in range(given.rounds):
            start = time.process_time()
            encoder.encode(texts)
            seconds.append(time.process_time() - start)
        speed = size / statistics.median(seconds)
        english = english or speed
        print(f"| {name} | {size:.0f} | {speed:.0f} | {english / speed:.1f} |", flush=True)


if __name__ == "__main__":
    main()
