"""A Ray cluster of several nodes on this machine, in a process of its own.

Ray speaks to its user by warnings, and changes the process that starts it; the tests talk to the
cluster by lines of text instead.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False,
                  "object_store_memory": 80 << 20})
nodes = {}
print(cluster.address, flush=True)
for line in sys.stdin:
    word, name, cpus, *path = line.split()
    if word == "add":
        more = {"env_vars": {"PYTHONPATH": path[0]}} if path else {}
        nodes[name] = cluster.add_node(num_cpus=int(cpus), object_store_memory=80 << 20, **more)
        cluster.wait_for_nodes()
    elif word == "remove":
        cluster.remove_node(nodes.pop(name), allow_graceful=False)
    print("done", flush=True)
cluster.shutdown()
"""


class RayCluster:
    """A running cluster: a head without work, and nodes of one core each, by name."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self._process = process
        self.address = address

    def add(self, name: str, cpus: int = 1, path: Path | None = None) -> None:
        """Adds a node of some cores. Its processes look for modules in ``path`` first."""
        self._say(f"add {name} {cpus} {path or ''}")

    def remove(self, name: str) -> None:
        """Kills a node, with all of its processes."""
        self._say(f"remove {name} 0")

    def _say(self, line: str) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"


@contextmanager
def ray_cluster(
    folder: Path, nodes: int = 3, environment: Mapping[str, str] | None = None
) -> Iterator[RayCluster]:
    """Starts a cluster of as many nodes, named a, b, c …, and ends it.

    Its processes have the environment of this one and what is given.
    """
    with (folder / "cluster.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        assert process.stdout and process.stdin
        cluster = RayCluster(process, process.stdout.readline().strip())
        try:
            for name in "abcdefgh"[:nodes]:
                cluster.add(name)
            yield cluster
        finally:
            process.stdin.close()
            process.stdout.close()
            process.wait(60)
