"""Checkpoints of Hugging Face's layout in an object store, fetched into the cache.

The files are asked for by name, so that a place that cannot be listed, as of ``https``, will do.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import secrets
import shutil
from pathlib import Path

from sabiprep.cache import cache_error, cache_folder, hold, make_room, write_at
from sabiprep.errors import InputError, SabiprepError, TrainError
from sabiprep.files import CONFIG_LIMIT, MANIFEST_LIMIT, open_regular
from sabiprep.object_stores import Bucket, Head
from sabiprep.places import StrPath, join, name, parent
from sabitrain.checkpoints.pretrained import (
    ADAPTED_FILE,
    CONFIG_FILE,
    GENERATION_FILE,
    INDEX_FILE,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
)
from sabitrain.data.tokenizer import CHAT_TEMPLATE

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "base.json")
_BESIDE = (
    GENERATION_FILE,
    TOKENIZER_FILE,
    TOKENIZER_CONFIG_FILE,
    CHAT_TEMPLATE,
    ADAPTED_FILE,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
_POINTER = re.compile(r"checkpoints/step-\d{8,}\n?")
_MOST_POINTER = 100


def fetch_checkpoint(place: StrPath, weights: bool = True) -> Path:
    """Returns the folder of the cache that holds a checkpoint, fetched where it does not.

    Args:
        place: The URL of a checkpoint's folder, or of ``checkpoint`` of a run, which leads to its
            newest.
        weights: Whether the weights are fetched too.

    Raises:
        ConfigError: If the URL names no folder, or holds a password or a query.
        InputError: If the store cannot be reached, or refuses access.
        TrainError: If there is no checkpoint.
        SabiprepError: If ``obstore`` is not installed.
    """
    bucket = Bucket(place)
    heads = _heads(bucket, weights)
    if not heads:
        led = _led_to(bucket)
        if led is not None:
            bucket = led
            heads = _heads(bucket, weights)
    if not heads:
        raise TrainError(
            f"no checkpoint is there: neither {CONFIG_FILE} nor {ADAPTER_FILES[0]}",
            file=bucket.place,
            remedy="name a folder with config.json and model.safetensors; of a run of sabitrain "
            "that is RUN/checkpoint",
        )
    # By what the store says of each file, so that a checkpoint that has changed is fetched anew.
    described = json.dumps([bucket.place, sorted((file, vars(heads[file])) for file in heads)])
    folder = cache_folder() / "checkpoints" / hashlib.sha256(described.encode()).hexdigest()
    try:
        try:
            hold(folder)
        except FileNotFoundError:
            _fetch(bucket, heads, folder)
            hold(folder)
    except SabiprepError:
        raise
    except OSError as error:
        raise cache_error(error, folder.parent) from error
    return folder


def _heads(bucket: Bucket, weights: bool) -> dict[str, Head]:
    """Returns what the store says of each file of a checkpoint; nothing if there is none."""
    heads = {
        file: head
        for file in (CONFIG_FILE, ADAPTER_FILES[0])
        if (head := _head(bucket, file)) is not None
    }
    if not heads:
        return {}
    wanted = [*_BESIDE, *ADAPTER_FILES[1:]]
    if weights:
        wanted += [WEIGHTS_FILE]
    for file in wanted:
        try:
            head = _head(bucket, file)
        except PermissionError:
            # A store that may not be listed says so of what it has not.
            head = None
        if head is not None:
            heads[file] = head
    if weights and CONFIG_FILE in heads and WEIGHTS_FILE not in heads:
        heads |= _shards(bucket)
    return heads


def _head(bucket: Bucket, file: str) -> Head | None:
    """Returns what the store says of a file; None if there is none."""
    try:
        return bucket.head(file)
    except FileNotFoundError:
        return None


def _shards(bucket: Bucket) -> dict[str, Head]:
    """Returns the index of weights in several files, and those files; nothing without an index."""
    index = _head(bucket, INDEX_FILE)
    if index is None:
        return {}
    try:
        named = json.loads(bucket.read(INDEX_FILE, MANIFEST_LIMIT))["weight_map"].values()
        names = {str(file) for file in named}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        names = set()
    # What else is wrong with it is said where it is opened.
    plain = {file for file in names if re.fullmatch(r"[\w.-]+\.safetensors", file)}
    return {INDEX_FILE: index, **{file: bucket.head(file) for file in sorted(plain)}}


def _led_to(bucket: Bucket) -> Bucket | None:
    """Returns the newest checkpoint of a run, which the object of its link leads to."""
    if "/" not in bucket.place.partition("://")[2]:
        return None
    above = Bucket(parent(bucket.place))
    try:
        text = above.read(name(bucket.place), _MOST_POINTER).decode("ascii", "replace")
    except InputError as error:
        if isinstance(error, PermissionError) or error.errno is None:
            raise
        return None
    return Bucket(join(above.place, text.strip())) if _POINTER.fullmatch(text) else None


def _fetch(bucket: Bucket, heads: dict[str, Head], folder: Path) -> None:
    """Fetches files into a new folder, which appears whole."""
    make_room(sum(head.size for head in heads.values()), keep=folder)
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")
    unfinished.mkdir(parents=True)
    # Another process that makes room leaves it alone.
    held = hold(unfinished)
    try:
        for file, head in heads.items():
            if not file.endswith(".safetensors") and head.size > max(CONFIG_LIMIT, MANIFEST_LIMIT):
                raise InputError(f"{head.size:,} bytes are too many", file=join(bucket.place, file))
            descriptor = open_regular(unfinished / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                bucket.fetch(file, head, functools.partial(write_at, descriptor))
            finally:
                os.close(descriptor)
        try:
            unfinished.rename(folder)
        except OSError:
            # Another process was faster.
            if not folder.is_dir():
                raise
    finally:
        os.close(held)
        shutil.rmtree(unfinished, ignore_errors=True)
