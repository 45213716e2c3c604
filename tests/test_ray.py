"""Packing on a Ray cluster gives the bytes of one machine, whoever is killed on the way."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

import sabiprep
from sabiprep import ConfigError, PackOptions
from sabiprep.ray_workers import TRIES, RayWorkers, Run
from support.files import files_of
from support.object_store import BUCKET, object_store
from support.ray_cluster import RayCluster, ray_cluster
from support.strategies import tokenizer_json

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'sabiprep[ray]'")

FILES = 40
CONFIG = """[tokenizer]
file = "tokenizer.json"
eos = "</s>"

[pack]
seq_len = 256
shard_tokens = 60000
validation = 0.02

[[source]]
name = "stories"
task = "tell"
lang = "eng"
files = ["*.jsonl"]
duplicates = "normalised"
epochs = 1.5
segments = [{ prompt = "{{ a }}:" }, { target = " {{ b }}" }]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of many files, and the dataset that this process makes of it."""
    place = tmp_path_factory.mktemp("ray")
    corpus = place / "corpus"
    corpus.mkdir()
    (corpus / "corpus.toml").write_text(CONFIG, "utf-8")
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes-nfc"), "utf-8")
    for file in range(FILES):
        lines = [
            json.dumps({"a": f"story {n % 700} of {file % 31}", "b": f"once {n} " * (n % 30)})
            for n in range(800)
        ]
        (corpus / f"{file:02}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    sabiprep.pack(corpus, place / "reference")
    return place


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A cluster of three nodes of one core."""
    with ray_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def start(place: Path, out: Path, cluster: RayCluster, *more: str) -> subprocess.Popen[str]:
    """Starts packing on the cluster."""
    command = [sys.executable, "-m", "sabiprep", "pack", str(place / "corpus"), str(out)]
    command += ["--engine", "ray", "--ray-address", cluster.address, *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)


def end(process: subprocess.Popen[str]) -> str:
    """Waits for a run to end well. Returns what it said."""
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return out


def wait_for(process: subprocess.Popen[str], holds: Callable[[], bool]) -> None:
    """Waits until something holds, while a run goes on."""
    while not holds():
        assert process.poll() is None, "the run ended too early: " + "".join(process.communicate())
        time.sleep(0.002)


def in_map(out: Path) -> bool:
    spool = out / ".work" / "spool"
    return spool.is_dir() and len(list(spool.glob("*.map"))) > 5


def in_settle(out: Path) -> bool:
    spool = out / ".work" / "spool"
    return spool.is_dir() and len(list(spool.glob("*.map"))) == FILES


def in_reduce(out: Path) -> bool:
    done = out / ".work" / "done"
    return done.is_dir() and len(list(done.glob("*.json"))) > 1


PHASES = [in_map, in_settle, in_reduce]


