"""Packing from buckets into buckets, beside packing on a disk; stores that fail or refuse."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import sabiprep
from sabiprep import ConfigError, InputError, OutputError, PackOptions, SabiprepError
from support.faulty_server import (
    INTERNAL,
    SLOW_DOWN,
    Fault,
    FaultyServer,
    Request,
    answer_is_lost,
    answers,
    cuts_off,
    faulty_server,
    is_silent,
    is_slow,
    resets,
)
from support.files import edit, files_of
from support.object_store import BUCKET, ObjectStore, environment_of, object_store
from support.strategies import tokenizer_json

SECRETS = {"AWS_ACCESS_KEY_ID": "AKIDTELLTALE", "AWS_SECRET_ACCESS_KEY": "telltale-secret-key"}
CORPUS = f"s3://{BUCKET}/corpora/small"
SPILLING = PackOptions(spool_bytes=0, split_bytes=4000, threads=2)
"""Options by which a small corpus makes many objects."""


@pytest.fixture(scope="module")
def corpus(shared_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared corpus in shards of a few rows."""
    folder = tmp_path_factory.mktemp("buckets") / "corpus"
    shutil.copytree(shared_corpus, folder)
    edit(folder / "corpus.toml", "seq_len = 128", "seq_len = 64\nshard_tokens = 4000")
    return folder


@pytest.fixture(scope="module")
def clean(corpus: Path) -> dict[str, bytes]:
    """The files that the corpus gives on a disk."""
    sabiprep.pack(corpus, corpus.parent / "clean")
    return files_of(corpus.parent / "clean")


@pytest.fixture(scope="module")
def store(corpus: Path) -> Iterator[ObjectStore]:
    """A store that holds the corpus."""
    with object_store() as store:
        put_folder(store, corpus, "corpora/small")
        yield store


