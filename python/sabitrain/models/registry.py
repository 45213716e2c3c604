"""The table of architectures. A new one is one file beside this one and one line of the table."""

from __future__ import annotations

ARCHITECTURES: dict[str, str] = {
    "llama": "sabitrain.models.llama:LlamaArchitecture",
}
"""The class of each architecture, by ``model_type`` of Hugging Face: ``module:name``.

Modules are named, not imported: a command line is checked without torch.
`sabitrain.models.architecture.architecture_of` imports them.
"""