def workers() -> list[int]:
    """The processes that do tasks of a run."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if (
                folder.name.isdecimal()
                and b"ray::WorkerProcess" in (folder / "cmdline").read_bytes()
            ):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_cluster_gives_the_bytes_of_one_machine(
    place: Path, tmp_path: Path, cluster: RayCluster
) -> None:
    said = end(start(place, tmp_path / "out", cluster))
    assert files_of(tmp_path / "out") == files_of(place / "reference")
    assert "stories" in said
    assert f"of the Ray cluster at {cluster.address}:" in " ".join(said.split())


def test_a_node_of_several_cores_makes_the_bytes_of_one_machine(
    place: Path, tmp_path: Path, cluster: RayCluster
) -> None:
    cluster.add("wide", 4)
    try:
        end(start(place, tmp_path / "out", cluster))
    finally:
        cluster.remove("wide")
    assert files_of(tmp_path / "out") == files_of(place / "reference")


class Call(NamedTuple):
    """A call in a worker, as Ray refers to it: those with lower numbers were made before."""

    number: int
    worker: int
    node: str
    name: str


class FakeRay:
    """A cluster that is not here. Calls end in the order in which they were made."""

    exceptions = ray.exceptions

    def __init__(self, **cpus: int) -> None:
        self.cpus = cpus
        self.asked: list[tuple[str, int, int]] = []
        self.orders: list[tuple[str, str, int]] = []
        self.fails: Callable[[Call], bool] = lambda call: False
        self._killed: set[int] = set()
        self._calls = itertools.count()

    @property
    def living(self) -> list[tuple[str, int]]:
        """The node and the cores of each worker that was not killed."""
        numbered = enumerate(self.asked)
        return [(node, cpus) for nth, (node, cpus, _) in numbered if nth not in self._killed]

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "NodeManagerAddress": name,
                "NodeID": name.encode().hex().ljust(56, "f"),
                "Alive": cpus >= 0,
                "Resources": {"CPU": float(cpus)},
            }
            for name, cpus in self.cpus.items()
        ]

    def remote(self, **options: Any) -> Callable[[type], Any]:
        node = bytes.fromhex(options["scheduling_strategy"].node_id.rstrip("f")).decode()
        worker = len(self.asked)
        self.asked.append((node, options["num_cpus"], options["max_concurrency"]))

        def prepare() -> Call:
            return Call(next(self._calls), worker, node, "prepare")

        def do(kind: str, tasks: list[str], threads: int) -> Call:
            self.orders.append((node, kind, threads))
            return Call(next(self._calls), worker, node, "do")

        handle = SimpleNamespace(
            worker=worker,
            prepare=SimpleNamespace(remote=prepare),
            do=SimpleNamespace(remote=do),
        )
        return lambda _: SimpleNamespace(remote=lambda run: handle)

    def wait(self, calls: list[Call], **_: object) -> tuple[list[Call], list[Call]]:
        calls = sorted(calls)
        return calls[:1], calls[1:]

    def get(self, call: Call) -> str:
        if call.worker in self._killed or self.cpus[call.node] < 0 or self.fails(call):
            raise ray.exceptions.RayActorError(error_msg=f"{call.node} is gone")
        return "done"

    def kill(self, handle: Any) -> None:
        assert handle.worker not in self._killed, "it was killed twice"
        self._killed.add(handle.worker)


def workers_of(cluster: FakeRay, threads: int | None = None) -> RayWorkers:
    run = Run("corpus", "out", PackOptions(threads=threads))
    return RayWorkers(cluster, run, "a cluster that is not here")


def done_by(workers: RayWorkers, kind: str, count: int) -> list[int]:
    """Has orders done. Returns the indices of those that were."""
    outcomes = itertools.islice(workers([(kind, ["{}"], 1, 0)] * count), 100 * count)
    return sorted(outcome[0] for outcome in outcomes if outcome)


@pytest.mark.parametrize(
    ("kind", "count", "threads", "asked", "each"),
    [
        (
            "map",
            60,
            None,
            [("large", 8, 8), ("large", 8, 8), ("large", 2, 2), ("small", 3, 3)],
            {1},
        ),
        # Few shards: all cores of a worker make one together.
        (
            "reduce",
            60,
            None,
            [("large", 8, 8), ("large", 8, 8), ("large", 2, 2), ("small", 3, 3)],
            {8, 2, 3},
        ),
        (
            "reduce",
            4 * 21,
            None,
            [("large", 8, 8), ("large", 8, 8), ("large", 2, 2), ("small", 3, 3)],
            {1},
        ),
        ("map", 60, 3, [("large", 6, 2), ("large", 6, 2), ("large", 6, 2), ("small", 3, 1)], {3}),
        ("map", 60, 9, [("large", 9, 1), ("large", 9, 1)], {9}),
    ],
)
def test_cores_are_shared_out(
    kind: str,
    count: int,
    threads: int | None,
    asked: list[tuple[str, int, int]],
    each: set[int],
) -> None:
    cluster = FakeRay(large=18, small=3, none=0, gone=-1)
    workers = workers_of(cluster, threads)
    assert done_by(workers, kind, count) == list(range(count))
    assert cluster.asked == asked
    assert {threads for _, _, threads in cluster.orders} == each
    assert workers.cores == sum(cores for _, cores, _ in asked)
    # A node that comes has its share; those of one that went are given up.
    cluster.cpus |= {"gone": 16, "large": -1}
    workers.start()
    assert {node for node, _ in cluster.living} == {node for node, _, _ in asked} ^ {
        "large",
        "gone",
    }
    # Each is there once.
    living = cluster.living
    workers.start()
    assert cluster.living == living


def test_a_node_whose_cores_are_in_use_is_asked_for_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeRay(busy=6)
    workers = workers_of(cluster)
    workers.start()
    workers.start()
    assert cluster.living == [("busy", 6)]
    monkeypatch.setattr("sabiprep.ray_workers.BUSY_SECONDS", -1.0)
    for _ in range(4):
        workers.start()
    assert cluster.living == [("busy", 6), ("busy", 3), ("busy", 1)]
    # Once it has its cores, nothing more is asked of it.
    assert done_by(workers, "map", 30) == list(range(30))
    assert cluster.living == [("busy", 6)] and workers.cores == 6


def test_a_node_is_lost_when_no_order_waits_for_it() -> None:
    cluster = FakeRay(lost=16, left=8)
    workers = workers_of(cluster)
    got = 0

    def fails(call: Call) -> bool:
        nonlocal got
        got += call.name == "do"
        if got == 5:
            cluster.cpus["lost"] = -1
        return cluster.cpus[call.node] < 0

    cluster.fails = fails
    # As many as are given at once: no queue holds any when the node goes.
    assert done_by(workers, "map", 24) == list(range(24))
    assert cluster.living == [("left", 8)] and workers.cores == 8


def test_a_node_is_lost_while_its_workers_start() -> None:
    cluster = FakeRay(left=8, lost=64)
    workers = workers_of(cluster)

    def fails(call: Call) -> bool:
        if call.node == "lost":
            cluster.cpus["lost"] = -1
        return cluster.cpus[call.node] < 0

    cluster.fails = fails
    assert done_by(workers, "map", 200) == list(range(200))
    assert cluster.living == [("left", 8)]


def test_a_worker_that_never_starts_beside_others_is_given_up() -> None:
    cluster = FakeRay(node=12)
    cluster.fails = lambda call: cluster.asked[call.worker][1] == 4
    workers = workers_of(cluster)
    assert done_by(workers, "map", 100) == list(range(100))
    assert cluster.living == [("node", 8)]
    assert [cores for _, cores, _ in cluster.asked] == [8] + [4] * TRIES


def test_a_task_that_ends_every_worker_ends_the_run() -> None:
    cluster = FakeRay(a=1, b=1)
    cluster.fails = lambda call: call.name == "do"
    with pytest.raises(sabiprep.SabiprepError, match=f"workers were lost {TRIES} times"):
        done_by(workers := workers_of(cluster), "map", 1)
    workers.close()
    assert cluster.living == []


def test_that_all_nodes_were_lost_is_said() -> None:
    cluster = FakeRay(a=2, b=4)
    workers = workers_of(cluster)
    workers.start()
    cluster.cpus = {"a": -1, "b": -1}
    with pytest.raises(sabiprep.SabiprepError, match=r"every node .* with 1 CPU or more was lost"):
        workers.start()
    with pytest.raises(ConfigError, match="no node of the Ray cluster has 8 CPUs"):
        workers_of(FakeRay(a=2, b=4), 8).start()


def test_a_cluster_that_asks_for_a_token_says_so(place: Path, tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a" * 64)
    asking = {"RAY_AUTH_MODE": "token", "HOME": str(tmp_path)}
    with ray_cluster(tmp_path, nodes=0, environment=asking) as cluster:
        process = start(place, tmp_path / "out", cluster)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "asks for a token" in err and "RAY_AUTH_MODE" in err and "Traceback" not in err, err


@pytest.mark.parametrize(
    ("address", "said"), [("", "is empty"), (" ", "is empty"), ("ray://head:10001", "Ray client")]
)
def test_an_address_that_is_none_is_refused_at_once(
    place: Path, tmp_path: Path, address: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        sabiprep.pack(place / "corpus", tmp_path / "out", engine="ray", ray_address=address)
    assert refused.value.remedy and "HOST:6379" in refused.value.remedy


def test_a_node_without_our_package_is_named(place: Path, tmp_path: Path) -> None:
    (tmp_path / "sabiprep.py").write_text("raise ImportError('an older one')", "utf-8")
    with ray_cluster(tmp_path, nodes=0) as cluster:
        cluster.add("bare", 1, tmp_path)
        process = start(place, tmp_path / "out", cluster)
        _, err = process.communicate(timeout=240)
    assert process.returncode == 1, err
    address = cluster.address.partition(":")[0]
    assert f"node {address} of the Ray cluster starts no worker" in err, err
    assert "an older one" in err and "every node" in err and "Traceback" not in err, err


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
def test_a_node_is_killed(
    place: Path, tmp_path: Path, cluster: RayCluster, phase: Callable[[Path], bool]
) -> None:
    out = tmp_path / "out"
    process = start(place, out, cluster)
    wait_for(process, lambda: phase(out))
    cluster.remove("b")
    try:
        end(process)
    finally:
        cluster.add("b")
    assert files_of(out) == files_of(place / "reference")


@pytest.mark.parametrize("phase", [in_map, in_reduce], ids=lambda phase: phase.__name__)
def test_workers_are_killed(
    place: Path, tmp_path: Path, cluster: RayCluster, phase: Callable[[Path], bool]
) -> None:
    out = tmp_path / "out"
    process = start(place, out, cluster)
    wait_for(process, lambda: phase(out) and bool(workers()))
    victims = workers()
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    end(process)
    assert victims and files_of(out) == files_of(place / "reference")


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
def test_the_leader_is_killed_and_its_run_resumed(
    place: Path, tmp_path: Path, cluster: RayCluster, phase: Callable[[Path], bool]
) -> None:
    out = tmp_path / "out"
    process = start(place, out, cluster)
    wait_for(process, lambda: phase(out))
    process.kill()
    process.communicate()
    assert not (out / "manifest.json").exists(), "an unfinished dataset looked finished"
    if phase is in_map:
        end(start(place, out, cluster, "--resume"))
    else:
        sabiprep.pack(place / "corpus", out, PackOptions(resume=True))
    assert files_of(out) == files_of(place / "reference")


def test_a_stopped_leader_says_how_to_go_on(
    place: Path, tmp_path: Path, cluster: RayCluster
) -> None:
    out = tmp_path / "out"
    process = start(place, out, cluster, "--split-bytes", "5000")
    wait_for(process, lambda: in_map(out))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "--resume" in err
    sabiprep.pack(place / "corpus", out, PackOptions(resume=True))
    assert files_of(out) == files_of(place / "reference")


def test_a_fault_of_the_corpus_has_the_message_of_one_machine(
    place: Path, tmp_path: Path, cluster: RayCluster
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for path in (place / "corpus").iterdir():
        (corpus / path.name).write_bytes(path.read_bytes())
    config = (corpus / "corpus.toml").read_text("utf-8")
    (corpus / "corpus.toml").write_text(config + 'overflow = "error"\n', "utf-8")
    long = json.dumps({"a": "long", "b": "so long " * 2000})
    with (corpus / "07.jsonl").open("a", encoding="utf-8") as file:
        file.write(long + "\n")
    with pytest.raises(sabiprep.SabiprepError) as alone:
        sabiprep.pack(corpus, tmp_path / "alone")
    process = start(tmp_path, tmp_path / "out", cluster)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert str(alone.value).splitlines()[0] in err, err
    assert "07.jsonl:801" in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_done_is_said(place: Path, tmp_path: Path, cluster: RayCluster) -> None:
    process = start(place, tmp_path / "out", cluster, "--threads", "64")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "64 CPUs" in err and "--threads" in err
    command = [sys.executable, "-m", "sabiprep", "pack", str(place / "corpus")]
    command += [str(tmp_path / "out"), "--overwrite"]
    nowhere = [*command, "--engine", "ray", "--ray-address", "127.0.0.1:1"]
    done = subprocess.run(nowhere, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "cannot be reached" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    lone = [*command, "--ray-address", "127.0.0.1:1"]
    done = subprocess.run(lone, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "without Ray" in done.stderr


def test_a_cluster_packs_from_a_bucket_into_a_bucket(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    # The server is slow: a few of the files, in few shards.
    for name in ("corpus.toml", "tokenizer.json", *(f"{file:02}.jsonl" for file in range(4))):
        (corpus / name).write_bytes((place / "corpus" / name).read_bytes())
    sabiprep.pack(corpus, tmp_path / "reference")
    with object_store() as store:
        for path in corpus.iterdir():
            store.put(f"corpus/{path.name}", path.read_bytes())
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        command = [sys.executable, "-m", "sabiprep", "pack"]
        command += [f"s3://{BUCKET}/corpus", f"s3://{BUCKET}/out", "--engine", "ray"]
        with ray_cluster(tmp_path, nodes=2, environment=store.environment) as cluster:
            command += ["--ray-address", cluster.address]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        for name, content in files_of(tmp_path / "reference").items():
            assert store.get(f"out/{name}") == content, name
