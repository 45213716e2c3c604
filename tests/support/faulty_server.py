"""A server in front of an object store on loopback, which fails as networks and stores do."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
INTERNAL = b"<Error><Code>InternalError</Code><Message>We met an error.</Message></Error>"

PASSED_ON = {"host", "connection", "keep-alive", "transfer-encoding", "expect"}
"""Headers of a connection rather than of a request."""


@dataclass(frozen=True)
class Request:
    """A request, as faults are chosen by it.

    Attributes:
        nth: Its number on this server, from 1.
        method: Its method.
        path: Its path, with the query.
        range: The range it asks for, or "".
    """

    nth: int
    method: str
    path: str
    range: str


Fault = Callable[["_Handler", Request], bool]
"""What is done in the place of an answer; False for the answer of the store."""


def answers(status: int, body: bytes = b"") -> Fault:
    """Returns the fault of an answer with this status."""

    def fault(handler: _Handler, request: Request) -> bool:
        handler.answer(status, {}, b"" if request.method == "HEAD" else body)
        return True

    return fault


def resets(handler: _Handler, request: Request) -> bool:
    """Resets the connection without an answer."""
    handler.reset()
    return True


def is_silent(seconds: float) -> Fault:
    """Returns the fault of no answer for so long, and none then."""

    def fault(handler: _Handler, request: Request) -> bool:
        time.sleep(seconds)
        handler.reset()
        return True

    return fault


def is_slow(seconds: float) -> Fault:
    """Returns the fault of a late answer."""

    def fault(handler: _Handler, request: Request) -> bool:
        time.sleep(seconds)
        return False

    return fault


def cuts_off(least: int) -> Fault:
    """Returns the fault of an answer whose second half is missing, if it has so many bytes."""

    def fault(handler: _Handler, request: Request) -> bool:
        if request.method != "GET":
            return False
        status, headers, body = handler.asked()
        if len(body) < least:
            handler.answer(status, headers, body)
            return True
        handler.answer(status, headers, body, sent=len(body) // 2)
        handler.reset()
        return True

    return fault


def answer_is_lost(handler: _Handler, request: Request) -> bool:
    """Lets the store do what is asked, and resets the connection in the place of its answer."""
    handler.asked()
    handler.reset()
    return True


@dataclass
class FaultyServer:
    """A running server.

    Attributes:
        endpoint: Its address.
        requests: What it was asked.
        fault_of: The function that chooses the fault of a request; None for none.
    """

    endpoint: str
    requests: list[Request] = field(default_factory=list)
    fault_of: Callable[[Request], Fault | None] = lambda request: None
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FaultyServer
    target: str

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        with self.state.lock:
            request = Request(
                len(self.state.requests) + 1,
                self.command,
                self.path,
                self.headers.get("Range") or "",
            )
            self.state.requests.append(request)
        fault = self.state.fault_of(request)
        if fault is None or not fault(self, request):
            self.answer(*self.asked())

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

    def asked(self) -> tuple[int, dict[str, str], bytes]:
        """Returns the store's answer: status, headers, body."""
        connection = HTTPConnection(self.target)
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in PASSED_ON
        }
        # Of the address that was signed.
        headers["Host"] = self.headers["Host"]
        connection.request(self.command, self.path, self.body, headers)
        answer: HTTPResponse = connection.getresponse()
        content = answer.read()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in PASSED_ON}
        connection.close()
        return answer.status, kept, content

    def answer(
        self, status: int, headers: dict[str, str], body: bytes, sent: int | None = None
    ) -> None:
        """Answers; ``sent`` bytes of the body where not all."""
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])

    def reset(self) -> None:
        """Resets the connection."""
        self.wfile.flush()
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def finish(self) -> None:
        """Ends the connection, which may be reset already."""
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Says nothing: clients leave, and connections are reset."""


@contextmanager
def faulty_server(endpoint: str) -> Iterator[FaultyServer]:
    """Runs a server in front of that at ``endpoint``, on a free port of loopback."""

    class Handler(_Handler):
        target = urlsplit(endpoint).netloc

    server = _Server(("127.0.0.1", 0), Handler)
    state = Handler.state = FaultyServer(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
