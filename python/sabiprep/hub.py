"""Files of the Hugging Face Hub that a ``corpus.toml`` names: ``hf://datasets/OWNER/NAME/PATH``.

The core opens no connection. This module finds the files of each pattern through
``huggingface_hub``, fetches them into its cache, and gives the core their local paths. The name of
each holds its commit, so a dataset does not depend on where the cache lies.
"""

from __future__ import annotations

import difflib
import glob
import json
import os
import re
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from sabiprep.errors import ConfigError, InputError, SabiprepError
from sabiprep.files import CONFIG_LIMIT, MANIFEST_LIMIT, read_whole
from sabiprep.options import StrPath

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SCHEME = "hf://"
PATTERN = re.compile(
    r"hf://datasets/(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)(?:@(?P<revision>[^/]+))?/(?P<path>.+)"
)
LANG = "{lang}"
"""Stands for a language, of which `files` makes a source each."""
LISTED = re.compile(r"\{lang:([^{}]*)\}")
LANGUAGE = r"[\w\u0300-\u036f-]"
"""What a character of a language may be."""
ATTEMPTS = 4
"""How often a request is made that the Hub answers by 429 or 5xx, or whose answer is cut short."""
PAUSE = 0.5
"""Seconds before the second attempt; each later pause is twice as long."""

CUT_SHORT = ("Consistency check failed", "peer closed connection", "Server disconnected")
"""Parts of the messages about an answer that ends too soon."""

HubFiles = dict[str, list[tuple[str, str]]]
"""By pattern: the local path of each match, and its name in the dataset."""
T = TypeVar("T")


@dataclass(frozen=True)
class _Named:
    """A pattern as ``corpus.toml`` has it, with its source and its parts."""

    pattern: str
    source: str | None
    repo: str
    revision: str | None
    path: str


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
    folder = corpus_of(reuse) if corpus is None else Path(corpus)
    if folder is None:
        return {}
    by_revision: dict[tuple[str, str | None], list[_Named]] = {}
    for pattern, source in _patterns(folder):
        named = _parsed(pattern, source, str(folder / "corpus.toml"))
        by_revision.setdefault((named.repo, named.revision), []).append(named)
    found: HubFiles = {}
    for patterns in by_revision.values():
        found.update(_fetched(patterns))
    return found


