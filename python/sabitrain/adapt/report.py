"""The report of an adaptation: its steps in numbers, and a table of before and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult

from sabiprep.grid import Cell, Column, Grid
from sabiprep.terminal import Sentence, visible
from sabitrain.adapt.draft import Draft
from sabitrain.adapt.texts import Stretch, words_in
from sabitrain.adapt.tokenizer_file import BpeFile
from sabitrain.adapt.trimming import encode_stretches

# Columns of sentences and tables.
_WIDTH = 80


@dataclass(frozen=True)
class Step:
    """A step that was done.

    Attributes:
        name: The option that asked for it.
        told: The change in a sentence.
        numbers: The same in numbers, by name.
    """

    name: str
    told: str
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class Size:
    """The size of a checkpoint.

    Attributes:
        tokens: Tokens of the tokenizer; 0 if it is no BPE.
        rows: Rows of the embedding.
        layers: Layers.
        parameters: Parameters, a tied head counted once.
    """

    tokens: int
    rows: int
    layers: int
    parameters: int

    def json(self) -> dict[str, int]:
        """Returns the numbers by name, bytes of the weights too."""
        sizes = {"float32_bytes": 4 * self.parameters, "bf16_bytes": 2 * self.parameters}
        return asdict(self) | sizes


@dataclass
class Fertility:
    """The tokens and words of some texts; words are told apart by white space.

    Attributes:
        words: Words.
        before: Tokens by the base's tokenizer.
        after: Tokens by the new one.
    """

    words: int = 0
    before: int = 0
    after: int = 0

    def add(self, words: int, before: int, after: int) -> None:
        """Adds the counts of a text."""
        self.words += words
        self.before += before
        self.after += after

    def json(self) -> dict[str, Any]:
        """Returns the counts by name, and tokens per word."""
        per_word = {
            f"tokens_per_word_{name}": tokens / self.words if self.words else None
            for name, tokens in (("before", self.before), ("after", self.after))
        }
        return {"words": self.words, **per_word}


@dataclass(frozen=True)
class Language:
    """The texts of a language: those of the training split, and held-out ones."""

    training: Fertility = field(default_factory=Fertility)
    held_out: Fertility = field(default_factory=Fertility)


@dataclass(frozen=True)
class Report:
    """The report of an adaptation.

    Attributes:
        base: The folder of the base.
        new: The folder that was made.
        steps: The steps, in order.
        before: The size of the base.
        after: The size of the new checkpoint.
        languages: The tokens per word of each language, by its name.
    """

    base: str
    new: str
    steps: Sequence[Step]
    before: Size
    after: Size
    languages: Mapping[str, Language]

    def json(self) -> dict[str, Any]:
        """Returns the report as one JSON object."""
        return {
            "base": self.base,
            "new": self.new,
            "steps": [{"step": step.name, **step.numbers} for step in self.steps],
            "before": self.before.json(),
            "after": self.after.json(),
            "languages": {
                name: {"training": each.training.json(), "held_out": each.held_out.json()}
                for name, each in self.languages.items()
            },
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields a sentence for each step, and the table."""
        narrow = options.update(width=min(_WIDTH, options.max_width))
        for step in self.steps:
            told = Sentence(f"{step.name}: {step.told}", 2, wrapped=True)
            yield from told.__rich_console__(console, narrow)
        yield ""
        yield from self._sizes().__rich_console__(console, narrow)
        if self.languages:
            yield ""
            yield from self._fertility().__rich_console__(console, narrow)
        yield ""
        yield Sentence(f"written: {visible(self.new)}", 2)

    def _sizes(self) -> Grid:
        """Returns the table of sizes."""
        grid = Grid([Column("", "name"), Column("before"), Column("after"), Column("change")])
        for name, before, after in (
            ("tokens", self.before.tokens, self.after.tokens),
            ("rows of the embedding", self.before.rows, self.after.rows),
            ("layers", self.before.layers, self.after.layers),
            ("parameters", self.before.parameters, self.after.parameters),
        ):
            if before or after:
                grid.add([name, before, after, _change(before, after)])
        for name, bytes_ in (("weights in float32", 4), ("weights in bf16", 2)):
            sizes = (bytes_ * size.parameters for size in (self.before, self.after))
            grid.add([name, *(_megabytes(size) for size in sizes), ""])
        return grid

    def _fertility(self) -> Grid:
        """Returns the table of tokens per word."""
        held_out = any(each.held_out.words for each in self.languages.values())
        headings = ["words", "tokens a word", "after"]
        if held_out:
            headings += ["held-out words", "tokens a word", "after"]
        grid = Grid([Column("language", "name"), *map(Column, headings)])
        for name, each in self.languages.items():
            grid.add(
                [
                    visible(name),
                    *_cells(each.training),
                    *(_cells(each.held_out) if held_out else ()),
                ]
            )
        return grid


def size_of(draft: Draft, file: BpeFile | None) -> Size:
    """Returns the size of a checkpoint with this tokenizer, if it is a BPE."""
    return Size(len(file.ids) if file else 0, draft.rows, draft.layers, draft.parameters())


def count_tokens(
    languages: dict[str, Language], stretches: Iterable[Stretch], before: BpeFile, after: BpeFile
) -> None:
    """Adds the words and tokens of some stretches to those of their languages.

    Args:
        languages: The counts so far, by language.
        stretches: The stretches.
        before: The tokenizer of the base.
        after: The tokenizer of the new checkpoint.
    """
    bare = after.bare()
    for stretch, ids in encode_stretches(before.bare(), stretches):
        language = languages.setdefault(stretch.language, Language())
        counts = language.held_out if stretch.held_out else language.training
        new = bare.encode(stretch.text, add_special_tokens=False).ids
        counts.add(words_in(stretch.text), len(ids), len(new))


def _cells(counts: Fertility) -> list[Cell]:
    """Returns the cells of some texts: words, and tokens per word before and after."""
    if not counts.words:
        return [0, "-", "-"]
    per_word = (f"{tokens / counts.words:.2f}" for tokens in (counts.before, counts.after))
    return [counts.words, *per_word]


def _change(before: int, after: int) -> str:
    """Returns a change in percent."""
    return f"{after / before - 1:+.1%}" if before and before != after else ""


def _megabytes(size: int) -> str:
    """Returns bytes in MB of 10^6 bytes."""
    return f"{size / 1e6:,.1f} MB"
