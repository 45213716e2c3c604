"""How settings are declared: sections of a configuration, each checked where it is made.

A section is a frozen dataclass in the ``settings`` module of the wing that it configures. Some are
tables of the TOML file (``[optim]``, ``--optim.lr``); `sabitrain.config.TrainConfig` inherits from
the others, so that their settings have plain names (``--epochs``). These modules do without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from sabiprep.errors import ConfigError

Switch = Literal["auto", "on", "off"]
"""A choice that is left to the program, or made."""
MAY_CHANGE: Mapping[str, Any] = {"may_change": True}
"""Metadata of a setting that may change on resume: it does not affect the trained weights."""
THIS_SESSION: Mapping[str, Any] = {"may_change": True, "saved": False}
"""Metadata of a setting that one session alone is given: ``config.toml`` does not keep it."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """Settings that belong together."""

    def __post_init__(self) -> None:
        """Ends the chain of checks: each section calls the check of the next."""


def require(right: bool, message: str, remedy: str | None = None) -> None:
    """Raises `ConfigError` with ``message`` and remedy unless a condition on a setting holds."""
    if not right:
        raise ConfigError(message, remedy=remedy)


def names_where(section: type[Section], key: str, value: bool) -> set[str]:
    """Returns the settings of a section whose metadata has ``value`` under ``key``."""
    return {one.name for one in fields(section) if one.metadata.get(key) is value}
