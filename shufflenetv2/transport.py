"""One URL becomes one reply, bounded in redirects, in bytes and in time, whatever the server does.

requests and urllib3 bound each single read but not the whole: a header or body that drips byte by byte hangs for ever,
and while a name is looked up there is not even a socket to time out. So each transfer has a daemon thread of its own,
which the caller leaves when the deadline is over or nothing has moved for too long.
"""

import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

import requests
import urllib3

from . import __version__
from .package import NAME

MAX_REDIRECTS = 5
ESCAPES = "in a password, '/', '?', '#' and '@' are written as %2F, %3F, %23 and %40"
CONNECT_SECONDS = 4.0  # for each address of a host; the next one, say IPv4 after a dead IPv6, is tried then

_CHUNK = 1 << 16  # bytes
_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = {
    "User-Agent": f"{NAME}/{__version__}",
    "Accept-Encoding": "identity",  # the bytes of the file, not of a compressed copy
}


class RedirectError(ValueError):
    """A redirect that is not followed."""


@dataclass(frozen=True)
class Reply:
    """What the last hop said. The body is read for status 200 alone, and never beyond ``limit + 1`` bytes."""

    status: int
    headers: Mapping[str, str]  # case does not matter
    body: bytes


def public(url: str) -> str:
    """The URL without user, password, query and fragment, fit for messages and logs."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def described(error: Exception) -> str:
    """What ``receive`` failed of, in one line fit for messages, with what to do about it where that is known."""
    root = _root(error)
    hint = ""
    if isinstance(root, ssl.SSLCertVerificationError):
        hint = " (check this machine's clock; behind a proxy that signs anew, set REQUESTS_CA_BUNDLE to its CA bundle)"
    elif isinstance(error, requests.exceptions.ProxyError):
        hint = " (check the address, user and password of the proxy in HTTPS_PROXY)"
    return cleaned(str(root) or type(root).__name__) + hint


def bad_certificate(error: Exception) -> bool:
    """Whether a certificate is what ``receive`` failed of."""
    return isinstance(_root(error), ssl.SSLCertVerificationError)


def _root(error: BaseException) -> BaseException:
    """The innermost cause: the outer ones repeat the URL, query included, and the addresses of objects."""
    inner = (getattr(error, "reason", None), *error.args, error.__cause__)
    return next((_root(each) for each in inner if isinstance(each, BaseException)), error)


def cleaned(text: str) -> str:
    """One line that is safe to print, without credentials and queries."""
    # Here urllib3 quotes a part of the address that it could not read, or of the proxy's.
    text = re.sub(r"(?s)Failed to parse:.*", f"this address or the proxy's cannot be read ({ESCAPES})", text)
    text = re.sub(r"//\S*@", "//", text)  # up to the last one: a password may hold a '/' or an '@', as it should not
    text = re.sub(r"\?[^\s'\")]+", "", text)
    return "".join(each if each.isprintable() else " " for each in text)[:300]


def receive(
    url: str,
    limit: int,
    *,
    plain_http: bool,
    patience: float,
    deadline: float,
    on_bytes: Callable[[int], None],
    given_up: Callable[[], bool] = lambda: False,
) -> Reply:
    """GET ``url``.

    Args:
        url: https, or http if ``plain_http``.
        limit: the bytes expected; reading stops one byte later.
        plain_http: accept http, in a chain of redirects that has not been https yet.
        patience: seconds without progress (a reply, a part of the body) after which to give up.
        deadline: ``time.monotonic()`` value at which to give up in any case.
        on_bytes: called in this thread with the number of bytes received so far.
        given_up: asked several times a second whether anyone still waits for it.

    Raises:
        TimeoutError: no progress, or the deadline is over.
        Exception: whatever requests, urllib3 and the operating system raise.
    """
    transfer = _Transfer(url, limit, plain_http, patience)
    seen, moved = transfer.progress, time.monotonic()
    try:
        while not transfer.done.wait(max(0.0, min(0.1, deadline - time.monotonic()))):
            now = time.monotonic()
            if transfer.progress != seen:
                seen, moved = transfer.progress, now
                on_bytes(seen[1])
            if given_up():
                raise TimeoutError("nobody waits for it any more")
            if now >= deadline or now - moved >= patience:
                reason = "the time for all attempts is over" if now >= deadline else f"no progress for {patience:g} s"
                raise TimeoutError(f"{reason} ({f'{seen[1]} bytes received' if seen[0] else 'no reply yet'})")
    finally:
        transfer.abandoned.set()
    on_bytes(transfer.progress[1])
    return transfer.result()


class _Transfer:
    """A GET in a daemon thread. One that is abandoned ends at its next byte, or when its own read times out."""

    def __init__(self, url: str, limit: int, plain_http: bool, patience: float) -> None:
        self.progress = (0, 0)  # replies (more than one after redirects), bytes of the body
        self.done, self.abandoned = threading.Event(), threading.Event()
        self._limit, self._patience = limit, patience
        self._outcome: Reply | Exception
        name = f"{NAME} {public(url)}"
        threading.Thread(target=self._run, args=(url, plain_http), name=name, daemon=True).start()

    def result(self) -> Reply:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def _run(self, url: str, plain_http: bool) -> None:
        try:
            with _Session() as session:
                self._outcome = self._follow(session, url, plain_http)
        except Exception as error:  # handed over to the caller's thread
            self._outcome = error
        finally:
            self.done.set()

    def _follow(self, session: "_Session", url: str, plain_http: bool) -> Reply:
        for hop in range(1, MAX_REDIRECTS + 2):
            plain_http = _check_scheme(url, plain_http)
            with session.get(
                url,
                auth=_auth(url),
                headers=_HEADERS,
                stream=True,
                allow_redirects=False,
                # The caller gives up first, and says more; the timeout for reads is there for a thread left behind.
                timeout=(min(CONNECT_SECONDS, self._patience), 2 * self._patience),
            ) as response:
                self.progress = (hop, 0)
                if response.status_code not in _REDIRECTS:
                    body = self._read(response.raw) if response.status_code == 200 else b""
                    return Reply(response.status_code, response.headers, body)
                target = session.target(response)
            if target is None:
                raise RedirectError(f"status {response.status_code} without a Location")
            url = urljoin(url, target)
        raise RedirectError(f"more than {MAX_REDIRECTS} redirects, the last one to {public(url)}")

    def _read(self, raw: Any) -> bytes:
        # read1 returns what there is, read waits for all it was asked for; urllib3 1.26 has only the latter.
        read = getattr(raw, "read1", raw.read)
        chunks: list[bytes] = []
        received = 0
        try:
            while received <= self._limit and not self.abandoned.is_set():
                chunk = read(min(_CHUNK, self._limit + 1 - received), decode_content=False)
                if not chunk:
                    break
                chunks.append(chunk)
                received += len(chunk)
                self.progress = (self.progress[0], received)
        except (urllib3.exceptions.HTTPError, OSError):
            # A Content-Length that is too long shows here, after the last byte. The manifest decides, not the header.
            if received != self._limit:
                raise
        return b"".join(chunks)


def _check_scheme(url: str, plain_http: bool) -> bool:
    """Refuse anything but https, and http where it is allowed; whether the next hop may be plain http."""
    scheme = urlsplit(url).scheme
    if scheme != "https" and not (scheme == "http" and plain_http):
        raise RedirectError(f"refused to go to {public(url)}: only https is followed")
    return scheme == "http"


def _auth(url: str) -> Any:
    """The credentials in the URL or none: requests would look into ``.netrc`` otherwise."""
    parts = urlsplit(url)
    return (unquote(parts.username), unquote(parts.password or "")) if parts.username else lambda request: request


class _Session(requests.Session):
    """A session whose redirects are followed by hand.

    Even with ``allow_redirects=False`` requests prepares the next request, and reads the whole body of the redirect
    for it, however large; without a target it does not.
    """

    def __init__(self) -> None:
        super().__init__()
        # requests reads REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE, which come first, but not what Python and OpenSSL read.
        bundle = os.environ.get("SSL_CERT_FILE", "")
        self.verify = bundle if os.path.isfile(bundle) else True

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None

    def target(self, response: requests.Response) -> str | None:
        return super().get_redirect_target(response)
