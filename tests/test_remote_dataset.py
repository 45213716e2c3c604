"""Datasets in an object store: the rows of the dataset on this machine, or a clear error."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sabiprep
from sabiprep import cache, cli, object_stores, places
from sabiprep.dataset import PackedDataset, open_dataset
from sabiprep.errors import ConfigError, DatasetError, SabiprepError
from support.dataset_writer import write_dataset
from support.faulty_proxy import Fault, Proxy, faulty_proxy
from support.object_store import BUCKET, ObjectStore, environment_of, object_store

OUT = f"s3://{BUCKET}/out"
SHARDS = 8 + 3
TEXT = [([10 + i % 7, 11, 12 + i % 5, 2], [3, 3, 3, 0], 0, i) for i in range(64)]


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, store: ObjectStore) -> Path:
    """A dataset of eight shards, on this machine and in the store."""
    folder = write_dataset(
        tmp_path_factory.mktemp("data") / "out",
        TEXT,
        seq_len=8,
        vocab_size=20,
        eos_id=2,
        pad_id=1,
        shards=8,
        validation=TEXT[:6],
    )
    store.put_folder(folder, "out")
    return folder


@pytest.fixture
def proxy(store: ObjectStore) -> Iterator[Proxy]:
    with faulty_proxy(store.endpoint) as running:
        yield running


@pytest.fixture(autouse=True)
def machine(
    store: ObjectStore, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An empty cache, and an environment that reaches the store by the proxy."""
    for name, value in environment_of(proxy.url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SABIPREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SABIPREP_CACHE_GB", "1")
    monkeypatch.setattr(object_stores, "PAUSE", 0.01)
    backoff = {"init_backoff": object_stores.timedelta(milliseconds=10), "base": 2}
    monkeypatch.setitem(object_stores.RETRIES, "backoff", backoff)
    return tmp_path / "cache"


def rows(dataset: PackedDataset) -> list[dict[str, Any]]:
    return [dict(row) for split in (dataset.train, dataset.validation) for row in split]


def assert_same_rows(dataset: PackedDataset, local: Path) -> None:
    with open_dataset(local) as expected:
        for mine, theirs in zip(rows(dataset), rows(expected), strict=True):
            assert mine.keys() == theirs.keys()
            for name, value in theirs.items():
                np.testing.assert_array_equal(mine[name], value)


def bodies(proxy: Proxy, part: str = "/out/") -> list[str]:
    return [line for line in proxy.requests if line.startswith("GET ") and part in line]


def shards_held(cache_: Path) -> list[Path]:
    return sorted((cache_ / "shards").iterdir())


def test_rows_are_those_of_the_dataset_on_this_machine(local: Path) -> None:
    with open_dataset(OUT) as dataset, open_dataset(local) as expected:
        assert_same_rows(dataset, local)
        assert dataset.fingerprint == expected.fingerprint
        assert dataset.path == OUT
        assert dataset.tokenizer_path.read_bytes() == expected.tokenizer_path.read_bytes()


def test_a_url_that_went_through_a_path_is_the_same(local: Path) -> None:
    with open_dataset(Path(OUT)) as dataset:
        assert dataset.path == OUT
        assert len(dataset.train) == 32


def test_a_shard_is_fetched_when_a_row_of_it_is_read_and_once(
    local: Path, proxy: Proxy, machine: Path
) -> None:
    with open_dataset(OUT) as dataset:
        assert not bodies(proxy, "shard")
        _ = dataset.train[0]
        assert len(bodies(proxy, "shard")) == 1
    with open_dataset(OUT) as dataset:
        _ = dataset.train[1]
    assert len(bodies(proxy, "shard")) == 1
    (held,) = shards_held(machine)
    first = dataset.manifest["splits"]["train"]["shards"][0]
    assert held.name == f"{first['xxh3_128']}-{first['bytes']}"


def test_a_dataset_in_two_places_is_cached_once(
    local: Path, store: ObjectStore, proxy: Proxy
) -> None:
    store.put_folder(local, "copy/of")
    for place in (OUT, f"s3://{BUCKET}/copy/of/"):
        with open_dataset(place) as dataset:
            assert_same_rows(dataset, local)
    assert len(bodies(proxy, "shard")) == SHARDS


@pytest.mark.parametrize("damage", ["flipped", "short", "empty"])
def test_a_damaged_file_of_the_cache_is_fetched_again(
    local: Path, machine: Path, damage: str
) -> None:
    code = "import sys, sabiprep; list(sabiprep.open_dataset(sys.argv[1]).train)"
    # In a process of its own: this one would remember that it has checked the files.
    subprocess.run(
        [sys.executable, "-c", code, OUT],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    for path in shards_held(machine):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        wrong = {"flipped": content, "short": content[:-9], "empty": b""}[damage]
        path.write_bytes(wrong)
    with open_dataset(OUT) as dataset:
        assert_same_rows(dataset, local)


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("status", "GET", "shard", 2, 500)],
        [Fault("status", "GET", "shard", 3, 503)],
        [Fault("status", "GET", "shard", 1, 429)],
        [Fault("status", "HEAD", "out", 2, 503)],
        [Fault("reset", "GET", "shard", 2)],
        [Fault("reset", "GET", "manifest.json", 1), Fault("reset", "HEAD", "tokenizer.json", 1)],
        [Fault("cut", "GET", "shard", 2)],
        [Fault("cut", "GET", "manifest.json", 1)],
        [Fault("slow", "GET", "shard", 2)],
    ],
    ids=lambda faults: "+".join(f"{fault.kind}{fault.status}-{fault.part}" for fault in faults),
)
def test_a_store_that_falters_is_survived(local: Path, proxy: Proxy, faults: list[Fault]) -> None:
    proxy.faults = [Fault(f.kind, f.method, f.part, f.times, f.status) for f in faults]
    with open_dataset(OUT) as dataset:
        assert_same_rows(dataset, local)
    assert len(proxy.given) == sum(fault.times for fault in faults)