@pytest.fixture
def server(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """The server in front of the store, which the environment names."""
    with faulty_server(store.endpoint) as server:
        for name, value in environment(server.endpoint).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_ALLOW_HTTP", raising=False)
        yield server


@pytest.fixture
def out(request: pytest.FixtureRequest) -> str:
    """A place for a dataset, of this test alone."""
    return f"s3://{BUCKET}/out/{request.node.name}"


def environment(endpoint: str) -> dict[str, str]:
    """The variables that reach a server, with secrets that are known again."""
    return {**environment_of(endpoint), **SECRETS, "SABIPREP_RETRY_SECONDS": "20"}


def put_folder(store: ObjectStore, folder: Path, prefix: str) -> None:
    """Puts every file of a folder into the bucket."""
    for name, content in files_of(folder).items():
        store.put(f"{prefix}/{name}", content)


def objects_of(store: ObjectStore, out: str) -> dict[str, bytes]:
    """The objects of a dataset, by their names in it."""
    prefix = out.removeprefix(f"s3://{BUCKET}/") + "/"
    return {key.removeprefix(prefix): store.get(key) for key in all_keys(store, prefix)}


def all_keys(store: ObjectStore, prefix: str) -> list[str]:
    """The keys below a prefix, by the server's own listing."""
    import urllib.parse
    import urllib.request
    from xml.etree import ElementTree

    query = urllib.parse.urlencode({"list-type": "2", "prefix": prefix})
    request = urllib.request.Request(f"{store.endpoint}/{BUCKET}?{query}")
    request.add_header(
        "Authorization", "AWS4-HMAC-SHA256 Credential=t/20260101/us-east-1/s3/aws4_request"
    )
    with urllib.request.urlopen(request) as answer:
        tree = ElementTree.fromstring(answer.read())
    return [each.text or "" for each in tree.iter() if each.tag.endswith("}Key")]


def without_work(objects: dict[str, bytes]) -> dict[str, bytes]:
    """The objects that are not of a run."""
    return {name: content for name, content in objects.items() if not name.startswith(".work/")}


def test_a_bucket_gives_the_bytes_of_a_folder(
    corpus: Path,
    clean: dict[str, bytes],
    store: ObjectStore,
    server: FaultyServer,
    out: str,
    tmp_path: Path,
) -> None:
    report = sabiprep.pack(CORPUS, out)
    assert objects_of(store, out) == clean
    assert report.train.rows > 0
    # By a path, which takes a slash away; from the bucket to the disk, and the other way.
    sabiprep.pack(Path(CORPUS), tmp_path / "local")
    assert files_of(tmp_path / "local") == clean
    sabiprep.pack(corpus, out, PackOptions(overwrite=True, spool_bytes=0, split_bytes=1500))
    assert objects_of(store, out) == clean
    checked = sabiprep.verify(out, against=CORPUS, sample=None)
    assert not checked.failures and checked.rows == report.train.rows + report.validation.rows
    # No object holds a secret.
    for content in objects_of(store, out).values():
        assert not any(secret.encode() in content for secret in SECRETS.values())


def test_files_of_a_local_corpus_may_lie_in_buckets_and_on_servers(
    corpus: Path, store: ObjectStore, server: FaultyServer, tmp_path: Path
) -> None:
    local = tmp_path / "corpus"
    shutil.copytree(corpus, local)
    for name in ("plain.txt", "labels-a.tsv", "labels-b.tsv", "tokenizer.json"):
        (local / name).unlink()
    edit(local / "corpus.toml", 'files = ["plain.txt"]', f'files = ["{CORPUS}/plain.txt"]')
    edit(local / "corpus.toml", 'files = ["labels-*.tsv"]', f'files = ["{CORPUS}/labels-*.tsv"]')
    edit(local / "corpus.toml", 'file = "tokenizer.json"', f'file = "{CORPUS}/tokenizer.json"')
    report = sabiprep.pack(local, tmp_path / "out")
    twin = sabiprep.pack(corpus, tmp_path / "twin")
    # Which records are held out goes by the names of files, and these have others.
    assert report.total.records == twin.total.records
    manifest = (tmp_path / "out" / "manifest.json").read_text()
    assert f'"{CORPUS}/labels-a.tsv"' in manifest
    # A pattern cannot be asked of a web server, and a file can, if the server knows ranges.
    edit(
        local / "corpus.toml", f"{CORPUS}/labels-*.tsv", f"{server.endpoint}/{BUCKET}/corpora/*.tsv"
    )
    with pytest.raises(ConfigError, match="does not list its files"):
        sabiprep.pack(local, tmp_path / "refused")


def test_a_server_without_ranges_is_refused_at_once_and_gives_empty_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Whole(BaseHTTPRequestHandler):
        """Gives whole files, whatever range is asked for."""

        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            content = b"" if self.path == "/empty.txt" else b"one line\n"
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Last-Modified", "Mon, 30 Nov 2026 00:00:00 GMT")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "tokenizer.json").write_text(tokenizer_json("bytes-nfc"), "utf-8")
    (corpus / "here.txt").write_text("two lines\nare here\n", "utf-8")
    monkeypatch.setenv("SABIPREP_RETRY_SECONDS", "60")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Whole)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        for name in ("empty.txt", "full.txt"):
            (corpus / "corpus.toml").write_text(
                '[tokenizer]\nfile = "tokenizer.json"\neos = "</s>"\n[[source]]\nname = "a"\n'
                f'files = ["here.txt", "{address}/{name}"]\n',
                "utf-8",
            )
            if name == "empty.txt":
                assert sabiprep.pack(corpus, tmp_path / "out").total.records == 2
                continue
            with pytest.raises(InputError, match="the server gives whole files alone"):
                sabiprep.pack(corpus, tmp_path / "refused")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert 1 <= asked.count("GET /full.txt") <= 2


SURVIVED = {
    "500": answers(500, INTERNAL),
    "503": answers(503, SLOW_DOWN),
    "429": answers(429),
    "reset": resets,
    "cut off": cuts_off(2),
    "slow": is_slow(0.3),
    "silent": is_silent(2.5),
}


