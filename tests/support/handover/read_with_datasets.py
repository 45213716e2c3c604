"""Prints the rows of an export as `datasets` reads them, by split.

python read_with_datasets.py EXPORT disk | folder | webdataset
"""

from __future__ import annotations

import json
import sys
import tempfile

import datasets


def main(export: str, kind: str) -> None:
    """Reads, and prints one JSON object: the type of ids and the rows of each split."""
    if kind == "disk":
        read = datasets.load_from_disk(export)
    else:
        with tempfile.TemporaryDirectory() as cache:
            # Not by the name of the format: the library finds it, and the splits, in the files.
            read = datasets.load_dataset(export, cache_dir=cache, keep_in_memory=True)
    rows = {}
    for split, of in read.items():
        kept = [name for name in of.column_names if name not in ("__key__", "__url__")]
        rows[split] = of.select_columns(kept).to_list()
    print(json.dumps({"rows": rows, "features": {k: str(v) for k, v in of.features.items()}}))


if __name__ == "__main__":
    main(*sys.argv[1:])
