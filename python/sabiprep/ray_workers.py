"""The worker processes of a Ray cluster: which are there, and which of them does what.

Documents never pass through Ray: a task is a few lines of JSON, and so is what comes back. Spools
and shards lie in the dataset's folder. The leader holds back what no worker has room for, so that a
file is read by as few nodes as possible, and gives the tasks of a lost worker to others.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sabiprep.errors import ConfigError, SabiprepError
from sabiprep.options import PackOptions

TRIES = 4
"""How often a task is begun, and a worker started on a node, before the run stops."""
CORES_A_WORKER = 8
"""The most cores of a worker, unless a task has more; a larger node has several workers."""
SHARDS_A_TASK = 4
"""Shards for each task that runs beside others from which on a task has the run's threads."""
AHEAD = 1
"""Tasks that wait in a worker beside those that run, so that it need not wait for the leader."""
WAIT_SECONDS = 0.2
"""The longest wait for an outcome before the leader looks at signals and nodes."""
NODES_SECONDS = 2.0
"""The time between two looks at the nodes of the cluster."""
BUSY_SECONDS = 30.0
"""The wait for a worker's start after which one of half the cores is asked for: a node is busy."""

Order = tuple[str, list[str], int, int]
"""Kind, tasks as JSON, weight, and the index of the file that they read."""


class Run(NamedTuple):
    """What a worker needs to know of a run."""

    corpus: str
    out: str
    options: PackOptions


class WorkerProcess:
    """A process that does tasks of a run; its threads share the tokenizer and the templates."""

    def __init__(self, run: Run) -> None:
        """Takes the run. What may fail is left to `prepare`, whose errors reach the leader."""
        self._run = run
        self._files: Any = None
        self._core: Any = None

    def prepare(self) -> None:
        """Imports the core and finds the files that the corpus names.

        Raises:
            SabiprepError: If the core cannot be imported, or a file is nowhere.
        """
        from sabiprep.api import compiled, named_files

        with compiled():
            from sabiprep import _core
        corpus, out, options = self._run
        # They live as long as this object does.
        self._files = named_files(corpus, options.reuse)
        self._core = _core.Worker(corpus, out, options, hub=self._files)

    def do(self, kind: str, tasks: list[str], threads: int) -> str:
        """Does tasks by some threads, beside other calls. Returns the JSON of their outcome."""
        outcome: str = self._core.run(kind, tasks, threads)
        return outcome


