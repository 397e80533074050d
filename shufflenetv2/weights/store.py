"""The weights cache: files that are verified whenever they are read, and that appear whole or not at all.

It is torch.hub's own checkpoint directory under torchvision's file names, so either finds what the other fetched.
No lock is taken: every writer has a temporary file of its own, and the last ``os.replace`` wins with the same bytes.
"""

import errno
import os
import re
import secrets
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path

import torch.hub

from ..errors import CacheError, IntegrityError
from ..files import NotRegularError, read_and_hash
from .integrity import difference
from .manifest import Entry

STALE_SECONDS = 24 * 60 * 60.0  # a temporary file of ours that is older was left by a killed process
REPLACE_TRIES = 5  # on Windows the target cannot be replaced while another process reads it
REPLACE_SECONDS = 0.05  # before the second try; doubled each time

_TEMPORARY = re.compile(r"\.[A-Za-z0-9._-]+\.[0-9a-f]{32}\.shufflenetv2-partial")
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def cache_path(entry: Entry) -> Path:
    """Where the entry's file is, or would be: ``<torch.hub.get_dir()>/checkpoints/<file>``."""
    return Path(torch.hub.get_dir()) / "checkpoints" / entry.file


def by_hand(entry: Entry) -> str:
    """What to do on a machine that cannot fetch the file."""
    return (
        f"To go on without the network, copy {entry.file} ({entry.size} bytes, sha256 {entry.sha256}) "
        f"into {cache_path(entry).parent}"
    )


def read_verified(path: Path, entry: Entry) -> bytes:
    """The file's bytes, read once and verified; nothing is written or locked.

    Raises:
        FileNotFoundError: there is no such file.
        IntegrityError: it is no regular file, or not the one the manifest lists.
        CacheError: it cannot be read.
    """
    try:
        data, sha256 = read_and_hash(path, entry.size)
    except NotRegularError as error:
        raise IntegrityError(f"{path} {error}: the weights {entry}") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(errno.ENOENT, "no such file in the weights cache", str(path)) from error
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror or error}") from error
    problem = difference(data, entry, sha256)
    if problem:
        raise IntegrityError(f"{path} is not the file of {entry}: {problem}")
    return data


def write_verified(path: Path, data: bytes, entry: Entry) -> None:
    """Put verified bytes under ``path``: a private temporary file, flushed to the disk, then renamed over it.

    Raises:
        CacheError: with the bytes needed and free, and the variable to set. Nothing is left behind.
    """
    directory = path.parent
    temporary = directory / f".{path.name}.{secrets.token_hex(16)}.shufflenetv2-partial"
    try:
        if directory.parts[:1] and directory.parts[0].startswith("~"):
            raise FileNotFoundError(errno.ENOENT, "no home directory is known")
        directory.mkdir(parents=True, exist_ok=True)
        _sweep(directory)
        try:
            with open(os.open(temporary, _CREATE, 0o666), "wb") as file:  # the umask decides, as for any other file
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _replace(temporary, path, entry)
        finally:
            temporary.unlink(missing_ok=True)
        _flush_directory(directory)
    except OSError as error:
        raise CacheError(
            f"{path} could not be written: {error.strerror or error} ({len(data)} bytes needed, {_free(directory)} "
            "free). Set TORCH_HOME to a directory that is writable and has room"
        ) from error


def _replace(temporary: Path, path: Path, entry: Entry) -> None:
    for attempt in range(REPLACE_TRIES):
        try:
            os.replace(temporary, path)
            return
        except PermissionError:
            if attempt == REPLACE_TRIES - 1:
                raise
        with suppress(FileNotFoundError, IntegrityError, CacheError):  # whoever holds it may have written it too
            read_verified(path, entry)
            return
        time.sleep(REPLACE_SECONDS * 2**attempt)


def _flush_directory(directory: Path) -> None:
    """Make the rename itself survive a power loss, where directories can be opened (not on Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):  # some network file systems refuse it; the hash is checked on every load anyway
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sweep(directory: Path) -> None:
    """Remove temporary files that this package, for this user, left there more than a day ago."""
    with suppress(OSError), os.scandir(directory) as files:  # housekeeping never stands in the way of a fetch
        for file in files:
            if not _TEMPORARY.fullmatch(file.name):
                continue
            status = file.stat(follow_symlinks=False)
            ours = not hasattr(os, "getuid") or status.st_uid == os.getuid()
            if ours and stat.S_ISREG(status.st_mode) and status.st_mtime < time.time() - STALE_SECONDS:
                os.unlink(file.path)


def _free(directory: Path) -> str:
    for place in (directory, *directory.parents):
        with suppress(OSError):  # it need not exist
            return str(shutil.disk_usage(place).free)
    return "an unknown number"
