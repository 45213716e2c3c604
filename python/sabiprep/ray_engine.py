"""Packing on a Ray cluster: tasks of the core as Ray tasks, on nodes that see the same folders.

Documents never pass through Ray: a task is a few lines of JSON, and so is what comes back. Spools
and shards lie in the dataset's folder. The leader holds back what no node has room for, so that a
file is read by as few nodes as possible, and gives the tasks of a lost node to others.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sabiprep.errors import ConfigError, SabiprepError
from sabiprep.options import PackOptions, StrPath
from sabiprep.places import is_remote, place_of

TRIES = 4
"""How often a task is begun, on one node after another, before the run stops."""
SHARDS_A_TASK = 4
"""Shards for each task that runs beside others from which on a task has the run's threads."""
THREADS_A_SHARD = 8
"""Most threads that make a shard together: one of them writes it."""
AHEAD = 1
"""Tasks that wait on each node beside those that run, so that no worker waits for the leader."""
WAIT_SECONDS = 0.2
"""The longest wait for an outcome before the leader looks at signals and nodes."""
NODES_SECONDS = 2.0
"""The time between two looks at the nodes of the cluster."""

CONNECT_SECONDS = 10.0
HOST_AND_PORT = re.compile(r"(?:ray://)?([^/:]+):(\d+)")

Order = tuple[str, list[str], int, int]
"""Kind, tasks as JSON, weight, and the index of the file that they read."""


class Run(NamedTuple):
    """What a worker needs to know of a run."""

    id: str
    corpus: str
    out: str
    options: PackOptions


class Outcome(NamedTuple):
    """What came of an order: its text, and the process that did it."""

    text: str
    process: tuple[str, int]


_workers: dict[str, Any] = {}
"""The worker of the run that this process last had tasks of, with the files that it names."""


def load_core() -> None:
    """Imports the core in this process, for the tasks that follow."""
    _core()


def _core() -> Any:
    """Returns the core, which the first call in a process imports."""
    from sabiprep.api import compiled

    with compiled():
        from sabiprep import _core
    return _core


def do(run: Run, kind: str, tasks: list[str], threads: int) -> Outcome:
    """Does tasks of a run in this process, which keeps tokenizer and templates for the next."""
    from sabiprep.api import named_files

    if run.id not in _workers:
        core = _core()
        files = named_files(run.corpus, run.options.reuse)
        _workers.clear()
        _workers[run.id] = (core.Worker(run.corpus, run.out, run.options, hub=files), files)
    worker, _ = _workers[run.id]
    return Outcome(worker.run(kind, tasks, threads), (os.uname().nodename, os.getpid()))


@dataclass
class _Node:
    """A node of the cluster: its slots of some threads, and the orders that are meant for it."""

    id: str
    cpus: int = 0
    slots: int = 0
    threads: int = 1
    running: int = 0
    orders: deque[int] = field(default_factory=deque)

    @property
    def room(self) -> int:
        """Returns how many more orders it may be given."""
        return self.slots + AHEAD - self.running if self.slots else 0

    def divide(self, threads: int, most: int) -> None:
        """Has tasks run with so many threads, or with up to ``most`` where CPUs are left over."""
        self.threads = max(threads, min(most, self.cpus))
        self.slots = self.cpus // self.threads


