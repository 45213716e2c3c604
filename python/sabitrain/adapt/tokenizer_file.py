"""The BPE of a ``tokenizer.json``: read as data, changed, and written again.

Two kinds are known. A *byte-level* BPE (GPT-2, Llama 3, Qwen) spells bytes by 256 letters; a
*SentencePiece* BPE (Llama 2, Gemma, Mistral) spells spaces by ``▁`` and falls back to bytes.

A **piece** is a token as the model's vocabulary spells it. The **bare form** of a tokenizer takes
text that its normalizer has been through, spelt as pieces spell it where the kind is SentencePiece,
and knows neither prefixes nor added tokens: so any stretch of a document can be encoded again.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from tokenizers import Tokenizer

from sabiprep.errors import InternalError, TokenizerError

Kind = Literal["byte-level", "SentencePiece"]
Pair = tuple[str, str]

SPACE = "▁"
"""The letter of a space in a SentencePiece vocabulary."""

_LARGEST_ID = 2**24


@dataclass(frozen=True)
class BpeFile:
    """A ``tokenizer.json`` with a BPE.

    Attributes:
        content: The parsed file, its vocabulary and merges as they were read.
        file: The name of the file, for messages.
        kind: The alphabet of its pieces.
        vocab: The id of each piece of the model, added tokens that stand there too.
        merges: The merges, the first to be done first.
        added: The id of each added token.
    """

    content: Mapping[str, Any]
    file: str
    kind: Kind
    vocab: Mapping[str, int]
    merges: Sequence[Pair]
    added: Mapping[str, int]

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of every token, added ones too."""
        return {**self.vocab, **self.added}

    @cached_property
    def pieces(self) -> dict[int, str]:
        """The spelling of every token, by id; the content of an added one."""
        return {id_: token for token, id_ in self.ids.items()}

    @cached_property
    def byte_ids(self) -> dict[int, int]:
        """The byte of each token that a SentencePiece model falls back to, by id."""
        if not self.model.get("byte_fallback"):
            return {}
        names = {f"<0x{byte:02X}>": byte for byte in range(256)}
        return {self.vocab[name]: byte for name, byte in names.items() if name in self.vocab}

    @cached_property
    def closed(self) -> frozenset[int]:
        """The tokens that no merge may take or make: added ones, bytes, the unknown token."""
        unknown = self.vocab.get(self.model.get("unk_token") or "")
        return frozenset(
            {*self.added.values(), *self.byte_ids, *(() if unknown is None else (unknown,))}
        )

    @property
    def model(self) -> Mapping[str, Any]:
        """The settings of the model."""
        model: Mapping[str, Any] = self.content["model"]
        return model

    @property
    def end(self) -> int:
        """The largest id + 1."""
        return max(self.ids.values()) + 1

    def load(self) -> Tokenizer:
        """Returns the tokenizer of the file.

        Raises:
            TokenizerError: If the library cannot load it.
        """
        return _load(self.content, self.file)

    def bare(self, *, by_merges: bool = False) -> Tokenizer:
        """Returns the tokenizer's bare form.

        Args:
            by_merges: Whether to pass over ``ignore_merges``, so that merges make every token.

        Raises:
            TokenizerError: If the library cannot load it.
        """
        # Merges that are left out at random would split a text otherwise each time.
        model = {**self.model, "dropout": None}
        if by_merges:
            model["ignore_merges"] = False
        bare = {
            **self.content,
            "model": model,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": _without_prefix(self.content.get("pre_tokenizer")),
            "post_processor": None,
            "decoder": None,
            "truncation": None,
            "padding": None,
        }
        return _load(bare, self.file)

    @cached_property
    def bare_by_merges(self) -> Tokenizer:
        """The bare form whose merges make every token."""
        return self.bare(by_merges=True)

    def extended(self, tokens: Mapping[str, int], merges: Sequence[Pair]) -> BpeFile:
        """Returns the file with more tokens and, after its own, more merges."""
        return self._remade({**self.vocab, **tokens}, [*self.merges, *merges], self.content)

    def selected(self, new_ids: Mapping[int, int]) -> BpeFile:
        """Returns the file with some of its tokens, renumbered.

        Merges stay whose two parts and result do.

        Args:
            new_ids: The new id of each kept token, by its old one; added tokens are all there.
        """
        vocab = {piece: new_ids[id_] for piece, id_ in self.vocab.items() if id_ in new_ids}
        merges = [
            (left, right)
            for left, right in self.merges
            if left in vocab and right in vocab and left + right in vocab
        ]
        return self._remade(
            vocab, merges, _renumbered(self.content, lambda old: new_ids.get(old, old))
        )

    def named(self) -> set[int]:
        """Returns the ids that stand in the file beside its vocabulary."""
        found: list[int] = []

        def note(id_: int) -> int:
            found.append(id_)
            return id_

        _renumbered(self.content, note)
        return set(found)

    def to_bytes(self) -> bytes:
        """Returns the content of the file."""
        return json.dumps(self.content, ensure_ascii=False, indent=2).encode()

    def _remade(
        self, vocab: Mapping[str, int], merges: Sequence[Pair], content: Mapping[str, Any]
    ) -> BpeFile:
        """Returns a file with another vocabulary and other merges.

        The library numbers an added token that is missing in the model's vocabulary by the size of
        that vocabulary, whatever the file says. Where that would be another id, the added tokens
        are put into the vocabulary.
        """
        entries = content["added_tokens"]
        made = self._filled(dict(vocab), merges, content)
        loaded = made.load()
        if any(loaded.token_to_id(entry["content"]) != entry["id"] for entry in entries):
            full = {**vocab, **{entry["content"]: entry["id"] for entry in entries}}
            made = self._filled(full, merges, content)
            loaded = made.load()
        for token, id_ in made.ids.items():
            if loaded.token_to_id(token) != id_:
                raise InternalError(f"{self.file}: {token!r} lost its id {id_}")
        return made

    def _filled(
        self, vocab: dict[str, int], merges: Sequence[Pair], content: Mapping[str, Any]
    ) -> BpeFile:
        """Returns the file with these in it, merges in the form that it has them in."""
        before = self.model["merges"]
        as_text = bool(before) and isinstance(before[0], str)
        # A piece with a space in it can be written as one of a pair alone.
        as_text = as_text and not any(" " in left + right for left, right in merges)
        written = [f"{left} {right}" if as_text else [left, right] for left, right in merges]
        model = {**self.model, "vocab": vocab, "merges": written}
        added = {entry["content"]: entry["id"] for entry in content["added_tokens"]}
        content = {**content, "model": model}
        return replace(self, content=content, vocab=vocab, merges=tuple(merges), added=added)