@pytest.mark.parametrize("fault", SURVIVED)
def test_passing_faults_of_a_store_are_survived(
    fault: str,
    clean: dict[str, bytes],
    store: ObjectStore,
    server: FaultyServer,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_READ_TIMEOUT", "1s")
    met = 0
    every_nth = 25 if fault == "silent" else 5

    def fault_of(request: Request) -> Fault | None:
        nonlocal met
        if request.nth % every_nth:
            return None
        met += 1
        return SURVIVED[fault]

    server.fault_of = fault_of
    sabiprep.pack(CORPUS, out, SPILLING)
    assert met > 3
    assert objects_of(store, out) == clean


def test_a_store_that_stays_broken_ends_a_run_that_can_go_on(
    clean: dict[str, bytes],
    store: ObjectStore,
    server: FaultyServer,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SABIPREP_RETRY_SECONDS", "1")
    monkeypatch.setenv("AWS_READ_TIMEOUT", "1s")
    sabiprep.pack(CORPUS, f"{out}-counted", SPILLING)
    count = len(server.requests)
    stopped = 0
    for nth, fault in enumerate([answers(503, SLOW_DOWN), resets, is_silent(1.5), cuts_off(512)]):
        start = len(server.requests) + count * (2 * nth + 1) // 9
        server.fault_of = lambda request, start=start, fault=fault: (  # type: ignore[misc]
            fault if request.nth >= start else None
        )
        place = f"{out}/{nth}"
        try:
            sabiprep.pack(CORPUS, place, SPILLING)
        except SabiprepError as error:
            stopped += 1
            # An input bears its name in the corpus, everything else its address.
            assert error.file in ("plain.txt", "sums.jsonl") or "s3://" in str(error)
            assert "the store fails, tried again for 1 s" in str(error)
            assert error.remedy is not None and "--resume" in error.remedy
            assert not any(secret in str(error) for secret in SECRETS.values())
            objects = objects_of(store, place)
            assert "manifest.json" not in objects or without_work(objects) == clean
            # What was finished is kept, for the run that goes on.
            assert nth == 0 or ".work/state.json" in objects
        server.fault_of = lambda request: None
        remove_lock(store, place)
        sabiprep.pack(CORPUS, place, PackOptions(**{**SPILLING.__dict__, "resume": True}))
        assert objects_of(store, place) == clean
    assert stopped >= 3


def remove_lock(store: ObjectStore, out: str) -> None:
    """Removes the lock of a run that is dead, as a minute does."""
    key = f"{out.removeprefix(f's3://{BUCKET}/')}/.work/lock"
    if key in all_keys(store, key):
        store.delete(key)


def test_answers_that_are_lost_do_no_harm(
    clean: dict[str, bytes], store: ObjectStore, server: FaultyServer, out: str
) -> None:
    server.fault_of = lambda request: (
        answer_is_lost
        if request.nth % 4 == 0
        and request.method in ("PUT", "DELETE")
        and "lock" not in request.path
        else None
    )
    sabiprep.pack(CORPUS, out, SPILLING)
    assert objects_of(store, out) == clean


def test_a_killed_run_goes_on_from_another_process(
    clean: dict[str, bytes], store: ObjectStore, server: FaultyServer, out: str
) -> None:
    """A process killed by SIGKILL at some requests; the next one is told how long to wait."""
    command = [sys.executable, "-m", "sabiprep", "pack", CORPUS, out]
    command += ["--spool-bytes", "0", "--split-bytes", "4000"]
    told_to_wait = 0
    for wanted in ("/spool/", "train/shard", "/done/", f"{out.rpartition('/')[2]}/manifest.json"):
        seen = len(server.requests)
        server.fault_of = lambda request: is_slow(0.05)
        extra = ["--resume"] if seen else []
        process = subprocess.Popen(
            command + extra, env={**os.environ}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        while process.poll() is None and not any(
            request.method == "PUT" and wanted in request.path for request in server.requests[seen:]
        ):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        output = process.communicate()[0].decode()
        assert process.returncode == -signal.SIGKILL, output
        server.fault_of = lambda request: None
        objects = objects_of(store, out)
        assert "manifest.json" not in objects or without_work(objects) == clean
        if ".work/lock" in objects:
            ran = subprocess.run([*command, "--resume"], capture_output=True, text=True)
            assert ran.returncode == 1 and "another sabiprep is packing into it" in ran.stderr
            assert "counts as left in" in ran.stderr
            told_to_wait += 1
        remove_lock(store, out)
    assert told_to_wait > 0
    ran = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert objects_of(store, out) == clean


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (("s3://none/corpus", None), "no such bucket"),
        ((f"s3://{BUCKET}/nowhere", None), "no such corpus folder"),
        (("s4://bucket/corpus", None), "scheme that is not known"),
        ((f"{CORPUS}?X-Amz-Signature=telltale-secret-key", None), r"goes on with \? or #"),
        (("https://me:telltale-secret-key@host/c", None), "name and a password"),
        (("http://127.0.0.1:9/c?sig=telltale-secret-key", None), r"goes on with \? or #"),
        ((None, "s4://bucket/out"), "scheme that is not known"),
        ((None, "http://127.0.0.1:9/out"), "only read from"),
        ((None, "s3://none/out"), "no such bucket"),
        ((None, f"s3://{BUCKET}/corpora"), "the corpus itself|is not empty"),
    ],
)
def test_places_that_cannot_serve_are_refused(
    given: tuple[str | None, str | None], what: str, server: FaultyServer, out: str
) -> None:
    with pytest.raises((InputError, OutputError, ConfigError), match=what) as raised:
        sabiprep.pack(given[0] or CORPUS, given[1] or out)
    refusals = [raised.value]
    # What opens no store is no folder without a corpus.toml to those that would guess one.
    for look in (sabiprep.plan, sabiprep.init) if given[0] else ():
        with pytest.raises((InputError, OutputError, ConfigError), match=what) as raised:
            look(given[0])
        refusals.append(raised.value)
    for error in refusals:
        assert error.file is not None and "://" in error.file
        assert error.remedy
        assert not any(secret in str(error) for secret in SECRETS.values())


def test_missing_and_wrong_credentials_are_told(
    store: ObjectStore, server: FaultyServer, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = b"<Error><Code>AccessDenied</Code><Message>telltale-secret-key</Message></Error>"
    server.fault_of = lambda request: answers(403, denied)
    with pytest.raises(PermissionError, match="the store denies access"):
        sabiprep.plan(CORPUS)
    with pytest.raises(PermissionError, match="the store denies access") as raised:
        sabiprep.pack(CORPUS, out)
    assert "AWS_ACCESS_KEY_ID" in str(raised.value) and "telltale" not in str(raised.value)
    server.fault_of = lambda request: None
    for name in SECRETS:
        monkeypatch.delenv(name)
    # The address at which machines of a cloud find theirs.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PermissionError, match="no credentials for S3 are found"):
        sabiprep.pack(CORPUS, out)
    with pytest.raises(PermissionError, match="no credentials for S3 are found"):
        sabiprep.plan(CORPUS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "telltale-secret-key")
    with pytest.raises(SabiprepError, match="AccessKeyId") as raised:
        sabiprep.pack(CORPUS, out)
    assert "telltale" not in str(raised.value)


def test_two_runs_do_not_pack_into_one_place(
    store: ObjectStore, server: FaultyServer, out: str
) -> None:
    # A store that writes whatever the condition keeps no lock.
    def fault_of(request: Request) -> Fault | None:
        return ignores_conditions if request.path.endswith("lock") else None

    def ignores_conditions(handler: object, request: Request) -> bool:
        del handler.headers["If-None-Match"]  # type: ignore[attr-defined]
        return False

    server.fault_of = fault_of
    with pytest.raises(OutputError, match="knows no conditional writes"):
        sabiprep.pack(CORPUS, out)
    server.fault_of = lambda request: None
    assert objects_of(store, out) == {}
