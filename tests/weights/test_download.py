"""Whatever a server does, a fetch ends with verified bytes or with an error that lists every attempt, in bounded time.

The time limits are set short here; the servers are real and really misbehave.
"""

import base64
import gzip
import hashlib
import random
import shutil
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path

import pytest
import requests
import torch.hub
import trustme
from support.fault_rows import fault
from support.fault_server import (
    Exchange,
    FaultServer,
    Handler,
    answer,
    drip_body,
    drip_handshake,
    drip_headers,
    head,
    redirect,
    reset_after,
    silence,
    stall,
    until,
)
from support.processes import importing, run
from support.skips import needs_root

from shufflenetv2 import __version__, transport
from shufflenetv2.errors import DownloadError, IntegrityError, ShuffleNetError
from shufflenetv2.weights import download
from shufflenetv2.weights.manifest import Entry
from shufflenetv2.weights.store import fetch, local_path

BODY = random.Random(0).randbytes(100_000)
OTHER = random.Random(1).randbytes(100_000)
MakeEntry = Callable[..., Entry]
BUSY = 5.0  # seconds that a busy machine may add; what is ruled out would take 20 or more


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch, own_network: Path) -> None:
    monkeypatch.setattr(download, "TOTAL_SECONDS", 20.0)
    monkeypatch.setattr(download, "PROGRESS_SECONDS", 3.0)  # enough for a good server on a busy machine
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.02)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For servers that say nothing: soon given up."""
    monkeypatch.setattr(download, "PROGRESS_SECONDS", 0.4)


def no_transfer_is_left() -> bool:
    return not any(thread.name.startswith("shufflenetv2") for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> object:
    """No temporary file in the cache, and no thread that still hangs in a read."""
    yield
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    left = [each.name for each in cache.iterdir()] if cache.exists() else []
    assert left in ([], ["weights.pth"])
    until(no_transfer_is_left)


def test_fetches_verifies_and_caches(make_entry: MakeEntry, tls, capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer([answer(BODY)], tls) as server:
        entry = make_entry(BODY, server.url("models/weights.pth"))
        assert fetch(entry) == BODY
        assert local_path(entry).read_bytes() == BODY
        assert fetch(entry) == BODY
    assert server.connections == 1
    request = server.requests[0]
    assert request.line == "GET /models/weights.pth HTTP/1.1"
    assert request.headers["user-agent"] == f"shufflenetv2/{__version__}"
    assert request.headers["accept-encoding"] == "identity"
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "weights.pth" in printed.err


def test_no_progress_means_silence(make_entry: MakeEntry, tls, capfd: pytest.CaptureFixture[str]) -> None:
    with FaultServer([answer(BODY)], tls) as server:
        fetch(make_entry(BODY, server.url()), progress=False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("handler", "tries", "error", "message"),
    [
        pytest.param(
            # Over TLS, Python reports a reset as the end of the file: only the length gives it away.
            reset_after(BODY, 40_000), 3, DownloadError, "reset|60000 more expected", id="reset",
            marks=fault(1, "connection reset in mid-body", "backs off, retries, then the next mirror"),
        ),
        pytest.param(
            answer(BODY[:40_000], length=len(BODY)), 3, DownloadError, "60000 more expected", id="closed-early",
            marks=fault(2, "closed before Content-Length", "backs off, retries, then the next mirror"),
        ),
        pytest.param(
            answer(BODY[:40_000], length=None), 3, IntegrityError, "expected 100000 bytes, got 40000", id="no-length",
            marks=fault(3, "truncated, no length given", "size differs from the manifest's: retries, then next mirror"),
        ),
    ],
)  # fmt: skip
def test_a_fault_of_one_mirror(
    handler: Handler, tries: int, error: type[ShuffleNetError], message: str, make_entry: MakeEntry, tls
) -> None:
    with FaultServer([handler], tls) as bad, FaultServer([answer(BODY)], tls) as good:
        alone = make_entry(BODY, bad.url("a?token=secret"))
        with pytest.raises(error, match=message) as caught:
            fetch(alone)
        assert bad.faults == bad.connections == tries
        assert f"{bad.url('a')}: " in str(caught.value)
        assert f"({tries} times)" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert not local_path(alone).exists()

        assert fetch(make_entry(BODY, bad.url(), good.url())) == BODY
        assert bad.faults == bad.connections == 2 * tries
        assert good.connections == 1


@pytest.mark.parametrize(
    "length",
    [
        pytest.param(length, marks=fault(4, 'Content-Length too long, "abc", negative', "the manifest's size decides"))
        for length in ("123456", "abc", "-5")
    ],
)
def test_a_lying_length_around_the_right_body(length: str, make_entry: MakeEntry, tls) -> None:
    with FaultServer([answer(BODY, length=length)], tls) as server:
        assert fetch(make_entry(BODY, server.url())) == BODY
    assert server.faults == server.connections == 1


@fault(4, "Content-Length too short", "the manifest's size decides: retries, then the next mirror")
def test_a_length_that_cuts_the_body(make_entry: MakeEntry, tls) -> None:
    with FaultServer([answer(BODY, length=50_000)], tls) as bad, FaultServer([answer(BODY)], tls) as good:
        with pytest.raises(IntegrityError, match="expected 100000 bytes, got 50000"):
            fetch(make_entry(BODY, bad.url()))
        assert bad.faults == 3
        assert fetch(make_entry(BODY, bad.url(), good.url())) == BODY


LOGIN = b"<html>Please log in to the WLAN</html>\n"


@pytest.mark.parametrize(
    ("handler", "error", "message"),
    [
        pytest.param(
            answer(LOGIN, headers=[("Content-Type", "text/html; charset=utf-8")]), IntegrityError,
            r"got 39 \(text/html, 39 bytes: a captive portal or a login page\?\)", id="portal",
            marks=fault(5, "200 with an HTML login page", "IntegrityError asks about a captive portal"),
        ),
        pytest.param(
            answer(gzip.compress(BODY), headers=[("Content-Encoding", "gzip")]), IntegrityError,
            "Content-Encoding gzip, although identity was asked for", id="gzip",
            marks=fault(6, "Content-Encoding: gzip", "identity is asked for, anything else refused undecoded"),
        ),
        pytest.param(
            answer(OTHER), IntegrityError, f"expected sha256 {sha256(BODY)}, got {sha256(OTHER)}", id="hash",
            marks=fault(17, "hash mismatch", "next mirror; IntegrityError with expected, got and URL if all differ"),
        ),
        pytest.param(
            answer(BODY + b"x"), IntegrityError, "expected 100000 bytes, got more", id="longer",
            marks=fault(16, "body larger than the manifest's size", "stops at size + 1; IntegrityError"),
        ),
        *(
            pytest.param(
                answer(b"no", status=status), DownloadError, f"HTTP status {status}", id=str(status),
                marks=fault(15, "403 or 404 on one mirror", "the next mirror at once"),
            )
            for status in (403, 404)
        ),
        *(
            pytest.param(
                answer(b"", 503, [("Retry-After", wish)]), DownloadError, f"HTTP status 503, Retry-After: {wish}",
                id=f"retry-after-{name}",
                marks=fault(14, "Retry-After: 86400, or a past date", "no sleep, next mirror; the error quotes it"),
            )
            for name, wish in (("a-day", "86400"), ("past", formatdate(0, usegmt=True)))
        ),
        pytest.param(
            answer(BODY, status=206), DownloadError, "HTTP status 206", id="partial",
            marks=fault(18, "206 though no range was asked for", "refused; the next mirror"),
        ),
        pytest.param(
            answer(b"", status=416), DownloadError, "HTTP status 416", id="range",
            marks=fault(18, "416", "nothing is ever resumed at these sizes: the next mirror"),
        ),
    ],
)  # fmt: skip
def test_a_fault_that_a_retry_would_not_mend(
    handler: Handler, error: type[ShuffleNetError], message: str, make_entry: MakeEntry, tls
) -> None:
    started = time.monotonic()
    with FaultServer([handler], tls) as bad, FaultServer([answer(BODY)], tls) as good:
        with pytest.raises(error, match=message) as caught:
            fetch(make_entry(BODY, bad.url("a?token=secret")))
        assert bad.url("a") + ": " in str(caught.value)
        assert "secret" not in str(caught.value)
        assert bad.faults == bad.connections == 1
        assert fetch(make_entry(BODY, bad.url(), good.url())) == BODY
        assert bad.faults == bad.connections == 2
    assert "range" not in bad.requests[0].headers
    assert time.monotonic() - started < 1 + BUSY


@fault(7, "empty 200", "retries, then the next mirror; IntegrityError")
def test_an_empty_body(make_entry: MakeEntry, tls) -> None:
    with FaultServer([answer(b"")], tls) as server:
        with pytest.raises(IntegrityError, match=r"expected 100000 bytes, got 0 \(3 times\)"):
            fetch(make_entry(BODY, server.url()))
        assert server.faults == 3


@fault(8, "redirect loop", "at most 5 hops; DownloadError")
def test_a_redirect_loop(make_entry: MakeEntry, tls) -> None:
    with FaultServer([redirect("/again")], tls) as server:
        with pytest.raises(DownloadError, match="more than 5 redirects, the last one to https://localhost"):
            fetch(make_entry(BODY, server.url()))
        assert server.faults == 6


def test_five_redirects_are_followed(make_entry: MakeEntry, tls) -> None:
    hops = [redirect(f"/{hop}", status) for hop, status in enumerate((301, 302, 303, 307, 308))]
    with FaultServer([*hops, answer(BODY)], tls) as server:
        assert fetch(make_entry(BODY, server.url())) == BODY
    assert [request.target for request in server.requests] == ["/weights.pth", "/0", "/1", "/2", "/3", "/4"]


@pytest.mark.parametrize(
    ("target", "named"),
    [
        pytest.param(
            target, named,
            marks=fault(9, "redirect from https to http or to file://", "refused; DownloadError names the target"),
        )
        for target, named in (
            ("http://user:pw@localhost:1/x?token=secret", "http://localhost:1/x"),
            ("file:///etc/passwd", "file:///etc/passwd"),
            ("ftp://localhost/x", "ftp://localhost/x"),
        )
    ],
)  # fmt: skip
def test_a_redirect_away_from_https(target: str, named: str, make_entry: MakeEntry, tls) -> None:
    with FaultServer([redirect(target)], tls) as server:
        with pytest.raises(DownloadError, match=f"refused to go to {named}: only https") as caught:
            fetch(make_entry(BODY, server.url()))
        assert server.faults == server.connections == 1
    assert "pw" not in str(caught.value)
    assert "secret" not in str(caught.value)


def endless(exchange: Exchange, headers: bytes) -> None:
    """A body without end; what was taken of it is left in ``exchange.server.taken``."""
    exchange.read_request()
    exchange.send(headers)
    exchange.server.taken = 0
    try:
        for _ in range(10_000):
            exchange.send(b"x" * 65536)
            exchange.server.taken += 65536
    except OSError:
        exchange.happened()


TAKEN_BY_BUFFERS = 16_000_000  # bytes that the two sockets' buffers may swallow, of the 655 MB offered


@fault(10, "huge body of a redirect", "never read")
def test_the_body_of_a_redirect_is_not_read(make_entry: MakeEntry, tls) -> None:
    def handler(exchange: Exchange) -> None:
        endless(exchange, head(302, [("Location", "/there"), ("Content-Length", 10**12)]))

    with FaultServer([handler, answer(BODY)], tls) as server:
        assert fetch(make_entry(BODY, server.url())) == BODY
        until(lambda: server.faults == 2)
        assert server.taken < TAKEN_BY_BUFFERS


@fault(16, "body without end", "stops at size + 1; IntegrityError")
def test_a_body_without_end(make_entry: MakeEntry, tls) -> None:
    with FaultServer([lambda exchange: endless(exchange, head())], tls) as server:
        with pytest.raises(IntegrityError, match="expected 100000 bytes, got more"):
            fetch(make_entry(BODY, server.url()))
        until(lambda: server.faults == 1)
        assert server.taken < TAKEN_BY_BUFFERS


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        pytest.param(stall(BODY, 40_000), r"no progress for 0.4 s \(40000 bytes received\)", id="body",
                     marks=fault(11, "stall in mid-body", "given up after the progress timeout, then retried")),
        pytest.param(silence, r"no progress for 0.4 s \(no reply yet\)", id="headers",
                     marks=fault(11, "stall before the reply", "given up after the progress timeout, then retried")),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_a_stall(handler: Handler, message: str, make_entry: MakeEntry, tls, impatient: None) -> None:
    with FaultServer([handler], tls) as server:
        with pytest.raises(DownloadError, match=message):
            fetch(make_entry(BODY, server.url()))
        until(lambda: server.faults == 3)
    with FaultServer([handler, answer(BODY)], tls) as server:
        assert fetch(make_entry(BODY, server.url())) == BODY
        until(lambda: server.faults == 2)


@fault(12, "body that drips", "the total deadline ends it; DownloadError")
@pytest.mark.slow
def test_a_dripping_body(make_entry: MakeEntry, tls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TOTAL_SECONDS", 1.0)
    started = time.monotonic()
    with FaultServer([drip_body(BODY, every=0.02)], tls) as server:
        with pytest.raises(DownloadError, match=r"the time for all attempts is over \(\d+ bytes received\)") as caught:
            fetch(make_entry(BODY, server.url()))
        assert 1.0 <= time.monotonic() - started < 1 + BUSY
        assert server.faults == server.connections == 1
    assert "stopped after 1 s (SHUFFLENETV2_TIMEOUT allows more)" in str(caught.value)


@fault(12, "body that drips, and SHUFFLENETV2_TIMEOUT set", "ends after the user's seconds; DownloadError")
def test_the_users_own_deadline(make_entry: MakeEntry, tls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHUFFLENETV2_TIMEOUT", "0.5")
    started = time.monotonic()
    with FaultServer([drip_body(BODY, every=0.02)], tls) as server:
        with pytest.raises(DownloadError, match=r"stopped after 0\.5 s"):
            fetch(make_entry(BODY, server.url()))
        assert 0.5 <= time.monotonic() - started < 0.5 + BUSY
    for wrong in ("soon", "0", "-1", "inf", "nan"):
        monkeypatch.setenv("SHUFFLENETV2_TIMEOUT", wrong)
        with pytest.raises(ValueError, match=f"SHUFFLENETV2_TIMEOUT must be a number above 0, got '{wrong}'"):
            fetch(make_entry(BODY, "https://localhost/weights.pth"))


@pytest.mark.parametrize(
    ("phase", "handler", "message"),
    [
        pytest.param("TLS", drip_handshake(0.02), "no reply yet|handshake operation timed out", id="handshake",
                     marks=fault(42, "TLS handshake that drips", "progress timeout, tried again; the next mirror")),
        pytest.param("headers", drip_headers(0.02), "no reply yet", id="headers",
                     marks=[fault(12, "headers that drip", "progress timeout, tried again; the next mirror"),
                            fault(42, "headers that drip", "progress timeout, tried again; the next mirror")]),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_a_slow_phase_after_connecting(
    phase: str, handler: Handler, message: str, make_entry: MakeEntry, tls, impatient: None
) -> None:
    started = time.monotonic()
    with (
        FaultServer([handler], None if phase == "TLS" else tls) as slow,
        FaultServer([answer(BODY)], tls) as good,
    ):
        with pytest.raises(DownloadError, match=message):
            fetch(make_entry(BODY, slow.url(scheme="https")))
        assert slow.faults == 3
        assert fetch(make_entry(BODY, slow.url(scheme="https"), good.url())) == BODY
        assert slow.faults == 6
    assert time.monotonic() - started < 5 + BUSY
    until(no_transfer_is_left)  # a thread that was left behind ends with its connection


NAMELESS = """
import socket, subprocess, sys, time
subprocess.run(["mount", "--bind", sys.argv[1], "/etc/resolv.conf"], check=True)
from shufflenetv2.description import Metrics, Preprocess
from shufflenetv2.weights.manifest import Entry
from shufflenetv2.weights import download
from shufflenetv2.weights.store import fetch
download.PROGRESS_SECONDS = 0.5
started = time.monotonic()
try:
    fetch({entry!r})
