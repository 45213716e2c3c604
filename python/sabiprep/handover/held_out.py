"""Held-out documents as questions: their prompt and target as text, windows put together.

A document of the validation split has been rendered by the template that was trained, whatever its
format and template, so nothing is rendered anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sabiprep.dataset import PackedDataset
from sabiprep.handover.chunks import Chunk, Place, chunks_of
from sabiprep.handover.texts import Texts
from sabiprep.roles import Role

_Ids = npt.NDArray[np.int64]
_Roles = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Question:
    """A held-out document.

    Attributes:
        place: The place of its record.
        prompt: All text before its last target; empty if there is none.
        target: The last target.
        tokens: The tokens of the target.
    """

    place: Place
    prompt: str
    target: str
    tokens: int


class Document(NamedTuple):
    """A document, or a window of one."""

    place: Place
    ids: _Ids
    roles: _Roles


def questions_of(dataset: PackedDataset, texts: Texts) -> Iterator[Question]:
    """Yields the held-out documents, in the order of rows; those of several windows when whole.

    Raises:
        DatasetError: If a shard is damaged.
    """
    for place, ids, roles in held_out(dataset):
        answer = last_target(roles)
        before = roles[: answer.start] != Role.CONTROL
        given, said = ids[: answer.start][before], ids[answer]
        prompt, target = texts.decode(np.concatenate((given, said)), [len(given), len(said)])
        yield Question(place, prompt, target, len(said))


def held_out(dataset: PackedDataset) -> Iterator[Document]:
    """Yields the documents of the validation split, windows put together.

    Raises:
        DatasetError: If a shard is damaged.
    """
    return _whole(_documents(dataset, "validation"))


def last_target(roles: _Roles) -> slice:
    """Returns the span of the last run of target tokens; it is empty if there is none."""
    at = np.flatnonzero(roles == Role.TARGET)
    if not len(at):
        return slice(len(roles), len(roles))
    breaks = np.flatnonzero(np.diff(at) > 1)
    return slice(int(at[breaks[-1] + 1] if len(breaks) else at[0]), int(at[-1]) + 1)


def _documents(dataset: PackedDataset, split: str) -> Iterator[Document]:
    """Yields the documents of a split."""
    for chunk in chunks_of(dataset, split, range(len(dataset[split]))):
        for place, span in zip(chunk.places(), spans_of(chunk), strict=True):
            yield Document(place, chunk.ids_N[span], chunk.roles_N[span])


def spans_of(chunk: Chunk) -> list[slice]:
    """Returns the tokens of each document."""
    ends = np.cumsum(chunk.lengths_D).tolist()
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _whole(documents: Iterator[Document]) -> Iterator[Document]:
    """Yields documents whose windows are put together.

    Window k begins with the last token of window k - 1, and a control token closes the last one.
    """
    waiting: dict[tuple[Any, ...], dict[int, Document]] = {}
    for document in documents:
        place = document.place
        closed = document.roles[-1] == Role.CONTROL
        if closed and place.window == 0:
            yield document
            continue
        key = place._replace(window=0)
        windows = waiting.setdefault(key, {})
        windows[place.window] = document
        last = windows[max(windows)]
        if last.roles[-1] == Role.CONTROL and len(windows) == max(windows) + 1:
            yield _joined(waiting.pop(key))
    # A dataset without closing tokens says nowhere which window is the last.
    for windows in waiting.values():
        yield _joined(windows)


def _joined(windows: dict[int, Document]) -> Document:
    """Returns the document of these windows."""
    ordered = [windows[number] for number in sorted(windows)]
    skipped = [int(document.place.window > 0) for document in ordered]
    return Document(
        ordered[0].place._replace(window=0),
        np.concatenate([each.ids[skip:] for each, skip in zip(ordered, skipped, strict=True)]),
        np.concatenate([each.roles[skip:] for each, skip in zip(ordered, skipped, strict=True)]),
    )
