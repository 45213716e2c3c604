"""The two steps of ``make adapt-demo`` that are no commands: its corpora, and its last table.

    python examples/adapt_demo.py corpora DIR [NAIJA]   # DIR/english and DIR/yoruba
    python examples/adapt_demo.py table DIR             # of the runs in DIR

The texts are those of Naija (MAFAND) where its folder is there, and of the example corpus
elsewhere.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CORPUS = """\
[tokenizer]
eos = "</s>"

[pack]
seq_len = 256
validation = 0.05

"""
SOURCE = """\
[[source]]
name = "{name}"
task = "text"
lang = "{lang}"
files = {files}
"""
EXAMPLES = Path(__file__).parent / "corpus"


def write_corpus(folder: Path, lang: str, pairs: list[Path], plain: list[Path]) -> None:
    """Writes the ``corpus.toml`` of one language: one side of parallel texts, and plain text."""
    text = CORPUS + SOURCE.format(
        name="parallel", lang=lang, files=json.dumps([str(path.resolve()) for path in pairs])
    )
    side = {"eng": "en", "yor": "yor"}[lang]
    text += f'segments = [{{ target = "{{{{ translation.{side} }}}}" }}]\n'
    files = json.dumps([str(path.resolve()) for path in plain])
    if plain:
        text += "\n" + SOURCE.format(name="plain", lang=lang, files=files)
    folder.mkdir(parents=True)
    (folder / "corpus.toml").write_text(text, "utf-8")


def write_corpora(folder: Path, naija: Path | None) -> None:
    """Writes both corpora; no English text is the translation of a Yorùbá one, where Naija is."""
    if naija is not None and (naija / "mafand").is_dir():
        others = [naija / "mafand" / f"eng-{lang}" / "train.json" for lang in ("hau", "ibo")]
        write_corpus(folder / "english", "eng", others, [])
        yoruba = [naija / "mafand" / "eng-yor" / "train.json"]
        write_corpus(folder / "yoruba", "yor", yoruba, [naija / "mono" / "yor-globalvoices.txt"])
        print(f"texts of {naija}")
        return
    pairs = [EXAMPLES / "phrases.jsonl", EXAMPLES / "sentences.jsonl"]
    write_corpus(folder / "english", "eng", pairs, [EXAMPLES / "text-eng.txt"])
    write_corpus(folder / "yoruba", "yor", pairs, [EXAMPLES / "text-yor.txt"])
    print(f"texts of {EXAMPLES}")


def validations(run: Path) -> list[dict[str, Any]]:
    """Returns the validations of a run, the one before its first step included."""
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == "validation"]


def show_table(folder: Path) -> None:
    """Prints bits per byte and tokens per word of held-out Yorùbá, before and after."""
    adapted = json.loads((folder / "adapted.json").read_text("utf-8"))
    words = adapted["languages"]["yor"]["held_out"]
    rows = [
        ("the base", validations(folder / "kept-run")[0], "before"),
        ("the base, trained on", validations(folder / "kept-run")[-1], "before"),
        ("with new tokens", validations(folder / "adapted-run")[0], "after"),
        ("with new tokens, trained on", validations(folder / "adapted-run")[-1], "after"),
    ]
    print(f"\n{'held-out Yorùbá':30}{'bits per byte':>15}{'tokens a word':>15}")
    for name, validation, which in rows:
        bits, tokens = bits_per_byte(validation), words[f"tokens_per_word_{which}"]
        print(f"{name:30}{bits:15.3f}{tokens:15.2f}")


def bits_per_byte(validation: dict[str, Any]) -> float:
    """Returns the bits per byte of a validation."""
    found: float = validation["total"]["bits_per_byte"]
    return found


def main() -> None:
    """Runs the step that the command line names."""
    step, folder, *more = sys.argv[1:]
    if step == "corpora":
        write_corpora(Path(folder), Path(more[0]) if more and more[0] else None)
    else:
        show_table(Path(folder))


if __name__ == "__main__":
    main()
