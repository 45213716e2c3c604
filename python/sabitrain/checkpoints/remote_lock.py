"""The lock of a run in an object store: one machine at a time, and none for good.

The lock is an object that is put only where there is none. Its holder renews it while the run
lasts. One that is not renewed was left by a machine that is gone: whoever sees it unchanged for
`LEASE` seconds takes it over, again by a conditional put, so that one of several does.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sabiprep.errors import OutputError, SabiprepError
from sabiprep.object_stores import Bucket, Conflict, Head, Unsupported

RENEWAL = 10.0
"""Seconds between two renewals of a lock, as for those of packing."""
LEASE = 60.0
"""Seconds after which a lock that was not renewed is taken over."""
_LOOK = 5.0
_LIMIT = 1 << 16


class TakenOver(OutputError):
    """The error of a run whose lock another machine has taken."""


class RemoteLock:
    """The lock of a run in a bucket, held by one session; a context manager."""

    def __init__(
        self, bucket: Bucket, name: str, folder: Path, say: Callable[[str], object]
    ) -> None:
        """Takes the lock, and begins to renew it.

        Args:
            bucket: The run.
            name: The name of the lock in it.
            folder: The run's folder on this machine, whose own lock is held: a lock of the same
                machine and folder is that of a process that is gone.
            say: The function that takes a line if the lock must be waited for.

        Raises:
            OutputError: If another run renews it.
            InputError: If the store cannot be reached or written to.
        """
        self._bucket, self._name = bucket, name
        self._owner = {
            "id": secrets.token_hex(16),
            "host": socket.gethostname(),
            "process": os.getpid(),
            "folder": str(folder),
        }
        self._renewals = 0
        self._held: Head | None = None
        self._is_lost = False
        self._renewing = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="sabitrain-lock", daemon=True)
        try:
            self._held = self._take(say)
        except Unsupported as error:
            # Better a run without a lock than none.
            say(f"{bucket.place}: {error.message}, so nothing keeps a second run out of it")
            return
        self._thread.start()

    def check(self) -> None:
        """Renews the lock: what is written right after is written by its holder.

        Raises:
            TakenOver: If another machine has taken it over.
            InputError: If the store cannot be reached.
        """
        self._renew()
        if self._is_lost:
            raise TakenOver(
                "another run has taken it over: this one could not renew its lock in time",
                file=self._bucket.place,
                remedy="let that run go on, or stop it and go on with --resume",
            )

    def _take(self, say: Callable[[str], object]) -> Head:
        """Returns the lock, taken at once or once it is seen to be left over."""
        held = self._put(None)
        while held is None:
            try:
                seen, owner = self._look()
            except FileNotFoundError:
                held = self._put(None)
                continue
            if not self._is_own(owner):
                self._wait(seen, owner, say)
            held = self._put(seen)
        return held

    def _is_own(self, owner: dict[str, Any]) -> bool:
        """Returns whether a lock is of this machine and folder."""
        return all(owner.get(key) == self._owner[key] for key in ("host", "folder"))

    def _wait(self, seen: Head, owner: dict[str, Any], say: Callable[[str], object]) -> None:
        """Waits until a lock was not renewed for as long as a lease lasts.

        Raises:
            OutputError: If it is renewed.
        """
        holder = f"{owner.get('host', 'another machine')} (process {owner.get('process', '?')})"
        say(
            f"{self._bucket.place} is locked by {holder}; "
            f"taking it over unless that renews the lock within {LEASE:.0f} s"
        )
        began = time.monotonic()
        while time.monotonic() - began < LEASE:
            time.sleep(min(_LOOK, LEASE / 4))
            try:
                now = self._bucket.head(self._name)
            except FileNotFoundError:
                return
            if now.e_tag != seen.e_tag:
                raise OutputError(
                    f"another run is at work in it, on {holder}",
                    file=self._bucket.place,
                    remedy="wait until that has ended, stop it, or name another place with --run",
                )

    def _look(self) -> tuple[Head, dict[str, Any]]:
        """Returns the lock that is there, and what it says of its owner."""
        seen, content = self._bucket.read_with_head(self._name, _LIMIT)
        try:
            owner = json.loads(content)
        except ValueError:
            owner = {}
        return seen, owner if isinstance(owner, dict) else {}

    def _put(self, replaces: Head | None) -> Head | None:
        """Returns the lock, put in the place of ``replaces``; None if another is there."""
        self._renewals += 1
        content = json.dumps({**self._owner, "renewals": self._renewals}).encode()
        try:
            return self._bucket.put(self._name, content, replaces)
        except Conflict:
            # A request that was made twice, since its answer was lost, meets its own lock.
            try:
                seen, owner = self._look()
            except FileNotFoundError:
                return None
            return seen if owner.get("id") == self._owner["id"] else None

    def _renew(self) -> None:
        """Renews the lock, or finds that another machine has it.

        Raises:
            InputError: If the store cannot be reached.
        """
        with self._renewing:
            # Where there are no conditional puts, there is no lock.
            if self._held is None or self._is_lost:
                return
            held = self._put(self._held)
            if held is None:
                self._is_lost = True
            else:
                self._held = held

    def _keep(self) -> None:
        """Renews the lock until the end of the run, or until another machine has it."""
        while not self._is_lost and not self._stop.wait(RENEWAL):
            # Where the store is away: once it is back, the lock is renewed or found to be lost.
            with contextlib.suppress(SabiprepError):
                self._renew()

    def __enter__(self) -> Self:
        """Returns the lock, removed at the end of the ``with``."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Removes the lock, unless another machine has it. It falls by itself where that fails."""
        if not self._thread.is_alive() and not self._is_lost:
            return
        self._stop.set()
        self._thread.join()
        try:
            if not self._is_lost and self._look()[1].get("id") == self._owner["id"]:
                self._bucket.delete(self._name)
        except SabiprepError:
            return
