"""What a validation finds: losses, right tokens and right answers, by task, language and source."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TargetLoss:
    """Losses over some targets.

    Attributes:
        loss: Mean cross-entropy in nats per target.
        targets: How many there are.
    """

    loss: float
    targets: int


@dataclass(frozen=True)
class Score(TargetLoss):
    """How well some targets are predicted.

    A target is predicted right if it is the most likely token, given all tokens before it as they
    stand in the data (teacher forcing). An answer is a document with a prompt: it is right if all
    of its targets are, its closing EOS among them. Documents without a prompt (plain text) and
    windows of a longer document are no answers.

    Attributes:
        accuracy: The share of the targets predicted right, the EOS that closes a document aside,
            which would be right wherever answers are short; None if there is no other.
        bits_per_byte: The targets' cross-entropy in bits for each byte of their text (UTF-8), which
            compares models of different tokenizers; None if they have no text.
        prompt: The loss on the tokens of the prompts beside them, trained or not: a probe of how
            well prompts are modelled; None if there are none.
        baseline: The loss of `sabitrain.evaluation.baseline.Unigram` on the same targets; None if
            none was asked.
        answers: How many answers there are.
        answers_right: The share of them that is right; None if there are none.
    """

    accuracy: float | None
    bits_per_byte: float | None
    prompt: TargetLoss | None
    baseline: float | None = None
    answers: int = 0
    answers_right: float | None = None


@dataclass(frozen=True)
class SourceScore(Score):
    """How well the targets of a source are predicted.

    Attributes:
        task: Its task.
        language: Its language.
    """

    task: str = ""
    language: str = ""


@dataclass(frozen=True)
class Evaluation:
    """How well the targets of a split, or of a sample of its rows, are predicted.

    Attributes:
        total: Over every target.
        tasks: Over the targets of each task that has one.
        languages: Over the targets of each language that has one.
        pairs: Over the targets of each task in each language that it has one in: by task, then by
            language.
        sources: Over the targets of each source that has one, by its name; of a mixture in which a
            name comes again, the second is called ``name (2)`` and so on.
        rows: Rows that were evaluated.
        held_out_rows: Rows of the split.
    """

    total: Score
    tasks: dict[str, Score]
    languages: dict[str, Score]
    pairs: dict[str, dict[str, Score]]
    sources: dict[str, SourceScore] = field(default_factory=dict)
    rows: int = 0
    held_out_rows: int = 0
