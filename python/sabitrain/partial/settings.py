"""Settings of partial training: the parameters that are trained."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from sabitrain.settings import Section, require

Bits = Literal[4, 8]
"""Bits of a number of a quantised weight."""
# The default, None, is no word for the command line.
_BITS = PrimitiveConstructorSpec[Bits](
    nargs=1,
    metavar="4|8",
    instance_from_str=lambda words: next(bits for bits in get_args(Bits) if str(bits) == words[0]),
    is_instance=lambda value: value is None or value in get_args(Bits),
    str_from_instance=lambda bits: [str(bits)],
    choices=tuple(str(bits) for bits in get_args(Bits)),
)

_LAST = "last:"
_WORDS = ("all", "embeddings", "new-rows", "lora")
_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LoraConfig:
    """Adapters of low rank (--train lora), by peft (the extra sabiprep[lora])."""

    rank: int = 16
    """Rank of each adapter."""
    alpha: float = 32.0
    """The update of a matrix is scaled by alpha / rank."""
    targets: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = _LINEAR
    """The linear layers of the blocks that get an adapter."""
    rslora: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Scale by alpha / sqrt(rank) instead (rsLoRA, arXiv:2312.03732)."""
    dora: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Train the length of each row of a matrix apart from its direction (DoRA, arXiv:2402.09353).
    """
    dropout: float = 0.0
    """Share of an adapter's inputs to drop out in each step, drawn from the seed and the step."""
    bits: Annotated[Bits | None, _BITS] = None
    """Hold the frozen matrices of the blocks in so many bits (QLoRA, arXiv:2305.14314), by
    bitsandbytes (the extra sabiprep[quant]); an adapter is merged into the base as it is."""

    def __post_init__(self) -> None:
        """Checks every setting."""
        require(self.rank >= 1, f"lora.rank must be at least 1, not {self.rank}")
        require(0 < self.alpha < math.inf, f"lora.alpha must be above 0, not {self.alpha}")
        require(len(self.targets) > 0, "lora.targets must name at least one layer")
        require(
            0 <= self.dropout < 1, f"lora.dropout is a share, from 0 to below 1, not {self.dropout}"
        )


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase of a run: a ``[[phase]]`` of the TOML file."""

    train: str = "all"
    """What the phase trains, as --train says, but for lora."""
    steps: int | None = None
    """The steps of the phase; the last phase has those that are left."""
    share: float | None = None
    """Its share of the steps of the run, in the place of steps."""
    lr: float = 1.0
    """The factor of the learning rate."""
    freeze: tuple[str, ...] = ()
    """Patterns of parameters to freeze in this phase, beside --freeze."""

    def __post_init__(self) -> None:
        """Checks every setting."""
        require(
            self.train in _WORDS[:-1] or last_blocks(self.train) is not None,
            f"phase.train must be {', '.join(_WORDS[:-1])} or last:N, not {self.train!r}; adapters "
            "are trained by a run of their own, with --train lora and without phases",
        )
        require(
            self.steps is None or self.steps >= 1, f"phase.steps must be 1 or more: {self.steps}"
        )
        require(
            self.share is None or 0 < self.share < 1,
            f"phase.share must be above 0 and below 1, not {self.share}",
        )
        require(0 < self.lr < math.inf, f"phase.lr must be above 0, not {self.lr}")


@dataclass(frozen=True, kw_only=True)
class PartialConfig(Section):
    """The parameters that a run trains; all others are frozen."""

    train: Annotated[str, tyro.conf.arg(metavar="all|embeddings|new-rows|last:N|lora")] = "all"
    """What to train: all; embeddings, the embedding and the head; new-rows, the rows of both that
    `sabitrain adapt` added, or those of --new-rows; last:N, the last N blocks, the last norm and a
    head of its own; lora, adapters (--lora.rank and others). All else is frozen: it has no gradient
    and no state.
    """
    new_rows: Annotated[tuple[int, ...], tyro.conf.arg(metavar="FIRST [END]")] = ()
    """The rows of embedding and head that --train new-rows trains, from FIRST to before END (by
    default, all from FIRST on)."""
    phase: tyro.conf.Suppress[tuple[Phase, ...]] = ()
    """The phases of the run, one after the other; each trains what it says."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    freeze: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATTERN ...")] = ()
    """Freeze parameters too whose names in transformers match one of these patterns, as
    'model.layers.0.*' or '*.mlp.*'."""

    def __post_init__(self) -> None:
        """Checks every setting."""
        super().__post_init__()
        require(
            self.train in _WORDS or last_blocks(self.train) is not None,
            f"train must be {', '.join(_WORDS)} or last:N with N from 1, not {self.train!r}",
            f"did you mean {_nearest(self.train)}?",
        )
        first, end = (*self.new_rows, 0, 0)[:2]
        require(
            len(self.new_rows) <= 2 and first >= 0 and (len(self.new_rows) < 2 or first < end),
            f"new_rows must be FIRST from 0, or FIRST and a larger END, not {self.new_rows}",
            "name the first of the rows and the row after their last: --new-rows "
            f"{max(0, first)} {max(0, first) + 1} is one row",
        )
        require(
            self.lora.bits is None or self.train == "lora",
            f"lora.bits is of the base of --train lora, not of --train {self.train}",
            "use --train lora, or leave --lora.bits out",
        )
        self._check_phases()

    def _check_phases(self) -> None:
        """Checks that phases say when they end, and that they alone say what is trained."""
        if not self.phase:
            return
        require(self.train == "all", "train stands in each [[phase]], not beside them")
        require(len(self.phase) > 1, "one [[phase]] is no phase: use train")
        for number, phase in enumerate(self.phase, 1):
            given = (phase.steps is not None) + (phase.share is not None)
            last = number == len(self.phase)
            require(
                given == int(not last),
                f"phase {number} must have steps or share"
                if not last
                else "the last phase has the steps that are left: leave its steps and share out",
            )

    def trains(self, word: str) -> bool:
        """Returns whether ``train`` is a word, in any phase."""
        return word in (self.train, *(phase.train for phase in self.phase))


def _nearest(train: str) -> str:
    """Returns the value of ``train`` that is most like a wrong one."""
    word, _, number = train.partition(":")
    near = difflib.get_close_matches(word, (*_WORDS, _LAST[:-1]), n=1, cutoff=0.0)[0]
    return near if near in _WORDS else f"{_LAST}{number if number.strip('0').isdecimal() else 'N'}"


def last_blocks(train: str) -> int | None:
    """Returns the N of ``last:N``; None for another word."""
    number = train.removeprefix(_LAST)
    if not train.startswith(_LAST) or not number.isdecimal() or int(number) < 1:
        return None
    return int(number)