def parse_bpe(content: bytes, file: str) -> BpeFile:
    """Parses a ``tokenizer.json``.

    Args:
        content: The bytes of the file.
        file: Its name, for messages.

    Raises:
        TokenizerError: If it is damaged, no BPE, or a BPE of neither kind.
    """
    try:
        written = read_json(content, file)
        model = written["model"]
        kind = model.get("type") or ("BPE" if "merges" in model else "another kind")
        if kind != "BPE":
            raise _refused(file, f"is {kind}, and only a BPE can be adapted")
        vocab = {str(piece): _id(id_) for piece, id_ in model["vocab"].items()}
        merges = tuple(_pair(merge) for merge in model["merges"])
        written.setdefault("added_tokens", [])
        added = {str(entry["content"]): _id(entry["id"]) for entry in written["added_tokens"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(file, error) from error
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise _refused(file, f"is a BPE with `{key}`, which cannot be adapted")
    for left, right in merges:
        if not {left, right, left + right} <= vocab.keys():
            raise _refused(file, f"has a merge of {left!r} and {right!r} beyond its vocabulary")
    parsed = BpeFile(written, file, _kind(written, file), vocab, merges, added)
    if len(parsed.pieces) != len(parsed.ids):
        raise _refused(file, "gives one id to two tokens")
    parsed.load()
    return parsed


def read_json(content: bytes, file: str) -> dict[str, Any]:
    """Returns the JSON object of a tokenizer's file.

    Raises:
        TokenizerError: If it is none.
    """
    try:
        written = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _damaged(file, error) from error
    if not isinstance(written, dict):
        raise _damaged(file, TypeError("no JSON object"))
    return written


def piece_text(file: BpeFile, piece: str) -> str:
    """Returns the text of a piece; parts of a character that it holds are ``�``."""
    if file.kind == "SentencePiece":
        return piece.replace(SPACE, " ")
    return letters_to_bytes(piece).decode(errors="replace")


def letters_to_bytes(text: str) -> bytes:
    """Returns the bytes that letters of a byte-level BPE stand for; other characters as UTF-8."""
    return b"".join(_BYTE_OF_LETTER.get(letter, letter.encode()) for letter in text)


def _byte_of_letter() -> dict[str, bytes]:
    """Returns the byte of each of the 256 letters: printable ones stand for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): bytes([byte]) for byte in printable}
    return letters | {chr(256 + place): bytes([byte]) for place, byte in enumerate(others)}


_BYTE_OF_LETTER = _byte_of_letter()
LETTERS = frozenset(_BYTE_OF_LETTER)
"""The 256 letters of a byte-level BPE."""


def _refused(file: str, why: str) -> TokenizerError:
    """Returns the error of a file that cannot be adapted."""
    return TokenizerError(
        why,
        file=file,
        remedy="name a checkpoint whose tokenizer.json is a byte-level BPE, as GPT-2's, or a "
        "SentencePiece BPE with bytes to fall back to",
    )


def _damaged(file: str, error: Exception) -> TokenizerError:
    """Returns the error of a file that is no tokenizer."""
    return TokenizerError(
        f"cannot be read as a tokenizer: {type(error).__name__}: {error}",
        file=file,
        remedy="fetch the file again",
    )


def _id(written: Any) -> int:
    """Returns an id that can be right."""
    if isinstance(written, bool) or not isinstance(written, int) or not 0 <= written < _LARGEST_ID:
        raise ValueError(f"{written!r} is no id of a token")
    return written


def _pair(merge: Any) -> Pair:
    """Returns a merge, written as a pair or as text."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(left, str) or not isinstance(right, str):
        raise TypeError(f"{merge!r} is no merge")
    return left, right


def _kind(content: Mapping[str, Any], file: str) -> Kind:
    """Returns the alphabet of the pieces."""
    parts = [
        part
        for name in ("normalizer", "pre_tokenizer", "decoder")
        for part in _parts(content.get(name))
    ]
    if any(part.get("type") == "ByteLevel" for part in parts):
        return "byte-level"
    spelt = any(part.get("type") == "Metaspace" for part in parts) or any(
        part.get("type") == "Replace" and part.get("content") == SPACE for part in parts
    )
    if spelt:
        return "SentencePiece"
    raise _refused(file, "is a BPE that spells neither bytes by letters nor spaces by ▁")


def _parts(component: Any) -> list[dict[str, Any]]:
    """Returns the parts of a normalizer, pre-tokenizer or decoder, at any depth."""
    if not isinstance(component, dict):
        return []
    inner = [
        part
        for key in ("normalizers", "pretokenizers", "decoders")
        for each in component.get(key) or ()
        for part in _parts(each)
    ]
    return [component, *inner]


def _without_prefix(pre_tokenizer: Any) -> Any:
    """Returns a pre-tokenizer that puts no space before a text."""
    changed = copy.deepcopy(pre_tokenizer)
    for part in _parts(changed):
        if part.get("type") == "ByteLevel":
            part["add_prefix_space"] = False
        if part.get("type") == "Metaspace":
            part.pop("add_prefix_space", None)
            part["prepend_scheme"] = "never"
    return changed


def _renumbered(content: Mapping[str, Any], new_ids: Callable[[int], int]) -> dict[str, Any]:
    """Returns the file with the ids in its added tokens, post-processor and padding renumbered."""
    changed = {key: copy.deepcopy(value) for key, value in content.items() if key != "model"}
    for entry in changed["added_tokens"]:
        entry["id"] = new_ids(entry["id"])
    changed["added_tokens"].sort(key=lambda entry: entry["id"])
    _renumber_processor(changed.get("post_processor"), new_ids)
    padding = changed.get("padding")
    if isinstance(padding, dict) and "pad_id" in padding:
        padding["pad_id"] = new_ids(padding["pad_id"])
    return {**changed, "model": content["model"]}


def _renumber_processor(processor: Any, new_ids: Callable[[int], int]) -> None:
    """Renumbers the ids in a post-processor."""
    if not isinstance(processor, dict):
        return
    for inner in processor.get("processors") or ():
        _renumber_processor(inner, new_ids)
    special = processor.get("special_tokens")
    for token in special.values() if isinstance(special, dict) else ():
        token["ids"] = [new_ids(id_) for id_ in token["ids"]]
    # Those of BERT and RoBERTa name two tokens, each as its text and its id.
    for name in ("sep", "cls"):
        if isinstance(processor.get(name), list):
            text, id_ = processor[name]
            processor[name] = [text, new_ids(id_)]


def _load(content: Mapping[str, Any], file: str) -> Tokenizer:
    """Returns the tokenizer of a parsed file."""
    try:
        return Tokenizer.from_str(json.dumps(content, ensure_ascii=False))
    # The library raises `Exception`; where it panics, a class that is no `Exception`.
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise TokenizerError(
            f"cannot be read as a tokenizer: {error}", file=file, remedy="fetch the file again"
        ) from error