def corpus_of(dataset: StrPath | None) -> Path | None:
    """Returns the corpus that a dataset with a kept spool was packed from; None if unknown."""
    if dataset is None:
        return None
    try:
        state = json.loads(read_whole(Path(dataset) / ".work" / "state.json", MANIFEST_LIMIT))
        corpus = state["corpus"]
        # The core writes a path that is not UTF-8 as its bytes.
        return Path(corpus if isinstance(corpus, str) else os.fsdecode(bytes(corpus)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _patterns(folder: Path) -> Iterator[tuple[str, str | None]]:
    """Yields each pattern of files of the Hub, with its source.

    A file that cannot be read, or is no TOML, names none here: the core says what is wrong with it.
    """
    try:
        text = read_whole(folder / "corpus.toml", CONFIG_LIMIT).decode("utf-8-sig")
        if SCHEME not in text:
            return
        config = tomllib.loads(text)
    except (OSError, ValueError, RecursionError):
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
    first = patterns[0]
    try:
        from huggingface_hub import HfApi, get_cached_repo_tree, snapshot_download
        from huggingface_hub.errors import CachedRepoTreeNotFoundError
    except ImportError as error:
        raise SabiprepError(
            f"files of the Hugging Face Hub need huggingface_hub: {error}",
            file=first.pattern,
            source=first.source,
            remedy="pip install 'sabiprep[hub]'",
        ) from error
    api = HfApi(library_name="sabiprep", library_version=version("sabiprep"))
    revision = _tried(
        lambda: api.resolve_revision(first.repo, repo_type="dataset", revision=first.revision),
        first,
    )

    def listed() -> list[str]:
        try:
            tree = get_cached_repo_tree(first.repo, repo_type="dataset", revision=revision)
        except CachedRepoTreeNotFoundError:
            return _tree(api, first.repo, revision)
        return [file.path for file in tree]

    paths = _tried(listed, first)
    matches: dict[str, list[str]] = {}
    for named in patterns:
        matches.update(_matched(named, paths))
    wanted = sorted({path for found in matches.values() for path in found})
    folder = _tried(
        lambda: snapshot_download(
            first.repo,
            repo_type="dataset",
            revision=revision,
            allow_patterns=[glob.escape(path) for path in wanted],
        ),
        first,
    )
    beginning = f"hf://datasets/{first.repo}@{revision.resolved}"
    return {
        pattern: [(os.path.join(folder, *path.split("/")), f"{beginning}/{path}") for path in found]
        for pattern, found in matches.items()
    }


def _tree(api: HfApi, repo: str, revision: str) -> list[str]:
    """Returns the paths of all files of a dataset, as the Hub lists them."""
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(repo, repo_type="dataset", revision=revision, recursive=True)
    return [file.path for file in tree if isinstance(file, RepoFile)]


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
            else f"look at its files: {_page(named)}/tree/{named.revision or 'main'}",
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


def _tried(request: Callable[[], T], named: _Named) -> T:
    """Returns what ``request`` gives, asked again while the Hub or the connection falters.

    Raises:
        InputError: If it fails.
    """
    for attempt in range(ATTEMPTS):
        try:
            return request()
        except Exception as error:
            if attempt + 1 == ATTEMPTS or not _may_pass(error):
                raise _refused(error, named) from error
            time.sleep(PAUSE * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def _may_pass(error: BaseException | None) -> bool:
    """Returns whether another attempt may succeed. That nobody listens will not pass so soon."""
    from huggingface_hub.errors import HfHubHTTPError

    if error is None:
        return False
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    is_cut = any(words in str(error) for words in CUT_SHORT)
    return is_cut or _may_pass(error.__cause__)


def _refused(error: Exception, named: _Named) -> SabiprepError:
    """Returns the error of a request that failed, with its place and its remedy."""
    from huggingface_hub import errors

    # An error about the cache is less telling than the answer of the Hub that led to it.
    if isinstance(error.__cause__, errors.HfHubHTTPError):
        error = error.__cause__
    page = _page(named)
    token = "log in with `hf auth login`, or set HF_TOKEN"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    offline = isinstance(
        error,
        errors.OfflineModeIsEnabled
        | errors.LocalEntryNotFoundError
        | errors.RevisionResolutionError,
    )
    if isinstance(error, errors.GatedRepoError):
        what, remedy = "is gated", f"accept its conditions at {page}, and {token}"
    elif isinstance(error, errors.RepositoryNotFoundError):
        what, remedy = (
            "no such dataset on the Hub, or it is private",
            f"check its name: {page}; for a private one {token}",
        )
    elif isinstance(error, errors.RevisionNotFoundError):
        what, remedy = (
            f"the dataset has no revision '{named.revision or 'main'}'",
            f"name a branch, a tag or a commit of {page}",
        )
    elif status in (401, 403):
        what, remedy = f"the Hub refuses it ({status})", token
    elif status is not None:
        what, remedy = f"the Hub answers {status}", "try again later"
    elif offline and os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        what, remedy = (
            "is not whole in the cache, and HF_HUB_OFFLINE is set",
            "pack once without HF_HUB_OFFLINE, or set HF_HOME to the cache that has it",
        )
    else:
        what, remedy = (
            f"cannot be fetched: {_in_short(error)}",
            "check the connection (and HF_ENDPOINT, if it is set); what was fetched is kept",
        )
    return InputError(what, file=named.pattern, source=named.source, remedy=remedy)


def _in_short(error: Exception) -> str:
    """Returns an error's first line, without what URLs carry after a question mark."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"\?[^\s'\")]*", "?…", line)


def _page(named: _Named) -> str:
    return f"https://huggingface.co/datasets/{named.repo}"
