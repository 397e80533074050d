"""A server on loopback that misbehaves to order: raw sockets, so that it can also break HTTP and TLS themselves.

A script is a list of handlers, one for each connection in order; the last one serves all later connections. A handler
calls ``exchange.happened()`` once it has really done its harm: a test that asserts on ``server.faults`` cannot pass
because the fault did not come about.
"""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Servers run in threads of their own: give them a moment to see what the client did."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@dataclass
class Request:
    line: str
    headers: dict[str, str]  # names in lower case

    @property
    def target(self) -> str:
        return self.line.split()[1]


class Exchange:
    """One connection."""

    def __init__(self, server: "FaultServer", connection: socket.socket) -> None:
        self.server, self.connection = server, connection
        self._buffer = b""

    def read_request(self) -> Request | None:
        while b"\r\n\r\n" not in self._buffer:
            received = self.connection.recv(65536)
            if not received:
                return None
            self._buffer += received
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        request = Request(line, headers)
        self.server.requests.append(request)
        return request

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def drip(self, data: Iterable[bytes], every: float) -> None:
        """Send piece by piece until the other side has gone."""
        for piece in data:
            if self.server.stopping.wait(every):
                return
            self.send(piece)

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def wait_for_the_other_side(self, seconds: float = 30.0) -> bool:
        """Say nothing until the client closes; whether it did."""
        self.connection.settimeout(seconds)
        try:
            while self.connection.recv(65536):
                pass
        except TimeoutError:
            return False
        except (ConnectionError, ssl.SSLError):  # it went without a farewell
            return True
        return True

    def happened(self) -> None:
        self.server.faults += 1


Handler = Callable[[Exchange], None]


@dataclass
class FaultServer:
    """``with FaultServer([handler, ...]) as server: server.url(path)``."""

    script: list[Handler]
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    faults: int = 0
    taken: int = 0  # bytes of an endless body that were sent
    stopping: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "FaultServer":
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def url(self, path: str = "weights.pth", scheme: str | None = None) -> str:
        return f"{scheme or ('https' if self.tls else 'http')}://localhost:{self.port}/{path}"

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                handler = self.script[min(self.connections, len(self.script) - 1)]
                self.connections += 1
            threading.Thread(target=self._serve, args=(handler, connection), daemon=True).start()

    def _serve(self, handler: Handler, connection: socket.socket) -> None:
        with suppress(OSError), connection:  # the client may hang up at any moment
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection:
                handler(Exchange(self, connection))


def head(status: int = 200, headers: Iterable[tuple[str, object]] = ()) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in headers), "Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode("latin1")


def answer(body: bytes, status: int = 200, headers: Iterable[tuple[str, object]] = (), length: object = ...) -> Handler:
    """A reply with this body. ``length`` is what Content-Length says, the truth by default; ``None`` leaves it out."""
    claimed = len(body) if length is ... else length
    lines = [*headers, *([] if claimed is None else [("Content-Length", claimed)])]

    def handler(exchange: Exchange) -> None:
        if exchange.read_request():
            exchange.happened()  # before the client can act on the reply
            exchange.send(head(status, lines) + body)

    return handler


def reset_after(body: bytes, sent: int) -> Handler:
    def handler(exchange: Exchange) -> None:
        exchange.read_request()
        exchange.send(head(headers=[("Content-Length", len(body))]) + body[:sent])
        time.sleep(0.05)  # else the reset overtakes what was sent
        exchange.happened()
        exchange.reset()

    return handler


def redirect(location: str, status: int = 302, body: bytes = b"") -> Handler:
    return answer(body, status, [("Location", location)])


def stall(body: bytes, sent: int) -> Handler:
    """Part of the body, then silence until the client leaves."""

    def handler(exchange: Exchange) -> None:
        exchange.read_request()
        exchange.send(head(headers=[("Content-Length", len(body))]) + body[:sent])
        if exchange.wait_for_the_other_side():
            exchange.happened()

    return handler


def silence(exchange: Exchange) -> None:
    """A connection, and never a word."""
    exchange.read_request()
    if exchange.wait_for_the_other_side():
        exchange.happened()


def drip_body(body: bytes, every: float) -> Handler:
    def handler(exchange: Exchange) -> None:
        exchange.read_request()
        exchange.send(head(headers=[("Content-Length", len(body))]))
        exchange.happened()
        exchange.drip((body[i : i + 1] for i in range(len(body))), every)

    return handler


def drip_headers(every: float) -> Handler:
    def handler(exchange: Exchange) -> None:
        exchange.read_request()
        exchange.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        exchange.happened()
        exchange.drip((b"a" for _ in range(10_000)), every)

    return handler


def drip_handshake(every: float) -> Handler:
    """For an https client and a server without TLS: a long handshake record, byte by byte."""

    def handler(exchange: Exchange) -> None:
        exchange.send(b"\x16\x03\x03\x3f\x00\x02\x00\x3e\xfc\x03\x03")
        exchange.happened()
        exchange.drip((b"\x00" for _ in range(10_000)), every)

    return handler
