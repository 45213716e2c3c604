"""The table of architectures. A new one is one file beside this one and one line of the table."""

from __future__ import annotations

ARCHITECTURES: dict[str, str] = {
    "llama": "sabitrain.models.llama:LlamaArchitecture",
    "mistral": "sabitrain.models.mistral:MistralArchitecture",
    "qwen2": "sabitrain.models.qwen2:Qwen2Architecture",
    "qwen3": "sabitrain.models.qwen3:Qwen3Architecture",
    "gemma3_text": "sabitrain.models.gemma3:Gemma3Architecture",
    "olmo2": "sabitrain.models.olmo2:Olmo2Architecture",
}
"""The class of each architecture, by ``model_type`` of Hugging Face: ``module:name``.

Modules are named, not imported: a command line is checked without torch.
`sabitrain.models.architecture.architecture_of` imports them.
"""
