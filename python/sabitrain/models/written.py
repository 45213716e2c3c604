"""A ``config.json``, read key by key: an unknown setting is refused by name, not passed over.

A key that is passed over may change what a model computes, and nobody would see it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sabiprep.errors import ConfigError
from sabitrain.models.rotary import RopeScaling

# Keys of ``transformers`` that change nothing in the logits of a causal model in training.
_WITHOUT_EFFECT = {
    # Of the programs that wrote a checkpoint.
    "is_llama_config",
    "max_sequence_length",
    "torchscript",
    "use_bfloat16",
    "tf_legacy_loss",
    "ignore_keys_at_rope_validation",
    "model_type",
    "torch_dtype",
    "dtype",
    "transformers_version",
    "use_cache",
    "cache_implementation",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    "decoder_start_token_id",
    "tokenizer_class",
    "prefix",
    "finetuning_task",
    "task_specific_params",
    "problem_type",
    "id2label",
    "label2id",
    "num_labels",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "chunk_size_feed_forward",
    "max_length",
    "min_length",
    "do_sample",
    "temperature",
    "top_p",
    "top_k",
    "suppress_tokens",
    "begin_suppress_tokens",
    "transformers.js_config",
    "unsloth_fixed",
    "unsloth_version",
}
# Settings that change nothing at the value that says so.
_WITHOUT_EFFECT_AT: dict[str, Any] = {
    "rope_interleaved": False,
    "use_mrope": False,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "tie_encoder_decoder": False,
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "pruned_heads": {},
    "rope_ratio": 1,
}
_LLAMA3_KEYS = ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


class WrittenConfig:
    """The settings of a ``config.json``, each taken once; `refuse_rest` names those left.

    Every method raises `ConfigError` for a value that cannot be right.
    """

    def __init__(self, written: Mapping[str, Any]) -> None:
        """Notes the settings, and refuses a model for anything else than causal prediction."""
        self._written = written
        self._taken: set[str] = {"architectures"}
        classes = written.get("architectures") or []
        if classes and not any(str(name).endswith("ForCausalLM") for name in classes):
            raise self._refused("architectures", "only causal language models (…ForCausalLM)")

    def count(self, key: str, default: int | None = None, most: int = 2**31 - 1) -> int:
        """Takes a whole number from 1 to ``most``; required if there is no default."""
        value = self._take(key, default)
        # Python's True is a whole number too.
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise self._refused(key, f"a whole number from 1 to {most:,}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Takes a finite number above 0; required if there is no default."""
        value = self._take(key, default)
        right = isinstance(value, int | float) and not isinstance(value, bool)
        if not right or not 0 < value < math.inf:
            raise self._refused(key, "a number above 0")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Takes true or false."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self._refused(key, "true or false")
        return value

    def table(self, key: str) -> Mapping[str, Any] | None:
        """Takes a JSON object, if there is one."""
        value = self._take(key, {})
        if not isinstance(value, dict):
            raise self._refused(key, "a JSON object")
        return value or None

    def texts(self, key: str) -> list[str] | None:
        """Takes a list of texts, if there is one."""
        value = self._take(key, [])
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise self._refused(key, "a list of texts")
        return value or None

    def expect(self, key: str, *values: Any) -> None:
        """Takes a setting that must be missing, null, or one of ``values``."""
        value = self._take(key, None)
        # 0 and False are one to Python; a setting that says 0 for false means it.
        if value is not None and value not in values:
            shown = " or ".join(str(each) for each in values) if values else "nothing"
            raise self._refused(key, f"{shown} in what this program computes")

    def is_null(self, key: str) -> bool:
        """Returns whether a setting is written as null, where that is no default."""
        self._taken.add(key)
        return key in self._written and self._written[key] is None

    def ignore(self, *keys: str) -> None:
        """Takes settings that have no effect, given the others."""
        self._taken.update(keys)

    def rope(self, theta: float) -> tuple[float, RopeScaling | None]:
        """Takes the rotary base and its scaling, written as before or since transformers 5.

        Args:
            theta: The base where none is written.
        """
        new, scaling = self.table("rope_parameters"), self.table("rope_scaling")
        base = self.number("rope_theta", theta)
        if new is None:
            return base, self.scaling("rope_scaling", scaling)
        read = self.scaling("rope_parameters", new)
        if scaling is not None and self.scaling("rope_scaling", scaling) != read:
            raise ConfigError("config.json: rope_scaling and rope_parameters say two things")
        inner = WrittenConfig(new)
        return inner.number("rope_theta", base), read

    def scaling(self, key: str, table: Mapping[str, Any] | None) -> RopeScaling | None:
        """Returns the scaling in a table of rotary settings, which stands under ``key``."""
        if table is None:
            return None
        inner = WrittenConfig(table)
        kind = table.get("rope_type", table.get("type", "default"))
        inner.ignore("rope_type", "type", "rope_theta")
        inner.expect("partial_rotary_factor", 1, 1.0)
        if kind not in ("default", "linear", "llama3"):
            raise self._refused(key, "rotary scaling of type default, linear or llama3")
        if kind == "default":
            inner.ignore("factor")
        result = None if kind == "default" else _scaling(kind, inner)
        inner.refuse_rest(f"{key}.")
        return result

    def refuse_rest(self, prefix: str = "") -> None:
        """Refuses settings that were not taken, but for those without effect.

        Args:
            prefix: The place of the settings, as ``rope_parameters.``.
        """
        if "quantization_config" in self._written:
            raise ConfigError(
                "config.json: the weights are quantised (quantization_config)",
                remedy="start from the checkpoint that they were made from",
            )
        rest = [
            f"{prefix}{key} = {_short(value)}"
            for key, value in self._written.items()
            if not (key in self._taken or key in _WITHOUT_EFFECT or key.startswith("_"))
            and value is not None
            and not (key in _WITHOUT_EFFECT_AT and value == _WITHOUT_EFFECT_AT[key])
        ]
        if rest:
            what = "a setting" if len(rest) == 1 else "settings"
            raise ConfigError(
                f"config.json: {', '.join(rest)}: {what} that this program does not know, and that "
                "may change what the model computes",
                remedy="if it changes nothing, remove it from config.json (of a copy, where the "
                "checkpoint is of the Hub)",
            )

    def _take(self, key: str, default: Any) -> Any:
        """Returns a value, noted as taken; the default where it is missing or null."""
        self._taken.add(key)
        value = self._written.get(key)
        return default if value is None else value

    def _refused(self, key: str, expected: str) -> ConfigError:
        """Returns the error of a value that cannot be right."""
        if self._written.get(key) is None:
            return ConfigError(f"config.json: {key} is missing: {expected} is needed")
        value = _short(self._written[key])
        return ConfigError(f"config.json: {key} must be {expected}, not {value}")


def _scaling(kind: str, inner: WrittenConfig) -> RopeScaling:
    """Returns a scaling from its table."""
    factor = inner.number("factor")
    if kind == "linear":
        return RopeScaling("linear", factor)
    low, high = (inner.number(key) for key in _LLAMA3_KEYS[:2])
    return RopeScaling("llama3", factor, low, high, inner.count(_LLAMA3_KEYS[2]))


def _short(value: Any) -> str:
    """Returns a value for an error message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
