"""Patterns of parameters' names, as ``model.layers.0.*``: `*` stands for any text."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Collection, Sequence

from sabiprep.errors import ConfigError

_NEAR = 3


def matching(pattern: str, names: Collection[str], setting: str) -> Sequence[str]:
    """Returns the names that a pattern of a setting matches, at least one.

    Raises:
        ConfigError: If the pattern matches none; the message names near ones.
    """
    found = fnmatch.filter(names, pattern)
    if not found:
        near = difflib.get_close_matches(pattern, names, n=_NEAR, cutoff=0.0)
        raise ConfigError(
            f"{setting} {pattern!r} matches no parameter",
            remedy=f"near ones are {', '.join(near)}; `*` stands for any text",
        )
    return found
