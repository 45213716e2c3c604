"""A run in an object store: ``--run s3://BUCKET/RUN``.

The run lies in a folder of this machine, like any other, and is kept up in the store: with each
checkpoint, its files, then the record and ``config.toml``, then ``trainer.json``, which makes it
count; then the object ``checkpoint``, whose text is the place of the newest; then checkpoints that
need not be kept are removed. Where an upload fails, training goes on, and the next checkpoint is
uploaded again; a run whose last checkpoint is not in the store ends in an error.

``--resume`` fetches the newest whole checkpoint and the record, unless the folder has them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from sabiprep.errors import ConfigError, OutputError, SabiprepError, TrainError
from sabiprep.files import MANIFEST_LIMIT
from sabiprep.object_stores import Bucket
from sabiprep.places import is_remote
from sabitrain.checkpoints import files, history
from sabitrain.checkpoints.remote_lock import RemoteLock, TakenOver
from sabitrain.checkpoints.settings import CheckpointConfig
from sabitrain.checkpoints.trainer_state import FACTS_FILE, read_progress
from sabitrain.config import TrainConfig
from sabitrain.config_file import CONFIG_FILE

METRICS_FILE = "metrics.jsonl"
LOCK_FILE = ".sabitrain.lock"
TENSORBOARD_FOLDER = "tensorboard"
EVENTS = "events.out.tfevents."
"""How the names of TensorBoard's files begin."""


class Say(Protocol):
    """A function that shows a line to people."""

    def __call__(self, text: str, /) -> object:
        """Shows a line."""


def show(text: str) -> None:
    """Prints a line, before there is a console."""
    print(text, flush=True)


class Mirror:
    """A run in an object store and its folder on this machine.

    Attributes:
        say: The function that takes a line about uploads that failed.
    """

    def __init__(self, config: TrainConfig, lock: RemoteLock) -> None:
        """Keeps its arguments; `open_mirror` makes one."""
        self.say: Say = show
        self._run, self._lock = config.folder, lock
        self._bucket, self._config = Bucket(config.run), config.checkpoint
        self._behind: SabiprepError | None = None
        self._newest: Path | None = None

    def upload(self, checkpoint: Path) -> None:
        """Uploads a checkpoint and the record, and removes what need not be kept.

        A failure is shown, not raised: the next checkpoint is uploaded again.

        Args:
            checkpoint: The folder of the newest checkpoint of the run.

        Raises:
            OutputError: If another machine has taken the run over.
        """
        self._newest = checkpoint
        try:
            self._lock.check()
            self._upload(checkpoint)
            self._behind = None
        except TakenOver:
            raise
        except SabiprepError as error:
            self._behind = error
            self.say(
                f"{checkpoint.name} is not in {self._bucket.place}: {error.message}\n"
                f"training goes on, and the next checkpoint is uploaded again; this one is in "
                f"{checkpoint}"
            )

    def _upload(self, checkpoint: Path) -> None:
        """Uploads a checkpoint, ``trainer.json`` last."""
        folder = f"{history.FOLDER}/{checkpoint.name}"
        facts = f"{folder}/{FACTS_FILE}"
        names = self._bucket.names()
        is_there = (
            facts in names
            and self._bucket.read(facts, MANIFEST_LIMIT) == (checkpoint / FACTS_FILE).read_bytes()
        )
        if not is_there:
            # While its files are replaced, a checkpoint of that step must not count.
            self._remove([facts] if facts in names else [])
            for path in sorted(checkpoint.iterdir()):
                if path.name != FACTS_FILE:
                    self._bucket.upload(f"{folder}/{path.name}", path)
        self.upload_record()
        if not is_there:
            self._bucket.upload(facts, checkpoint / FACTS_FILE)
        self._bucket.put(history.LINK, f"{folder}\n".encode())
        self._remove_superseded(checkpoint)

    def upload_record(self) -> None:
        """Uploads ``config.toml``, the record and TensorBoard's files.

        Raises:
            SabiprepError: If the store cannot be written to.
        """
        events = self._run / TENSORBOARD_FOLDER
        for path in (
            self._run / CONFIG_FILE,
            self._run / METRICS_FILE,
            *(sorted(events.iterdir()) if events.is_dir() else ()),
        ):
            if path.exists():
                self._bucket.upload(str(path.relative_to(self._run)), path)

    def _remove_superseded(self, newest: Path) -> None:
        """Removes the checkpoints that need not be kept, as `History.settle` does."""
        names = self._bucket.names()
        steps = whole_steps(names)
        kept = set(history.kept_steps(steps, history.step_of(newest.name), self._config))
        self._remove(
            [name for name in names if (step := _step_in(name)) is not None and step not in kept]
        )

    def _remove(self, names: list[str]) -> None:
        """Removes objects, those first that make a checkpoint count."""
        for name in sorted(names, key=lambda name: (not name.endswith(f"/{FACTS_FILE}"), name)):
            self._bucket.delete(name)

    def begin(self, *, overwrite: bool, resume: bool) -> None:
        """Leaves in the store the run to go on with, or nothing.

        Raises:
            OutputError: If it holds a run and neither is asked for, or anything that no run has
                written.
        """
        names = set(self._bucket.names()) - {LOCK_FILE}
        foreign = next((name for name in sorted(names) if not _is_ours(name)), None)
        if foreign is not None:
            raise OutputError(
                f"it holds '{foreign}', which no training run has written",
                file=self._bucket.place,
                remedy="name another place, or move that away",
            )
        if names and overwrite:
            # First of all, so that a run that is half removed is not taken for one.
            self._remove([*(names & {CONFIG_FILE}), *(names - {CONFIG_FILE})])
        elif names and not resume:
            raise OutputError(
                "there is a run already",
                file=self._bucket.place,
                remedy="go on with it by --resume, name another place, or use --overwrite",
            )
        elif names:
            fetch(self._bucket, self._run, names, self._config, show)

    def finish(self, command: str) -> None:
        """Uploads the end of the record, and the newest checkpoint if it is not in the store yet.

        Args:
            command: The command that goes on with the run.

        Raises:
            OutputError: If the store cannot be written to, or another machine has the run.
        """
        try:
            self._lock.check()
            if self._behind is not None and self._newest is not None:
                self._upload(self._newest)
            else:
                self.upload_record()
        except TakenOver:
            raise
        except SabiprepError as error:
            raise OutputError(
                f"the end of the run is not in the store: {error.message}",
                file=self._bucket.place,
                remedy=f"all of it is in {self._run}; on this machine, this uploads it: {command}",
                errno=error.errno,
            ) from error

    def try_to_finish(self) -> None:
        """Uploads the record of a run that ends in an error, if that is possible."""
        with contextlib.suppress(SabiprepError, OSError):
            self._lock.check()
            self.upload_record()


