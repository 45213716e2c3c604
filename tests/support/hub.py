"""A stub of the Hugging Face Hub on loopback: the endpoints that `huggingface_hub` calls."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """The datasets and models of a stub: by name, by revision, the commit and its files."""

    datasets: dict[str, dict[str, tuple[str, dict[str, bytes]]]] = field(default_factory=dict)
    models: dict[str, dict[str, tuple[str, dict[str, bytes]]]] = field(default_factory=dict)
    faults: list[tuple[str, int]] = field(default_factory=list)
    """Parts of paths, each with the status that the next request of it gets; 0 cuts its body."""
    always: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Parts of paths, with the status and the error code that all requests of it get."""
    requests: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    url: str = ""

    def commit(
        self, name: str, files: dict[str, bytes], revision: str = "main", kind: str = "datasets"
    ) -> str:
        """Makes the files those of a revision of a dataset, or of a model. Returns the commit."""
        text = repr((name, revision, sorted(files.items())))
        sha = hashlib.sha1(text.encode()).hexdigest()
        held = self.datasets if kind == "datasets" else self.models
        revisions = held.setdefault(name, {})
        revisions[revision] = revisions[sha] = (sha, files)
        return sha


@contextmanager
def served(hub: Hub) -> Iterator[Hub]:
    """Serves a stub; its address is in its ``url``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Says nothing."""

        def do_HEAD(self) -> None:
            self.answer(is_head=True)

        def do_GET(self) -> None:
            self.answer(is_head=False)

        def answer(self, *, is_head: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {urlsplit(self.path).path}")
            if "Authorization" in self.headers:
                hub.tokens.add(self.headers["Authorization"])
            for part, (status, code) in hub.always.items():
                if part in path:
                    return self.send(status, b"{}", {"X-Error-Code": code}, is_head=is_head)
            cut = False
            for fault in hub.faults:
                if fault[0] in path:
                    hub.faults.remove(fault)
                    if fault[1]:
                        return self.send(fault[1], b"{}", {}, is_head=is_head)
                    cut = True
                    break
            words = path.strip("/").split("/")
            is_api = words[0] == "api"
            words = words[1:] if is_api else words
            # A model's files lie at the root, its API below models/.
            kind = words.pop(0) if words[0] in ("datasets", "models") else "models"
            name, rest = "/".join(words[:2]), words[2:]
            revisions = (hub.datasets if kind == "datasets" else hub.models).get(name)
            if revisions is None:
                return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, is_head=is_head)
            # A revision may hold slashes: the longest that is known is taken.
            revision, below = "main", []
            for end in range(len(rest), 1, -1):
                if "/".join(rest[1:end]) in revisions:
                    revision, below = "/".join(rest[1:end]), rest[end:]
                    break
            else:
                if rest:
                    code = {"X-Error-Code": "RevisionNotFound"}
                    return self.send(404, b"{}", code, is_head=is_head)
            sha, files = revisions[revision]
            if is_api and rest[:1] == ["tree"]:
                return self.send_json(
                    [
                        {
                            "type": "file",
                            "oid": hashlib.sha1(content).hexdigest(),
                            "size": len(content),
                            "path": path,
                        }
                        for path, content in sorted(files.items())
                    ]
                    + [{"type": "directory", "oid": "0" * 40, "size": 0, "path": "folder"}],
                )
            if is_api:
                siblings = [{"rfilename": path} for path in sorted(files)]
                return self.send_json({"_id": "0", "id": name, "sha": sha, "siblings": siblings})
            content = files.get("/".join(below))
            headers = {"X-Repo-Commit": sha}
            if content is None:
                headers["X-Error-Code"] = "EntryNotFound"
                return self.send(404, b"", headers, is_head=is_head)
            headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
            return self.send(200, content, headers, is_head=is_head, cut=cut)

        def send_json(self, value: object) -> None:
            content = json.dumps(value).encode()
            self.send(200, content, {"Content-Type": "application/json"}, is_head=False)

        def send(
            self,
            status: int,
            content: bytes,
            headers: dict[str, str],
            *,
            is_head: bool,
            cut: bool = False,
        ) -> None:
            wanted = self.headers.get("Range")
            if wanted and status == 200 and not is_head:
                start = int(wanted.removeprefix("bytes=").split("-")[0])
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                status, content = 206, content[start:]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if not is_head:
                self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut and not is_head:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
