"""The folder of a run: begun empty, taken up again with ``--resume``, or replaced.

It holds ``config.toml`` (the settings), ``metrics.jsonl`` (the record), ``checkpoints/`` (one
folder a step), ``checkpoint``, a link to the newest of them, and ``tensorboard/`` where that is
wanted. A folder without ``config.toml`` holds no run yet. While a run is at work in it, a lock file
keeps others out.

No other link belongs there: a folder that holds one is neither resumed nor replaced, so nothing
outside is touched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sabiprep.errors import ConfigError, OutputError
from sabiprep.places import place_of
from sabitrain.checkpoints import files, history
from sabitrain.checkpoints.remote_run import (
    EVENTS,
    LOCK_FILE,
    METRICS_FILE,
    TENSORBOARD_FOLDER,
    Mirror,
    open_mirror,
)
from sabitrain.config import TrainConfig
from sabitrain.config_file import CONFIG_FILE, resolve, to_toml
from sabitrain.settings import names_where

__all__ = ["EVENTS", "LOCK_FILE", "METRICS_FILE", "TENSORBOARD_FOLDER", "begin_run"]


@contextlib.contextmanager
def begin_run(config: TrainConfig) -> Iterator[Mirror | None]:
    """Makes the run folder and its ``config.toml``, unless there is a run to resume.

    Inside the ``with`` no other run can begin in the folder, go on in it or replace it. A run in an
    object store is locked there too; it is kept up by the `Mirror` that is yielded.

    Raises:
        ConfigError: If a path is not UTF-8.
        OutputError: If a run is at work in it, if it holds a run and neither ``resume`` nor
            ``overwrite`` is asked for, or if it holds anything else than a run.
        InputError: If the object store of the run cannot be reached, or refuses access.
    """
    run = config.folder
    # For its error alone, before anything is made.
    _written(config)
    with contextlib.ExitStack() as held:
        try:
            lock = run / LOCK_FILE
            if lock.is_symlink() or not lock.exists():
                # So that nothing is made, not even the lock, where no run has been.
                _refuse_foreign(run)
            files.make_folder(run)
            # Held until the end of the run; a process that is killed lets go of it too.
            held.enter_context(files.Lock(lock))
            mirror = held.enter_context(open_mirror(config, resume_command(config)))
            if mirror is not None:
                mirror.begin(overwrite=config.overwrite, resume=config.resume)
            _make_ready(config)
            if mirror is not None:
                # Before anything is trained: a place that cannot be written to is refused here.
                mirror.upload_record()
        except BlockingIOError as error:
            holder = f" (process {error.strerror})" if error.strerror else ""
            raise OutputError(
                f"another run is at work in it{holder}",
                file=str(run),
                remedy="wait until that has ended, stop it with Ctrl-C, "
                "or name another folder with --run",
            ) from error
        except OSError as error:
            raise files.output_error(error, "cannot be written to", run) from error
        yield mirror


def _make_ready(config: TrainConfig) -> None:
    """Leaves in a locked run folder the run to go on with, or ``config.toml`` alone."""
    run = config.folder
    # Again: the folder may have changed before the lock was taken.
    _refuse_foreign(run)
    present = {path.name for path in run.iterdir()} - {
        LOCK_FILE,
        files.unfinished_name(run / CONFIG_FILE).name,
    }
    # An unfinished config.toml alone is a run that was stopped before it began.
    if present:
        if config.resume and CONFIG_FILE in present:
            return
        if not config.overwrite:
            raise OutputError(
                "the run folder is not empty",
                file=str(run),
                remedy="go on with its run by --resume, name another folder, or use --overwrite",
                errno=errno.EEXIST,
            )
        if run.is_symlink():
            raise OutputError(
                f"is a link to {run.resolve()}, and --overwrite removes nothing behind a link",
                file=str(run),
                remedy=f"use --run {shlex.quote(str(run.resolve()))}",
            )
        # First of all, so that a folder that is half removed is not taken for a run.
        files.remove(run / CONFIG_FILE)
        for name in sorted(present):
            files.remove(run / name)
    files.replace_file(run / CONFIG_FILE, _written(config))


def _written(config: TrainConfig) -> bytes:
    """Returns the bytes of a run's ``config.toml``.

    Raises:
        ConfigError: If a path is not UTF-8: TOML cannot name it.
    """
    try:
        return to_toml(config).encode()
    except UnicodeEncodeError as error:
        line = (
            error.object[: error.start].rpartition("\n")[2]
            + error.object[error.start :].partition("\n")[0]
        )
        raise ConfigError(
            f"a path is not UTF-8, and {CONFIG_FILE} could not name it: {line}",
            remedy="give the folder another name, or make a link to it whose name is UTF-8",
        ) from error


def take_up(saved: Mapping[str, Any], step: int, config: TrainConfig) -> TrainConfig:
    """Returns the configuration to go on with from a checkpoint.

    No setting may have changed that affects the trained weights. The ``skip_batches`` of the result
    are those that the run has passed over, and those of the session after ``step``.

    Args:
        saved: The configuration of the checkpoint, from `plain_configuration`.
        step: The step of the checkpoint.
        config: The configuration of the session.

    Raises:
        ConfigError: If a setting has changed; the message names it.
    """
    now = plain_configuration(config)
    # A setting that is newer than the checkpoint had its default when that was written.
    filled = {
        name: {**default, **saved.get(name, {})}
        if isinstance(default, dict)
        else saved.get(name, default)
        for name, default in _defaults().items()
    }
    before = {**saved, **filled}
    # In the order of names, so that the same setting is named each time.
    free = names_where(TrainConfig, "may_change", True)
    for name in sorted(before.keys() | now.keys()):
        if name not in free and before.get(name) != now.get(name):
            _refuse_change(name, before.get(name), now.get(name), config)
    passed = {
        *saved.get("skip_batches", ()),
        *(batch for batch in config.skip_batches if batch > step),
    }
    return dataclasses.replace(config, skip_batches=tuple(sorted(passed)))


def _defaults() -> dict[str, Any]:
    """Returns the plain configuration of a run with the default of every setting."""
    return plain_configuration(TrainConfig(data=("",), run=Path()))


def _refuse_change(name: str, before: Any, after: Any, config: TrainConfig) -> NoReturn:
    """Raises `ConfigError` for a setting that differs from the run to go on with."""
    if isinstance(before, dict) and isinstance(after, dict):
        key = next(
            key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)
        )
        name, before, after = f"{name}.{key}", before.get(key), after.get(key)
    raise ConfigError(
        f"{name} is {after!r}, but this run was begun with {before!r}, "
        "and its checkpoints hold for that alone",
        file=config.run_name,
        remedy=f"leave --{name.replace('_', '-')} out, or start another run",
    )


def keep_skipped(config: TrainConfig) -> None:
    """Adds ``skip_batches`` to ``config.toml``, so that later sessions pass over them too."""
    file = config.folder / CONFIG_FILE
    kept = resolve(None, file, {})
    skipped = tuple(sorted({*kept.skip_batches, *config.skip_batches}))
    # Not written where nothing changes: a run that only goes on leaves its file alone.
    if skipped != kept.skip_batches:
        files.replace_file(file, to_toml(dataclasses.replace(kept, skip_batches=skipped)).encode())


def plain_configuration(config: TrainConfig) -> dict[str, Any]:
    """Returns the resolved configuration in the types of JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, tuple):
            return [plain(inner) for inner in value]
        return place_of(value) if isinstance(value, Path) else value

    result: dict[str, Any] = plain(dataclasses.asdict(config))
    # Datasets are known by their fingerprint, wherever they lie; what binds is how they are mixed.
    mixed = len(config.datasets) > 1
    result["data"] = list(config.mix.weights) if mixed else []
    result["data_end"] = config.mix.weights_at_end if mixed else None
    return result


