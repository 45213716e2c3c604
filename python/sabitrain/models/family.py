"""What the families of decoders share as architectures: ``config.json``, weights and operations.

A family is a class below `DecoderFamily`: a file of its own and a line of
`sabitrain.models.registry`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
from torch import Tensor

from sabiprep.errors import ConfigError
from sabitrain.models.architecture import AttentionHeads, Work
from sabitrain.models.decoder import DecoderModel, Parts
from sabitrain.models.decoder_flops import decoder_flops
from sabitrain.models.rotary import RopeScaling
from sabitrain.models.settings import ModelConfig
from sabitrain.models.written import WrittenConfig

# A table of older checkpoints, which follows from the configuration.
_ROTARY_TABLE = "rotary_emb.inv_freq"
# Each layer is made: a number that cannot be right would fill the memory.
MOST_LAYERS = 10_000
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


class Specifics(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The settings that a family has beside `ModelConfig`, by the names of ``transformers``."""

    rope_scaling: RopeScaling | None = None


S = TypeVar("S", bound=Specifics)


class DecoderFamily(Generic[S]):
    """A family of decoders: an `sabitrain.models.architecture.Architecture`.

    Attributes:
        model_type: The name that ``transformers`` has for it.
        class_name: The class of ``transformers`` for causal prediction.
        specifics: The settings of this family alone.
        tied: Whether embedding and head are tied where ``config.json`` does not say.
        norm_eps: The eps of norms where it does not say.
        theta: The rotary base where it does not say.
        head_dim: The size of a head where it does not say; None for width / heads.
        activation_key: The key of the MLP's activation.
        activation: Its value.
        norm_after: Whether blocks end with a norm, which reads the output of the MLP.
    """

    model_type: ClassVar[str]
    class_name: ClassVar[str]
    specifics: type[S]
    tied: ClassVar[bool] = False
    norm_eps: ClassVar[float] = 1e-6
    theta: ClassVar[float] = 10_000.0
    head_dim: ClassVar[int | None] = None
    activation_key: ClassVar[str] = "hidden_act"
    activation: ClassVar[str] = "silu"
    norm_after: ClassVar[bool] = False

    @abstractmethod
    def parts(self, config: ModelConfig, specifics: S) -> Parts:
        """Makes the parts of a model, their weights drawn as torch draws them.

        Raises:
            ConfigError: If the family has no such shape.
        """

    @abstractmethod
    def take(self, written: WrittenConfig) -> tuple[float, S]:
        """Takes the rotary base and the settings of this family alone.

        Settings that must have one value are checked here.

        Raises:
            ConfigError: If a value cannot be right.
        """

    @abstractmethod
    def describe(self, config: ModelConfig, specifics: S) -> dict[str, Any]:
        """Returns the settings of ``config.json`` that not every family has, the rotary ones too.

        ``transformers`` takes defaults of its own for keys that are missing, so each is there.
        """

    def windows(self, config: ModelConfig, specifics: S) -> Sequence[int]:
        """Returns the attention window of each layer, in tokens; 0 for none."""
        return [0] * config.layers

    def make(self, config: ModelConfig, vocab_size: int) -> DecoderModel:
        """Makes a model, its weights drawn from torch's global random state."""
        return DecoderModel(config, vocab_size, self.parts(config, self.read(config)))

    def read(self, config: ModelConfig) -> S:
        """Returns the settings of this family alone, from ``config.specifics``.

        Raises:
            ConfigError: If they cannot be right.
        """
        try:
            return msgspec.json.decode(config.specifics or "{}", type=self.specifics)
        except msgspec.MsgspecError as error:
            raise ConfigError(
                f"model.specifics are none of {self.model_type}: {error}",
                remedy="leave them out, or take those of the checkpoint's run",
            ) from error

    def to_huggingface(self, config: ModelConfig, vocab_size: int) -> dict[str, Any]:
        """Returns the content of ``config.json``, the control tokens aside."""
        return {
            "architectures": [self.class_name],
            "model_type": self.model_type,
            "dtype": "float32",
            "vocab_size": vocab_size,
            "hidden_size": config.width,
            "intermediate_size": config.mlp_width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.key_heads,
            "head_dim": config.head_size,
            "max_position_embeddings": config.context,
            "rms_norm_eps": config.norm_eps,
            "initializer_range": config.init_std,
            self.activation_key: self.activation,
            "tie_word_embeddings": not config.untied_head,
            **self.describe(config, self.read(config)),
        }

    def from_huggingface(self, written: Mapping[str, Any]) -> tuple[ModelConfig, int]:
        """Returns the shape and the vocabulary that a ``config.json`` describes.

        Raises:
            ConfigError: If a value cannot be right, or a setting is unknown.
        """
        taken = WrittenConfig(written)
        # Training here drops nothing out, whatever the pre-training did.
        taken.ignore("attention_dropout")
        taken.expect(self.activation_key, self.activation)
        theta, specifics = self.take(taken)
        heads, width = taken.count("num_attention_heads"), taken.count("hidden_size")
        head_dim = taken.count("head_dim", self.head_dim or max(1, width // heads))
        config = ModelConfig(
            architecture=self.model_type,
            layers=taken.count("num_hidden_layers", most=MOST_LAYERS),
            width=width,
            heads=heads,
            kv_heads=taken.count("num_key_value_heads", heads),
            head_dim=None if head_dim * heads == width else head_dim,
            mlp_width=taken.count("intermediate_size"),
            context=taken.count("max_position_embeddings"),
            rope_theta=theta,
            norm_eps=taken.number("rms_norm_eps", self.norm_eps),
            init_std=taken.number("initializer_range", 0.02),
            untied_head=not taken.flag("tie_word_embeddings", self.tied),
            specifics=_text_of(specifics),
        )
        vocab_size = taken.count("vocab_size")
        taken.refuse_rest()
        return config, vocab_size

    def to_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the tensors as they are: the parameters bear Hugging Face's names."""
        return dict(state)

    def from_weights(self, config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the tensors of a model, without copies of what it has once.

        Raises:
            ConfigError: If a tied head is another than the embedding.
        """
        state = {name: value for name, value in weights.items() if _ROTARY_TABLE not in name}
        head, embedding = state.get(_HEAD), state.get(_EMBEDDING)
        if not config.untied_head and head is not None and embedding is not None:
            if not head.equal(embedding):
                raise ConfigError(
                    f"config.json ties the head to the embedding, but {_HEAD} is another tensor",
                    remedy="write tie_word_embeddings = false into config.json if that is right",
                )
            del state[_HEAD]
        return state

    def attention_heads(self, config: ModelConfig) -> AttentionHeads:
        """Returns the heads of the attention."""
        windowed = any(self.windows(config, self.read(config)))
        return AttentionHeads(config.heads, config.key_heads, config.head_size, windowed)

    def training_flops(self, config: ModelConfig, vocab_size: int, work: Work) -> float:
        """Returns the operations of a forward and a backward pass.

        Frozen parameters save gradients (`sabitrain.models.decoder_flops`).
        """
        windows = self.windows(config, self.read(config))
        return decoder_flops(config, vocab_size, work, windows, self.norm_after)


def rope_settings(theta: float, scaling: RopeScaling | None) -> dict[str, Any]:
    """Returns rotary settings under their names before and since transformers 5."""
    if scaling is None:
        return {
            "rope_theta": theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        }
    table = scaling_table(scaling)
    return {
        "rope_theta": theta,
        "rope_scaling": table,
        "rope_parameters": {**table, "rope_theta": theta},
    }


def scaling_table(scaling: RopeScaling) -> dict[str, Any]:
    """Returns a rotary scaling as ``config.json`` has it."""
    if scaling.rope_type == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    return {field: getattr(scaling, field) for field in scaling.__struct_fields__}


def _text_of(specifics: Specifics) -> str:
    """Returns settings as JSON; nothing where each has its default."""
    text = msgspec.json.encode(specifics, order="sorted").decode()
    return "" if text == "{}" else text
