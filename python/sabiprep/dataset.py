"""A packed dataset, opened for reading: map-style splits over memory-mapped shards.

The compiled core is not needed.

Labels, positions, boundaries and the roles of each token are derived here from the stored columns,
and nowhere else.

- ``labels`` are unshifted, as Hugging Face has them: ``input_ids`` where the mask is true, -100
  elsewhere. ``loss_mask[i]`` means that token i is trained, by the prediction made at i - 1 of the
  same document.
- A *segment* of a row is a document, or the padding: a row that is not full has its padding as one
  more segment, so that ``cu_seqlens`` always ends with the number of tokens. Positions restart at
  each segment.
- Ids and labels are int64, since torch indexes with nothing smaller; lengths are int32, as
  attention kernels want them.

Dimensions: B rows, T tokens of a row, D documents, S segments.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any, NotRequired, Self, SupportsIndex, TypedDict

import numpy as np
import numpy.typing as npt

from sabiprep.block import DOCUMENT_COLUMNS, RUN_COLUMNS, WEIGHTS, Block, Ragged
from sabiprep.doc_id import RecordId
from sabiprep.errors import DatasetError
from sabiprep.manifest import Manifest, SourceInfo, read_manifest
from sabiprep.places import StrPath, is_remote
from sabiprep.remote_dataset import FetchAhead, RemoteFiles
from sabiprep.shard import Shard

__all__ = ["BatchDict", "PackedDataset", "RowDict", "SourceInfo", "Split", "open_dataset"]

IGNORED_LABEL = -100

Place = tuple[Block, int]
"""A row: the block that holds it, and its number in there."""


class RowDict(TypedDict):
    """One row; T is ``seq_len``, D its documents, S its segments (D, and one more if it is padded).

    Attributes:
        input_ids: int64[T]; ``pad_id`` in the padding.
        labels: int64[T]: ``input_ids`` where ``loss_mask``, else -100; unshifted.
        loss_mask: bool[T]: whether the token is trained.
        position_ids: int64[T]: from 0 in each segment.
        cu_seqlens: int32[S + 1]: where each segment starts, and T.
        roles: uint8[T]: 0 control and padding, 1 template text, 2 prompt data, 3 target.
        seq_lengths: int32[D]: tokens of each document.
        source_ids: uint16[D]: each document's source.
        record_ids: uint64[D]: each document's record within its source.
        doc_parts: uint32[D]: copy << 24 | document of its record << 16 | window.
        n_targets: True tokens of ``loss_mask``.
        doc_weights: float32[D]: the weight of each document in the loss; only of a dataset that has
            weights, as ``loss_weights``.
        loss_weights: float32[T]: the weight of the document where ``loss_mask``, else 0.
    """

    input_ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    loss_mask: npt.NDArray[np.bool_]
    position_ids: npt.NDArray[np.int64]
    cu_seqlens: npt.NDArray[np.int32]
    roles: npt.NDArray[np.uint8]
    seq_lengths: npt.NDArray[np.int32]
    source_ids: npt.NDArray[np.uint16]
    record_ids: npt.NDArray[np.uint64]
    doc_parts: npt.NDArray[np.uint32]
    n_targets: int
    doc_weights: NotRequired[npt.NDArray[np.float32]]
    loss_weights: NotRequired[npt.NDArray[np.float32]]


class BatchDict(TypedDict):
    """Several rows: the token arrays of `RowDict` stacked, its document arrays concatenated.

    Attributes:
        input_ids: int64[B, T].
        labels: int64[B, T]; left out where they are not asked for.
        loss_mask: bool[B, T].
        position_ids: int64[B, T].
        cu_seqlens: int32[S + 1] over the B * T tokens of the rows laid end to end; it ends with B *
            T.
        roles: uint8[B, T].
        seq_lengths: int32[D].
        source_ids: uint16[D].
        record_ids: uint64[D].
        doc_parts: uint32[D].
        doc_rows: int32[D]: the row of the batch that holds each document.
        n_targets: int32[B].
        max_seqlen: Tokens of the longest segment, padding included; 0 in an empty batch.
        doc_weights: float32[D], where a row is of a dataset with weights; 1 elsewhere.
        loss_weights: float32[B, T], where there are weights, and labels are asked for.
    """

    input_ids: npt.NDArray[np.int64]
    labels: NotRequired[npt.NDArray[np.int64]]
    loss_mask: npt.NDArray[np.bool_]
    position_ids: npt.NDArray[np.int64]
    cu_seqlens: npt.NDArray[np.int32]
    roles: npt.NDArray[np.uint8]
    seq_lengths: npt.NDArray[np.int32]
    source_ids: npt.NDArray[np.uint16]
    record_ids: npt.NDArray[np.uint64]
    doc_parts: npt.NDArray[np.uint32]
    doc_rows: npt.NDArray[np.int32]
    n_targets: npt.NDArray[np.int32]
    max_seqlen: int
    doc_weights: NotRequired[npt.NDArray[np.float32]]
    loss_weights: NotRequired[npt.NDArray[np.float32]]


class Split:
    """The rows of one split, as a sequence of `RowDict`.

    It can be pickled, and used after a fork.
    """

    def __init__(self, name: str, shards: tuple[Shard, ...], manifest: Manifest) -> None:
        """Lays the shards end to end; nothing is opened yet."""
        self.name = name
        self._shards = shards
        self._seq_len = manifest.seq_len
        self._id_dtype = np.dtype(manifest.id_dtype)
        self._rows_per_block = manifest.rows_per_batch
        self._shard_ends = list(accumulate(shard.rows for shard in shards))

    def __len__(self) -> int:
        """Returns the number of rows."""
        return self._shard_ends[-1] if self._shard_ends else 0

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state without ``n_targets``, which a copy reads again at its first use."""
        return {name: value for name, value in self.__dict__.items() if name != "n_targets"}

    @cached_property
    def n_targets(self) -> npt.NDArray[np.int32]:
        """The targets of every row, int32[rows], read on first use and read-only."""
        counts = np.concatenate(
            [np.empty(0, np.int32), *(shard.n_targets() for shard in self._shards)]
        )
        counts.setflags(write=False)
        return counts

    def __getitem__(self, index: SupportsIndex) -> RowDict:
        """Returns row ``index``, counted from the end if negative.

        Raises:
            IndexError: If there is no such row.
            DatasetError: If the shard is damaged there.
        """
        batch = self.batch([index])
        row = RowDict(
            input_ids=batch["input_ids"][0],
            labels=batch["labels"][0],
            loss_mask=batch["loss_mask"][0],
            position_ids=batch["position_ids"][0],
            cu_seqlens=batch["cu_seqlens"],
            roles=batch["roles"][0],
            seq_lengths=batch["seq_lengths"],
            source_ids=batch["source_ids"],
            record_ids=batch["record_ids"],
            doc_parts=batch["doc_parts"],
            n_targets=int(batch["n_targets"][0]),
        )
        if "doc_weights" in batch:
            row["doc_weights"] = batch["doc_weights"]
            row["loss_weights"] = batch["loss_weights"][0]
        return row

    def batch(self, indices: Iterable[SupportsIndex], labels: bool = True) -> BatchDict:
        """Returns the rows at ``indices``, in that order, negative ones counted from the end.

        Args:
            indices: The rows.
            labels: Whether to make ``labels``; the trainer goes by ``loss_mask`` instead.

        Raises:
            IndexError: If there is no such row.
            DatasetError: If a shard is damaged there.
        """
        return batch_of(self.find(indices), self._seq_len, labels)

    def find(self, indices: Iterable[SupportsIndex]) -> list[Place]:
        """Returns the places of the rows at ``indices``, each in its block.

        Raises:
            IndexError: If there is no such row.
            DatasetError: If a shard is damaged there.
        """
        places = []
        for index in indices:
            row = asked = operator.index(index)
            if row < 0:
                row += len(self)
            if not 0 <= row < len(self):
                raise IndexError(f"row {asked} of a split of {len(self)} rows")
            # Right of equal ends, so that an empty shard is passed over.
            position = bisect_right(self._shard_ends, row)
            shard = self._shards[position]
            number, row = divmod(
                row - self._shard_ends[position] + shard.rows, self._rows_per_block
            )
            block = shard.block(number)
            if row >= block.sound:
                raise block.damaged(
                    block.sound, "its lengths, sources and roles contradict each other"
                )
            places.append((block, row))
        return places


