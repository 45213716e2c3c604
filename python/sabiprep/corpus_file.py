"""Small files of a corpus or a dataset that Python looks at itself, on a disk or in a bucket."""

from __future__ import annotations

from sabiprep.files import CONFIG_LIMIT, read_whole
from sabiprep.places import StrPath, is_remote, join, place_of


def config_text(corpus: StrPath) -> str | None:
    """Returns the text of a corpus's ``corpus.toml``.

    Args:
        corpus: The folder, or its URL.

    Returns:
        The text; None if the file cannot be read: the core says what is wrong with it.

    Raises:
        InputError: If it is in a bucket that fails.
    """
    try:
        return small_file(join(corpus, "corpus.toml"), CONFIG_LIMIT).decode("utf-8-sig")
    except (OSError, ValueError):
        return None


def small_file(place: StrPath, limit: int) -> bytes:
    """Returns the content of a file of at most ``limit`` bytes, on a disk or in a bucket.

    Raises:
        OSError: If it is missing, cannot be read, or is larger.
        InputError: If it is in a bucket that fails.
    """
    if not is_remote(place):
        return read_whole(place_of(place), limit)
    from sabiprep import _core

    return _core.read_file(place_of(place), limit)
