"""Forged and damaged datasets: seeded mutations of a packed one, and every command run over each.

As a program it runs mutations ``FIRST`` to ``LAST`` over the dataset in ``FOLDER`` (``corpus`` and
``out`` in it), and prints a line for each command before it starts; what is not refused as it
should be is a line that begins with ``BAD``. It shares no code with the package but what it calls.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        2,
        255,
        65535,
        65536,
        2**31 - 1,
        2**31,
        2**32,
        2**53,
        2**63,
        2**64,
        -(2**63),
        1.5,
    ),
    *(
        1e308,
        "",
        "a",
        "a\0b",
        "../x",
        "/etc/passwd",
        "train/../tokenizer.json",
        "é" * 300,
        "\ud800",
        [],
        {},
        [[]],
    ),
    *([None], {"": None}, "uint16", "uint32", "sabiprep", "0" * 64, "0" * 32),
]
EXPORTS = ("trl", "jsonl", "parquet", "webdataset")
COMMANDS = (
    *("read", "inspect", "verify", "against", "remix", "plan", "train"),
    *EXPORTS,
    "export-tasks",
)


def places_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value inside of a JSON value."""
    for key in (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    ):
        yield (*path, key)
        yield from places_of(value[key], (*path, key))


def mutate_json(rng: random.Random, document: Any) -> None:
    """Change one thing of a JSON document: a value, a key, an entry."""
    # Each depth is as likely as another: most values lie in long lists.
    places = list(places_of(document))
    depth = rng.choice(sorted({len(place) for place in places}))
    *path, key = rng.choice([place for place in places if len(place) == depth])
    holder = document
    for step in path:
        holder = holder[step]
    value = holder[key]
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.extend(json.loads(json.dumps(holder)) * rng.choice([1, 3]))
        case 2 if isinstance(holder, dict):
            holder[rng.choice(["", "a\0b", f"{key}s", str(key).upper()])] = holder.pop(key)
        case 3 if isinstance(value, int | float) and not isinstance(value, bool):
            holder[key] = rng.choice(
                [value + 1, value - 1, -value, value * 2, float(value), str(value)]
            )
        case 4 if isinstance(value, str):
            holder[key] = rng.choice([value[:-1], value * 2, value.upper(), [value], value + "\0"])
        case _:
            holder[key] = rng.choice(VALUES)


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """Change some bytes: flip, cut, zero or double them, or put in another whole number."""
    changed = bytearray(content)
    at = rng.randrange(len(changed))
    match rng.randrange(6):
        case 0:
            del changed[at:]
        case 1:
            changed[at : at + rng.choice([1, 8, 64])] = bytes(rng.choice([1, 8, 64]))
        case 2:
            at -= at % 4
            word = rng.choice([0, 1, -1, 2**31 - 1, -(2**31), 65536, len(content)])
            changed[at : at + 4] = word.to_bytes(4, "little", signed=True)
        case 3:
            at -= at % 8
            word = rng.choice([0, 1, -1, 2**63 - 1, -(2**63), 2**40, len(content)])
            changed[at : at + 8] = word.to_bytes(8, "little", signed=True)
        case _:
            for _ in range(rng.choice([1, 1, 2, 8])):
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def in_the_heads(rng: random.Random, content: bytes) -> bytes:
    """Change a byte or a number where an Arrow file speaks of itself: at its begin, or in its
    footer.
    """
    size = len(content)
    begin = rng.choice([0, max(0, size - 2500)])
    end = min(size, begin + 2500)
    return content[:begin] + mutate_bytes(rng, content[begin:end]) + content[end:]


def sign(out: Path, manifest: Any, checksum: Callable[[bytes], str] | None = None) -> None:
    """Write a manifest with its own sha256, the sizes and sums of the files in it made to fit as
    far as they can be.
    """
    with contextlib.suppress(KeyError, TypeError, AttributeError, OSError, ValueError):
        manifest["tokenizer"]["sha256"] = hashlib.sha256(
            (out / "tokenizer.json").read_bytes()
        ).hexdigest()
    with contextlib.suppress(KeyError, TypeError, AttributeError, OSError, ValueError):
        for split in manifest["splits"].values():
            for shard in split["shards"]:
                content = (out / shard["file"]).read_bytes()
                shard["bytes"] = len(content)
                if checksum is not None:
                    shard["xxh3_128"] = checksum(content)
    if isinstance(manifest, dict):
        manifest["sha256"] = "0" * 64
    text = json.dumps(manifest, indent=2).encode()
    (out / "manifest.json").write_bytes(
        text.replace(b"0" * 64, hashlib.sha256(text).hexdigest().encode(), 1)
    )


def replace_by_what_is_no_file(rng: random.Random, path: Path, elsewhere: Path) -> str:
    """Replace a file with no file, one too large, or one that leads out of the dataset."""
    path.unlink()
    match rng.randrange(8):
        case 0:
            os.mkfifo(path)
            return "a FIFO"
        case 1:
            path.mkdir()
            return "a folder"
        case 2:
            path.touch()
            os.truncate(path, 1 << 41)
            return "a sparse file of 2 TiB"
        case 3:
            path.symlink_to(path.name)
            return "a link to itself"
        case 4:
            path.symlink_to(elsewhere)
            return "a link out"
        case 5:
            path.symlink_to("/dev/zero")
            return "/dev/zero"
        case 6:
            path.symlink_to("/proc/self/mem")
            return "/proc/self/mem"
        case _:
            path.touch()
            return "an empty file"