class PackedDataset:
    """A packed dataset: its manifest and its splits.

    It can be used in ``with``, pickled, and used after a fork.

    Attributes:
        path: The dataset's folder; the URL of one in an object store.
        folder: The folder on this machine with the manifest and the tokenizer: ``path``, or one of
            the cache.
        manifest: The parsed ``manifest.json``.
        fingerprint: The sha256 of the manifest over itself, which changes with anything in the
            dataset.
        seq_len: Tokens in a row.
        vocab_size: Largest id of the tokenizer + 1.
        bos_id: The token that opens each document, if one does.
        eos_id: The token that closes a document.
        pad_id: The token that fills a row up.
        sources: The sources, by id.
        tokenizer_path: The tokenizer's file.
        weighted: Whether documents have weights in the loss.
        train: The training split.
        validation: The validation split; it may have no row.
    """

    def __init__(self, path: Path, manifest: Manifest, remote: RemoteFiles | None = None) -> None:
        """Describes the dataset; `open_dataset` also checks its shards.

        Args:
            path: The folder with the manifest and the tokenizer.
            manifest: The manifest.
            remote: The files of the dataset, if they are in an object store.
        """
        self.path: Path | str = path if remote is None else remote.place
        self.folder = path
        self.manifest = manifest.raw
        self.fingerprint = manifest.digest
        self.seq_len = manifest.seq_len
        self.vocab_size = manifest.vocab_size
        self.bos_id = manifest.bos_id
        self.eos_id = manifest.eos_id
        self.pad_id = manifest.pad_id
        self.sources = list(manifest.sources)
        self.tokenizer_path = path / manifest.tokenizer_file
        self.weighted = manifest.weighted
        self._shards = {
            name: tuple(Shard(path, info, manifest, remote) for info in infos)
            for name, infos in manifest.shards.items()
        }
        self._splits = {
            name: Split(name, shards, manifest) for name, shards in self._shards.items()
        }
        self._remote, self._infos = remote, manifest.shards
        self._ahead: FetchAhead | None = None

    @property
    def train(self) -> Split:
        """The training split."""
        return self._splits["train"]

    @property
    def validation(self) -> Split:
        """The validation split; it may have no row."""
        return self._splits["validation"]

    def __getitem__(self, name: str) -> Split:
        """Returns the split called ``name``, "train" or "validation".

        Raises:
            DatasetError: If there is no such split.
        """
        if name not in self._splits:
            raise DatasetError(
                f"no split {name!r}",
                file=str(self.path),
                remedy=f"name one of {', '.join(self._splits)}",
            )
        return self._splits[name]

    def place(self, source_id: int, record_id: int) -> str:
        """Returns the place of a record of a source: its file, and the byte or the row in it.

        A record id is the index of its input within the source << 40 | its place in that input.

        Raises:
            DatasetError: If the manifest has no such source, or no such input of it.
        """
        inputs, record = self.manifest["sources"][source_id]["inputs"], RecordId.unpack(record_id)
        if record.input >= len(inputs):
            raise DatasetError(
                f"record {record_id} is of input {record.input} of its source, "
                f"which has {len(inputs)}",
                file=str(self.path),
                source=self.sources[source_id].name,
                remedy=f"sabiprep verify {self.path} tells what else is wrong",
            )
        if self.sources[source_id].format in ("parquet", "arrow"):
            return f"{inputs[record.input]}, row {record.offset + 1:,}"
        return f"{inputs[record.input]} at byte {record.offset:,}"

    def check(self) -> None:
        """Checks size, schema and number of rows of every shard, reading no row.

        Raises:
            DatasetError: If a shard is missing or contradicts the manifest.
        """
        for shards in self._shards.values():
            for shard in shards:
                shard.check()

    def fetch_ahead(self) -> None:
        """Begins to fetch the shards of a dataset in an object store, those of training first.

        A thread fetches them in order, until all are in the cache or it is full; a row whose shard
        is not there yet is fetched when it is read, as always. Nothing is done for a dataset on
        this machine.
        """
        if self._remote is not None and self._ahead is None:
            infos = (info for name in ("train", "validation") for info in self._infos[name])
            self._ahead = FetchAhead(self._remote, infos)

    def close(self) -> None:
        """Closes the shards, and ends the fetching ahead.

        Arrays that were given out stay valid. Reading on opens the shards again.
        """
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None
        for shards in self._shards.values():
            for shard in shards:
                shard.close()

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state without the thread that fetches ahead."""
        return {**self.__dict__, "_ahead": None}

    def __enter__(self) -> Self:
        """Returns the dataset, closed at the end of the ``with``."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the shards."""
        self.close()

    def __repr__(self) -> str:
        """Returns the folder and the rows of each split."""
        rows = ", ".join(f"{name}: {len(split)} rows" for name, split in self._splits.items())
        return f"PackedDataset({str(self.path)!r}, seq_len={self.seq_len}, {rows})"


