"""Fewer tokens for a base: those that some corpora and the control tokens use.

Kept are the tokens of the texts, all that the base's merges make on the way to one of them, the
letters that spell bytes, every added token, and every id that the checkpoint's files name. Then
each text is split as before, token for token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from tokenizers import Tokenizer

from sabiprep.errors import InternalError
from sabitrain.adapt.draft import Draft, by_token
from sabitrain.adapt.extending import merges_of
from sabitrain.adapt.texts import Stretch
from sabitrain.adapt.tokenizer_file import LETTERS, BpeFile

_AT_A_TIME = 1024
_ID_LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids")


@dataclass(frozen=True)
class Kept:
    """The tokens that a trimmed tokenizer keeps.

    Attributes:
        new_ids: The new id of each kept token, by its old one.
        used: Tokens that the texts use.
        on_the_way: Further tokens that merges make on the way to kept ones.
        spelling: Further tokens that spell bytes or letters.
        control: Further tokens that are added tokens, or that the checkpoint's files name.
    """

    new_ids: Mapping[int, int]
    used: int
    on_the_way: int
    spelling: int
    control: int


def keep_tokens(draft: Draft, file: BpeFile, used: Iterable[int]) -> Kept:
    """Returns the tokens to keep.

    Args:
        draft: The checkpoint.
        file: Its tokenizer.
        used: The tokens of the texts.
    """
    texts = set(used) & file.pieces.keys()
    control = {*file.closed, *named_ids(draft, file)} - file.byte_ids.keys()
    spelling = _spelling(file)
    kept = texts | control | spelling
    merges, made = merges_of(file), set[int]()
    for id_ in kept - file.closed:
        made_here: set[int] = set()
        # A token that merges do not make (one of `ignore_merges`) needs none of them.
        if id_ in file.pieces and merges.split(file.pieces[id_], made_here) == [id_]:
            made |= made_here
    everything = sorted(kept | made)
    return Kept(
        {old: new for new, old in enumerate(everything)},
        len(texts),
        len(made - kept),
        len(spelling - texts - control),
        len(control - texts),
    )


def trim_draft(draft: Draft, file: BpeFile, kept: Kept) -> Draft:
    """Returns a checkpoint with the kept tokens and their rows alone, renumbered.

    Args:
        draft: The checkpoint.
        file: Its tokenizer.
        kept: The tokens to keep.
    """
    # Tokens behind the last row stay there: they are the last ones, since the order is kept.
    rows = [old for old in kept.new_ids if old < draft.rows]
    tensors = {name: tensor[rows] for name, tensor in by_token(draft)}

    def new_id(old: int) -> int:
        return kept.new_ids.get(old, old)

    config = _renumbered(draft.config, new_id)
    documents = {name: _renumbered(each, new_id) for name, each in draft.documents.items()}
    trimmed = draft.with_tokenizer(file.selected(kept.new_ids).to_bytes(), tensors, config)
    return replace(trimmed, documents=documents)


def encode_stretches(
    bare: Tokenizer, stretches: Iterable[Stretch]
) -> Iterator[tuple[Stretch, list[int]]]:
    """Yields each stretch with its tokens by a tokenizer's bare form."""
    waiting = iter(stretches)
    while batch := list(islice(waiting, _AT_A_TIME)):
        texts = [stretch.text for stretch in batch]
        encoded = bare.encode_batch_fast(texts, add_special_tokens=False)
        for stretch, encoding in zip(batch, encoded, strict=True):
            yield stretch, encoding.ids


def check_texts(before: BpeFile, after: BpeFile, kept: Kept, stretches: Iterable[Stretch]) -> int:
    """Splits texts by both tokenizers, and returns the number of tokens.

    Raises:
        InternalError: If a text is split otherwise than before.
    """
    tokens = 0
    bare = after.bare()
    for stretch, old in encode_stretches(before.bare(), stretches):
        new = bare.encode(stretch.text, add_special_tokens=False).ids
        if new != [kept.new_ids.get(id_) for id_ in old]:
            raise InternalError(f"the trimmed tokenizer splits {stretch.text[:80]!r} otherwise")
        tokens += len(new)
    return tokens


def named_ids(draft: Draft, file: BpeFile) -> set[int]:
    """Returns every id that the files of a checkpoint name, post-processor included."""
    found = list(file.named())

    def note(id_: int) -> int:
        found.append(id_)
        return id_

    for document in (draft.config, *draft.documents.values()):
        _renumbered(document, note)
    return {id_ for id_ in found if id_ in file.pieces or 0 <= id_ < draft.rows}


def _spelling(file: BpeFile) -> set[int]:
    """Returns the tokens of one letter or byte that no text can do without."""
    if file.byte_ids:
        return set(file.byte_ids)
    if file.kind == "byte-level":
        return {file.vocab[letter] for letter in LETTERS if letter in file.vocab}
    # Without bytes to fall back to, a letter without a token is lost.
    return {id_ for piece, id_ in file.vocab.items() if len(piece) == 1}


def _renumbered(document: Mapping[str, Any], new_id: Callable[[int], int]) -> dict[str, Any]:
    """Returns a JSON object with the ids under its known keys renumbered, at any depth.

    An id that is no token's (-1 for none) stays.
    """
    changed: dict[str, Any] = {}
    for key, value in document.items():
        if key == "added_tokens_decoder" and isinstance(value, dict):
            changed[key] = {
                str(new_id(int(id_))) if id_.isdigit() else id_: entry
                for id_, entry in value.items()
            }
        elif key.endswith(("_token_id", "_token_ids", "_token_index")) or key in _ID_LISTS:
            changed[key] = _renumbered_ids(value, new_id)
        elif isinstance(value, dict):
            changed[key] = _renumbered(value, new_id)
        else:
            changed[key] = value
    return changed


def _renumbered_ids(value: Any, new_id: Callable[[int], int]) -> Any:
    """Returns an id, or a list of them at any depth, renumbered."""
    if isinstance(value, list):
        return [_renumbered_ids(each, new_id) for each in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return new_id(value)
    return value
