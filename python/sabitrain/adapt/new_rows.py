"""The rows of new tokens in the embedding and the head.

Dimensions: V rows, C width, P pieces of a token.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sabiprep.errors import ConfigError
from sabiprep.files import TOKENIZER_LIMIT, read_whole
from sabitrain.adapt.draft import Draft, by_token
from sabitrain.adapt.settings import NewRows
from sabitrain.adapt.tokenizer_file import SPACE, BpeFile, piece_text

Parents = Mapping[int, Sequence[int]]
"""The base's tokens whose rows make the row of a new token, by its id."""


@dataclass(frozen=True)
class Made:
    """The tensors with a row for each token, new ones included.

    Attributes:
        tensors: The tensors, by name.
        listed: New tokens whose rows come from the bilingual list.
        unused_taken: New tokens that took a row of the base which no token had.
    """

    tensors: dict[str, Tensor]
    listed: int
    unused_taken: int


def make_rows(
    draft: Draft,
    file: BpeFile,
    tokens: Mapping[str, int],
    how: NewRows,
    bilingual: Path | None,
    seed: int,
) -> Made:
    """Returns the tensors with rows for new tokens.

    Args:
        draft: The checkpoint without them.
        file: Its tokenizer.
        tokens: The id of each new piece.
        how: The way to make a row.
        bilingual: The list of words and base words, for ``how="list"``.
        seed: The seed of random rows.

    Raises:
        ConfigError: If the list cannot be read, or a line of it is no pair of words.
    """
    parents = {id_: _pieces(file, piece) for piece, id_ in tokens.items()}
    listed: dict[int, list[int]] = {}
    if how == "list" and bilingual is not None:
        listed = _from_list(file, tokens, read_list(bilingual))
    # Control tokens behind the last row (as Gemma 3 has one) get a row as well.
    rowless: dict[int, list[int]] = {id_: [] for id_ in file.added.values() if id_ >= draft.rows}
    end = max(tokens.values(), default=file.end - 1) + 1
    made = {}
    for name, old in by_token(draft):
        known = old[: min(file.end, len(old))]
        rows = _longer(old, end, known)
        if how == "random":
            _fill_randomly(rows, known, [*rowless, *tokens.values()], seed)
        else:
            _fill_with_means(rows, old, {**rowless, **parents, **listed})
        made[name] = rows
    taken = sum(id_ < draft.rows for id_ in tokens.values())
    return Made(made, len(listed), taken)


def _longer(old: Tensor, end: int, known: Tensor) -> Tensor:
    """Returns rows with more of them behind, up to ``end``: each the mean of the known ones."""
    more = max(0, end - len(old))
    mean = known.float().mean(0).to(old.dtype)
    return torch.cat((old, mean.expand(more, *old.shape[1:])))


def read_list(path: Path) -> dict[str, list[str]]:
    """Returns the base words of each word in a bilingual list: two columns with a tab between.

    Raises:
        ConfigError: If it cannot be read, or a line is no pair of words.
    """
    remedy = "write a word, a tab and a word that the base knows in each line"
    try:
        text = read_whole(path, TOKENIZER_LIMIT).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read: {error}", file=str(path), remedy=remedy) from error
    pairs: dict[str, list[str]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) != 2 or not all(columns):
            raise ConfigError(
                f"holds {len(columns)} columns, not two words",
                file=str(path),
                line=number,
                remedy=remedy,
            )
        pairs.setdefault(_form(columns[0]), []).append(columns[1])
    return pairs


def _pieces(file: BpeFile, piece: str) -> list[int]:
    """Returns the tokens that the base has for the text of a piece."""
    model = file.bare_by_merges.model
    return [token.id for token in model.tokenize(piece)]


def _from_list(
    file: BpeFile, tokens: Mapping[str, int], pairs: Mapping[str, Sequence[str]]
) -> dict[int, list[int]]:
    """Returns the base's tokens of the words that a list gives for new tokens."""
    bare = file.bare()
    found: dict[int, list[int]] = {}
    for piece, id_ in tokens.items():
        text = piece_text(file, piece)
        # A word within a text has its space, in a new token as in the base's words.
        space = " " if text.startswith(" ") else ""
        for word in pairs.get(_form(text.strip()), ()):
            spelt = space + word
            if file.kind == "SentencePiece":
                spelt = spelt.replace(" ", SPACE)
            ids = bare.encode(spelt, add_special_tokens=False).ids
            found.setdefault(id_, []).extend(ids)
    return {id_: ids for id_, ids in found.items() if ids}


def _form(word: str) -> str:
    """Returns a word in the form that words are compared in."""
    return unicodedata.normalize("NFC", word).casefold()


def _fill_with_means(rows: Tensor, old: Tensor, parents: Parents) -> None:
    """Sets rows to the means of others; one without parents stays."""
    for id_, ids in parents.items():
        if ids:
            rows[id_] = old[list(ids)].double().mean(0).to(old.dtype)


def _fill_randomly(rows: Tensor, known: Tensor, ids: Sequence[int], seed: int) -> None:
    """Sets rows to normal numbers with the mean and the deviation of the base's rows."""
    if not ids:
        return
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn((len(ids), *known.shape[1:]), generator=generator)
    mean, deviation = known.float().mean(0), known.float().std(0, correction=0)
    rows[list(ids)] = (mean + deviation * drawn).to(rows.dtype)
