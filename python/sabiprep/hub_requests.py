"""Requests to the Hugging Face Hub: tried again where it falters, and refused in words.

The caller names a place as the user wrote it; errors bear that name.
"""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sabiprep.errors import InputError, SabiprepError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ATTEMPTS = 4
"""How often a request is made that the Hub answers by 429 or 5xx, or whose answer is cut short."""
PAUSE = 0.5
"""Seconds before the second attempt; each later pause is twice as long."""

CUT_SHORT = ("Consistency check failed", "peer closed connection", "Server disconnected")
"""Parts of the messages about an answer that ends too soon."""

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """A repository of the Hub, as the user named it.

    Attributes:
        name: The words of the user, for errors.
        repo: ``OWNER/NAME``.
        revision: A branch, a tag or a commit; None for the main branch.
        kind: The kind of repository.
        source: The source of ``corpus.toml`` that names it, if one does.
    """

    name: str
    repo: str
    revision: str | None
    kind: Literal["dataset", "model"]
    source: str | None = None

    @property
    def page(self) -> str:
        """Returns the address of its page."""
        return f"https://huggingface.co/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}"


def hub_api(place: Place) -> HfApi:
    """Returns the client of the Hub.

    Raises:
        SabiprepError: If ``huggingface_hub`` is not installed.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise SabiprepError(
            f"files of the Hugging Face Hub need huggingface_hub: {error}",
            file=place.name,
            source=place.source,
            remedy="pip install 'sabiprep[hub]'",
        ) from error
    return HfApi(library_name="sabiprep", library_version=version("sabiprep"))


def resolved_commit(api: HfApi, place: Place) -> Any:
    """Returns the revision of a place with its commit, as ``huggingface_hub`` has both.

    Raises:
        InputError: If there is none.
    """
    return tried(
        lambda: api.resolve_revision(place.repo, repo_type=place.kind, revision=place.revision),
        place,
    )


def listed_paths(api: HfApi, place: Place, revision: Any) -> list[str]:
    """Returns the paths of all files at a revision, from the cache if it holds the list.

    Raises:
        InputError: If they cannot be had.
    """
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError
    from huggingface_hub.hf_api import RepoFile

    def listed() -> list[str]:
        kind = place.kind
        try:
            tree = get_cached_repo_tree(place.repo, repo_type=kind, revision=revision)
        except CachedRepoTreeNotFoundError:
            all_ = api.list_repo_tree(place.repo, repo_type=kind, revision=revision, recursive=True)
            return [file.path for file in all_ if isinstance(file, RepoFile)]
        return [file.path for file in tree]

    return tried(listed, place)


def fetched(place: Place, revision: Any, paths: list[str]) -> str:
    """Returns the folder of the cache that holds these files, fetched where it does not.

    Raises:
        InputError: If one cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    return tried(
        lambda: snapshot_download(
            place.repo,
            repo_type=place.kind,
            revision=revision,
            allow_patterns=[glob.escape(path) for path in paths],
        ),
        place,
    )


def tried(request: Callable[[], T], place: Place) -> T:
    """Returns what ``request`` gives, asked again while the Hub or the connection falters.

    Raises:
        InputError: If it fails.
    """
    for attempt in range(ATTEMPTS):
        try:
            return request()
        except Exception as error:
            if attempt + 1 == ATTEMPTS or not _may_pass(error):
                raise _refused(error, place) from error
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


def _refused(error: Exception, place: Place) -> SabiprepError:
    """Returns the error of a request that failed, with its place and its remedy."""
    from huggingface_hub import errors

    # An error about the cache is less telling than the answer of the Hub that led to it.
    if isinstance(error.__cause__, errors.HfHubHTTPError):
        error = error.__cause__
    page = place.page
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
            f"no such {place.kind} on the Hub, or it is private",
            f"check its name: {page}; for a private one {token}",
        )
    elif isinstance(error, errors.RevisionNotFoundError):
        what, remedy = (
            f"the {place.kind} has no revision '{place.revision or 'main'}'",
            f"name a branch, a tag or a commit of {page}",
        )
    elif status in (401, 403):
        what, remedy = f"the Hub refuses it ({status})", token
    elif status is not None:
        what, remedy = f"the Hub answers {status}", "try again later"
    elif offline and os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        what, remedy = (
            "is not whole in the cache, and HF_HUB_OFFLINE is set",
            "run once without HF_HUB_OFFLINE, or set HF_HOME to the cache that has it",
        )
    else:
        what, remedy = (
            f"cannot be fetched: {_in_short(error)}",
            "check the connection (and HF_ENDPOINT, if it is set); what was fetched is kept",
        )
    return InputError(what, file=place.name, source=place.source, remedy=remedy)


def _in_short(error: Exception) -> str:
    """Returns an error's first line, without what URLs carry after a question mark."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"\?[^\s'\")]*", "?…", line)