def open_dataset(path: StrPath) -> PackedDataset:
    """Opens the packed dataset in the folder ``path``: the OUT of ``sabiprep pack``.

    The manifest is checked against its own sha256, and each shard's size, schema and rows against
    the manifest; the shards' contents are not read (``sabiprep verify`` does that).

    A dataset in an object store is named by its URL, as ``s3://BUCKET/OUT``. Each of its shards is
    fetched into the cache when a row of it is first read, and held against its checksum and the
    manifest then (`sabiprep.cache`).

    Raises:
        DatasetError: If the dataset is unfinished, damaged, or of another format version, or its
            object store cannot be reached or refuses access.
        ConfigError: If a URL names no folder, or holds a password or a query.
        SabiprepError: If ``obstore`` is not installed.
    """
    if is_remote(path):
        remote = RemoteFiles(path)
        manifest = remote.open()
        return PackedDataset(remote.folder, manifest, remote)
    folder = Path(path)
    dataset = PackedDataset(folder, read_manifest(folder))
    try:
        dataset.check()
    except DatasetError:
        dataset.close()
        raise
    return dataset


def batch_of(places: Sequence[Place], seq_len: int, labels: bool = True) -> BatchDict:
    """Returns the rows at ``places`` as one batch.

    Each has ``seq_len`` tokens, and all ids have one width.

    Positions, roles and boundaries are made from run-lengths, without a look at tokens, in 4 bytes
    a token or fewer; the 8 that torch wants come last.

    Raises:
        DatasetError: If a row is damaged: an id beyond the vocabulary, a mask that is not of its
            documents.
    """
    B, T = len(places), seq_len
    stored_BT, bits_BK = _ids(places, T), _mask_bits(places, T)
    ids_BT = stored_BT.astype(np.int64)
    mask_BT = np.unpackbits(bits_BK, axis=1, count=T, bitorder="little").view(np.bool_)
    # The largest arrays come first: freed together, they leave the allocator room for the next
    # batch. Made last, labels cost three times the time of all, in pages that go back and forth.
    labels_BT = np.full((B, T), IGNORED_LABEL, np.int64) if labels else None
    if labels_BT is not None:
        np.copyto(labels_BT, ids_BT, where=mask_BT)
    documents = _pieces([(block.documents, row) for block, row in places], DOCUMENT_COLUMNS)
    runs = _pieces([(block.runs, row) for block, row in places], RUN_COLUMNS)
    padding_B = np.array([block.padding[row] for block, row in places], np.int32)
    lengths_S = _joined(_each_followed(documents["seq_lengths"], padding_B), np.int32)
    # No document is empty, but the padding of a row that is full.
    lengths_S = lengths_S[lengths_S > 0]
    starts = np.zeros(len(lengths_S) + 1, np.int32)
    np.cumsum(lengths_S, out=starts[1:])
    n_targets_B = np.array([block.n_targets[row] for block, row in places], np.int32)
    _refuse_damaged(places, stored_BT, bits_BK, n_targets_B)
    _refuse_firsts(places, mask_BT, starts[:-1])
    run_lengths = _joined(_each_followed(runs["segment_lengths"], padding_B), np.int32)
    run_roles = _joined(_each_followed(runs["segment_roles"], np.zeros(B, np.uint8)), np.uint8)
    batch = BatchDict(
        input_ids=ids_BT,
        loss_mask=mask_BT,
        position_ids=_positions(starts, lengths_S).reshape(B, T),
        cu_seqlens=starts,
        roles=np.repeat(run_roles, run_lengths).reshape(B, T),
        seq_lengths=_joined(documents["seq_lengths"], np.int32),
        source_ids=_joined(documents["source_ids"], np.uint16),
        record_ids=_joined(documents["record_ids"], np.uint64),
        doc_parts=_joined(documents["doc_parts"], np.uint32),
        doc_rows=np.repeat(
            np.arange(B, dtype=np.int32), [len(piece) for piece in documents["seq_lengths"]]
        ),
        n_targets=n_targets_B,
        max_seqlen=int(lengths_S.max(initial=0)),
    )
    if labels_BT is not None:
        batch["labels"] = labels_BT
    weights = _weights(places, documents["seq_lengths"])
    if weights is not None:
        batch["doc_weights"] = _joined(weights, np.float32)
    if weights is not None and labels:
        # Padding counts as a document of weight 0 behind those of its row.
        padded = _each_followed(weights, np.zeros(B, np.float32))
        of_padding = _each_followed(documents["seq_lengths"], padding_B)
        weights_N = np.repeat(_joined(padded, np.float32), _joined(of_padding, np.int32))
        batch["loss_weights"] = weights_N.reshape(B, T) * mask_BT
    return batch


