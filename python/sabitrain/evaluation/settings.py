"""Settings of the evaluation: when a run validates, on how many rows, and the answers it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from sabitrain.settings import MAY_CHANGE, Section, require


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(Section):
    """Validations, and the answers at the end."""

    eval_every: int = field(default=100, metadata=MAY_CHANGE)
    """Steps between validations; 0 validates at the end only."""
    eval_rows: int = field(default=128, metadata=MAY_CHANGE)
    """Held-out rows of a validation, the same each time, with some of every task in every language;
    0 for all. The last takes all of them if the hours allow or, without hours, if the run has
    trained on as many rows."""
    eval_data: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="[NAME=]OUT")
    ] = field(default=(), metadata=MAY_CHANGE)
    """Score this packed dataset too, at each validation and before the first step; nothing is
    trained on it. May be given several times."""
    answers: int = field(default=8, metadata=MAY_CHANGE)
    """Held-out prompts to answer greedily at the end."""
    answer_tasks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK ...")] = field(
        default=(), metadata=MAY_CHANGE
    )
    """Tasks to take those prompts from; all where none is named."""
    max_new_tokens: int = field(default=64, metadata=MAY_CHANGE)
    """Longest answer, in tokens."""

    def __post_init__(self) -> None:
        """Checks every setting."""
        super().__post_init__()
        for name in ("eval_every", "eval_rows", "answers"):
            require(
                getattr(self, name) >= 0, f"{name} must be 0 or more, not {getattr(self, name)}"
            )
        require(
            self.max_new_tokens >= 1,
            f"max_new_tokens must be at least 1, not {self.max_new_tokens}",
        )
