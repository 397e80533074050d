"""Are these the bytes the manifest lists? Asked of everything that is loaded, wherever it came from."""

import hashlib

from .manifest import Entry


def difference(data: bytes, entry: Entry) -> str | None:
    """``None`` if ``data`` has the entry's size and sha256, else what was expected and got.

    Torch checks no CRC when it loads a file: a flipped bit gives other values, silently. This is the only guard.
    """
    if len(data) != entry.size:
        return f"expected {entry.size} bytes, got {'more' if len(data) > entry.size else len(data)}"
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.sha256:
        return f"expected sha256 {entry.sha256}, got {digest}"
    return None