def _refuse_damaged(
    places: Sequence[Place],
    stored_BT: npt.NDArray[Any],
    bits_BK: npt.NDArray[np.uint8],
    n_targets_B: npt.NDArray[np.int32],
) -> None:
    """Refuses rows whose ids or masks cannot be right: training would fail far from the file.

    Ids are looked at as they are stored and masks as bits, which takes a fraction of the time.

    Raises:
        DatasetError: If there is such a row.
    """
    # The smallest vocabulary of all shards first: one comparison clears nearly every batch.
    vocab_size = min([block.vocab_size for block, _ in places], default=0)
    if stored_BT.max(initial=0) >= vocab_size:
        for (block, row), ids_T in zip(places, stored_BT, strict=True):
            if ids_T.max() >= block.vocab_size:
                raise block.damaged(
                    row, f"id {ids_T.max()} is beyond the vocabulary of {block.vocab_size}"
                )
    # Eight bytes at a time, where rows have whole words.
    words = bits_BK.view(np.uint64) if bits_BK.shape[1] % 8 == 0 else bits_BK
    wrong_B = np.bitwise_count(words).sum(axis=1, dtype=np.int32) != n_targets_B
    if wrong_B.any():
        block, row = places[int(wrong_B.argmax())]
        raise block.damaged(row, "its n_targets is not what its loss mask has")


