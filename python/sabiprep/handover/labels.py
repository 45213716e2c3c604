"""The labels of sources that answer with one of a few texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from sabiprep.dataset import PackedDataset
from sabiprep.doc_id import DocId
from sabiprep.handover.chunks import chunks_of
from sabiprep.handover.held_out import held_out, last_target, spans_of
from sabiprep.handover.texts import Texts

MOST_LABELS = 32
DOCUMENTS_PER_LABEL = 10
"""A source answers with labels if each stands for this many documents on average, or more."""


def labels_of(
    dataset: PackedDataset, texts: Texts, sources: Collection[int]
) -> dict[int, list[str]]:
    """Returns the labels of each source that answers with some, sorted, from both splits.

    A source is given up at its 33rd answer, so that the answers in memory are few.

    Args:
        dataset: The dataset.
        texts: Its decoder.
        sources: The ids of sources to look at.

    Raises:
        DatasetError: If a shard is damaged.
    """
    answers: dict[int, Counter[bytes]] = {source: Counter() for source in sources}
    for document in held_out(dataset):
        _count(answers, document.place.source.id, document.ids, document.roles)
    rows = range(len(dataset.train))
    for chunk in chunks_of(dataset, "train", rows) if answers else ():
        batch = chunk.batch
        for source, part, span in zip(
            batch["source_ids"].tolist(),
            batch["doc_parts"].tolist(),
            spans_of(chunk),
            strict=True,
        ):
            of = DocId.unpack(source, 0, part)
            if source in answers and of.copy == of.window == 0:
                _count(answers, source, chunk.ids_N[span], chunk.roles_N[span])
    return {
        source: sorted(
            {texts.decode(np.frombuffer(ids, np.int64), [len(ids) // 8])[0] for ids in counted}
        )
        for source, counted in answers.items()
        if len(counted) >= 2 and counted.total() >= DOCUMENTS_PER_LABEL * len(counted)
    }


def _count(
    answers: dict[int, Counter[bytes]],
    source: int,
    ids: npt.NDArray[np.int64],
    roles: npt.NDArray[np.uint8],
) -> None:
    """Counts the answer of a document, or gives its source up."""
    counted = answers.get(source)
    if counted is None:
        return
    counted[ids[last_target(roles)].tobytes()] += 1
    if len(counted) > MOST_LABELS:
        del answers[source]
