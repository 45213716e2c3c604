"""An S3 server on loopback: moto's, the same API as the real one, with what reaches it."""

from __future__ import annotations

import logging
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

BUCKET = "corpora"
AUTHORIZATION = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"
"""What moto asks for: the form of a signature, not its truth."""


@dataclass(frozen=True)
class ObjectStore:
    """A running server, with one empty bucket.

    Attributes:
        endpoint: The address of the server.
    """

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """Returns the environment variables that reach the server."""
        return environment_of(self.endpoint)

    def put(self, key: str, content: bytes, bucket: str = BUCKET) -> None:
        """Puts an object in a bucket."""
        self._request("PUT", f"{bucket}/{key}", content)

    def get(self, key: str, bucket: str = BUCKET) -> bytes:
        """Returns the content of an object."""
        return self._request("GET", f"{bucket}/{key}")

    def delete(self, key: str, bucket: str = BUCKET) -> None:
        """Removes an object."""
        self._request("DELETE", f"{bucket}/{key}")

    def make_bucket(self, bucket: str) -> None:
        """Makes an empty bucket."""
        self._request("PUT", bucket)

    def put_folder(self, folder: Path, key: str) -> None:
        """Puts every file of a folder, under a key each that begins with ``key``."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{key}/{path.relative_to(folder)}", path.read_bytes())

    def all_keys(self, bucket: str = BUCKET) -> list[str]:
        """Returns the keys of all objects of a bucket."""
        listed = self._request("GET", f"{bucket}?list-type=2").decode()
        return re.findall("<Key>(.*?)</Key>", listed)

    def _request(self, method: str, path: str, content: bytes | None = None) -> bytes:
        headers = {
            "Authorization": AUTHORIZATION,
            "Content-Type": "application/octet-stream",
        }
        request = urllib.request.Request(
            f"{self.endpoint}/{quote(path, safe='/?=')}", content, headers, method=method
        )
        with urllib.request.urlopen(request) as answer:
            read: bytes = answer.read()
        return read


def environment_of(endpoint: str) -> dict[str, str]:
    """Returns the environment variables that reach an S3 server at an address."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_REGION": "us-east-1",
        # The server is on this machine, whatever proxy its other traffic takes.
        "NO_PROXY": "127.0.0.1",
    }


@contextmanager
def object_store(bucket: str = BUCKET) -> Iterator[ObjectStore]:
    """Runs a server on a free port of loopback, with one empty bucket."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    # A line for each request, otherwise.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        store = ObjectStore(f"http://{host}:{port}")
        _reset(store)
        store.make_bucket(bucket)
        yield store
    finally:
        server.stop()


def _reset(store: ObjectStore) -> None:
    """Empties the server: buckets of the process outlive the server that they were made by."""
    request = urllib.request.Request(f"{store.endpoint}/moto-api/reset", b"", method="POST")
    with urllib.request.urlopen(request):
        pass
