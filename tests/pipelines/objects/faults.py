"""A proxy on loopback between us and a store, which spoils the answers that a test asks it to."""

import http.client
import random
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import unquote

Fault = Callable[["Handler", int, bytes], None]
"""Answers a request in the place of the store, which has answered so: status and body."""


@dataclass
class Rule:
    method: str
    part: str
    """Of the path."""
    fault: Fault
    times: int
    reaches: bool
    """Whether the store gets the request."""
    chance: float = 1.0
    """That an answer is spoilt."""
    met: int = 0


@dataclass
class Proxy:
    """The address to use, what was asked, and what is spoilt."""

    store_port: int
    rules: list[Rule] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)
    dropped: list[str] = field(default_factory=list)
    """Headers that the store does not get."""

    def __post_init__(self) -> None:
        handler = type("BoundHandler", (Handler,), {"proxy": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def spoil(
        self, method: str, part: str, fault: Fault, *, times: int = 10**9, reaches: bool = True, chance: float = 1.0
    ) -> Rule:
        """Spoil the next answers to requests of that method ("" is any) whose path has that part."""
        rule = Rule(method, part, fault, times, reaches, chance)
        self.rules.append(rule)
        return rule

    def drop_header(self, name: str) -> None:
        """As a store that does not know it."""
        self.dropped.append(name.lower())

    def forget(self) -> None:
        self.dropped.clear()
        self.rules.clear()
        self.requests.clear()

    def rule_for(self, method: str, path: str) -> Rule | None:
        with self.lock:
            self.requests.append(f"{method} {path}")
            for rule in self.rules:
                meant = rule.method in ("", method) and rule.part in path and rule.met < rule.times
                if meant and random.random() < rule.chance:
                    rule.met += 1
                    return rule
        return None

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    """Hands on one request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms for the headers to be acknowledged
    proxy: Proxy

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        rule = self.proxy.rule_for(self.command, unquote(self.path))
        status, headers, data = (200, [], b"") if rule and not rule.reaches else self._asked(body)
        if rule:
            rule.fault(self, status, data)
        else:
            self.answer(status, data, headers)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any  # noqa: N815

    def answer(self, status: int, data: bytes, headers: list[tuple[str, str]], *, length: int | None = None) -> None:
        self.send_response(status)
        told = dict(headers).get("Content-Length") if self.command == "HEAD" else None
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", told or str(len(data) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _asked(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.store_port, timeout=30)
        try:
            connection.request(self.command, self.path, body or None, self._headers())
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def _headers(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name.lower() not in self.proxy.dropped}

    def log_message(self, *_: object) -> None:
        """Tests read `requests`."""


def says(status: int, code: str = "") -> Fault:
    """The store's own words for an error."""

    def fault(handler: Handler, _: int, __: bytes) -> None:
        body = f"<Error><Code>{code}</Code><Message>spoilt by a test</Message></Error>".encode() if code else b""
        handler.answer(status, body, [("Content-Type", "application/xml")])

    return fault


def reset(handler: Handler, _: int, __: bytes) -> None:
    """The connection ends without an answer; of a PUT that the store has taken, its acknowledgement is lost."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def truncated(handler: Handler, status: int, data: bytes) -> None:
    """Half of the body comes, then the connection ends."""
    handler.answer(status, data[: len(data) // 2], [], length=len(data))
    handler.close_connection = True


def short(handler: Handler, status: int, data: bytes) -> None:
    """Half of the body comes, and is said to be all."""
    handler.answer(status, data[: len(data) // 2], [])


def slow(seconds: float) -> Fault:
    """All of it comes, when nobody waits for it any more."""

    def fault(handler: Handler, status: int, data: bytes) -> None:
        time.sleep(seconds)
        reset(handler, status, data)

    return fault


@dataclass
class Late:
    """A fault that is none: answers come late, and how many wait at a time is counted."""

    seconds: float
    waiting: int = 0
    most: int = 0
    lock: Lock = field(default_factory=Lock)

    def __call__(self, handler: Handler, status: int, data: bytes) -> None:
        with self.lock:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
        time.sleep(self.seconds)
        with self.lock:
            self.waiting -= 1
        handler.answer(status, data, [])
