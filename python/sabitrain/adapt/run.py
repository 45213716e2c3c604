"""Adapts a checkpoint: the steps in their order, then the new folder, then the report."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from sabiprep.errors import OutputError, TokenizerError
from sabiprep.files import TOKENIZER_LIMIT, read_whole
from sabitrain.adapt.depth import angular_distances, check_layers, drop_layers
from sabitrain.adapt.draft import Draft, read_draft, write_draft
from sabitrain.adapt.extending import Extension, learn_tokens, take_tokens
from sabitrain.adapt.new_rows import make_rows, read_list
from sabitrain.adapt.report import Language, Report, Step, count_tokens, size_of
from sabitrain.adapt.sample import Sample, open_sample
from sabitrain.adapt.settings import AdaptConfig
from sabitrain.adapt.texts import Texts, open_texts
from sabitrain.adapt.tokenizer_file import BpeFile, parse_bpe
from sabitrain.adapt.trimming import check_texts, encode_stretches, keep_tokens, trim_draft
from sabitrain.adapt.width import Importance, check_widths, heads_of, importance, prune_width
from sabitrain.adapt.words import count_words
from sabitrain.checkpoints.hub import find_checkpoint
from sabitrain.checkpoints.pretrained import ADAPTED_FILE, TOKENIZER_FILE

Done = tuple[Draft, Step]


def adapt(config: AdaptConfig) -> Report:
    """Makes the changes that ``config`` asks for, and writes the new checkpoint.

    Raises:
        OutputError: If the new folder exists, lies in the base, or cannot be written.
        TrainError: If the base is no sound checkpoint, or a change does not fit it.
        TokenizerError: If its tokenizer cannot be adapted.
        ConfigError: If a corpus cannot be packed with its tokenizer.
        InputError: If a text cannot be read.
        DatasetError: If a dataset is damaged, or of another tokenizer.
    """
    _check_new(config.new)
    if config.bilingual is not None:
        read_list(config.bilingual)
    folder, name = find_checkpoint(config.base)
    _check_outside(config.new, folder)
    base = read_draft(folder)
    with contextlib.ExitStack() as stack:
        library = _Library(config, base, stack)
        draft, steps = base, list[Step]()
        for wanted, step in (
            (config.extend, _extend),
            (config.add_language, _add_language),
            (config.trim, _trim),
            (config.drop_layers, _drop_layers),
            (config.prune_width, _prune_width),
        ):
            if wanted:
                draft, done = step(config, draft, library)
                steps.append(done)
        report = _report(config, name, base, draft, steps, library)
    write_draft(_with_new_rows(draft, base), config.new)
    return report


def _with_new_rows(draft: Draft, base: Draft) -> Draft:
    """Returns the draft with a file that names its new rows, where it has some.

    ``--train new-rows`` trains these. New tokens have the last ids, in any step; those of an
    adaptation before this one are still new.
    """
    known = base.documents.get(ADAPTED_FILE)
    first = None if known is None else known["new_rows"][0]
    if draft.files.get(TOKENIZER_FILE) == base.files.get(TOKENIZER_FILE):
        return draft
    documents = {name: each for name, each in draft.documents.items() if name != ADAPTED_FILE}
    old = {token for token, id_ in base.tokenizer.ids.items() if first is None or id_ < first}
    new = sorted(id_ for token, id_ in draft.tokenizer.ids.items() if token not in old)
    if new:
        documents[ADAPTED_FILE] = {"new_rows": [new[0], new[-1] + 1]}
    return replace(draft, documents=documents)


class _Library:
    """The corpora of an adaptation, each packed once with the base's tokenizer, and its sample.

    Attributes:
        layers: The layers of the base that are kept so far.
    """

    def __init__(self, config: AdaptConfig, base: Draft, stack: contextlib.ExitStack) -> None:
        """Takes the base, and the stack that closes every corpus."""
        self.layers = list(range(base.layers))
        self._config = config
        self._base = base
        self._stack = stack
        self._opened: dict[Path, Texts] = {}

    def texts(self, path: Path) -> Texts:
        """Returns the texts of a corpus or of a packed dataset."""
        place = path.resolve()
        if place not in self._opened:
            file = self._base.tokenizer
            self._opened[place] = self._stack.enter_context(open_texts(path, file))
        return self._opened[place]

    @cached_property
    def sample(self) -> Sample:
        """The rows to look at, and the base's model."""
        assert self._config.rows is not None
        tokenizer = self._base.files.get(TOKENIZER_FILE)
        rows, count = self._config.rows, self._config.row_count
        return self._stack.enter_context(open_sample(self._base.folder, rows, count, tokenizer))