@contextlib.contextmanager
def open_mirror(config: TrainConfig, command: str) -> Iterator[Mirror | None]:
    """Locks a run in an object store, and keeps it up inside the ``with``; None for a local run.

    The lock of the run's folder must be held.

    Args:
        config: The settings.
        command: The command that goes on with the run.

    Raises:
        OutputError: If another machine is at work in it, or its end cannot be uploaded.
        InputError: If the store cannot be reached.
    """
    if not is_remote(config.run):
        yield None
        return
    with RemoteLock(Bucket(config.run), LOCK_FILE, config.folder, show) as lock:
        mirror = Mirror(config, lock)
        try:
            yield mirror
        except Exception:
            mirror.try_to_finish()
            raise
        mirror.finish(command)


def fetch_run(config: TrainConfig) -> None:
    """Fetches the newest checkpoint of a run to resume from its store, and its record.

    Nothing is done for a run on this machine, or whose folder is as new; nor where another process
    is at work in the folder, which `begin_run` refuses.

    Raises:
        ConfigError: If the place can only be read.
        InputError: If the store cannot be reached.
        OutputError: If the folder cannot be written to.
    """
    if not is_remote(config.run):
        return
    bucket = Bucket(config.run)
    if bucket.place.startswith("http"):
        raise ConfigError(
            f"{bucket.place}: a run is written, and http is for reading alone",
            remedy="name a folder, or a place in an object store, as s3://BUCKET/RUN",
        )
    if not config.resume:
        return
    folder = config.folder
    try:
        files.make_folder(folder)
        with contextlib.suppress(BlockingIOError), files.Lock(folder / LOCK_FILE):
            fetch(bucket, folder, set(bucket.names()), config.checkpoint, show)
    except OSError as error:
        raise files.output_error(error, "cannot be written to", folder) from error


