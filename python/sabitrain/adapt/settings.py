"""The options of ``sabitrain adapt``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from sabiprep.errors import ConfigError

NewRows = Literal["mean", "random", "list"]

_MOST_TOKENS = 1_000_000


def _count_of(words: list[str]) -> int:
    """Returns the number in ``+N``.

    A number alone may be meant as the size of the whole vocabulary.

    Raises:
        ValueError: If it is none, or has no plus sign.
    """
    written = words[0]
    if not re.fullmatch(r"\+\d{1,9}", written):
        raise ValueError(
            f"{written!r} is not +N, the number of tokens to add, as +{written.lstrip('+-')}"
            if re.fullmatch(r"-?\d+", written)
            else f"{written!r} is not +N, the number of tokens to add, as +8000"
        )
    return int(written)


_ADDED = PrimitiveConstructorSpec[int | None](
    nargs=1,
    metavar="+N",
    instance_from_str=_count_of,
    is_instance=lambda value: value is None or isinstance(value, int),
    str_from_instance=lambda value: ["None" if value is None else f"+{value}"],
)


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """The changes to make to a checkpoint; they are made in the order of the options.

    Raises:
        ConfigError: If a value cannot be right, or options do not go together.
    """

    base: Annotated[Positional[str], arg(metavar="BASE")]
    """The checkpoint to change: a folder of Hugging Face's layout, which stays as it is, or
    hf://OWNER/NAME[@REVISION] of the Hub."""
    new: Annotated[Positional[Path], arg(metavar="NEW")]
    """The folder to make; it must not exist."""
    extend: Annotated[Path | None, arg(metavar="TOKENIZER.json")] = None
    """Add the tokens of another tokenizer's file that the base lacks."""
    add_language: Annotated[Path | None, arg(metavar="CORPUS")] = None
    """Add tokens for the texts of a corpus, by merges that go on from the base's; its held-out
    records decide nothing."""
    vocab: Annotated[int | None, _ADDED] = None
    """The number of tokens to add for --add-language."""
    new_rows: Annotated[NewRows, arg(metavar="mean|random|list")] = "mean"
    """The rows of new tokens in embedding and head: the mean of the rows of the tokens that the
    base has for their text; random, as the base's rows are spread; or those of the words in
    --bilingual, and the mean for tokens that are not in there."""
    bilingual: Annotated[Path | None, arg(metavar="FILE.tsv")] = None
    """The list for --new-rows list: in each line a word, a tab and a word that the base knows."""
    seed: int = 0
    """Decides random rows."""
    trim: Annotated[tuple[Path, ...], arg(metavar="CORPUS ...")] = ()
    """Drop the tokens that these corpora and control tokens never use."""
    drop_layers: Annotated[int | None, arg(metavar="N")] = None
    """Drop the N layers in a row that change their input least, by its angle (arXiv:2403.17887)."""
    prune_width: Annotated[tuple[str, ...], arg(metavar="heads=N mlp=N")] = ()
    """Keep this many query heads, and this many channels of each MLP: those whose activations are
    largest (arXiv:2407.14679)."""
    rows: Annotated[Path | None, arg(metavar="DATASET")] = None
    """The packed dataset whose rows --drop-layers and --prune-width look at."""
    row_count: Annotated[int, arg(metavar="N")] = 32
    """Rows to look at, spread over the training split."""
    measure: Annotated[tuple[Path, ...], arg(metavar="CORPUS ...")] = ()
    """Corpora whose tokens per word the table shows, beside those of the other options."""
    json: Annotated[bool, FlagCreatePairsOff] = False
    """Print one JSON object instead of the table."""

    def __post_init__(self) -> None:
        """Checks every value, and that the options go together."""
        self._check_numbers()
        self._check_together()
        widths = self.widths()
        if not (self.extend or self.add_language or self.trim or self.drop_layers or widths):
            raise ConfigError(
                "nothing is to be changed",
                remedy="name a change: --extend, --add-language, --trim, --drop-layers or "
                "--prune-width",
            )

    def widths(self) -> dict[str, int]:
        """Returns the values of ``--prune-width`` by their names, ``heads`` and ``mlp``."""
        found: dict[str, int] = {}
        for word in self.prune_width:
            matched = re.fullmatch(r"(heads|mlp)=(\d{1,9})", word)
            if matched is None or matched[1] in found or int(matched[2]) < 1:
                raise ConfigError(
                    f"--prune-width has {word!r}",
                    remedy="write heads=N or mlp=N or both, each once, as heads=8 mlp=2048",
                )
            found[matched[1]] = int(matched[2])
        return found

    def _check_numbers(self) -> None:
        """Refuses numbers out of range."""
        for name, value, low, high in (
            ("vocab", self.vocab, 1, _MOST_TOKENS),
            ("drop-layers", self.drop_layers, 1, 10_000),
            ("row-count", self.row_count, 1, 100_000),
            ("seed", self.seed, 0, 2**63 - 1),
        ):
            if value is not None and not low <= value <= high:
                raise ConfigError(
                    f"--{name} is {value}", remedy=f"give a whole number from {low} to {high:,}"
                )

    def _check_together(self) -> None:
        """Refuses options that need another one, or that another one makes pointless."""
        looks_at_rows = self.drop_layers is not None or bool(self.prune_width)
        adds = self.extend is not None or self.add_language is not None
        for wrong, message, remedy in (
            (
                (self.add_language is None) != (self.vocab is None),
                "--add-language and --vocab go together",
                "name both: --add-language corpus/ --vocab +8000",
            ),
            (
                (self.new_rows == "list") != (self.bilingual is not None),
                "--new-rows list and --bilingual go together",
                "name both: --new-rows list --bilingual words.tsv",
            ),
            (
                self.new_rows != "mean" and not adds,
                "--new-rows is for new tokens, and none are added",
                "leave it out, or add tokens with --extend or --add-language",
            ),
            (
                looks_at_rows != (self.rows is not None),
                "--rows goes with --drop-layers and --prune-width",
                "name a packed dataset: --drop-layers 4 --rows out/",
            ),
        ):
            if wrong:
                raise ConfigError(message, remedy=remedy)
