"""A manifest entry becomes verified bytes: mirrors in order, bounded retries, one deadline over all of it."""

import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import requests
import urllib3

from ..errors import DownloadError, IntegrityError
from ..package import limit, logger, progress_bar
from ..transport import ESCAPES, RedirectError, Reply, bad_certificate, cleaned, described, public, receive
from .manifest import Entry

TOTAL_SECONDS = 600.0  # over everything: names, connections, TLS, headers, bodies, pauses, every mirror
PROGRESS_SECONDS = 10.0  # without a reply or a further byte: the attempt is given up
TRIES = 3  # of each mirror, for faults that may pass
BACKOFF_SECONDS = 0.5  # before the second try; doubled each time, with up to 50 % of jitter either way
RETRY_AFTER_SECONDS = 60.0  # a server that asks for a longer pause is left for the next mirror

_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)
_RANDOM = random.SystemRandom()  # the global generator belongs to the caller


@dataclass(eq=False)
class _AttemptError(Exception):
    """One attempt: what went wrong, and what that means for the next."""

    cause: str
    retry: bool = False  # the same mirror may do better
    pause: float | None = None  # seconds it asked for
    wrong_bytes: bool = False  # it answered, but not with the file


def download(entry: Entry, progress: bool = True) -> bytes:
    """The entry's bytes, verified, from ``SHUFFLENETV2_MIRROR`` if set, then from the manifest's URLs in order.

    Returns within ``TOTAL_SECONDS``, or the seconds in ``SHUFFLENETV2_TIMEOUT``, whatever the servers do, and never
    takes more than the entry's size and one byte of a body.

    Raises:
        IntegrityError: every mirror answered, none with the file that the manifest lists.
        DownloadError: no mirror delivered it; like the former, the message lists every attempt.
    """
    allowed = limit("SHUFFLENETV2_TIMEOUT", TOTAL_SECONDS)
    deadline = time.monotonic() + allowed
    attempts: list[str] = []  # one line for each, in order
    last_failures: list[_AttemptError] = []  # one for each mirror
    for url, plain_http in _mirrors(entry):
        for number in range(1, TRIES + 1):
            try:
                return _attempt(entry, url, plain_http, deadline, progress)
            except _AttemptError as failure:
                attempts.append(f"{public(url)}: {failure.cause}")
                logger.info("try %d of %s", number, attempts[-1])
                last = failure
            pause = _pause(last, number)
            if pause is None or time.monotonic() + pause >= deadline:
                break
            time.sleep(pause)
        last_failures.append(last)
        if time.monotonic() >= deadline:
            attempts.append(f"stopped after {allowed:g} s (SHUFFLENETV2_TIMEOUT allows more)")
            break
    error = IntegrityError if all(failure.wrong_bytes for failure in last_failures) else DownloadError
    raise error(
        f"{entry.file} ({entry.size} bytes) of {entry} could not be fetched:\n"
        + "".join(f"  {line}\n" for line in _collapse(attempts))
    )


def _collapse(lines: list[str]) -> Iterator[str]:
    for line, equal in itertools.groupby(lines):
        count = len(list(equal))
        yield line if count == 1 else f"{line} ({count} times)"


def _mirrors(entry: Entry) -> list[tuple[str, bool]]:
    """Addresses in order, and whether plain http will do: only for the user's own, since the hash decides."""
    listed = [(url, False) for url in entry.urls]
    base = os.environ.get("SHUFFLENETV2_MIRROR", "").strip()
    if not base:
        return listed
    try:
        parts = urlsplit(base)
        unclear = "@" in parts.path + parts.query + parts.fragment  # where a password ended too soon
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not unclear
    except ValueError:  # unbalanced brackets, a port that is no number
        usable = False
    if not usable:
        got = f"one with an '@' ({ESCAPES})" if "@" in base else repr(cleaned(base))
        raise DownloadError(
            "SHUFFLENETV2_MIRROR must be the https or http address of a directory, such as "
            f"https://mirror.example/models, got {got}"
        )
    path = f"{parts.path.rstrip('/')}/{entry.file}"
    return [(urlunsplit(parts._replace(path=path, fragment="")), parts.scheme == "http"), *listed]


def _pause(failure: _AttemptError, number: int) -> float | None:
    """Seconds until the next try of the same mirror; ``None``: go on to the next one."""
    if not failure.retry or number == TRIES:
        return None
    backoff = BACKOFF_SECONDS * 2.0 ** (number - 1) * _RANDOM.uniform(0.5, 1.5)
    if failure.pause is None:
        return backoff
    return max(failure.pause, backoff) if 0 < failure.pause <= RETRY_AFTER_SECONDS else None


def _attempt(entry: Entry, url: str, plain_http: bool, deadline: float, progress: bool) -> bytes:
    try:
        with _progress_bar(entry, progress) as on_bytes:
            reply = receive(
                url,
                entry.size,
                plain_http=plain_http,
                patience=PROGRESS_SECONDS,
                deadline=deadline,
                on_bytes=on_bytes,
            )
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise _AttemptError(described(error), retry=_may_pass(error)) from error
    return _judge(reply, entry)


def _judge(reply: Reply, entry: Entry) -> bytes:
    """The body, if it is the entry's file."""
    if reply.status != 200:
        wish = reply.headers.get("Retry-After")
        cause = f"HTTP status {reply.status}" + (f", Retry-After: {wish}" if wish else "")
        raise _AttemptError(cleaned(cause), retry=reply.status in _MAY_PASS, pause=_seconds(wish))
    encoding = reply.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise _AttemptError(cleaned(f"Content-Encoding {encoding}, although identity was asked for"), wrong_bytes=True)
    problem = entry.difference(reply.body)
    if problem is None:
        return reply.body
    kind = reply.headers.get("Content-Type", "")
    if kind.lower().startswith("text/"):
        raise _AttemptError(
            cleaned(
                f"{problem} ({kind.partition(';')[0]}, {len(reply.body)} bytes: a captive portal or a login page?)"
            ),
            wrong_bytes=True,
        )
    raise _AttemptError(problem, retry=len(reply.body) < entry.size, wrong_bytes=True)


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After, in seconds from now: a number or a date (0 if past); ``None`` if absent or neither."""
    try:
        return None if retry_after is None else urllib3.Retry().parse_retry_after(retry_after)
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None


def _may_pass(error: Exception) -> bool:
    """Whether the same mirror may do better in a moment."""
    if isinstance(error, RedirectError | requests.ConnectTimeout | requests.exceptions.ProxyError):
        return False  # it had its time; the next mirror is more likely to answer
    if bad_certificate(error):
        return False
    return isinstance(error, requests.ConnectionError | requests.Timeout | urllib3.exceptions.HTTPError | TimeoutError)


@contextmanager
def _progress_bar(entry: Entry, shown: bool) -> Iterator[Callable[[int], None]]:
    """On stderr, from the first byte on."""
    with ExitStack() as stack:
        bar = None

        def on_bytes(received: int) -> None:
            nonlocal bar
            if shown and received and bar is None:
                bar = stack.enter_context(
                    progress_bar(entry.size, "B", shown=True, desc=entry.file, unit_scale=True, unit_divisor=1024)
                )
            if bar is not None:
                bar.update(received - bar.n)

        yield on_bytes
