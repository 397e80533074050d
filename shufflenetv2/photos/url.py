"""Photos by address: one bounded fetch over https, of which the rest of the package sees bytes or an ``ImageError``."""

import re
import threading
import time
from urllib.parse import urlsplit

from ..errors import ImageError
from ..files import shown
from ..package import limit, offline, require

SECONDS = 30.0  # for all of a photo, unless SHUFFLENETV2_TIMEOUT says otherwise
PATIENCE = 10.0  # seconds without a reply or a further byte

reader = threading.local()  # its ``given_up``, where a thread has one, says whether what it reads is of no use any more

_UNCLEAR = re.compile(r"[^/]*[?#][^/]*@")  # a password with such a character, or a query with an @
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_url(photo: object) -> bool:
    """Whether ``photo`` is an address, of whatever scheme, and not a path."""
    return isinstance(photo, str) and _ADDRESS.match(photo) is not None


def public_name(url: str) -> str:
    """``url`` for people: without user, password, query and fragment, escaped where it would act on a terminal."""
    scheme, _, rest = url.partition("://")
    if _UNCLEAR.match(rest):
        return f"{scheme}://..."
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return shown(f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"[:300])


def fetch_photo(url: str, allowed: int) -> bytes:
    """The bytes behind an https ``url``: one more than ``allowed`` at most, so that an excess shows.

    At most 5 redirects are followed, to https alone. It ends within 30 seconds, or the seconds in SHUFFLENETV2_TIMEOUT,
    and 10 seconds after the last byte.

    Raises:
        ImageError: it is no https address, SHUFFLENETV2_OFFLINE is set, or the server does not answer with a file.
        ValueError: SHUFFLENETV2_TIMEOUT is no number above 0.
        ImportError: requests is missing; the message has the pip line.
    """
    name = public_name(url)
    if not url.lower().startswith("https://"):
        raise ImageError(f"{name} is refused: of addresses only https:// is taken; download it and give its path")
    if not _usable(url):
        raise ImageError(f"{name} is no usable address; is the host right? special characters in it are written as %40")
    if offline():
        raise ImageError(f"{name} was not fetched: SHUFFLENETV2_OFFLINE forbids it; unset it, or give a file")
    require("a photo's address", "requests>=2.32")
    from .. import transport

    seconds = limit("SHUFFLENETV2_TIMEOUT", SECONDS)
    try:
        reply = transport.receive(
            url,
            allowed,
            plain_http=False,
            patience=min(PATIENCE, seconds),
            deadline=time.monotonic() + seconds,
            on_bytes=lambda received: None,
            given_up=getattr(reader, "given_up", lambda: False),
        )
    except TimeoutError as error:
        raise ImageError(f"{name} could not be fetched: {error}; SHUFFLENETV2_TIMEOUT sets the seconds") from error
    except Exception as error:  # whatever requests, urllib3, ssl and the resolver raise
        raise ImageError(f"{name} could not be fetched: {transport.described(error)}") from error
    if reply.status != 200:
        raise ImageError(f"{name} could not be fetched: the server answers with HTTP status {reply.status}")
    encoding = reply.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise ImageError(f"{name} came in the encoding {transport.cleaned(encoding)}, although none was asked for")
    kind = transport.cleaned(reply.headers.get("Content-Type", "").partition(";")[0].strip().lower())
    if kind.startswith("text/") or kind.endswith("json"):
        raise ImageError(f"{name} is no image but {kind}; give the address of the photo itself, not of a page about it")
    return reply.body


def _usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and not _UNCLEAR.match(url.partition("://")[2])
    except ValueError:  # unbalanced brackets, a port that is no number
        return False
