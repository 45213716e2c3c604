"""`sabiprep.torch.RowDataset` in a plain `DataLoader`, workers and all."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

import sabiprep
from sabiprep.dataset import open_dataset
from sabiprep.errors import DatasetError

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from sabiprep.torch import RowDataset  # noqa: E402


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_loader_stacks_rows(packed: sabiprep.PackReport, split: str, workers: int) -> None:
    dataset = RowDataset(packed.out, split)
    rows = open_dataset(packed.out)[split]
    batches = list(DataLoader(dataset, batch_size=8, num_workers=workers))
    assert [len(batch["input_ids"]) for batch in batches[:-1]] == [8] * (len(batches) - 1)
    assert len(dataset) == len(rows) == sum(len(batch["input_ids"]) for batch in batches)
    whole = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    expected = rows.batch(range(len(rows)))
    for name in ("input_ids", "labels", "position_ids", "roles", "n_targets"):
        assert np.array_equal(whole[name], expected[name]), name  # type: ignore[literal-required]
    assert {name: str(values.dtype) for name, values in whole.items()} == {
        **dict.fromkeys(whole, "torch.int64"),
        "roles": "torch.uint8",
    }
    for documents, row in zip(whole["document_ids"].tolist(), rows, strict=True):
        lengths = row["seq_lengths"].tolist()
        numbers = [number for number, length in enumerate(lengths) for _ in range(length)]
        assert documents == numbers + [-1] * (len(documents) - len(numbers))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_start_in_every_way(packed: sabiprep.PackReport, method: str) -> None:
    dataset = RowDataset(packed.out)
    first = dataset[0]["input_ids"]  # opened here, so that a fork inherits an open file
    loader = DataLoader(
        dataset,
        batch_size=8,
        num_workers=2,
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
        multiprocessing_context=multiprocessing.get_context(method),
    )
    seen = torch.cat([batch["input_ids"] for batch in loader])
    assert len(seen) == len(dataset)
    assert any(torch.equal(row, first) for row in seen)


def test_rows_are_a_sequence(packed: sabiprep.PackReport, tmp_path: Path) -> None:
    with open_dataset(packed.out) as opened:
        dataset = RowDataset(opened)
        last = dataset[-1]
        assert torch.equal(last["labels"], dataset[len(dataset) - 1]["labels"])
        assert last["labels"].ne(-100).sum() == last["n_targets"]
        copy = pickle.loads(pickle.dumps(dataset))
        assert torch.equal(copy[3]["input_ids"], dataset[3]["input_ids"])
        with pytest.raises(IndexError):
            dataset[len(dataset)]
    with pytest.raises(DatasetError, match="no split 'test'"):
        RowDataset(packed.out, "test")
    with pytest.raises(DatasetError):
        RowDataset(tmp_path)
