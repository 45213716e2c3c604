"""Files of the Hugging Face Hub that a ``corpus.toml`` names: ``hf://datasets/OWNER/NAME/PATH``.

The core opens no connection. This module finds the files of each pattern through
``huggingface_hub``, fetches them into its cache, and gives the core their local paths. The name of
each holds its commit, so a dataset does not depend on where the cache lies.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import unquote

from sabiprep.corpus_file import config_text, small_file
from sabiprep.errors import ConfigError, InputError
from sabiprep.files import MANIFEST_LIMIT
from sabiprep.hub_requests import Place, fetched, hub_api, listed_paths, resolved_commit
from sabiprep.places import StrPath, join, place_of

SCHEME = "hf://"
PATTERN = re.compile(
    r"hf://datasets/(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)(?:@(?P<revision>[^/]+))?/(?P<path>.+)"
)
LANG = "{lang}"
"""Stands for a language, of which `files` makes a source each."""
LISTED = re.compile(r"\{lang:([^{}]*)\}")
LANGUAGE = r"[\w\u0300-\u036f-]"
"""What a character of a language may be."""

HubFiles = dict[str, list[tuple[str, str]]]
"""By pattern: the local path of each match, and its name in the dataset."""


@dataclass(frozen=True)
class _Named:
    """A pattern as ``corpus.toml`` has it, with its source and its parts."""

    pattern: str
    source: str | None
    repo: str
    revision: str | None
    path: str

    @property
    def place(self) -> Place:
        """Returns the dataset, for requests."""
        return Place(self.pattern, self.repo, self.revision, "dataset", self.source)


def hub_files(corpus: StrPath | None, reuse: StrPath | None = None) -> HubFiles:
    """Fetches the files of the Hub that a corpus names.

    Args:
        corpus: The folder with ``corpus.toml``; None for the corpus of the dataset ``reuse``.
        reuse: The dataset whose kept documents are used again, if one is.

    Returns:
        The files by pattern; empty, without a look at ``huggingface_hub``, if none is named.

    Raises:
        ConfigError: If a pattern cannot be right.
        InputError: If its files cannot be found or fetched.
        SabiprepError: If ``huggingface_hub`` is not installed.
    """
    folder = corpus_of(reuse) if corpus is None else place_of(corpus)
    if folder is None:
        return {}
    by_revision: dict[tuple[str, str | None], list[_Named]] = {}
    for pattern, source in _patterns(folder):
        named = _parsed(pattern, source, join(folder, "corpus.toml"))
        by_revision.setdefault((named.repo, named.revision), []).append(named)
    found: HubFiles = {}
    for patterns in by_revision.values():
        found.update(_fetched(patterns))
    return found


def corpus_of(dataset: StrPath | None) -> str | None:
    """Returns the corpus that a dataset with a kept spool was packed from; None if unknown."""
    if dataset is None:
        return None
    try:
        state = json.loads(small_file(join(dataset, ".work", "state.json"), MANIFEST_LIMIT))
        corpus = state["corpus"]
        # The core writes a path that is not UTF-8 as its bytes.
        return corpus if isinstance(corpus, str) else os.fsdecode(bytes(corpus))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _patterns(folder: str) -> Iterator[tuple[str, str | None]]:
    """Yields each pattern of files of the Hub, with its source.

    A file that cannot be read, or is no TOML, names none here: the core says what is wrong with it.
    """
    text = config_text(folder)
    if text is None or SCHEME not in text:
        return
    try:
        config = tomllib.loads(text)
    except (ValueError, RecursionError):
        return
    sources = config.get("source")
    for source in sources if isinstance(sources, list) else ():
        if isinstance(source, dict):
            name = source.get("name")
            for key in ("files", "validation_files"):
                for pattern in _texts(source.get(key)):
                    yield pattern, name if isinstance(name, str) else None
    pack = config.get("pack")
    if isinstance(pack, dict):
        for pattern in _texts(pack.get("decontaminate")):
            yield pattern, None


def _texts(value: Any) -> Iterator[str]:
    """Yields the patterns of the Hub in a text, a list or a table of texts."""
    if isinstance(value, str):
        if value.startswith(SCHEME):
            yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _parsed(pattern: str, source: str | None, config: str) -> _Named:
    """Returns the parts of a pattern.

    Raises:
        ConfigError: If it is none of ``hf://datasets/OWNER/NAME[@REVISION]/PATH``.
    """
    match = PATTERN.fullmatch(pattern)
    if match is None:
        raise ConfigError(
            f'"{pattern}" names no file of a dataset on the Hub',
            file=config,
            source=source,
            remedy="write hf://datasets/OWNER/NAME/PATH, or hf://datasets/OWNER/NAME@REVISION/PATH",
        )
    revision = match["revision"]
    return _Named(
        pattern=pattern,
        source=source,
        repo=f"{match['owner']}/{match['name']}",
        # A branch such as refs/convert/parquet is written with %2F.
        revision=None if revision is None else unquote(revision),
        path=match["path"],
    )


def _fetched(patterns: list[_Named]) -> HubFiles:
    """Returns the files of patterns of one dataset and revision, fetched into the cache."""
    place = patterns[0].place
    api = hub_api(place)
    revision = resolved_commit(api, place)
    paths = listed_paths(api, place, revision)
    matches: dict[str, list[str]] = {}
    for named in patterns:
        matches.update(_matched(named, paths))
    wanted = sorted({path for found in matches.values() for path in found})
    folder = fetched(place, revision, wanted)
    beginning = f"hf://datasets/{place.repo}@{revision.resolved}"
    return {
        pattern: [(os.path.join(folder, *path.split("/")), f"{beginning}/{path}") for path in found]
        for pattern, found in matches.items()
    }


def _matched(named: _Named, paths: list[str]) -> dict[str, list[str]]:
    """Returns the paths that a pattern matches, in order, by the pattern.

    Those of a language are under the pattern that has it in the place of ``{lang}``.

    Raises:
        ConfigError: If a path may be of two languages.
        InputError: If nothing matches, or nothing for a listed language.
    """
    # A name that exists is taken as it is, even if it holds a star or a bracket.
    if named.path in paths:
        return {named.pattern: [named.path]}
    listed = LISTED.search(named.path)
    open_path = LISTED.sub(LANG, named.path)
    if LANG not in open_path:
        return {named.pattern: _matched_by(named, named.path, paths)}
    if listed is None:
        near = _matched_by(named, re.sub(r"(\{lang\})+", "*", open_path), paths)
        # None is left where no one text stands in all the places of `{lang}`.
        languages = _languages(named, near)
        if not languages:
            return {named.pattern: _matched_by(named, named.path, paths)}
    else:
        languages = set(listed[1].split("|"))
    open_pattern = named.pattern.removesuffix(named.path) + open_path
    return {
        open_pattern.replace(LANG, lang): _matched_by(named, open_path.replace(LANG, lang), paths)
        for lang in sorted(languages)
    }


def _languages(named: _Named, paths: list[str]) -> set[str]:
    """Returns the texts that stand for ``{lang}`` in paths.

    Raises:
        ConfigError: If a path may be of two languages.
    """
    languages = set()
    for path in paths:
        # The first and the last place, the shortest and the longest text: two that differ show that
        # there is no one answer.
        found = {
            match["lang"]
            for star in ("[^/]*", "[^/]*?")
            for text in (f"{LANGUAGE}+", f"{LANGUAGE}+?")
            if (match := _pattern(named.path, star, text).fullmatch(path))
        }
        if len(found) > 1:
            raise ConfigError(
                f"{LANG} may be {' or '.join(sorted(found))} in the name of {path}",
                file=named.pattern,
                source=named.source,
                remedy="list the languages, as in {lang:hau|ibo}, or use fewer wildcards",
            )
        languages |= found
    return languages


def _matched_by(named: _Named, wanted: str, paths: list[str]) -> list[str]:
    """Returns the paths that a pattern of paths matches, in order.

    Raises:
        InputError: If there is none.
    """
    matches = _pattern(wanted)
    found = [path for path in paths if wanted == path or matches.fullmatch(path)]
    if not found:
        near = difflib.get_close_matches(named.path, paths, 1)
        raise InputError(
            "no file of the dataset matches" + (f" {wanted}" if LISTED.search(named.path) else ""),
            file=named.pattern,
            source=named.source,
            remedy=f"did you mean {near[0]}?"
            if near
            else f"look at its files: {named.place.page}/tree/{named.revision or 'main'}",
            errno=2,
        )
    return sorted(found, key=lambda path: path.split("/"))


@cache
def _pattern(path: str, star: str = "[^/]*", text: str = LANGUAGE + "+") -> re.Pattern[str]:
    """Returns a path with ``*``, ``?``, ``[…]`` and ``**`` as the core reads it.

    Args:
        path: The path.
        star: The regular expression of ``*``.
        text: That of a language: ``{lang}`` is the group ``lang``.
    """
    whole = ""
    parts = path.split("/")
    for nth, part in enumerate(parts):
        is_last = nth + 1 == len(parts)
        if part == "**":
            whole += "" if is_last else "(?:[^/]+/)*"
            continue
        whole += _name_pattern(part, star) + ("" if is_last else "/")
    lang = re.escape(LANG)
    return re.compile(whole.replace(lang, f"(?P<lang>{text})", 1).replace(lang, "(?P=lang)"))


def _name_pattern(part: str, star: str) -> str:
    """Returns the wildcards of one name as a regular expression."""
    wildcards = re.compile(r"\*+|\?|\[(?P<no>!?)(?P<set>\]?[^\]]*)\]")
    out, end = "", 0
    for match in wildcards.finditer(part):
        out += re.escape(part[end : match.start()])
        end = match.end()
        if match["set"] is None:
            out += "[^/]" if match[0] == "?" else star
        else:
            among = re.sub(r"([\\\[\]^&~|])", r"\\\1", match["set"])
            out += f"(?!/)[{'^' if match['no'] else ''}{among}]"
    return out + re.escape(part[end:])
