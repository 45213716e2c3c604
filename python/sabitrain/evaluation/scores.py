"""The scores of a validation: losses, right tokens and answers, by task, language and source."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TargetLoss:
    """Losses over some targets.

    Attributes:
        loss: Mean cross-entropy in nats per target.
        targets: The number of targets.
    """

    loss: float
    targets: int


@dataclass(frozen=True)
class Score(TargetLoss):
    """The quality of the predictions of some targets.

    A target is predicted right if it is the most likely token, given all tokens before it as they
    stand in the data (teacher forcing). An answer is a document with a prompt: it is right if all
    of its targets are, its closing EOS among them. Documents without a prompt (plain text) and
    windows of a longer document are no answers.

    Attributes:
        accuracy: The share of the targets predicted right, without the EOS that closes a document,
            an easy one where answers are short; None if there is no other target.
        bits_per_byte: The targets' cross-entropy in bits for each byte of their text (UTF-8), which
            compares models of different tokenizers; None if the targets have no text.
        prompt: The loss on the tokens of the prompts before the targets, trained or not: a probe of
            the model of prompts; None if there are no prompts.
        baseline: The loss of `sabitrain.evaluation.baseline.Unigram` on the same targets; None
            without a baseline.
        answers: The number of answers.
        answers_right: The share of answers that are right; None if there are no answers.
    """

    accuracy: float | None
    bits_per_byte: float | None
    prompt: TargetLoss | None
    baseline: float | None = None
    answers: int = 0
    answers_right: float | None = None


@dataclass(frozen=True)
class SourceScore(Score):
    """The score of the targets of one source.

    Attributes:
        task: The task of the source.
        language: The language of the source.
    """

    task: str = ""
    language: str = ""


@dataclass(frozen=True)
class Evaluation:
    """The scores of the targets of a split, or of a sample of its rows.

    Groups without a target have no score.

    Attributes:
        total: The score of all targets.
        tasks: The scores by task.
        languages: The scores by language.
        pairs: The scores by task, then by language.
        sources: The scores by the name of the source; a name that comes again in a mixture is
            called ``name (2)`` and so on.
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
