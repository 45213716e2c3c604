"""Checkpoints of the Hugging Face Hub: ``hf://OWNER/NAME[@REVISION]``, fetched into its cache.

``HF_HUB_OFFLINE`` and the other settings of ``huggingface_hub`` hold.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from sabiprep.errors import ConfigError, InputError
from sabiprep.hub_requests import Place, fetched, hub_api, listed_paths, resolved_commit
from sabiprep.places import is_remote, place_of
from sabitrain.checkpoints.remote_checkpoint import fetch_checkpoint

SCHEME = "hf://"
_PATTERN = re.compile(r"hf://(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)(?:@(?P<revision>[^/]+))?/?")
# Of the first folder alone: other folders hold weights for other programs.
_WANTED = re.compile(r"[^/]+\.(json|jinja|safetensors|model|txt)")


def find_checkpoint(text: str, weights: bool = True) -> tuple[Path, str]:
    """Returns the folder of a checkpoint, and its name with the commit where it is of the Hub.

    Args:
        text: A folder, a URL of an object store, or ``hf://OWNER/NAME[@REVISION]``.
        weights: Whether the weights are fetched too.

    Raises:
        ConfigError: If it is neither.
        InputError: If it cannot be found or fetched, or holds no safetensors.
        TrainError: If an object store holds no checkpoint there.
        SabiprepError: If ``huggingface_hub`` or ``obstore`` is not installed.
    """
    if is_remote(text):
        return fetch_checkpoint(text, weights), place_of(text)
    if not text.startswith(SCHEME):
        return Path(text), text
    match = _PATTERN.fullmatch(text)
    if match is None or match["owner"] == "datasets":
        raise ConfigError(
            f'"{text}" names no model of the Hub',
            remedy="write hf://OWNER/NAME or hf://OWNER/NAME@REVISION",
        )
    # A branch such as refs/pr/1 is written with %2F.
    revision = None if match["revision"] is None else unquote(match["revision"])
    place = Place(text, f"{match['owner']}/{match['name']}", revision, "model")
    api = hub_api(place)
    resolved = resolved_commit(api, place)
    paths = listed_paths(api, place, resolved)
    _refuse_pickles(place, paths)
    wanted = [path for path in paths if _WANTED.fullmatch(path)]
    if not weights:
        wanted = [path for path in wanted if not path.endswith(".safetensors")]
    folder = fetched(place, resolved, wanted)
    return Path(folder), f"{SCHEME}{place.repo}@{resolved.resolved}"


def _refuse_pickles(place: Place, paths: list[str]) -> None:
    """Refuses a repository without safetensors, before anything is fetched."""
    if any(re.fullmatch(r"[^/]+\.safetensors", path) for path in paths):
        return
    pickle = next((path for path in paths if path.endswith((".bin", ".pt", ".pth"))), None)
    what = (
        "holds no safetensors"
        if pickle is None
        else f"holds its weights as a pickle ({pickle}), which can run any code when it is opened"
    )
    raise InputError(
        what,
        file=place.name,
        remedy=f"look for a revision with safetensors: {place.page}/discussions, where the Hub "
        "offers converted ones (refs%2Fpr%2FN)",
    )
