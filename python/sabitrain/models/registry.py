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

TEXT_MODELS = {"gemma3": "of Gemma 3 those of 270M and 1B are (model_type gemma3_text)"}
"""The text models of a family whose other models, by their ``model_type``, take more than text."""
