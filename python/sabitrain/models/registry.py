"""The table of architectures. A new one is one file beside this one and one line of the table."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sabiprep.errors import ConfigError

if TYPE_CHECKING:
    from sabitrain.models.architecture import Architecture

ARCHITECTURES: dict[str, str] = {
    "llama": "sabitrain.models.llama:LlamaArchitecture",
}
"""The class of each architecture, by ``model_type`` of Hugging Face: ``module:name``.

Modules are named, not imported: a command line is checked without torch.
"""


def architecture_of(model_type: str) -> Architecture:
    """Returns an architecture by its name in `ARCHITECTURES`.

    Raises:
        ConfigError: If there is none of that name.
    """
    if model_type not in ARCHITECTURES:
        raise ConfigError(
            f"no architecture {model_type!r}", remedy=f"use one of {', '.join(ARCHITECTURES)}"
        )
    module, _, name = ARCHITECTURES[model_type].partition(":")
    kind: Any = getattr(importlib.import_module(module), name)
    made: Architecture = kind()
    return made