def forge(
    seed: int, out: Path, pristine: Path, checksum: Callable[[bytes], str] | None = None
) -> str:
    """Mutate the dataset in ``out``, a copy of ``pristine``, and say how."""
    rng = random.Random(seed)
    manifest = json.loads((out / "manifest.json").read_bytes())
    shards = sorted(path for path in out.rglob("*.arrow"))
    tokenizer = out / "tokenizer.json"
    kind = rng.choices(
        [
            "manifest",
            "manifest bytes",
            "shard",
            "shard head",
            "tokenizer",
            "tokenizer bytes",
            "no file",
        ],
        [30, 5, 15, 20, 15, 5, 10],
    )[0]
    match kind:
        case "manifest":
            for _ in range(rng.choice([1, 1, 1, 2, 5])):
                mutate_json(rng, manifest)
            if rng.random() < 0.1 and isinstance(manifest, dict):
                manifest["sources"] = []
            text = json.dumps(
                {**manifest, "sha256": "0" * 64} if isinstance(manifest, dict) else manifest,
                indent=2,
            )
            digest = hashlib.sha256(text.encode()).hexdigest()
            (out / "manifest.json").write_bytes(
                text.encode().replace(b"0" * 64, digest.encode(), 1)
            )
        case "manifest bytes":
            (out / "manifest.json").write_bytes(
                mutate_bytes(rng, (out / "manifest.json").read_bytes())
            )
        case "shard" | "shard head":
            shard = rng.choice(shards)
            change = mutate_bytes if kind == "shard" else in_the_heads
            shard.write_bytes(change(rng, shard.read_bytes()))
            sign(out, manifest, checksum)
        case "tokenizer" | "tokenizer bytes":
            if kind == "tokenizer":
                document = json.loads(tokenizer.read_bytes())
                for _ in range(rng.choice([1, 1, 3])):
                    mutate_json(rng, document)
                tokenizer.write_text(json.dumps(document))
            else:
                tokenizer.write_bytes(mutate_bytes(rng, tokenizer.read_bytes()))
            if rng.random() < 0.8:
                sign(out, manifest, checksum)
        case _:
            path = rng.choice([out / "manifest.json", tokenizer, *shards])
            put = replace_by_what_is_no_file(rng, path, pristine / path.relative_to(out))
            kind = f"{path.name} is {put}"
    return kind


def run(command: str, out: Path, corpus: Path, scratch: Path) -> str | None:
    """Run a command over a dataset; what is wrong with how it went, if anything."""
    from sabiprep import SabiprepError, cli, open_dataset

    def told(main: Callable[[list[str]], int], *arguments: object) -> str | None:
        err = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            code = main([str(argument) for argument in arguments])
        if code not in (0, 1) or "is a bug" in err.getvalue() or "Traceback" in err.getvalue():
            return f"exit code {code}: {err.getvalue()}"
        return None

    if command == "read":
        try:
            with open_dataset(out) as dataset:
                for split in (dataset.train, dataset.validation):
                    assert len(split.n_targets) == len(split)
                    for number in range(len(split)):
                        row = split[number]
                        assert len(row["input_ids"]) == len(row["roles"]) == dataset.seq_len
                        for source, record in zip(
                            row["source_ids"].tolist(), row["record_ids"].tolist(), strict=True
                        ):
                            dataset.place(source, record)
        except SabiprepError as error:
            if not (error.file and error.remedy):
                return f"no file or no remedy: {error!r}"
        return None
    if command in ("plan", "train"):
        from sabitrain.__main__ import main

        tiny = [
            "--model.layers=1",
            "--model.width=16",
            "--model.heads=1",
            "--model.mlp-width=16",
            "--answers=1",
        ]
        tiny += [
            "--model.context=128",
            "--max-steps=1",
            "--device=cpu",
            "--batch.tokens=256",
            "--max-new-tokens=2",
        ]
        words = ["plan"] if command == "plan" else ["--run", scratch / "run"]
        return told(main, *words, "--data", out, *tiny)
    if command in EXPORTS:
        return told(cli.main, "export", out, scratch / command, "--to", command)
    return told(
        cli.main,
        *{
            "export-tasks": ["export-tasks", out, scratch / "tasks"],
            "inspect": ["inspect", out],
            "verify": ["verify", out],
            "against": ["verify", out, "--against", corpus],
            "remix": ["remix", out, scratch / "new", "--corpus", corpus],
        }[command],
    )


def main(folder: Path, first: int, last: int) -> None:
    """Run mutations ``first`` to below ``last``."""
    checksum: Callable[[bytes], str] | None = None
    with contextlib.suppress(
        ImportError
    ):  # where it is there, damaged shards get past `verify`'s checksum
        import xxhash

        checksum = lambda content: str(xxhash.xxh3_128_hexdigest(content))  # noqa: E731
    pristine, corpus = folder / "out", folder / "corpus"
    for seed in range(first, last):
        scratch = folder / f"forged-{seed}"
        out = Path(shutil.copytree(pristine, scratch / "out"))
        kind = forge(seed, out, pristine, checksum)
        for command in COMMANDS:
            print(f"{seed} {command}: {kind}", flush=True)
            try:
                wrong = run(command, out, corpus, scratch)
            except BaseException:
                wrong = traceback.format_exc()
            if wrong is not None:
                print(f"BAD {seed} {command}: {kind}: {wrong}", flush=True)
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