except OSError as error:
    print(time.monotonic() - started < 6, error)
"""


@pytest.mark.slow
@fault(42, "name lookup that hangs", "progress timeout, tried again; the next mirror")
@needs_root
def test_a_name_server_that_never_answers(make_entry: MakeEntry, tmp_path: Path) -> None:
    """In a mount namespace of its own, where /etc/resolv.conf leads to a silent name server."""
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    configuration = tmp_path / "resolv.conf"
    configuration.write_text("nameserver 127.0.0.9\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as name_server:
        try:
            name_server.bind(("127.0.0.9", 53))
        except OSError as error:
            pytest.skip(f"needs port 53: {error}")
        entry = make_entry(BODY, "https://slow.example/weights.pth")
        command = ("unshare", "--mount", sys.executable, "-c", NAMELESS.format(entry=entry), configuration)
        ran = run(*command, env=importing(), check=False)
        if "Operation not permitted" in ran.stderr or "unshare failed" in ran.stderr:
            pytest.skip(f"needs the right to mount: {ran.stderr.strip()}")
        name_server.settimeout(1)
        assert b"\x04slow\x07example" in name_server.recv(2000)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("True weights.pth")
    assert "no progress for 0.5 s (no reply yet)" in ran.stdout


@fault(42, "name lookup that hangs", "progress timeout, tried again; the next mirror", evidence="order observed")
@pytest.mark.slow
def test_a_name_that_is_never_found(
    make_entry: MakeEntry, tls, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    lookup, hung, release = socket.getaddrinfo, [], threading.Event()

    def getaddrinfo(host: str, *args: object, **kwargs: object) -> object:
        if host == "slow.example":
            hung.append(host)
            release.wait(30)
        return lookup(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    started = time.monotonic()
    with FaultServer([answer(BODY)], tls) as good:
        with pytest.raises(DownloadError, match="no reply yet"):
            fetch(make_entry(BODY, "https://slow.example/weights.pth"))
        assert len(hung) == download.TRIES
        assert fetch(make_entry(BODY, "https://slow.example/weights.pth", good.url())) == BODY
        assert len(hung) == 2 * download.TRIES
    assert time.monotonic() - started < 5 + BUSY
    release.set()


@pytest.fixture
def black_hole() -> Iterator[tuple[str, int]]:
    """An address on loopback whose SYNs are dropped: a listener with a full backlog."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        probe = stack.enter_context(socket.socket())
        probe.settimeout(0.2)
        with pytest.raises(TimeoutError):  # else the fault would not happen
            probe.connect(address)
        yield address


