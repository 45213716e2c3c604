"""Make the tokenizer of the peer benchmarks: ``python benches/peers/make_tokenizer.py FILE``.

With ``--corpus DIR`` it trains on another corpus. The tokenizer is a byte-level BPE of 32,000
tokens with the split pattern of Llama 3, which every peer knows, trained by `tokenizers` on a third
of the corpus's texts and all of its English; ``</s>`` is a special token.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tokenization import NAIJA, texts_of
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help="where the tokenizer.json goes")
    parser.add_argument(
        "--corpus", type=Path, default=NAIJA, help="a folder of JSON Lines, TSV and text"
    )
    given = parser.parse_args()
    if not given.corpus.is_dir():
        sys.exit(f"no corpus at {given.corpus}: name one with --corpus")
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=32_000,
        special_tokens=["</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        texts_of(given.corpus, "naija")[::3] + texts_of(given.corpus, "english"), trainer
    )
    tokenizer.save(given.file)


if __name__ == "__main__":
    main()
