"""Settings of partial training: the parameters that are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from sabitrain.settings import Section, require

_LAST = "last:"
_WORDS = ("all", "embeddings", "new-rows")


@dataclass(frozen=True, kw_only=True)
class PartialConfig(Section):
    """The parameters that a run trains; all others are frozen."""

    train: Annotated[str, tyro.conf.arg(metavar="all|embeddings|new-rows|last:N")] = "all"
    """What to train: all; embeddings, the embedding and the head; new-rows, the rows of both that
    `sabitrain adapt` added, or those of --new-rows; last:N, the last N blocks, the last norm and a
    head of its own. All else is frozen: it has no gradient and no state.
    """
    new_rows: Annotated[tuple[int, ...], tyro.conf.arg(metavar="FIRST [END]")] = ()
    """The rows of embedding and head that --train new-rows trains, from FIRST to before END (by
    default, all from FIRST on)."""
    freeze: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATTERN ...")] = ()
    """Freeze parameters too whose names in transformers match one of these patterns, as
    'model.layers.0.*' or '*.mlp.*'."""

    def __post_init__(self) -> None:
        """Checks every setting."""
        super().__post_init__()
        require(
            self.train in _WORDS or self.last_blocks is not None,
            f"train must be {', '.join(_WORDS)} or last:N with N from 1, not {self.train!r}",
        )
        require(
            not self.new_rows or self.train == "new-rows",
            f"new_rows are trained by --train new-rows, not by --train {self.train}",
        )
        first, end = (*self.new_rows, 0, 0)[:2]
        require(
            len(self.new_rows) <= 2 and first >= 0 and (len(self.new_rows) < 2 or first < end),
            f"new_rows must be FIRST from 0, or FIRST and a larger END, not {self.new_rows}",
        )

    @property
    def last_blocks(self) -> int | None:
        """The N of ``last:N``; None for another word."""
        number = self.train.removeprefix(_LAST)
        if not self.train.startswith(_LAST) or not number.isdecimal() or int(number) < 1:
            return None
        return int(number)