@fault(42, "connection that never comes about", "progress timeout, tried again; the next mirror")
def test_a_connection_that_never_comes_about(
    black_hole: tuple[str, int], make_entry: MakeEntry, tls, impatient: None
) -> None:
    started = time.monotonic()
    hole = f"https://localhost:{black_hole[1]}/weights.pth"
    with FaultServer([answer(BODY)], tls) as good:
        with pytest.raises(DownloadError, match=r"timed out|no reply yet"):
            fetch(make_entry(BODY, hole))
        assert time.monotonic() - started < 2 + BUSY
        assert fetch(make_entry(BODY, hole, good.url())) == BODY


@fault(35, "dead IPv6 (a first address that never answers)", "the next address is tried within the same attempt")
def test_a_dead_first_address(
    black_hole: tuple[str, int], make_entry: MakeEntry, tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultServer([answer(BODY)], tls) as server:
        addresses = [("127.0.0.1", black_hole[1]), ("127.0.0.1", server.port)]
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda *_: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", each) for each in addresses]
        )
        monkeypatch.setattr(transport, "CONNECT_SECONDS", 0.2)
        assert fetch(make_entry(BODY, server.url())) == BODY
        assert server.connections == 1


@fault(13, "429 or 503 with a short Retry-After", "waits as asked, within the deadline")
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.slow
def test_a_short_retry_after(status: int, make_entry: MakeEntry, tls) -> None:
    started = time.monotonic()
    with FaultServer([answer(b"", status, [("Retry-After", "1")]), answer(BODY)], tls) as server:
        assert fetch(make_entry(BODY, server.url())) == BODY
    assert server.connections == 2
    assert 1 <= time.monotonic() - started < 1 + BUSY