def _refuse_firsts(
    places: Sequence[Place], mask_BT: npt.NDArray[np.bool_], starts_S: npt.NDArray[np.int32]
) -> None:
    """Refuses rows that train padding or a document's first token: nothing predicts either.

    Raises:
        DatasetError: If there is such a row.
    """
    firsts_S = mask_BT.reshape(-1)[starts_S]
    if firsts_S.any():
        block, row = places[int(starts_S[firsts_S.argmax()]) // mask_BT.shape[1]]
        raise block.damaged(row, "its loss mask has the first token of a document, or padding")


def _ids(places: Sequence[Place], T: int) -> npt.NDArray[Any]:
    """Returns the ids of rows as they are stored: uint16 or uint32[B, T]."""
    stored = places[0][0].ids.format if places else "H"
    return _joined([block.ids[row * T : row * T + T] for block, row in places], stored).reshape(
        len(places), T
    )


def _mask_bits(places: Sequence[Place], T: int) -> npt.NDArray[np.uint8]:
    """Returns the loss masks of rows, a bit a token: uint8[B, K]."""
    B, K = len(places), -(-T // 8)
    return _joined(
        [block.mask_bits[row * K : row * K + K] for block, row in places], np.uint8
    ).reshape(B, K)


def _positions(
    starts: npt.NDArray[np.int32], lengths_S: npt.NDArray[np.int32]
) -> npt.NDArray[np.int64]:
    """Returns each token's position in its segment: int64[B * T]."""
    positions_N = np.arange(starts[-1], dtype=np.int32)
    positions_N -= np.repeat(starts[:-1], lengths_S)
    return positions_N.astype(np.int64)


def _pieces(
    rows: Sequence[tuple[Ragged, int]], names: Sequence[str]
) -> dict[str, list[memoryview]]:
    """Returns the values of each row, by column."""
    spans = [(ragged.columns, ragged.bounds[row], ragged.bounds[row + 1]) for ragged, row in rows]
    return {name: [columns[name][first:end] for columns, first, end in spans] for name in names}


def _weights(places: Sequence[Place], lengths: Sequence[memoryview]) -> list[memoryview] | None:
    """Returns the weights of each row's documents, 1 where a dataset has none.

    Returns None if no row is of a dataset with weights.
    """
    if not any(WEIGHTS in block.documents.columns for block, _ in places):
        return None
    return [
        _pieces([(block.documents, row)], (WEIGHTS,))[WEIGHTS][0]
        if WEIGHTS in block.documents.columns
        else np.ones(len(of_row), np.float32).data
        for (block, row), of_row in zip(places, lengths, strict=True)
    ]


def _each_followed(pieces: Sequence[memoryview], by: npt.NDArray[Any]) -> list[memoryview]:
    """Returns the pieces, each followed by its value of ``by``."""
    values = by.data
    return [piece for row, own in enumerate(pieces) for piece in (own, values[row : row + 1])]


def _joined(pieces: Sequence[memoryview], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Returns the values end to end, in memory of their own."""
    return np.frombuffer(bytearray().join(pieces), dtype)
