"""From a manifest entry to bytes that were verified on this very load: from the cache, or fetched and then cached."""

import logging
import os
from pathlib import Path

from ..errors import CacheError, DownloadError, IntegrityError
from .manifest import PACKAGE, Entry
from .store import by_hand, cache_path, read_verified, write_verified

__all__ = ["cache_path", "fetch", "fetch_to_cache"]

_logger = logging.getLogger("shufflenetv2")


def fetch(entry: Entry, progress: bool = True) -> bytes:
    """The verified bytes of a weights file.

    They come from the package (bundled entries), else from the cache, else from the network; then they are cached. A
    cache that cannot be written costs one logged warning, not the load.

    Args:
        entry: which file.
        progress: show a bar on stderr while fetching.

    Raises:
        DownloadError: not in the cache, and no mirror delivered it (or ``SHUFFLENETV2_OFFLINE`` is set).
        IntegrityError: what the cache or the mirrors hold is not the file that the manifest lists.
        CacheError: the cached file cannot be read and ``SHUFFLENETV2_OFFLINE`` is set.
    """
    data, trouble = _obtain(entry, progress)
    if trouble:
        _logger.warning(
            "%s. The verified weights were loaded from memory and will be fetched again next time.", trouble
        )
    return data


def fetch_to_cache(entry: Entry, progress: bool = True) -> Path:
    """Where the verified file of ``entry`` is, after fetching it if need be; errors as in ``fetch``.

    Raises:
        CacheError: also if the cache cannot be written.
    """
    trouble = _obtain(entry, progress)[1]
    if trouble:
        raise trouble
    return local_path(entry)


def verify(entry: Entry) -> Path:
    """Where the file of ``entry`` is, after checking its size and sha256; nothing is fetched.

    Raises:
        CacheError: it is not there, or cannot be read.
        IntegrityError: it is not the file the manifest lists.
    """
    path = local_path(entry)
    try:
        read_verified(path, entry)
    except FileNotFoundError as error:
        raise CacheError(f"{path} is missing; `shufflenetv2 weights fetch {entry}` fetches it") from error
    return path


def local_path(entry: Entry) -> Path:
    """Where the entry's file is, or would be: in the package for bundled entries, else in the cache."""
    return PACKAGE / "bundled" / entry.path if entry.path else cache_path(entry)


def offline() -> bool:
    """Whether ``SHUFFLENETV2_OFFLINE`` forbids the network."""
    return os.environ.get("SHUFFLENETV2_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")


def _obtain(entry: Entry, progress: bool) -> tuple[bytes, CacheError | None]:
    """The verified bytes, and what kept them from being cached, if anything."""
    path = local_path(entry)
    flaw = None
    try:
        return read_verified(path, entry), None
    except FileNotFoundError as error:
        if entry.path:
            raise CacheError(f"{path} is missing, although it ships with the package; install it again") from error
    except (IntegrityError, CacheError) as error:
        if entry.path:
            raise type(error)(f"{error}. It ships with the package; install it again") from error
        flaw = error
    if offline():
        if flaw:
            raise type(flaw)(f"{flaw}. SHUFFLENETV2_OFFLINE forbids fetching it anew. {by_hand(entry)}.") from flaw
        raise DownloadError(f"{path} is missing, and SHUFFLENETV2_OFFLINE forbids fetching it. {by_hand(entry)}.")
    if flaw:
        _logger.warning("%s; fetching it anew", flaw)

    from .download import fetch_verified  # imports requests, which a cached file does without

    try:
        data = fetch_verified(entry, progress)
    except (DownloadError, IntegrityError) as error:
        if flaw:
            raise type(flaw)(f"{flaw}, and it could not be replaced. {error}") from error
        raise
    try:
        write_verified(path, data, entry)
    except CacheError as trouble:
        return data, trouble
    return data, None