def _extend(config: AdaptConfig, draft: Draft, library: _Library) -> Done:
    """Adds the tokens of another tokenizer's file."""
    assert config.extend is not None
    file, name = draft.tokenizer, str(config.extend)
    try:
        content = read_whole(config.extend, TOKENIZER_LIMIT)
    except OSError as error:
        raise TokenizerError(
            f"cannot be read: {error.strerror or error}",
            file=name,
            errno=error.errno,
            remedy="name a tokenizer.json",
        ) from error
    extension = take_tokens(file, parse_bpe(content, name))
    draft, told, numbers = _with_tokens(config, draft, file, extension)
    told += (
        f"; {extension.present:,} tokens of the file were there, and {extension.left_out:,} that "
        "the base's merges cut otherwise are left out"
    )
    numbers |= {"present": extension.present, "left_out": extension.left_out}
    return draft, Step("extend", told, numbers)


def _add_language(config: AdaptConfig, draft: Draft, library: _Library) -> Done:
    """Adds tokens learnt from the texts of a corpus."""
    assert config.add_language is not None and config.vocab is not None
    file = draft.tokenizer
    words = count_words(library.texts(config.add_language).stretches(), file)
    extension = learn_tokens(file, words, config.vocab)
    draft, told, numbers = _with_tokens(config, draft, file, extension)
    told += f"; learnt from {words.total():,} pieces of text, {len(words):,} of them different"
    if len(extension.tokens) < config.vocab:
        told += f"; {config.vocab:,} were asked for, and no other pair occurs twice"
    numbers |= {
        "asked_for": config.vocab,
        "words": words.total(),
        "kinds_of_words": len(words),
        "unreachable": extension.left_out,
    }
    return draft, Step("add-language", told, numbers)


def _with_tokens(
    config: AdaptConfig, draft: Draft, file: BpeFile, extension: Extension
) -> tuple[Draft, str, dict[str, object]]:
    """Returns a checkpoint with more tokens, and the change in words and in numbers."""
    how = config.new_rows
    made = make_rows(draft, file, extension.tokens, how, config.bilingual, config.seed)
    rows_before = draft.rows
    grown = file.extended(extension.tokens, extension.merges)
    draft = draft.with_tokenizer(grown.to_bytes(), made.tensors)
    told = (
        f"{len(extension.tokens):,} tokens, {len(extension.merges):,} merges after the base's "
        f"{len(file.merges):,}"
    )
    if extension.letters:
        told += f", {extension.letters:,} of them letters"
    told += "; every one is reached"
    if made.unused_taken:
        told += f"; {made.unused_taken:,} took rows that no token had"
    if how == "list":
        told += f"; rows of {made.listed:,} from the list"
    numbers: dict[str, object] = {
        "tokens": len(extension.tokens),
        "merges": len(extension.merges),
        "letters": extension.letters,
        "rows": how,
        "rows_listed": made.listed,
        "rows_taken": made.unused_taken,
        "rows_added": draft.rows - rows_before,
    }
    return draft, told, numbers


def _trim(config: AdaptConfig, draft: Draft, library: _Library) -> Done:
    """Drops the tokens that no corpus uses."""
    file = draft.tokenizer
    used: set[int] = set()
    for path in config.trim:
        texts = library.texts(path)
        for _, ids in encode_stretches(file.bare(), texts.stretches()):
            used.update(ids)
        if config.extend is None and config.add_language is None:
            # The rows may have a token at the edge of a window that no stretch has.
            used |= texts.used()
    kept = keep_tokens(draft, file, used)
    trimmed = trim_draft(draft, file, kept)
    after = trimmed.tokenizer
    tokens = sum(
        check_texts(file, after, kept, library.texts(path).stretches()) for path in config.trim
    )
    told = (
        f"{len(kept.new_ids):,} of {len(file.ids):,} tokens stay: {kept.used:,} that the texts "
        f"use, {kept.on_the_way:,} on the way to them, {kept.spelling:,} that spell bytes or "
        f"letters, {kept.control:,} control tokens; all {tokens:,} tokens of the texts are "
        "the same as before"
    )
    numbers = {
        "kept": len(kept.new_ids),
        "dropped": len(file.ids) - len(after.ids),
        "used": kept.used,
        "on_the_way": kept.on_the_way,
        "spelling": kept.spelling,
        "control": kept.control,
        "tokens_checked": tokens,
    }
    return trimmed, Step("trim", told, numbers)


