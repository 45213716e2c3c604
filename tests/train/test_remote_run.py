"""Runs in an object store: resumed on a machine with nothing, bit by bit as if never stopped."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sabiprep import object_stores
from sabiprep.errors import ConfigError, OutputError, SabiprepError, TrainError
from sabitrain import trainer
from sabitrain.__main__ import main
from sabitrain.checkpoints import files, remote_lock, remote_run
from sabitrain.checkpoints.checkpoint import new_checkpoint
from sabitrain.checkpoints.hub import find_checkpoint
from sabitrain.checkpoints.remote_lock import RemoteLock
from sabitrain.checkpoints.settings import CheckpointConfig
from sabitrain.config import ModelConfig, TrainConfig
from sabitrain.config_file import to_toml
from sabitrain.trainer import run_training
from support.faulty_proxy import Fault, Proxy, faulty_proxy
from support.object_store import BUCKET, ObjectStore, environment_of, object_store
from support.train import tear
from support.train.runs import environment, wait_for
from support.train.tiny import tiny_config, write_tiny

RUN = f"s3://{BUCKET}/runs/one"
PREFIX = "runs/one/"
EVERY_TWO = CheckpointConfig(every=2, keep_last=2)


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("data"), shards=3).path


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happened to, on this machine."""
    run = tmp_path_factory.mktemp("whole") / "run"
    run_training(config_of(data, run))
    return run


@pytest.fixture
def proxy(store: ObjectStore) -> Iterator[Proxy]:
    for key in store.all_keys():
        store.delete(key)
    with faulty_proxy(store.endpoint) as running:
        yield running