def sizes(cpus: int, threads: int) -> list[int]:
    """Returns the cores of each worker of a node, which serve tasks of ``threads`` cores each."""
    most = max(threads, CORES_A_WORKER // threads * threads)
    last = cpus % most // threads * threads
    return [most] * (cpus // most) + [last] * (last > 0)


@dataclass(eq=False)
class _Worker:
    """A worker, and the orders that are meant for it.

    Attributes:
        node: The id of its node.
        cores: Its cores.
        handle: The process, by which Ray calls it.
        asked: When it was asked for, in seconds.
        attempt: How often the node has been asked for workers, this time counted.
        is_half: Whether it was asked for since a larger one does not start.
        is_ready: Whether it has started.
        running: The orders that it has been given and has not done.
        orders: The indices of the orders that are meant for it.
    """

    node: str
    cores: int
    handle: Any
    asked: float
    attempt: int
    is_half: bool = False
    is_ready: bool = False
    running: int = 0
    orders: deque[int] = field(default_factory=deque)


class RayWorkers:
    """The workers of a Ray cluster, as the core has orders done by them.

    Attributes:
        cluster: The cluster in words.
    """

    def __init__(self, ray: Any, run: Run, cluster: str) -> None:
        """Takes the module ``ray``, whose cluster is connected, the run, and the cluster's name."""
        self.cluster = cluster
        self._ray = ray
        self._run = run
        self._threads = run.options.threads or 1
        self._share = False
        # The living; some may be starting still.
        self._workers: list[_Worker] = []
        self._starting: dict[Any, _Worker] = {}
        # Orders of workers that were lost.
        self._returned: deque[int] = deque()
        self._failed_starts: Counter[str] = Counter()
        self._addresses: dict[str, str] = {}
        self._looked = float("-inf")
        self._used: set[_Worker] = set()

    @property
    def cores(self) -> int:
        """Returns the cores of the workers that did something, but for those that were lost."""
        return sum(worker.cores for worker in self._used.intersection(self._workers))

    def start(self) -> None:
        """Has the nodes start their workers, and does not wait for them.

        Raises:
            ConfigError: If no node has the cores of a task.
        """
        self._look_at_nodes(always=True)

    def close(self) -> None:
        """Ends the workers, whatever they are doing."""
        for worker in list(self._workers):
            self._lose(worker)

    def __call__(self, orders: Sequence[Order]) -> Iterator[tuple[int, str] | None]:
        """Yields the index and the outcome of each order as it comes, and None while it waits.

        Raises:
            SabiprepError: If no node can do a task, or every worker that began one was lost.
        """
        self._look_at_nodes(always=True)
        self._choose_threads(orders)
        self._share_out(orders)
        begun: dict[Any, tuple[int, _Worker]] = {}
        tries = [0] * len(orders)
        left = len(orders)
        try:
            while left:
                self._look_at_nodes()
                for index, worker in self._due():
                    tries[index] += 1
                    begun[self._begin(orders[index], worker)] = (index, worker)
                ready = self._ready([*begun, *self._starting])
                if not ready:
                    yield None
                for done in ready:
                    if done in self._starting:
                        self._take_start(done)
                        continue
                    index, worker = begun.pop(done)
                    worker.running -= 1
                    outcome = self._outcome(done, orders[index], tries[index])
                    if outcome is None:
                        self._returned.append(index)
                        self._lose(worker)
                        self._look_at_nodes(always=True)
                        continue
                    left -= 1
                    self._used.add(worker)
                    yield index, outcome
        finally:
            if begun:
                self.close()
            self._returned.clear()
            for worker in self._workers:
                worker.orders.clear()

    def _ready(self, references: list[Any]) -> list[Any]:
        """Waits a moment for outcomes. Returns the references of those that have come."""
        if not references:
            time.sleep(WAIT_SECONDS)
            return []
        ready: list[Any] = self._ray.wait(references, num_returns=1, timeout=WAIT_SECONDS)[0]
        return ready

    def _on(self, node: str) -> list[_Worker]:
        """Returns the workers of a node."""
        return [worker for worker in self._workers if worker.node == node]

    def _look_at_nodes(self, *, always: bool = False) -> None:
        """Takes notice of nodes that came and went, and has workers started where some are missing.

        Raises:
            ConfigError: If no node has the cores of a task.
            SabiprepError: If all that had them were lost.
        """
        now = time.monotonic()
        if not always and now - self._looked < NODES_SECONDS:
            return
        self._looked = now
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        were_some = bool(self._addresses)
        self._addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in alive}
        nodes = {
            node["NodeID"]: sizes(int(node["Resources"].get("CPU", 0)), self._threads)
            for node in alive
        }
        if not any(nodes.values()):
            from sabiprep.terminal import counted

            cpus = counted(self._threads, "CPU")
            if were_some:
                raise SabiprepError(
                    f"every node of the Ray cluster with {cpus} or more was lost",
                    remedy="see why (`ray status`, `ray logs`), and bring nodes back",
                )
            raise ConfigError(
                f"no node of the Ray cluster has {cpus} for a task",
                remedy="add nodes, or lower --threads: the cores of each task",
            )
        for worker in list(self._workers):
            if worker.node not in nodes:
                self._lose(worker)
        for node, cores in nodes.items():
            there = self._on(node)
            missing = Counter(cores) - Counter(worker.cores for worker in there)
            is_working = any(worker.is_ready for worker in there)
            # It is left at those that work where others do not start, as with too little memory.
            if not (is_working and self._failed_starts[node] >= TRIES):
                for more in missing.elements():
                    self._start(node, more, now)
            is_waiting = there and not is_working
            if is_waiting and now - max(worker.asked for worker in there) > BUSY_SECONDS:
                half = min(worker.cores for worker in there) // 2 // self._threads * self._threads
                if half:
                    self._start(node, half, now, is_half=True)

    def _start(self, node: str, cores: int, now: float, *, is_half: bool = False) -> None:
        """Has a node start a worker of some cores."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = self._ray.remote(
            # On no other node, which may have too few CPUs: that a node is gone is an error.
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            num_cpus=cores,
            max_concurrency=cores // self._threads,
        )(WorkerProcess)
        attempt = self._failed_starts[node] + 1
        worker = _Worker(node, cores, actor.remote(self._run), now, attempt, is_half)
        self._workers.append(worker)
        self._starting[worker.handle.prepare.remote()] = worker

    def _take_start(self, reference: Any) -> None:
        """Takes the end of a worker's start.

        Raises:
            SabiprepError: If its code failed, or its node starts none however often it is asked.
        """
        worker = self._starting.pop(reference)
        if worker not in self._workers:
            return
        try:
            self._got(reference)
        except self._ray.exceptions.RayError as error:
            self._lose(worker)
            failed = self._failed_starts
            failed[worker.node] = max(failed[worker.node], worker.attempt)
            self._look_at_nodes(always=True)
            # With its node, all of its workers are lost: others go on.
            is_there = worker.node in self._addresses
            is_working = any(other.is_ready for other in self._on(worker.node))
            if is_there and not is_working and failed[worker.node] >= TRIES:
                raise SabiprepError(
                    f"node {self._addresses[worker.node]} of the Ray cluster starts no worker: "
                    f"{last_line(error)}",
                    remedy="install the same sabiprep on every node; `ray logs` shows its output",
                ) from error
            return
        worker.is_ready = True
        self._failed_starts[worker.node] = 0
        if not worker.is_half:
            for other in self._on(worker.node):
                if other.is_half and not other.is_ready:
                    self._lose(other)

    def _lose(self, worker: _Worker) -> None:
        """Counts on a worker no more, and ends it if it still runs. Others do its orders."""
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        self._returned.extend(worker.orders)
        self._ray.kill(worker.handle)

    def _choose_threads(self, orders: Sequence[Order]) -> None:
        """Has few shards be made by all threads of a worker each, as on one machine."""
        at_once = sum(worker.cores // self._threads for worker in self._workers)
        are_shards = bool(orders) and orders[0][0] == "reduce"
        self._share = are_shards and len(orders) < SHARDS_A_TASK * at_once

    def _room(self, worker: _Worker) -> int:
        """Returns how many more orders a worker may be given."""
        if not worker.is_ready:
            return 0
        # Shards that are made together come one after another, as on one machine.
        most = 1 if self._share else worker.cores // self._threads + AHEAD
        return most - worker.running

    def _share_out(self, orders: Sequence[Order]) -> None:
        """Gives each worker a run of consecutive orders, by its cores: few nodes read a file."""
        workers = sorted(self._workers, key=lambda worker: worker.node)
        total = sum(weight + 1 for _, _, weight, _ in orders)
        cores = sum(worker.cores for worker in workers)
        before, filled, place = 0, workers[0].cores, 0
        for index, (_, _, weight, _) in enumerate(orders):
            while before * cores >= total * filled and place + 1 < len(workers):
                place += 1
                filled += workers[place].cores
            workers[place].orders.append(index)
            before += weight + 1

    def _due(self) -> Iterator[tuple[int, _Worker]]:
        """Yields the orders to begin, each with the worker that has room for it."""
        while self._workers:
            worker = max(self._workers, key=self._room)
            if self._room(worker) <= 0:
                return
            # A worker without orders of its own takes what others lost, or the last of the one that
            # has the most.
            queue = worker.orders or self._returned
            queue = queue or max((other.orders for other in self._workers), key=len)
            if not queue:
                return
            index = queue.popleft() if queue is worker.orders else queue.pop()
            worker.running += 1
            yield index, worker

    def _begin(self, order: Order, worker: _Worker) -> Any:
        """Begins an order in a worker. Returns the reference."""
        kind, tasks, _, _ = order
        threads = worker.cores if self._share else self._threads
        return worker.handle.do.remote(kind, tasks, threads)

    def _outcome(self, reference: Any, order: Order, tries: int) -> str | None:
        """Returns what came of an order; None if its worker was lost and it is to be begun again.

        Raises:
            SabiprepError: If its code failed, or it was begun too often.
        """
        try:
            outcome: str = self._got(reference)
            return outcome
        except self._ray.exceptions.RayError as error:
            if tries < TRIES:
                return None
            raise SabiprepError(
                f"workers were lost {tries} times while they did a task, alone or beside others "
                f"({order[0]}, {order[2]:,} bytes or tokens): {last_line(error)}",
                remedy="see why nodes or processes end (`ray status`, `ray logs`): often they run "
                "out of memory, and fewer CPUs for each node, or more memory, help",
            ) from error

    def _got(self, reference: Any) -> Any:
        """Returns what a call in a worker gave.

        Raises:
            SabiprepError: If its code failed.
            RayError: If its worker was lost.
        """
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, SabiprepError):
                raise cause from None
            raise SabiprepError(
                f"a worker failed: {last_line(error)}",
                remedy="install the same sabiprep on every node; `ray logs` shows its output",
            ) from error


def last_line(error: BaseException) -> str:
    """Returns the last line of an error of Ray, which is the message behind its trace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