def test_a_broken_body_is_read_on_from_its_part(
    local: Path, store: ObjectStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_stores, "CHUNK", 1000)
    proxy.faults = [Fault("cut", "GET", "shard-00003", 2)]
    with open_dataset(OUT) as dataset:
        assert_same_rows(dataset, local)
    size = local.joinpath("train/shard-00003.arrow").stat().st_size
    assert size > 3000
    assert len(bodies(proxy, "train/shard-00003")) == -(-size // 1000) + 2


@pytest.mark.parametrize(
    ("kind", "says"), [("status", "503"), ("reset", "cannot be read"), ("cut", "cannot be read")]
)
def test_a_store_that_stays_down_ends_in_an_error_that_can_be_gone_on_from(
    local: Path,
    proxy: Proxy,
    machine: Path,
    kind: Any,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(object_stores.RETRIES, "max_retries", 1)
    proxy.faults = [Fault(kind, "GET", "train/shard-00001", 1000)]
    with open_dataset(OUT) as dataset:
        _ = dataset.train[0]
        with pytest.raises(DatasetError) as caught:
            _ = dataset.train[4]
        assert says in caught.value.message
        assert caught.value.file == f"{OUT}/train/shard-00001.arrow"
        assert caught.value.remedy
        assert len(str(caught.value)) < 800
        # What was fetched is kept, and nothing half of the other.
        assert len(shards_held(machine)) == 1
        proxy.faults = []
        assert_same_rows(dataset, local)


def test_what_is_fetched_is_held_against_the_manifest(
    local: Path, store: ObjectStore, proxy: Proxy, machine: Path
) -> None:
    store.put_folder(local, "wrong")
    content = bytearray(local.joinpath("train/shard-00000.arrow").read_bytes())
    content[100] ^= 255
    store.put("wrong/train/shard-00000.arrow", bytes(content))
    store.put("wrong/train/shard-00001.arrow", bytes(content) + b"more")
    store.delete("wrong/train/shard-00002.arrow")
    with open_dataset(f"s3://{BUCKET}/wrong") as dataset:
        for row, says in ((0, "checksum"), (4, "where the manifest says"), (8, "no such object")):
            with pytest.raises(DatasetError, match=says) as caught:
                _ = dataset.train[row]
            assert caught.value.file == f"s3://{BUCKET}/wrong/train/shard-0000{row // 4}.arrow"
        assert not shards_held(machine)
        _ = dataset.train[12]


def test_more_shards_than_the_cache_holds_are_read_in_any_order_and_it_is_said_once(
    local: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = local.joinpath("train/shard-00000.arrow").stat().st_size
    small = sum(local.joinpath(name).stat().st_size for name in ("manifest.json", "tokenizer.json"))
    bound = small + 2 * one + one // 2
    monkeypatch.setenv("SABIPREP_CACHE_GB", repr(bound / 1e9))
    with (
        pytest.warns(RuntimeWarning, match="SABIPREP_CACHE_GB") as warned,
        open_dataset(OUT) as dataset,
    ):
        order = np.random.default_rng(0).permutation(len(dataset.train))
        for _ in range(2):
            for row in order:
                _ = dataset.train[int(row)]
                held = sum(path.stat().st_size for path in machine.rglob("*") if path.is_file())
                assert held <= bound
        # A batch of rows of all shards.
        assert dataset.train.batch(range(32))["input_ids"].shape == (32, 8)
    assert len(warned) == 1
    with open_dataset(local) as expected:
        np.testing.assert_array_equal(
            dataset.train.batch(order)["input_ids"], expected.train.batch(order)["input_ids"]
        )
    dataset.close()


def test_arrays_of_a_shard_that_was_removed_stay_valid(local: Path, machine: Path) -> None:
    with open_dataset(OUT) as dataset:
        (place,) = dataset.train.find([0])
        for path in shards_held(machine):
            path.unlink()
        assert_same_rows(dataset, local)
        assert place[0].sound


def test_the_file_that_is_fetched_is_never_the_one_removed(
    local: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not even one shard fits: each is read all the same.
    monkeypatch.setenv("SABIPREP_CACHE_GB", repr(10 / 1e9))
    with pytest.warns(RuntimeWarning), open_dataset(OUT) as dataset:
        assert_same_rows(dataset, local)
        assert len(shards_held(machine)) == 1


def test_room_is_made_from_what_was_used_longest_ago_and_nobody_holds(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entry(path: Path, used: int) -> Path:
        path.mkdir(parents=True)
        (path / "file").write_bytes(bytes(100))
        os.utime(path, ns=(used, used))
        return path

    oldest, held, newest = (
        entry(machine / "checkpoints" / "a", 1),
        entry(machine / "datasets" / "b", 2),
        entry(machine / "checkpoints" / "c", 3),
    )
    run = entry(machine / "runs" / "d", 0)
    descriptor = cache.hold(held)
    os.utime(held, ns=(2, 2))
    monkeypatch.setenv("SABIPREP_CACHE_GB", repr(300 / 1e9))
    cache.make_room(100, keep=machine / "shards" / "new")
    assert [path.exists() for path in (oldest, held, newest, run)] == [False, True, True, True]
    cache.make_room(200, keep=machine / "shards" / "new")
    assert [path.exists() for path in (held, newest, run)] == [True, False, True]
    os.close(descriptor)
    cache.make_room(300, keep=machine / "shards" / "new")
    assert [path.exists() for path in (held, run)] == [False, True]


def test_threads_fetch_a_shard_once(local: Path, proxy: Proxy) -> None:
    with open_dataset(OUT) as dataset:
        read: list[int] = []
        threads = [
            threading.Thread(target=lambda: read.append(dataset.train[0]["n_targets"]))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(read) == 8
    assert len(bodies(proxy, "shard")) == 1


def test_processes_share_the_cache(local: Path, proxy: Proxy) -> None:
    code = "import sys, sabiprep; print(len(list(sabiprep.open_dataset(sys.argv[1]).train)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen([sys.executable, "-c", code, OUT], env=environment, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    assert [process.communicate()[0] for process in processes] == [b"32\n"] * 3
    assert len(bodies(proxy, "shard")) == 8


def test_a_shard_that_a_killed_process_left_half_is_fetched_whole(
    local: Path, proxy: Proxy, machine: Path
) -> None:
    proxy.faults = [Fault("hold", "GET", "train/shard-00000", 1)]
    code = "import sys, sabiprep; sabiprep.open_dataset(sys.argv[1]).train[0]"
    process = subprocess.Popen(
        [sys.executable, "-c", code, OUT],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert proxy.held.wait(60)
    process.kill()
    process.wait()
    (left,) = shards_held(machine)
    assert left.name.endswith(".part")
    proxy.release.set()
    with open_dataset(OUT) as dataset:
        assert_same_rows(dataset, local)
    assert not [path for path in shards_held(machine) if path.name.endswith(".part")]


def test_a_dataset_is_pickled_and_used_after_a_fork(local: Path) -> None:
    with open_dataset(OUT) as dataset:
        _ = dataset.train[0]
        assert_same_rows(pickle.loads(pickle.dumps(dataset)), local)
    child = os.fork()
    if child == 0:
        try:
            dataset = pickle.loads(pickle.dumps(dataset))
            os._exit(0 if dataset.train[31]["n_targets"] else 3)
        except BaseException:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_process_fetches_what_is_not_in_the_cache(local: Path, machine: Path) -> None:
    with open_dataset(OUT) as dataset:
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if len(rows(dataset)) == 35 else 3)
            except BaseException:
                os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(shards_held(machine)) == SHARDS


def test_shards_are_fetched_ahead_as_far_as_the_cache_goes(
    local: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = local.joinpath("train/shard-00000.arrow").stat().st_size
    with open_dataset(OUT) as dataset:
        dataset.fetch_ahead()
        assert dataset._ahead is not None
        dataset._ahead._thread.join(60)
        assert len(shards_held(machine)) == SHARDS
    for path in shards_held(machine):
        path.unlink()
    monkeypatch.setenv("SABIPREP_CACHE_GB", repr(3.5 * one / 1e9))
    with pytest.warns(RuntimeWarning), open_dataset(OUT) as dataset:
        dataset.fetch_ahead()
        assert dataset._ahead is not None
        dataset._ahead._thread.join(60)
        assert 1 <= len(shards_held(machine)) <= 3


@pytest.mark.parametrize(
    ("place", "error", "says"),
    [
        (f"s3://{BUCKET}/nowhere", DatasetError, "no packed dataset here"),
        ("s3://no-such-bucket/out", DatasetError, "no packed dataset here|no such bucket"),
        (f"s3://user:hunter2@{BUCKET}/out", ConfigError, "a user or a password"),
        (f"s3://{BUCKET}/out?X-Amz-Signature=hunter2", ConfigError, "a query"),
        (f"s3://{BUCKET}/out#hunter2", ConfigError, "a fragment"),
        (f"s3://{BUCKET}/../out", ConfigError, "names no folder"),
        ("s3://", ConfigError, "names no folder"),
    ],
)
def test_a_place_that_holds_no_dataset_is_refused(
    local: Path, place: str, error: type[SabiprepError], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        open_dataset(place)
    assert caught.value.remedy
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
def test_access_that_is_denied_names_the_variables_and_no_secret(
    local: Path, proxy: Proxy, status: int
) -> None:
    proxy.faults = [Fault("status", "*", "/out/", 1000, status)]
    with pytest.raises(DatasetError, match="access is denied") as caught:
        open_dataset(OUT)
    assert isinstance(caught.value, PermissionError)
    assert "AWS_ACCESS_KEY_ID" in str(caught.value)
    assert "test-secret" not in str(caught.value)


def test_a_server_that_is_not_there(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setitem(object_stores.RETRIES, "max_retries", 1)
    with pytest.raises(DatasetError, match="cannot be read") as caught:
        open_dataset(OUT)
    assert "test-secret" not in str(caught.value)
    assert len(str(caught.value)) < 900


def test_without_obstore_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(SabiprepError, match="need obstore") as caught:
        open_dataset(OUT)
    assert "pip install 'sabiprep[cloud]'" in str(caught.value)


def test_a_dataset_over_http(local: Path, proxy: Proxy) -> None:
    place = f"{proxy.url}/{BUCKET}/out"
    with open_dataset(place) as dataset:
        assert_same_rows(dataset, local)


def test_a_cache_that_cannot_be_written(
    local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("SABIPREP_CACHE", str(file))
    with pytest.raises(DatasetError, match="the cache cannot be written") as caught:
        open_dataset(OUT)
    assert "SABIPREP_CACHE" in str(caught.value)


@pytest.mark.parametrize("bound", ["0", "-1", "much", "nan"])
def test_a_bound_that_is_no_number_is_refused(
    local: Path, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SABIPREP_CACHE_GB", bound)
    with pytest.raises(ConfigError, match="SABIPREP_CACHE_GB"):
        open_dataset(OUT)


def test_the_cache_lies_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SABIPREP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "sabiprep"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "sabiprep"


@pytest.mark.parametrize(
    ("place", "remote", "parent", "name"),
    [
        ("s3://a/b/c/", True, "s3://a/b", "c"),
        ("s3://a", True, "s3://a", ""),
        (Path("s3://a/b"), True, "s3://a", "b"),
        ("S3://a/B", True, "s3://a", "B"),
        ("s3:/a/b", False, "s3:/a", "b"),
        ("./s3://a/b", False, "./s3://a", "b"),
        ("a/b", False, "a", "b"),
        ("a", False, ".", "a"),
        ("https://host/a/b", True, "https://host/a", "b"),
    ],
)
def test_places_are_taken_apart(place: Any, remote: bool, parent: str, name: str) -> None:
    assert places.is_remote(place) is remote
    assert places.parent(place) == parent
    assert places.name(place) == name
    if name:
        assert places.place_of(place).rstrip("/") == places.join(parent, name).replace(
            "./a", "a" if place == "a" else "./a"
        )


def test_the_commands_that_read_a_dataset_take_its_url(
    packed: sabiprep.PackReport,
    store: ObjectStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store.put_folder(Path(packed.out), "packed")
    place = f"s3://{BUCKET}/packed"
    shown = []
    for out in (str(packed.out), place):
        assert cli.main(["inspect", out, "--row", "0"]) == 0
        shown.append(capsys.readouterr().out.replace(out, "OUT"))
    assert shown[0] == shown[1]
    for out, folder in ((str(packed.out), "local"), (place, "remote")):
        assert cli.main(["export", out, str(tmp_path / folder), "--to", "jsonl"]) == 0
    exported = [
        {
            path.relative_to(tmp_path / folder): path.read_bytes()
            for path in (tmp_path / folder).rglob("*")
            if path.is_file()
        }
        for folder in ("local", "remote")
    ]
    assert exported[0] == exported[1]
    capsys.readouterr()
    assert cli.main(["export", place, f"s3://{BUCKET}/exported", "--to", "jsonl"]) == 1
    assert "exports are written to this machine" in capsys.readouterr().err
    assert cli.main(["export-tasks", place, str(tmp_path / "tasks")]) == 1
    assert "on this machine" in capsys.readouterr().err
