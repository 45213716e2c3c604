"""Compare tokenization with PyPI's encoders: ``python benches/peers/tokenization.py TOKENIZER``.

Options: ``--corpus DIR``, ``--rounds N``. Each encoder runs in a process of its own on one core,
by turns, with the same texts, for some rounds: a list of str goes in, and the ids come out as flat
as the encoder returns them. The first pass is over texts not seen before (after a warm-up on other
texts), the second over the same texts again. The output is the medians in MB of UTF-8 a second, the
ratio to `tokenizers`, and whether the ids equal its ids. Encoders that are not installed are named
and left out (``benches/peers/requirements.txt``). ``benches/peers/make_tokenizer.py`` makes a
TOKENIZER that every peer knows.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
NAIJA = ROOT.parent / "shared" / "corpora" / "naija"

Flat = Callable[[list[str]], Any]


def strings(value: object) -> Iterator[str]:
    """Yield every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def texts_of(corpus: Path, kind: str) -> list[str]:
    """Return the texts of a corpus; exit if there are none.

    They are every string of its records ("naija"), or the English strings of translations
    ("english").
    """
    texts: list[str] = []
    for file in sorted(
        [
            *corpus.rglob("*.json"),
            *corpus.rglob("*.jsonl"),
            *corpus.rglob("*.tsv"),
            *corpus.rglob("*.txt"),
        ]
    ):
        for line in file.read_text("utf-8").splitlines():
            if file.suffix not in (".json", ".jsonl"):
                texts.extend([] if kind == "english" else line.split("\t"))
                continue
            record = json.loads(line)
            english = [pair["en"] for pair in [record.get("translation", {})] if "en" in pair]
            texts.extend(english if kind == "english" else strings(record))
    found = [text for text in texts if text]
    if not found:
        sys.exit(f"no {kind} texts in {corpus}")
    return found


def split(texts: list[str]) -> tuple[list[str], list[str]]:
    """Return some texts for the warm-up, and nine tenths of all texts, without them, to time."""
    return texts[::10][:2000], [text for nth, text in enumerate(texts) if nth % 10]


def sabiprep(tokenizer: str) -> Flat:
    import sabiprep

    encoder = sabiprep.Encoder.from_file(tokenizer)
    print(encoder.engine, file=sys.stderr)
    return lambda texts: encoder.encode(texts).values.to_numpy()


def tokenizers(tokenizer: str) -> Flat:
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(tokenizer)
    encoder.no_padding()
    encoder.no_truncation()
    return lambda texts: [
        encoding.ids for encoding in encoder.encode_batch_fast(texts, add_special_tokens=False)
    ]


def fastokens(tokenizer: str) -> Flat:
    import fastokens

    encoder = fastokens._native.Tokenizer.from_file(tokenizer)
    return lambda texts: np.frombuffer(encoder.encode_batch_flat(texts)[0], np.uint32)


def gigatoken(tokenizer: str) -> Flat:
    import awkward
    import gigatoken

    encoder = gigatoken.Tokenizer.from_json(Path(tokenizer).read_bytes())
    return lambda texts: np.asarray(awkward.flatten(encoder.encode_batch(texts)))


