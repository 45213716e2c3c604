"""A proxy before an object store that answers wrongly where it is told to: errors, resets, cut
bodies, slow ones.
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

from support.object_store import AUTHORIZATION

Kind = Literal["status", "reset", "cut", "slow", "hold"]
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server", "host"}


@dataclass
class Fault:
    """A wrong answer to requests of a method, whose path holds a part, a number of times.

    ``cut`` ends the body half way and ``slow`` gives it in pieces; ``hold`` sends the request on,
    and then waits for ``Proxy.release``.
    """

    kind: Kind
    method: str
    part: str
    times: int = 1
    status: int = 503


@dataclass
class Proxy:
    """A running proxy.

    Attributes:
        url: Its address.
        faults: The wrong answers to give; the first that fits is taken.
        requests: The requests so far, as ``GET /bucket/key``, in order.
        given: The kinds of the wrong answers so far, in order.
    """

    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, method: str, path: str) -> Fault | None:
        """Notes a request and returns the wrong answer that it gets, if any."""
        with self._lock:
            self.requests.append(f"{method} {path}")
            for fault in self.faults:
                if fault.times and fault.method in ("*", method) and fault.part in path:
                    fault.times -= 1
                    self.given.append(fault.kind)
                    return fault
        return None


@contextmanager
def faulty_proxy(endpoint: str) -> Iterator[Proxy]:
    """Runs a proxy on a free port of loopback before the server at an address."""
    proxy = Proxy()
    host = urlsplit(endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Says nothing."""

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.fault(self.command, self.path)
            if fault is not None and fault.kind == "status":
                return self.answer(fault.status, {}, b"<Error><Code>SlowDown</Code></Error>")
            if fault is not None and fault.kind == "reset":
                # A reset, not an orderly end.
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()
                self.close_connection = True
                return None
            connection = http.client.HTTPConnection(host, timeout=30)
            headers = {name: value for name, value in self.headers.items() if name != "Host"}
            # For clients that sign nothing: the store asks for the form of a signature.
            headers.setdefault("Authorization", AUTHORIZATION)
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            length = answer.headers.get("Content-Length")
            kept = {
                name: value for name, value in answer.headers.items() if name.lower() not in HOP
            }
            connection.close()
            if fault is not None and fault.kind == "hold":
                proxy.held.set()
                proxy.release.wait(60)
            kind = None if fault is None else fault.kind
            return self.answer(answer.status, kept, content, kind, length)

        def answer(
            self,
            status: int,
            headers: dict[str, str],
            content: bytes,
            kind: str | None = None,
            length: str | None = None,
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            is_head = self.command == "HEAD"
            self.send_header("Content-Length", (length or "0") if is_head else str(len(content)))
            self.end_headers()
            if is_head:
                return
            if kind == "cut":
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
            elif kind == "slow":
                for start in range(0, len(content), max(1, len(content) // 5)):
                    self.wfile.write(content[start : start + max(1, len(content) // 5)])
                    self.wfile.flush()
                    time.sleep(0.05)
            else:
                self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Says nothing: clients leave, as they may."""

    server = Server(("127.0.0.1", 0), Handler)
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.release.set()
        server.shutdown()
        thread.join()
        server.server_close()
