"""The roles of tokens, as shards store them."""

from __future__ import annotations

from enum import IntEnum


class Role(IntEnum):
    """The role of a token.

    Under ``target_only``, targets and the closing EOS are trained, nothing else.
    """

    CONTROL = 0
    """BOS or EOS, put there by the configuration; padding counts as control too."""
    TEMPLATE = 1
    """Text of a prompt that its template spells."""
    DATA = 2
    """Text of a prompt that comes from a field of the record."""
    TARGET = 3
    """Text of a target."""

    @property
    def letter(self) -> str:
        """The letter that marks it where there is no colour; a template's is p, for prompt."""
        return "cpdt"[self]

    @property
    def colour(self) -> str:
        """The colour that marks it, by its name in rich."""
        return ("magenta", "cyan", "yellow", "green")[self]