def tiktoken(tokenizer: str) -> Flat:
    import tiktoken

    # The same vocabulary by bytes; without added tokens and normalizer, so the ids may differ.
    json_ = json.loads(Path(tokenizer).read_text("utf-8"))
    beyond = iter(range(256, 512))
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    byte_of = {chr(byte if byte in printable else next(beyond)): byte for byte in range(256)}
    tokens = {
        token: id_
        for token, id_ in json_["model"]["vocab"].items()
        if all(char in byte_of for char in token)
    }
    ranks = {bytes(byte_of[char] for char in token): id_ for token, id_ in tokens.items()}
    [pattern] = [
        part["pattern"]["Regex"]
        for part in json_["pre_tokenizer"]["pretokenizers"]
        if "pattern" in part
    ]
    encoder = tiktoken.Encoding("peer", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return lambda texts: [encoder.encode_ordinary(text) for text in texts]


PEERS: dict[str, Callable[[str], Flat]] = {
    "tokenizers": tokenizers,
    "sabiprep": sabiprep,
    "fastokens": fastokens,
    "gigatoken": gigatoken,
    "tiktoken": tiktoken,
}


def digest(ids: Any) -> str:
    """Return a hash of flat ids, or of a list of lists of ids."""
    flat: Iterable[int] = (
        ids if isinstance(ids, np.ndarray) else [id_ for row in ids for id_ in row]
    )
    return hashlib.sha256(np.asarray(flat, np.uint32).tobytes()).hexdigest()


def run(peer: str, tokenizer: str, corpus: Path, kind: str) -> None:
    """Print the seconds of one peer's turn and the digest of its ids, as JSON."""
    warm, timed = split(texts_of(corpus, kind))
    encode = PEERS[peer](tokenizer)
    encode(warm)
    seconds = []
    ids: Any = None
    for _ in range(2):
        start = time.perf_counter()
        ids = encode(timed)
        seconds.append(time.perf_counter() - start)
    size = sum(len(text.encode()) for text in timed)
    print(
        json.dumps({"first": seconds[0], "second": seconds[1], "bytes": size, "ids": digest(ids)})
    )


def command_line(
    description: str | None, rounds: int, turn: tuple[str, str] | None = None
) -> argparse.ArgumentParser:
    """Return the command line of a benchmark.

    If each turn is a process of its own, ``turn`` names the arguments of the turn's ``--run``.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tokenizer", help="a tokenizer.json")
    parser.add_argument(
        "--corpus", type=Path, default=NAIJA, help="a folder of JSON Lines, TSV and text"
    )
    parser.add_argument("--rounds", type=int, default=rounds)
    if turn:
        parser.add_argument("--run", nargs=2, metavar=turn, help=argparse.SUPPRESS)
    return parser


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the parsed arguments; exit if there is no corpus."""
    given = parser.parse_args()
    if not given.corpus.is_dir():
        sys.exit(f"no corpus at {given.corpus}: name one with --corpus")
    return given


def main() -> None:
    given = arguments(command_line(__doc__, 3, ("PEER", "KIND")))
    if given.run:
        return run(given.run[0], given.tokenizer, given.corpus, given.run[1])
    installed = [peer for peer in PEERS if importlib.util.find_spec(peer)]
    for peer in PEERS.keys() - set(installed):
        print(f"{peer} is not installed and left out")
    # One thread each, on the last core.
    environment = os.environ | {
        "RAYON_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
    }
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for kind in ("naija", "english"):
        found: dict[str, list[dict[str, Any]]] = {peer: [] for peer in installed}
        for _ in range(given.rounds):
            for peer in installed:
                command = [
                    sys.executable,
                    __file__,
                    given.tokenizer,
                    "--corpus",
                    str(given.corpus),
                    "--run",
                    peer,
                    kind,
                ]
                made = subprocess.run(
                    command, env=environment, stdout=subprocess.PIPE, text=True, check=False
                )
                if made.returncode:
                    print(f"{peer} failed and is left out")
                    continue
                found[peer].append(json.loads(made.stdout))
        table(kind, {peer: runs for peer, runs in found.items() if runs})


def table(kind: str, found: dict[str, list[dict[str, Any]]]) -> None:
    """Print the results on one kind of text."""
    base = found["tokenizers"]
    print(f"\n{kind}, {base[0]['bytes'] / 1e6:.1f} MB, one core, median of {len(base)}\n")
    print("| encoder | MB/s | × tokenizers | again, MB/s | × tokenizers | ids |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    speed = {
        peer: [
            runs[0]["bytes"] / 1e6 / statistics.median(run[key] for run in runs)
            for key in ("first", "second")
        ]
        for peer, runs in found.items()
    }
    for peer, (first, second) in speed.items():
        equal = "equal" if found[peer][0]["ids"] == base[0]["ids"] else "differ"
        ratios = [
            now / then for now, then in zip((first, second), speed["tokenizers"], strict=True)
        ]
        print(
            f"| {peer} | {first:.1f} | {ratios[0]:.1f} | {second:.1f} | {ratios[1]:.1f} | {equal} |"
        )


if __name__ == "__main__":
    main()