def fetch(
    bucket: Bucket, run: Path, names: set[str], config: CheckpointConfig, say: Callable[[str], None]
) -> None:
    """Fetches the newest whole checkpoint and the record, unless the folder is as new.

    Args:
        bucket: The run.
        run: Its folder on this machine.
        names: The objects of the run.
        config: Which checkpoints to keep.
        say: The function that takes a line about what is fetched, and what is damaged.
    """
    own = _newest_whole(run)
    for step in sorted(whole_steps(names), reverse=True):
        if own is not None and step <= own:
            break
        folder = run / history.FOLDER / history.folder_name(step)
        say(f"fetching {folder.name} from {bucket.place}")
        unfinished = _fetch_checkpoint(bucket, folder, names)
        try:
            read_progress(unfinished)
        except TrainError as error:
            say(f"{bucket.place}/{history.FOLDER}/{folder.name}: {error.message}; going back")
            files.remove(unfinished)
            continue
        # The checkpoint last: a folder that has it has all.
        _fetch_record(bucket, run, names)
        # A damaged one is in the way of the rename.
        files.remove(folder)
        files.rename(unfinished, folder)
        history.History(run, config).settle(folder)
        return
    # A run that was stopped before its first checkpoint.
    if own is None and CONFIG_FILE in names and not (run / CONFIG_FILE).exists():
        _fetch_record(bucket, run, names)


def _newest_whole(run: Path) -> int | None:
    """Returns the step of the newest checkpoint of a folder that is whole."""
    for folder in reversed(history.folders(run)):
        with contextlib.suppress(TrainError):
            read_progress(folder)
            return history.step_of(folder.name)
    return None


def _fetch_checkpoint(bucket: Bucket, folder: Path, names: set[str]) -> Path:
    """Fetches a checkpoint, and returns its folder under the name of an unfinished one."""
    unfinished = files.unfinished_name(folder)
    files.remove(unfinished)
    files.make_folder(unfinished)
    prefix = f"{history.FOLDER}/{folder.name}/"
    for name in sorted(name for name in names if name.startswith(prefix)):
        _fetch_file(bucket, name, unfinished / name.removeprefix(prefix))
    files.sync(unfinished)
    return unfinished


def _fetch_record(bucket: Bucket, run: Path, names: set[str]) -> None:
    """Fetches the record and TensorBoard's files, and ``config.toml`` last."""
    if METRICS_FILE in names:
        _fetch_file(bucket, METRICS_FILE, run / METRICS_FILE)
    for name in sorted(name for name in names if name.startswith(f"{TENSORBOARD_FOLDER}/")):
        files.make_folder(run / TENSORBOARD_FOLDER)
        _fetch_file(bucket, name, run / name)
    if CONFIG_FILE in names:
        files.replace_file(run / CONFIG_FILE, bucket.read(CONFIG_FILE, MANIFEST_LIMIT))


def _fetch_file(bucket: Bucket, name: str, path: Path) -> None:
    """Fetches an object into a file, which is replaced."""
    head = bucket.head(name)
    descriptor = files.disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        bucket.fetch(name, head, lambda start, part: files.disk.fill(descriptor, start, part))
        files.disk.sync(descriptor)
    finally:
        os.close(descriptor)


def whole_steps(names: set[str] | dict[str, int]) -> list[int]:
    """Returns the steps of the checkpoints that count: those with ``trainer.json``."""
    return sorted(
        step
        for name in names
        if name.endswith(f"/{FACTS_FILE}") and (step := _step_in(name)) is not None
    )


def _step_in(name: str) -> int | None:
    """Returns the step of the checkpoint that an object is of, if it is of one."""
    match name.split("/"):
        case [history.FOLDER, folder, _] if history.is_finished_name(folder):
            return history.step_of(folder)
    return None


def _is_ours(name: str) -> bool:
    """Returns whether a run writes an object of this name."""
    match name.split("/"):
        case [top]:
            return top in {CONFIG_FILE, METRICS_FILE, LOCK_FILE, history.LINK}
        case [history.FOLDER, folder, file]:
            return history.is_finished_name(folder) and file in history.ALL_FILES
        case [top, file]:
            return top == TENSORBOARD_FOLDER and file.startswith(EVENTS)
    return False
