"""Packing on a Ray cluster: the connection to it, for as long as a run takes."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sabiprep.errors import SabiprepError
from sabiprep.options import PackOptions, StrPath
from sabiprep.places import is_remote, place_of
from sabiprep.ray_workers import RayWorkers, Run, last_line

CONNECT_SECONDS = 10.0
HOST_AND_PORT = re.compile(r"(?:ray://)?([^/:]+):(\d+)")


def _absolute(place: StrPath) -> str:
    """Returns a place as every process of a machine understands it."""
    return place_of(place) if is_remote(place) else os.path.abspath(place)


def _connect(ray: Any, address: str | None) -> None:
    """Connects to a cluster, or without an address to this machine's, which is started if need be.

    Raises:
        SabiprepError: If the cluster cannot be reached.
    """
    stops = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if address is not None and (found := HOST_AND_PORT.fullmatch(address)):
            # Ray itself would wait for minutes, and write of its own accord.
            socket.create_connection((found[1], int(found[2])), CONNECT_SECONDS).close()
        ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError, OverflowError) as error:
        raise SabiprepError(
            f"the Ray cluster {address or 'of this machine'} cannot be reached: {last_line(error)}",
            remedy="start it (`ray start --head`), and name its address: --ray-address HOST:6379; "
            "docs/cluster.md shows Slurm and Kubernetes",
        ) from error
    # Ray ends the process at a signal; a run of ours stops, and says how to go on.
    if threading.current_thread() is threading.main_thread():
        for number, handler in stops.items():
            signal.signal(number, handler)


@contextmanager
def ray_workers(
    corpus: StrPath, out: StrPath, options: PackOptions, address: str | None
) -> Iterator[RayWorkers]:
    """Connects to a Ray cluster until the end of the ``with``, and yields its workers.

    Args:
        corpus: The folder of the corpus, as every node sees it.
        out: The folder of the dataset, as every node sees it.
        options: The settings of the run; ``threads`` are the cores of a task.
        address: The cluster's address. None takes ``RAY_ADDRESS``, or the cluster that runs on this
            machine, or starts one on its cores.

    Raises:
        SabiprepError: If Ray is not installed, or the cluster cannot be reached.
    """
    # Nobody is told of our users' runs unless they choose so.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's next behaviour, without a warning: it leaves the GPUs that it was not asked for alone.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise SabiprepError(
            f"Ray is not installed: {error}", remedy="pip install 'sabiprep[ray]'"
        ) from error
    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(ray, address or os.environ.get("RAY_ADDRESS") or None)
    run = Run(
        corpus=_absolute(corpus),
        out=_absolute(out),
        options=replace(
            options,
            threads=options.threads or 1,
            tokenizer=options.tokenizer and _absolute(options.tokenizer),
            reuse=options.reuse and _absolute(options.reuse),
        ),
    )
    workers = RayWorkers(ray, run)
    try:
        workers.start()
        yield workers
    finally:
        try:
            workers.close()
        finally:
            if is_ours:
                ray.shutdown()