def resume_command(config: TrainConfig, past: Sequence[int] = ()) -> str:
    """Returns the command that resumes a run, past the batches of the steps ``past``."""
    skip = sorted({*config.skip_batches, *past}) if past else ()
    command = f"python -m sabitrain --run {shlex.quote(config.run_name)} --resume"
    return " ".join([command, "--skip-batches", *map(str, skip)] if skip else [command])


def _refuse_foreign(run: Path) -> None:
    """Raises `OutputError` if a folder holds an entry that no run has written.

    Such a folder is neither resumed nor removed.
    """
    foreign = next(
        (path for path in _entries(run) if not _is_ours(path.relative_to(run), path)), None
    )
    if foreign is not None:
        kind = "a link, which" if foreign.is_symlink() else "which"
        raise OutputError(
            f"it holds '{foreign.relative_to(run)}', {kind} no training run has written",
            file=str(run),
            remedy="name another folder, or move that away",
        )


def _entries(run: Path) -> Iterator[Path]:
    """Yields the entries of a run folder, in order, and of the folders that a run makes in it.

    Links are not followed.
    """
    for path in sorted(run.iterdir()) if run.exists() else ():
        yield path
        if (
            path.name in (history.FOLDER, TENSORBOARD_FOLDER)
            and path.is_dir()
            and not path.is_symlink()
        ):
            for inner in sorted(path.iterdir()):
                yield inner
                if path.name == history.FOLDER and inner.is_dir() and not inner.is_symlink():
                    yield from sorted(inner.iterdir())


def _is_ours(place: Path, path: Path) -> bool:
    """Returns whether a run writes something like ``path`` at this place in its folder."""
    # Only the link to the newest checkpoint, finished or not, may be a link.
    match place.parts:
        case (name,) if name in (
            history.LINK,
            files.unfinished_name(place.with_name(history.LINK)).name,
        ):
            return path.is_symlink()
        case _ if path.is_symlink():
            return False
        case (name,):
            unfinished = files.unfinished_name(place.with_name(CONFIG_FILE)).name
            return name in {
                CONFIG_FILE,
                METRICS_FILE,
                LOCK_FILE,
                history.FOLDER,
                TENSORBOARD_FOLDER,
                unfinished,
            }
        case (history.FOLDER, name):
            return history.is_ours(name) and path.is_dir()
        case (history.FOLDER, _, name):
            return name in history.ALL_FILES
        case (_, name):
            return name.startswith(EVENTS)
    return False
