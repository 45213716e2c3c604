"""The fingerprint of datasets, kept with each checkpoint: a run goes on with the same data.

The fingerprint alone says whether anything changed. The parts of the manifest kept beside it name
the change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sabiprep.dataset import PackedDataset
from sabiprep.errors import DatasetError
from sabitrain.data.datasets import Datasets

_PARTS = (
    "datasets",
    "inputs",
    "tokenizer",
    "config",
    "seq_len",
    "id_dtype",
    "seed",
    "sources",
    "splits",
)
# The keys that name an entry of a list of the manifest, and those not worth keeping.
_NAMES = ("name", "path", "file")
_LEFT_OUT = ("examples", "probes", "inputs")
_SHOWN = 4


def fingerprint_of(data: Datasets) -> dict[str, Any]:
    """Returns the fingerprint of the datasets with parts of their manifests, as plain JSON."""
    if len(data.parts) == 1:
        return _fingerprint_of(data.parts[0])
    return {
        "fingerprint": data.rows.fingerprint,
        "datasets": [
            {"name": str(number), **_fingerprint_of(part)}
            for number, part in enumerate(data.parts, 1)
        ],
    }


def _fingerprint_of(dataset: PackedDataset) -> dict[str, Any]:
    """Returns the fingerprint of one dataset and parts of its manifest."""
    parts = {name: _trim(dataset.manifest[name]) for name in _PARTS if name in dataset.manifest}
    return {"fingerprint": dataset.fingerprint, **parts}


def check_fingerprint(saved: Mapping[str, Any], data: Datasets) -> None:
    """Refuses datasets other than those of a checkpoint.

    Raises:
        DatasetError: If the datasets differ; the message names the change.
    """
    if saved["fingerprint"] == data.rows.fingerprint:
        return
    # In the order of the parts that explain others: other inputs change all sums.
    now = fingerprint_of(data)
    found = [line for part in _PARTS for line in changes(saved.get(part), now.get(part), part)]
    told = "; ".join(found[:_SHOWN]) or "its manifest is another"
    more = f"; and {len(found) - _SHOWN} more differences" if len(found) > _SHOWN else ""
    raise DatasetError(
        f"this is not the dataset that the run was trained on so far: {told}{more}",
        file=str(data.rows.path),
        remedy="name the dataset as it was with --data, or start another run with this one",
    )


def changes(before: Any, now: Any, place: str) -> list[str]:
    """Returns the differences between two JSON values, a line each.

    Args:
        before: The value in the checkpoint.
        now: The value in the dataset.
        place: The place of the value in the manifest.
    """
    before, now = _by_name(before), _by_name(now)
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        lines = []
        for key in [*before, *(key for key in now if key not in before)]:
            inside = f"{place} '{key}'" if isinstance(key, _Name) else f"{place}.{key}"
            if key not in now:
                lines.append(f"{inside} is gone")
            elif key not in before:
                lines.append(f"{inside} is new")
            else:
                lines += changes(before[key], now[key], inside)
        return lines
    return [] if before == now else [f"{place} was {_short(before)} and is {_short(now)}"]


class _Name(str):
    """The key of an entry that a list holds."""

    __slots__ = ()


def _by_name(value: Any) -> Any:
    """Returns a list of entries with names as a mapping, any other value as it is.

    One more entry in a list then does not make all later entries different.
    """
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        # The first key that every entry has, with a value of its own, names the entries.
        for key in _NAMES:
            names = [entry.get(key) for entry in value]
            if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
                return {_Name(entry[key]): entry for entry in value}
    return value


def _trim(value: Any) -> Any:
    """Returns a part of the manifest without long values that follow from the rest."""
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        return [
            {key: inner for key, inner in entry.items() if key not in _LEFT_OUT} for entry in value
        ]
    if isinstance(value, dict):
        return {key: inner for key, inner in value.items() if key not in _LEFT_OUT}
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
