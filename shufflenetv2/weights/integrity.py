"""Are these the bytes the manifest lists? Asked of everything that is loaded, wherever it came from."""

import hashlib

from .manifest import Entry


def difference(data: bytes, entry: Entry, sha256: str | None = None) -> str | None:
    """``None`` if ``data`` has the entry's size and sha256, else what was expected and got.

    ``sha256`` is that of ``data`` if it is known already.

    Torch checks no CRC when it loads a file: a flipped bit gives other values, silently. This is the only guard.
    """
    if len(data) != entry.size:
        return f"expected {entry.size} bytes, got {'more' if len(data) > entry.size else len(data)}"
    sha256 = sha256 or hashlib.sha256(data).hexdigest()
    if sha256 != entry.sha256:
        return f"expected sha256 {entry.sha256}, got {sha256}"
    return None
