"""The bytes of a photo, wherever they are: in a file, at an address, in a file object, in a pipe of the shell."""

import glob
import inspect
import io
import os
import re
from typing import Any

from ..errors import ImageError
from ..files import NotRegularError, expanded, read_regular, shown
from ..package import limit
from .url import fetch_photo, is_url, public_name

LONGEST_NAME = 1000  # characters, in messages; Linux takes paths of 4,095
MAX_BYTES = 32_000_000  # unless SHUFFLENETV2_MAX_BYTES says otherwise
# What the shell's <(command) gives, which has a writer: a pipe by name may have none, and would never end.
_BASE64 = re.compile(r"data:|/9j/4|iVBORw0KG|R0lGOD|UklGR")  # how JPEG, PNG, GIF and WEBP begin in it
OPEN_ALREADY = re.compile(r"/dev/(fd/\d+|stdin)|/proc/self/fd/\d+")

KINDS = (
    "a path, an https:// address, bytes, a file object, a PIL image, a numpy array (H, W, 3) or a uint8 tensor "
    "(C, H, W)"
)


class Held(io.BytesIO):
    """What a file held, for messages that call it by its name."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def max_bytes() -> int:
    """The most bytes of an image file; ``ValueError`` if SHUFFLENETV2_MAX_BYTES is no number above 0."""
    return int(limit("SHUFFLENETV2_MAX_BYTES", MAX_BYTES))


def photo_name(photo: object) -> str:
    """What to call ``photo`` in messages."""
    if isinstance(photo, str) and is_url(photo):
        return public_name(photo)
    if isinstance(photo, (str, os.PathLike)):
        path = os.fsdecode(photo) or "the empty path"
        return path if len(path) <= LONGEST_NAME else f"{path[:LONGEST_NAME]}..."
    if isinstance(photo, (bytes, bytearray, memoryview)):
        return f"<{len(photo)} bytes>"
    for attribute in ("filename", "name"):  # of PIL images and of file objects
        if isinstance(name := getattr(photo, attribute, None), str) and name:
            return name
    return f"<{type(photo).__name__}>"


def read_photo(photo: object, name: str) -> bytes:
    """All of it, and no more than SHUFFLENETV2_MAX_BYTES or 32 MB.

    Raises:
        ImageError: it cannot be read, is empty or larger; the message begins with ``name``.
        TypeError: it is nothing that could be read.
    """
    allowed = max_bytes()
    data = fetch_photo(photo, allowed) if isinstance(photo, str) and is_url(photo) else _at_hand(photo, name, allowed)
    if not data:
        again = getattr(photo, "seekable", bool)()  # a pipe or an answer from the web cannot go back
        hint = "; was it read before? .seek(0) goes back" if again else ""
        raise ImageError(f"{name} is empty, expected an image{hint}")
    if len(data) > allowed:
        raise ImageError(
            f"{name} is larger than the {allowed:,} bytes allowed; make it smaller, or set SHUFFLENETV2_MAX_BYTES "
            "in the environment to allow more"
        )
    return data


def _at_hand(photo: object, name: str, allowed: int) -> bytes:
    try:
        if isinstance(photo, (str, os.PathLike)):
            if OPEN_ALREADY.fullmatch(name):
                with open(photo, "rb") as pipe:
                    return _drain(pipe, allowed)
            return read_regular(expanded(photo), allowed)
        if isinstance(photo, (bytes, bytearray, memoryview)):
            return bytes(photo)
        return _drain(photo, allowed)
    except NotRegularError as error:
        raise ImageError(f"{name} {error}") from error
    except (OSError, ValueError) as error:
        was_url = not isinstance(photo, str) and re.match(r"https?:/[^/]", name)  # a Path has lost a slash
        hint = "; an address is given as text, not as a Path" if was_url else ""
        if isinstance(error, FileNotFoundError) and glob.has_magic(name):
            hint = "; patterns are for the command line: in Python give sorted(glob.glob(...))"
        if isinstance(error, UnicodeDecodeError):
            hint = "; it was opened as text: open it in binary mode, 'rb'"
        if isinstance(photo, str) and (_BASE64.match(photo) or len(photo) > 4096):
            hint = "; text in base64 is no path: give base64.b64decode(text), without what begins a data: address"
        reason = shown(getattr(error, "strerror", None) or str(error))
        raise ImageError(f"{name} cannot be opened: {reason}{hint}") from error


def _drain(file: Any, allowed: int) -> bytes:
    """Read on to the end, or one byte more than ``allowed``; a single ``read`` may give less than was asked for."""
    if not callable(getattr(file, "read", None)):
        raise TypeError(f"a photo is {KINDS}; got {type(file).__name__}")
    parts: list[bytes] = []
    left = allowed + 1
    while left > 0 and (part := _part(file, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _part(file: Any, most: int) -> bytes:
    try:
        part = file.read(most)
    except (OSError, ValueError):
        raise
    except Exception as error:  # zipfile, lzma, urllib3 and others have errors of their own
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if isinstance(part, (bytearray, memoryview)):
        return bytes(part)
    if inspect.isawaitable(part):
        getattr(part, "close", bool)()  # else Python complains that nobody has awaited it
        raise ValueError("its read is asynchronous: give what `await file.read()` returns")
    if part is not None and not isinstance(part, bytes):
        raise ValueError("it gives text, not bytes; open it in binary mode, 'rb'")
    return part or b""
