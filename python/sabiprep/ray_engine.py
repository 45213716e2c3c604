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

from sabiprep.errors import ConfigError, SabiprepError
from sabiprep.options import PackOptions, StrPath
from sabiprep.places import is_remote, place_of
from sabiprep.ray_workers import RayWorkers, Run, last_line

CONNECT_SECONDS = 10.0
HOST_AND_PORT = re.compile(r"([^/:]+):(\d+)")
NAME_IT = "name the cluster's own address: --ray-address HOST:6379"


def _absolute(place: StrPath) -> str:
    """Returns a place as every process of a machine understands it."""
    return place_of(place) if is_remote(place) else os.path.abspath(place)


def _checked(address: str | None) -> str | None:
    """Returns the address that a run is to use; None for the cluster of this machine.

    Raises:
        ConfigError: If it can be no cluster's.
    """
    if address is None:
        return os.environ.get("RAY_ADDRESS") or None
    if not address.strip():
        raise ConfigError("the address of the Ray cluster is empty", remedy=NAME_IT)
    if address.startswith("ray://"):
        raise ConfigError(
            f"{address} is the address of a Ray client, which packing does not use",
            remedy=f"run on a machine of the cluster, and {NAME_IT}",
        )
    return address


def _refuses_token(error: BaseException | None) -> bool:
    """Returns whether a cluster was not reached for want of its token."""
    while error is not None:
        if "InvalidAuthToken" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _connect(ray: Any, address: str | None) -> str:
    """Connects to a cluster, or without an address to this machine's, which is started if need be.

    Returns:
        The cluster in words.

    Raises:
        SabiprepError: If the cluster cannot be reached.
    """
    stops = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    settings: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    is_new = False
    try:
        if address is not None and (found := HOST_AND_PORT.fullmatch(address)):
            # Ray itself would wait for minutes, and write of its own accord.
            socket.create_connection((found[1], int(found[2])), CONNECT_SECONDS).close()
        try:
            ray.init(address=address or "auto", **settings)
        except ConnectionError:
            if address is not None:
                raise
            ray.init(address="local", **settings)
            is_new = True
    except (ConnectionError, RuntimeError, ValueError, OSError, OverflowError) as error:
        cluster = f"the Ray cluster {address or 'of this machine'}"
        if _refuses_token(error):
            raise SabiprepError(
                f"{cluster} asks for a token, and refuses that of this machine",
                remedy="give its nodes and this machine one RAY_AUTH_MODE (token or disabled) and, "
                "for token, one file ~/.ray/auth_token",
            ) from error
        raise SabiprepError(
            f"{cluster} cannot be reached: {last_line(error)}",
            remedy=f"start it (`ray start --head`), and {NAME_IT}; docs/cluster.md shows Slurm "
            "and Kubernetes",
        ) from error
    # Ray ends the process at a signal; a run of ours stops, and says how to go on.
    if threading.current_thread() is threading.main_thread():
        for number, handler in stops.items():
            signal.signal(number, handler)
    return "a Ray cluster started for it" if is_new else _named(ray)


def _named(ray: Any) -> str:
    """Returns the connected cluster in words."""
    return f"the Ray cluster at {ray.get_runtime_context().gcs_address}"


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
        ConfigError: If the address can be no cluster's.
        SabiprepError: If Ray is not installed, or the cluster cannot be reached.
    """
    address = _checked(address)
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
    cluster = _connect(ray, address) if is_ours else _named(ray)
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
    workers = RayWorkers(ray, run, cluster)
    try:
        workers.start()
        yield workers
    finally:
        try:
            workers.close()
        finally:
            if is_ours:
                ray.shutdown()