def _drop_layers(config: AdaptConfig, draft: Draft, library: _Library) -> Done:
    """Drops the layers that change their input least."""
    count = config.drop_layers
    assert count is not None
    check_layers(draft, count)
    found = angular_distances(library.sample, count)
    first = found.first
    distances = found.mean_S.tolist()
    library.layers = library.layers[:first] + library.layers[first + count :]
    dropped = f"layer {first}" if count == 1 else f"layers {first} to {first + count - 1}"
    told = (
        f"{dropped} of {draft.layers} (from 0): the angular distance between its ends "
        f"is {distances[first]:.4f}, where it goes up to {max(distances):.4f}; "
        f"{found.documents:,} documents of {library.sample.rows:,} rows looked at"
    )
    numbers = {
        "dropped": list(range(first, first + count)),
        "distances": distances,
        "documents": found.documents,
        "rows": library.sample.rows,
    }
    return drop_layers(draft, first, count), Step("drop-layers", told, numbers)


def _prune_width(config: AdaptConfig, draft: Draft, library: _Library) -> Done:
    """Drops the heads and the channels whose activations are smallest."""
    sample, widths = library.sample, config.widths()
    check_widths(draft, widths)
    before = heads_of(draft.config)
    found = importance(sample, before)
    # Measured in the base, all of whose layers are there.
    kept = Importance(*(each[library.layers] for each in found))
    pruned = prune_width(draft, kept, widths)
    after = heads_of(pruned.config)
    channels = [each.config["intermediate_size"] for each in (draft, pruned)]
    told = (
        f"{after.queries} of {before.queries} query heads and {after.keys} of {before.keys} key "
        f"heads stay in each layer, {channels[1]:,} of {channels[0]:,} channels in each MLP; "
        f"{sample.rows:,} rows looked at"
    )
    numbers = {
        "query_heads": after.queries,
        "key_heads": after.keys,
        "channels": channels[1],
        "rows": sample.rows,
    }
    return pruned, Step("prune-width", told, numbers)


def _report(
    config: AdaptConfig, name: str, base: Draft, draft: Draft, steps: list[Step], library: _Library
) -> Report:
    """Returns the report, with tokens per word if the vocabulary was to change."""
    changed = config.extend or config.add_language or config.trim
    languages: dict[str, Language] = {}
    before = after = None
    if changed or config.measure:
        before, after = base.tokenizer, draft.tokenizer
        named = [*config.measure, *config.trim, config.add_language]
        for path in dict.fromkeys(each.resolve() for each in named if each is not None):
            count_tokens(languages, library.texts(path).stretches(), before, after)
    return Report(
        name,
        str(config.new),
        steps,
        size_of(base, before),
        size_of(draft, after),
        dict(sorted(languages.items())),
    )


def _check_new(new: Path) -> None:
    """Refuses a folder that exists or cannot be made, before anything is computed."""
    if os.path.lexists(new):
        raise OutputError(
            "exists already", file=str(new), remedy="name another folder, or remove this one"
        )
    # The nearest folder that is there; a missing one between is made when all is done.
    above = next(place for place in new.absolute().parents if os.path.lexists(place))
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(
            f"cannot be made: {above} is {'not writable' if above.is_dir() else 'no folder'}",
            file=str(new),
            remedy="name a folder in one that you can write to",
        )


def _check_outside(new: Path, base: Path) -> None:
    """Refuses a folder within that of the base."""
    if base.resolve() in new.resolve().parents:
        raise OutputError(
            "lies within the base, which stays as it is",
            file=str(new),
            remedy="name a folder elsewhere",
        )