@fault(13, "Retry-After beyond the deadline", "no sleep; DownloadError")
def test_a_retry_after_beyond_the_deadline(make_entry: MakeEntry, tls) -> None:
    started = time.monotonic()
    with FaultServer([answer(b"", 503, [("Retry-After", "30")])], tls) as server:
        with pytest.raises(DownloadError, match="Retry-After: 30"):
            fetch(make_entry(BODY, server.url()))
        assert server.faults == server.connections == 1
    assert time.monotonic() - started < 1 + BUSY


@fault(18, "file changed between tries", "restarts from zero: never half of one and half of the other")
def test_a_file_that_changes_between_tries(make_entry: MakeEntry, tls) -> None:
    with FaultServer([reset_after(OTHER, 60_000), answer(BODY)], tls) as server:
        assert fetch(make_entry(BODY, server.url())) == BODY
    assert server.faults == 2
    assert all("range" not in request.headers for request in server.requests)


@fault(35, "own CA bundle", "REQUESTS_CA_BUNDLE and SSL_CERT_FILE are honoured; without them refused, with a hint")
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_an_authority_of_ones_own(
    variable: str, make_entry: MakeEntry, tls, ca_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with FaultServer([answer(BODY)], tls) as server:
        entry = make_entry(BODY, server.url())
        with pytest.raises(DownloadError, match=r"CERTIFICATE_VERIFY_FAILED.*set REQUESTS_CA_BUNDLE"):
            fetch(entry)
        assert server.requests == []
        monkeypatch.setenv(variable, str(ca_bundle))
        assert fetch(entry) == BODY


@fault(35, "wrong clock", "an expired certificate is refused; DownloadError hints at the clock")
def test_an_expired_certificate(make_entry: MakeEntry, authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    past = datetime(2020, 1, 1, tzinfo=UTC)
    authority.issue_cert("localhost", not_after=past).configure_cert(context)
    with FaultServer([answer(BODY)], context) as server:
        with pytest.raises(DownloadError, match=r"certificate has expired.*check this machine's clock"):
            fetch(make_entry(BODY, server.url()))
        assert server.requests == []
        assert server.connections == 1


@fault(35, "proxy that answers 407", "DownloadError hints at the proxy's address, user and password")
def test_a_proxy_that_asks_for_a_password(make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer([answer(b"", status=407)]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:pw@localhost:{proxy.port}")
        with pytest.raises(DownloadError, match=r"407.*check the address, user and password of the proxy") as caught:
            fetch(make_entry(BODY, "https://weights.example/weights.pth"))
        assert proxy.requests[0].line.startswith("CONNECT weights.example:443 ")
        assert proxy.faults == proxy.connections == 1
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["http://u:SECRET/x@127.0.0.1:9", "http://u:pa@SECRET@127.0.0.1:99999"])
def test_a_proxys_password_is_not_printed(proxy: str, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(DownloadError, match=r"or the proxy's cannot be read \(in a password, '/'") as caught:
        fetch(make_entry(BODY, "https://weights.example/weights.pth"))
    assert "SECRET" not in str(caught.value)


def test_credentials_are_taken_out_of_what_others_say() -> None:
    assert transport.cleaned("no way to //u:pa/SE@CRET@host/x?sig=SECRET from here") == "no way to //host/x from here"


def test_netrc_is_not_sent_but_credentials_of_the_address_are(
    make_entry: MakeEntry, tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password theirs\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert requests.utils.get_netrc_auth("https://localhost/") == ("someone", "theirs")
    with FaultServer([answer(OTHER)], tls) as plain, FaultServer([redirect(plain.url())], tls) as first:
        address = first.url().replace("localhost", "me:my%20own@localhost")
        with pytest.raises(IntegrityError) as caught:
            fetch(make_entry(BODY, address))
    assert first.requests[0].headers["authorization"] == "Basic " + base64.b64encode(b"me:my own").decode()
    assert "authorization" not in plain.requests[0].headers
    assert first.url() in str(caught.value)
    assert "my%20own" not in str(caught.value)


class TestMirrorVariable:
    @pytest.mark.parametrize("query", ["", "?token=secret"])
    def test_it_comes_first_and_may_be_plain_http(
        self, query: str, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with FaultServer([redirect("/moved"), answer(BODY)]) as mirror:
            monkeypatch.setenv("SHUFFLENETV2_MIRROR", mirror.url("models/") + query)
            assert fetch(make_entry(BODY, "https://weights.example/never-asked.pth")) == BODY
        assert [request.target for request in mirror.requests] == [f"/models/weights.pth{query}", "/moved"]

    def test_the_listed_ones_come_after_it(self, make_entry: MakeEntry, tls, monkeypatch: pytest.MonkeyPatch) -> None:
        with FaultServer([reset_after(BODY, 10)]) as mirror, FaultServer([answer(BODY)], tls) as listed:
            monkeypatch.setenv("SHUFFLENETV2_MIRROR", mirror.url(""))
            assert fetch(make_entry(BODY, listed.url())) == BODY
            assert mirror.faults == 3

    @pytest.mark.parametrize("base", ["models", "ftp://mirror.example", "https://", "file:///models", "http://[::1"])
    def test_an_unusable_one_is_refused(
        self, base: str, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SHUFFLENETV2_MIRROR", base)
        with pytest.raises(DownloadError, match=r"SHUFFLENETV2_MIRROR must be the https or http address"):
            fetch(make_entry(BODY, "https://weights.example/never-asked.pth"))

    @pytest.mark.parametrize(
        "base",
        [
            "http://u:SECRET/pa@127.0.0.1:9/x", "http://u:1/SECRET@127.0.0.1:9/x", "http://u:SECRET#pa@127.0.0.1:9/x",
            "http://u:1?SECRET@127.0.0.1:9/x", "http://u:pa@SECRET@host:99999/x", "http:/u:SECRET@host/x",
            "http://127.0.0.1:9/x?mail=a@SECRET",
        ],
    )  # fmt: skip
    def test_a_password_is_not_printed_however_it_is_written(
        self, base: str, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SHUFFLENETV2_MIRROR", base)
        with pytest.raises(
            DownloadError, match=r"got one with an '@' \(in a password, '/', .* are written as"
        ) as caught:
            fetch(make_entry(BODY, "https://weights.example/never-asked.pth"))
        assert "SECRET" not in str(caught.value)

    def test_from_https_it_never_falls_back_to_http(
        self, make_entry: MakeEntry, tls, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with FaultServer([answer(BODY)]) as plain, FaultServer([redirect(plain.url())], tls) as mirror:
            monkeypatch.setenv("SHUFFLENETV2_MIRROR", mirror.url(""))
            with pytest.raises(DownloadError, match="refused to go to http://"):
                fetch(make_entry(BODY))
        assert plain.connections == 0


def test_control_characters_of_a_server_are_not_printed(make_entry: MakeEntry, tls) -> None:
    handler = answer(b"", 503, [("Retry-After", "\x1b[31m86400\x1b]0;owned\x07")])
    with FaultServer([handler], tls) as server, pytest.raises(DownloadError) as caught:
        fetch(make_entry(BODY, server.url()))
    assert "86400" in str(caught.value)
    assert all(each.isprintable() or each == "\n" for each in str(caught.value))


def test_the_global_random_state_is_untouched(make_entry: MakeEntry, tls) -> None:
    before = random.getstate()
    with FaultServer([reset_after(BODY, 10), answer(BODY)], tls) as server:
        fetch(make_entry(BODY, server.url()))
        assert server.faults == 2
    assert random.getstate() == before