@pytest.fixture(autouse=True)
def machine(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and an environment that reaches the store by the proxy."""
    for name, value in environment_of(proxy.url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SABIPREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(object_stores, "PAUSE", 0.01)
    monkeypatch.setattr(object_stores, "ATTEMPTS", 2)
    monkeypatch.setitem(object_stores.RETRIES, "max_retries", 1)
    backoff = {"init_backoff": object_stores.timedelta(milliseconds=10), "base": 2}
    monkeypatch.setitem(object_stores.RETRIES, "backoff", backoff)
    return tmp_path / "cache"


def config_of(data: Any, run: Any, **options: Any) -> TrainConfig:
    """Six steps, a checkpoint after two each."""
    arguments = {"max_steps": 6, "eval_every": 0, "log_every": 1, "threads": 1, **options}
    return tiny_config(data, Path(run), **{"checkpoint": EVERY_TWO, **arguments})


def keys(store: ObjectStore) -> list[str]:
    return [key.removeprefix(PREFIX) for key in store.all_keys() if key.startswith(PREFIX)]


def steps(store: ObjectStore) -> list[int]:
    """The steps of the checkpoints in the store that count."""
    return remote_run.whole_steps(set(keys(store)))


def downloaded(store: ObjectStore, folder: Path) -> Path:
    """The objects of the run as files, with the link that a folder has."""
    for key in keys(store):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        content = store.get(PREFIX + key)
        if key == "checkpoint":
            path.symlink_to(content.decode().strip())
        else:
            path.write_bytes(content)
    return folder


def begun(config: TrainConfig, tmp_path: Path) -> subprocess.Popen[str]:
    """The command, begun in a process of its own."""
    file = tmp_path / "run.toml"
    file.write_text(to_toml(config), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "sabitrain", "--config", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def new_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str = "other") -> Path:
    """An empty cache, as another machine has it."""
    monkeypatch.setenv("SABIPREP_CACHE", str(tmp_path / name))
    return tmp_path / name


def assert_same_newest(run: Path, other: Path) -> None:
    """The newest checkpoints of two runs are those of one step, equal bit by bit."""
    for name in ("model.safetensors", "trainer.safetensors"):
        mine, theirs = (each / "checkpoint" / name for each in (run, other))
        assert mine.read_bytes() == theirs.read_bytes()


def stopped_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the next run end at once before a step, as a machine does that is taken away."""
    take = trainer.Trainer.step

    def step_or_end(self: trainer.Trainer) -> None:
        if self.done == step:
            raise Gone
        take(self)

    monkeypatch.setattr(trainer.Trainer, "step", step_or_end)


class Gone(BaseException):
    """The end of a machine."""


def test_a_run_in_a_bucket_is_the_run_on_this_machine(
    data: Path, whole: Path, store: ObjectStore, tmp_path: Path
) -> None:
    store.put_folder(data, "data")
    report = run_training(config_of(f"s3://{BUCKET}/data", RUN))
    assert report.steps == 6
    assert tear.outcome(downloaded(store, tmp_path / "down")) == tear.outcome(whole)
    assert steps(store) == [4, 6]
    assert ".sabitrain.lock" not in keys(store)
    assert f'run = "{RUN}"' in store.get(f"{PREFIX}config.toml").decode()
    assert "test-secret" not in store.get(f"{PREFIX}config.toml").decode()


def test_a_run_goes_on_bit_by_bit_on_a_machine_with_an_empty_cache(
    data: Path,
    whole: Path,
    store: ObjectStore,
    machine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        stopped_at(5, patched)
        with pytest.raises(Gone):
            run_training(config_of(data, RUN))
    assert steps(store) == [2, 4]
    shutil.rmtree(machine)
    new_machine(monkeypatch, tmp_path)
    # The command alone: settings come from the bucket.
    assert main(["--run", RUN, "--resume"]) == 0
    assert tear.outcome(downloaded(store, tmp_path / "down")) == tear.outcome(whole)
    assert steps(store) == [4, 6]


def test_a_killed_upload_leaves_no_half_checkpoint_that_counts(
    data: Path,
    whole: Path,
    store: ObjectStore,
    proxy: Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The request for the weights is let through, and the process killed before the next.
    proxy.faults = [Fault("hold", "PUT", "step-00000004/model.safetensors", 1)]
    process = begun(config_of(data, RUN), tmp_path)
    assert proxy.held.wait(120)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    proxy.release.set()
    assert "checkpoints/step-00000004/model.safetensors" in keys(store)
    assert steps(store) == [2]
    monkeypatch.setattr(remote_lock, "LEASE", 0.2)
    new_machine(monkeypatch, tmp_path)
    assert main(["--run", RUN, "--resume"]) == 0
    assert tear.outcome(downloaded(store, tmp_path / "down")) == tear.outcome(whole)


def test_weights_come_first_and_what_makes_a_checkpoint_count_last(
    data: Path, store: ObjectStore, proxy: Proxy
) -> None:
    run_training(config_of(data, RUN, max_steps=2))
    put = [
        line.partition("/step-00000002/")[2].partition("?")[0]
        for line in proxy.requests
        if line.startswith("PUT ") and "/step-00000002/" in line
    ]
    assert put[-1] == "trainer.json"
    assert "model.safetensors" in put
    assert len(put) == len(set(put))


def test_uploads_that_fail_are_made_with_the_next_checkpoint(
    data: Path,
    whole: Path,
    store: ObjectStore,
    proxy: Proxy,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    proxy.faults = [Fault("status", "PUT", "step-00000004/", 1000, 503)]
    run_training(config_of(data, RUN))
    shown = capsys.readouterr().out
    assert f"step-00000004 is not in {RUN}" in shown
    assert "503" in shown
    assert "training goes on" in shown
    assert steps(store) == [2, 6]
    assert_same_newest(downloaded(store, tmp_path / "down"), whole)


def test_a_run_whose_end_cannot_be_uploaded_says_where_it_is_and_how_to_go_on(
    data: Path, whole: Path, store: ObjectStore, proxy: Proxy, machine: Path, tmp_path: Path
) -> None:
    proxy.faults = [Fault("status", "PUT", "step-0000000", 1000, 503)]
    with pytest.raises(OutputError) as caught:
        run_training(config_of(data, RUN))
    assert caught.value.file == RUN
    (folder,) = (machine / "runs").iterdir()
    assert f"--run {RUN} --resume" in str(caught.value)
    assert str(folder) in str(caught.value)
    assert steps(store) == []
    # The store is back: the same machine uploads what it has.
    proxy.faults = []
    assert main(["--run", RUN, "--resume"]) == 0
    assert steps(store) == [6]
    assert_same_newest(downloaded(store, tmp_path / "down"), whole)


def test_a_store_that_falters_is_survived(
    data: Path, whole: Path, store: ObjectStore, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.faults = [
        Fault("status", "PUT", "model.safetensors", 1, 500),
        Fault("reset", "PUT", "trainer.json", 1),
        Fault("status", "GET", "list-type", 1, 503),
        Fault("slow", "GET", "list-type", 1),
    ]
    run_training(config_of(data, RUN))
    assert sorted(proxy.given) == ["reset", "slow", "status", "status"]
    assert tear.outcome(downloaded(store, tmp_path / "down")) == tear.outcome(whole)


@pytest.mark.parametrize("resumes", [False, True])
def test_access_that_is_denied_ends_a_run_before_it_begins(
    data: Path, proxy: Proxy, machine: Path, resumes: bool
) -> None:
    proxy.faults = [Fault("status", "PUT", PREFIX, 1000, 403)]
    with pytest.raises(SabiprepError, match="access is denied") as caught:
        run_training(config_of(data, RUN, resume=resumes))
    assert "AWS_ACCESS_KEY_ID" in str(caught.value)
    assert "test-secret" not in str(caught.value)


def test_a_checkpoint_that_is_damaged_in_the_store_is_passed_over(
    data: Path,
    whole: Path,
    store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patched:
        stopped_at(5, patched)
        with pytest.raises(Gone):
            run_training(config_of(data, RUN))
    key = f"{PREFIX}checkpoints/step-00000004/model.safetensors"
    content = bytearray(store.get(key))
    content[-1] ^= 1
    store.put(key, bytes(content))
    new_machine(monkeypatch, tmp_path)
    monkeypatch.setattr(remote_lock, "LEASE", 0.2)
    assert main(["--run", RUN, "--resume"]) == 0
    assert "step-00000004: " in capsys.readouterr().out
    assert tear.outcome(downloaded(store, tmp_path / "down")) == tear.outcome(whole)


def test_the_newer_of_folder_and_store_is_gone_on_with(
    data: Path,
    whole: Path,
    store: ObjectStore,
    machine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patched:
        stopped_at(3, patched)
        with pytest.raises(Gone):
            run_training(config_of(data, RUN))
    # Another machine goes on, and is taken away too; the first one comes back.
    new_machine(monkeypatch, tmp_path)
    monkeypatch.setattr(remote_lock, "LEASE", 0.2)
    with monkeypatch.context() as patched:
        stopped_at(5, patched)
        with pytest.raises(Gone):
            run_training(config_of(data, RUN, resume=True))
    monkeypatch.setenv("SABIPREP_CACHE", str(machine))
    capsys.readouterr()
    run_training(config_of(data, RUN, resume=True))
    assert "fetching step-00000004" in capsys.readouterr().out
    assert tear.outcome(downloaded(store, tmp_path / "down")) == tear.outcome(whole)


def test_one_run_at_a_time_on_two_machines(
    data: Path, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_lock, "RENEWAL", 0.05)
    monkeypatch.setattr(remote_lock, "LEASE", 30.0)
    monkeypatch.setattr(remote_lock, "_LOOK", 0.2)
    bucket = object_stores.Bucket(RUN)
    said: list[str] = []
    with RemoteLock(bucket, ".sabitrain.lock", tmp_path / "elsewhere", said.append):
        with pytest.raises(OutputError, match="another run is at work in it, on") as caught:
            run_training(config_of(data, RUN))
        assert caught.value.file == RUN
        assert not said
    assert keys(store) == []


def test_a_lock_that_nobody_renews_is_taken_over_by_one(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_lock, "LEASE", 0.5)
    bucket = object_stores.Bucket(RUN)
    left = json.dumps({"id": "gone", "host": "gone.example", "process": 7, "folder": "/gone"})
    bucket.put(".sabitrain.lock", left.encode())
    taken: list[RemoteLock] = []
    refused: list[SabiprepError] = []
    said: list[str] = []

    def take(folder: Path) -> None:
        try:
            taken.append(RemoteLock(bucket, ".sabitrain.lock", folder, said.append))
        except SabiprepError as error:
            refused.append(error)

    monkeypatch.setattr(remote_lock, "RENEWAL", 0.05)
    threads = [threading.Thread(target=take, args=(tmp_path / str(i),)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    assert len(refused) == 2
    assert any("gone.example (process 7)" in line for line in said)
    taken[0].__exit__(None, None, None)
    assert keys(store) == []


def test_a_lock_of_this_machine_and_folder_is_left_over(store: ObjectStore, tmp_path: Path) -> None:
    bucket = object_stores.Bucket(RUN)
    # As after a kill: the process is gone, and the lock of the folder with it.
    first = RemoteLock(bucket, ".sabitrain.lock", tmp_path, print)
    first._stop.set()
    said: list[str] = []
    with RemoteLock(bucket, ".sabitrain.lock", tmp_path, said.append):
        assert not said
    assert keys(store) == []


@pytest.mark.parametrize("renewal", [0.05, 3600.0])
def test_a_run_that_lost_its_lock_uploads_nothing_more(
    data: Path, store: ObjectStore, renewal: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also before its next renewal, as after a store that was away.
    monkeypatch.setattr(remote_lock, "RENEWAL", renewal)
    take, lost = trainer.Trainer.step, threading.Event()

    def step(self: trainer.Trainer) -> None:
        if self.done == 3:
            other = json.dumps({"id": "another", "host": "h", "process": 1, "folder": "/f"})
            store.put(f"{PREFIX}.sabitrain.lock", other.encode())
            assert self._mirror is not None
            if renewal < 1:
                self._mirror._lock._thread.join(60)
            lost.set()
        take(self)

    monkeypatch.setattr(trainer.Trainer, "step", step)
    with pytest.raises(OutputError, match="another run has taken it over"):
        run_training(config_of(data, RUN))
    assert lost.is_set()
    assert steps(store) == [2]
    assert json.loads(store.get(f"{PREFIX}.sabitrain.lock"))["id"] == "another"


def test_a_place_with_a_run_is_not_begun_in_and_is_replaced_when_asked(
    data: Path, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_training(config_of(data, RUN))
    before = keys(store)
    new_machine(monkeypatch, tmp_path)
    with pytest.raises(OutputError, match="there is a run already") as caught:
        run_training(config_of(data, RUN))
    assert "--resume" in str(caught.value)
    assert keys(store) == before
    run_training(config_of(data, RUN, overwrite=True, max_steps=2))
    assert steps(store) == [2]


def test_a_place_with_anything_else_is_left_alone(data: Path, store: ObjectStore) -> None:
    store.put(f"{PREFIX}thesis.tex", b"years")
    with pytest.raises(OutputError, match=r"it holds 'thesis.tex'"):
        run_training(config_of(data, RUN, overwrite=True))
    assert store.get(f"{PREFIX}thesis.tex") == b"years"


def test_a_run_starts_from_a_checkpoint_in_a_bucket(
    data: Path, whole: Path, store: ObjectStore, tmp_path: Path
) -> None:
    store.put_folder((whole / "checkpoint").resolve(), "base")
    options: dict[str, Any] = {"max_steps": 2, "preset": "checkpoint"}
    results = []
    for init in (str(whole / "checkpoint"), f"s3://{BUCKET}/base"):
        run = tmp_path / f"from-{len(results)}"
        run_training(config_of(data, run, init=init, model=ModelConfig(), **options))
        results.append((run / "checkpoint" / "model.safetensors").read_bytes())
    assert results[0] == results[1]


def test_a_run_starts_from_the_newest_checkpoint_of_a_run_in_a_bucket(
    data: Path, store: ObjectStore, tmp_path: Path
) -> None:
    run_training(config_of(data, RUN))
    folder, name = find_checkpoint(f"{RUN}/checkpoint")
    expected = store.get(f"{PREFIX}checkpoints/step-00000006/model.safetensors")
    assert (folder / "model.safetensors").read_bytes() == expected
    assert name == f"{RUN}/checkpoint"


@pytest.mark.parametrize(
    ("init", "says"),
    [
        (f"s3://{BUCKET}/nothing", "no checkpoint"),
        (f"s3://user:hunter2@{BUCKET}/base", "a user or a password"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_refused(
    data: Path, tmp_path: Path, init: str, says: str
) -> None:
    with pytest.raises((TrainError, ConfigError), match=says) as caught:
        run_training(config_of(data, tmp_path / "run", init=init, preset="checkpoint"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (f"s3://user:hunter2@{BUCKET}/run", "a user or a password"),
        (f"s3://{BUCKET}/run?key=hunter2", "a query"),
        ("https://example.com/run", "for reading alone"),
    ],
)
def test_a_place_that_no_run_can_have_is_refused(
    data: Path, run: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(data), "--run", run]) == 1
    error = capsys.readouterr().err
    assert says in error
    assert "hunter2" not in error


def test_a_run_torn_while_it_is_fetched_is_fetched_whole(
    data: Path,
    whole: Path,
    store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        stopped_at(5, patched)
        with pytest.raises(Gone):
            run_training(config_of(data, RUN))
    monkeypatch.setattr(remote_lock, "LEASE", 0.2)

    class Torn(files.Disk):
        """Ends the process, as far as this one can, in the middle of the nth part."""

        left = 0

        def fill(self, descriptor: int, start: int, content: bytes) -> None:
            self.left -= 1
            if self.left == 0:
                super().fill(descriptor, start, content[: len(content) // 2])
                raise Gone
            super().fill(descriptor, start, content)

    config, torn = config_of(data, RUN, resume=True), 0
    new_machine(monkeypatch, tmp_path)
    while True:
        torn += 1
        disk = Torn()
        disk.left = torn
        with monkeypatch.context() as patched:
            patched.setattr(files, "disk", disk)
            try:
                remote_run.fetch_run(config)
            except Gone:
                continue
        break
    assert torn > 5
    run_training(config)
    assert tear.outcome(downloaded(store, tmp_path / "down")) == tear.outcome(whole)


def test_sigterm_leaves_the_checkpoint_in_the_bucket(
    data: Path, whole: Path, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = begun(config_of(data, RUN, max_steps=2000, checkpoint=CheckpointConfig()), tmp_path)
    wait_for(process, "step ")
    process.send_signal(signal.SIGTERM)
    process.communicate()
    (step,) = steps(store)
    assert 1 <= step < 2000
    assert ".sabitrain.lock" not in keys(store)


def test_a_plan_of_data_in_a_bucket(
    data: Path, store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put_folder(data, "data")
    assert main(["plan", "--data", f"s3://{BUCKET}/data", "--max-steps", "2"]) == 0
    remote = capsys.readouterr().out
    assert main(["plan", "--data", str(data), "--max-steps", "2"]) == 0
    local = capsys.readouterr().out
    assert remote.replace(f"s3://{BUCKET}/data", "X") == local.replace(str(data), "X")


def test_a_mixture_and_eval_data_of_buckets(data: Path, store: ObjectStore, tmp_path: Path) -> None:
    place, other = f"s3://{BUCKET}/data", write_tiny(tmp_path / "b", train=30).path
    store.put_folder(data, "data")
    store.put_folder(other, "other")
    outcomes = []
    for name, a, b in (("here", str(data), str(other)), ("there", place, f"s3://{BUCKET}/other")):
        run = tmp_path / name
        mixed = (f"{a}=0.7", f"{b}=0.3")
        run_training(config_of(mixed, run, eval_data=(f"e={b}",), max_steps=2))
        outcomes.append((run / "checkpoint" / "model.safetensors").read_bytes())
    assert outcomes[0] == outcomes[1]


def test_settings_in_a_bucket(
    data: Path, store: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put("train.toml", to_toml(config_of(data, tmp_path / "run", max_steps=1)).encode())
    assert main(["--config", f"s3://{BUCKET}/train.toml"]) == 0
    assert (tmp_path / "run" / "checkpoint").exists()
    assert main(["--config", f"s3://{BUCKET}/none.toml"]) == 1
    assert "no such object" in capsys.readouterr().err


def test_resuming_a_place_without_a_run_is_refused(
    store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--run", RUN, "--resume"])
    assert f"{RUN} holds no run to go on with" in capsys.readouterr().err
    assert keys(store) == []


def test_a_checkpoint_is_not_written_to_a_bucket(whole: Path) -> None:
    with (
        pytest.raises(OutputError, match="written to this machine"),
        new_checkpoint(Path(f"s3://{BUCKET}/new")),
    ):
        raise AssertionError("nothing is begun")


def test_torn_by_the_machine_at_any_upload_the_run_ends_the_same(
    data: Path, whole: Path, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_lock, "LEASE", 0.2)
    changes = 0

    class Cut(object_stores.Bucket):
        """Ends the session before the nth change to the store."""

        left = 0

        def _count(self) -> None:
            Cut.left -= 1
            if Cut.left == 0:
                raise Gone

        def upload(self, name: str, file: Path) -> None:
            self._count()
            super().upload(name, file)

        def delete(self, name: str) -> None:
            self._count()
            super().delete(name)

    monkeypatch.setattr(remote_run, "Bucket", Cut)
    while True:
        changes += 7
        for key in store.all_keys():
            store.delete(key)
        new_machine(monkeypatch, tmp_path, f"machine-{changes}")
        Cut.left = changes
        try:
            run_training(config_of(data, RUN))
        except Gone:
            # On another machine, by the command alone.
            new_machine(monkeypatch, tmp_path, f"other-{changes}")
            Cut.left = 0
            run_training(config_of(data, RUN, resume=True))
            down = downloaded(store, tmp_path / f"down-{changes}")
            assert tear.outcome(down) == tear.outcome(whole), changes
            continue
        break
    assert changes > 20


def test_a_store_without_conditional_puts_is_trained_into_and_said_to_have_no_lock(
    data: Path,
    whole: Path,
    store: ObjectStore,
    proxy: Proxy,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    proxy.faults = [Fault("status", "PUT", ".sabitrain.lock", 1000, 501)]
    run_training(config_of(data, RUN))
    assert "nothing keeps a second run out of it" in capsys.readouterr().out
    assert tear.outcome(downloaded(store, tmp_path / "down")) == tear.outcome(whole)