class RayWorkers:
    """The workers of a Ray cluster, as the core has orders done by them."""

    def __init__(self, ray: Any, run: Run) -> None:
        """Takes the module ``ray``, whose cluster is connected, and the run."""
        self._ray = ray
        self._run = run
        self._cores = run.options.threads or 1
        self._most = self._cores
        self._task = ray.remote(max_retries=0)(do)
        self._nodes: dict[str, _Node] = {}
        self._looked = float("-inf")
        self.processes: set[tuple[str, int]] = set()

    def start(self) -> None:
        """Has the nodes start a process for each task at a time, and does not wait for them.

        What fails there fails again in a task, which tells it.

        Raises:
            ConfigError: If no node has the cores of a task.
        """
        self._look_at_nodes(always=True)
        task = self._ray.remote(max_retries=0)(load_core)
        for node in self._nodes.values():
            for _ in range(node.slots):
                self._placed(task, node).remote()

    def __call__(self, orders: Sequence[Order]) -> Iterator[tuple[int, str] | None]:
        """Yields the index and the outcome of each order as it comes, and None while it waits.

        Raises:
            SabiprepError: If no node can do a task, or every node that began one was lost.
        """
        self._look_at_nodes(always=True)
        self._choose_threads(orders)
        self._share_out(orders)
        begun: dict[Any, tuple[int, _Node]] = {}
        tries = [0] * len(orders)
        left = len(orders)
        try:
            while left:
                self._look_at_nodes()
                for index, node in self._due():
                    tries[index] += 1
                    begun[self._begin(orders[index], node)] = (index, node)
                ready = self._ready(list(begun))
                if not ready:
                    yield None
                for done in ready:
                    index, node = begun.pop(done)
                    node.running -= 1
                    outcome = self._outcome(done, orders[index], tries[index])
                    if outcome is None:
                        self._nodes[node.id].orders.appendleft(index)
                        self._look_at_nodes(always=True)
                        continue
                    left -= 1
                    self.processes.add(outcome.process)
                    yield index, outcome.text
        finally:
            for reference in begun:
                self._ray.cancel(reference, force=True)
            for node in self._nodes.values():
                node.orders.clear()
                node.running = 0

    def _ready(self, begun: list[Any]) -> list[Any]:
        """Waits a moment for outcomes. Returns the references of those that have come."""
        if not begun:
            time.sleep(WAIT_SECONDS)
            return []
        ready: list[Any] = self._ray.wait(begun, num_returns=1, timeout=WAIT_SECONDS)[0]
        return ready

    def _look_at_nodes(self, *, always: bool = False) -> None:
        """Takes notice of nodes that came and went.

        Raises:
            ConfigError: If no node has the cores of a task.
        """
        now = time.monotonic()
        if not always and now - self._looked < NODES_SECONDS:
            return
        self._looked = now
        alive = {
            node["NodeID"]: int(node["Resources"].get("CPU", 0))
            for node in self._ray.nodes()
            if node["Alive"]
        }
        for identity in alive:
            self._nodes.setdefault(identity, _Node(identity))
        for node in self._nodes.values():
            node.cpus = alive.get(node.id, 0)
            node.divide(self._cores, self._most)
        if not any(node.slots for node in self._nodes.values()):
            raise ConfigError(
                f"no node of the Ray cluster has {self._cores} CPUs for a task",
                remedy="add nodes, or lower --threads: the cores of each task",
            )

    def _choose_threads(self, orders: Sequence[Order]) -> None:
        """Has few shards be made by several threads each, as on one machine."""
        at_once = sum(node.cpus // self._cores for node in self._nodes.values())
        are_shards = bool(orders) and orders[0][0] == "reduce"
        few = are_shards and len(orders) < SHARDS_A_TASK * at_once
        self._most = max(self._cores, THREADS_A_SHARD) if few else self._cores
        for node in self._nodes.values():
            node.divide(self._cores, self._most)

    def _share_out(self, orders: Sequence[Order]) -> None:
        """Gives each node a run of consecutive orders, by its slots: few nodes read a file."""
        nodes = [node for node in self._nodes.values() if node.slots]
        total = sum(weight + 1 for _, _, weight, _ in orders)
        slots = sum(node.slots for node in nodes)
        before, filled, place = 0, nodes[0].slots, 0
        for index, (_, _, weight, _) in enumerate(orders):
            while before * slots >= total * filled and place + 1 < len(nodes):
                place += 1
                filled += nodes[place].slots
            nodes[place].orders.append(index)
            before += weight + 1

    def _due(self) -> Iterator[tuple[int, _Node]]:
        """Yields the orders to begin, each with the node that has room for it."""
        while True:
            node = max(self._nodes.values(), key=lambda node: node.room)
            if node.room <= 0:
                return
            # A node without orders of its own takes the last of the node that has the most.
            queue = node.orders or max((n.orders for n in self._nodes.values()), key=len)
            if not queue:
                return
            index = queue.popleft() if queue is node.orders else queue.pop()
            node.running += 1
            yield index, node

    def _begin(self, order: Order, node: _Node) -> Any:
        """Begins an order on a node. Returns the reference."""
        kind, tasks, _, _ = order
        return self._placed(self._task, node).remote(self._run, kind, tasks, node.threads)

    def _placed(self, task: Any, node: _Node) -> Any:
        """Returns a remote function that is to run on a node, with the cores of a task there."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # On no other, which may have too few CPUs for it: that a node is gone is an error.
        strategy = NodeAffinitySchedulingStrategy(node.id, soft=False)
        return task.options(scheduling_strategy=strategy, num_cpus=node.threads)

    def _outcome(self, reference: Any, order: Order, tries: int) -> Outcome | None:
        """Returns what came of an order; None if its worker was lost and it is to be begun again.

        Raises:
            SabiprepError: If its code failed, or it was begun too often.
        """
        errors = self._ray.exceptions
        try:
            outcome = self._ray.get(reference)
            return Outcome(*outcome)
        except errors.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, SabiprepError):
                raise cause from None
            raise SabiprepError(
                f"a worker failed: {_last_line(error)}",
                remedy="install the same sabiprep on every node; `ray logs` shows its output",
            ) from error
        except errors.RayError as error:
            if tries < TRIES:
                return None
            raise SabiprepError(
                f"workers were lost {tries} times at one task ({order[0]}, {order[2]:,} bytes or "
                f"tokens): {_last_line(error)}",
                remedy="see why nodes or processes end (`ray status`, `ray logs`): often they run "
                "out of memory, and fewer CPUs for each node, or more memory, help",
            ) from error


def _absolute(place: StrPath) -> str:
    """Returns a place as every process of a machine understands it."""
    return place_of(place) if is_remote(place) else os.path.abspath(place)


def _last_line(error: BaseException) -> str:
    """Returns the last line of an error of Ray, which is the message behind its trace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


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
            f"the Ray cluster {address or 'of this machine'} cannot be reached: "
            f"{_last_line(error)}",
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
        id=uuid.uuid4().hex,
        corpus=_absolute(corpus),
        out=_absolute(out),
        options=replace(
            options,
            threads=options.threads or 1,
            tokenizer=options.tokenizer and _absolute(options.tokenizer),
            reuse=options.reuse and _absolute(options.reuse),
        ),
    )
    try:
        workers = RayWorkers(ray, run)
        workers.start()
        yield workers
    finally:
        if is_ours:
            ray.shutdown()
