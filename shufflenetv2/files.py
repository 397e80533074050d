"""Reading a path that may be anything, never more than was agreed; writing a file whole or not at all."""

import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

# Non-blocking: a FIFO without a writer must not hang us before we see that it is one. Windows has O_BINARY instead.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

# The names of temporary files: nobody can guess one and plant a link there, and what a killed process left is known.
STALE_SECONDS = 24 * 60 * 60.0  # what is older was left by a killed process
LONGEST = 40  # characters, of up to four bytes, of the name that they are made for
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.shufflenetv2-partial(\.[a-z0-9]+)?")

# What git and browsers leave in place of a file: how the first begins, and what to do.
GIT_LFS = (b"version https://git-lfs", "is Git LFS's pointer to a file; type: git lfs pull")
WEB_PAGE = "is a web page; download the file itself"


class NotRegularError(OSError):
    """The path leads to a directory, a pipe, a socket or a device; the message says which."""


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """Read a regular file once, following links; one byte more than ``limit`` at most, so that an excess shows.

    Raises:
        NotRegularError: it is something else.
        OSError: it cannot be opened or read.
    """
    try:
        descriptor = os.open(path, _READ)
    except IsADirectoryError as error:  # Windows says so, or PermissionError, already here
        raise NotRegularError("is a directory, expected a regular file") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device"
            raise NotRegularError(f"is {kind}, expected a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(min(status.st_size, limit) + 1)
    finally:
        os.close(descriptor)


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path``, which holds all of it or what it held before, also after a power loss.

    Raises:
        OSError: nothing is left behind.
    """
    with whole_file(path) as temporary, open(temporary, "r+b") as file:
        file.write(data)


def is_device(path: Path) -> bool:
    """Whether ``path`` leads to a pipe, a socket or a device."""
    return path.exists() and not path.is_file() and not path.is_dir()


def check_folder(folder: Path) -> None:
    """Raise ``OSError`` where no file can be written into ``folder``: now, not after the work."""
    with tempfile.TemporaryFile(dir=folder):
        pass


def refuse_device(path: Path) -> None:
    """Raise NotRegularError where a file would take a device's place: without /dev/null, a machine is broken."""
    if is_device(path):
        raise NotRegularError(errno.EINVAL, "is a pipe, a socket or a device; name a file")


def beside(path: Path, suffix: str = "") -> Path:
    """A temporary name that nobody can guess; of a long name it has the beginning: file systems take 255 bytes.

    Whole characters of it: writers refuse a name that ends within one.
    """
    return path.with_name(f".{path.name[:LONGEST]}.{secrets.token_hex(16)}.shufflenetv2-partial{suffix}")


@contextmanager
def whole_file(
    path: str | os.PathLike[str], suffix: str = "", replace: Callable[[Path, Path], object] = os.replace
) -> Iterator[Path]:
    """An empty temporary file beside ``path`` to write into; it replaces ``path`` if the block ends without an error.

    Args:
        path: what is to appear whole or not at all.
        suffix: of the temporary file, for writers that look at it.
        replace: how the finished file takes the place of ``path``.

    Raises:
        OSError: nothing is left behind.
    """
    path = Path(path)
    refuse_device(path)
    temporary = beside(path, suffix)
    os.close(os.open(temporary, _CREATE, 0o666))  # the umask decides, as for any other file
    try:
        yield temporary
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_directory(path.parent)


@contextmanager
def whole_files(path: Path, parts: Sequence[Path]) -> Iterator[Path]:
    """A new folder beside ``path``; ``parts`` of it take their places when the block ends without an error.

    Args:
        path: the file that users name, or the folder.
        parts: where the files are to lie, the one that users name first; in the new folder they have the same names.

    Yields:
        What to write in place of ``path``.

    Raises:
        OSError: nothing is left behind, unless it comes while the parts are moved.
    """
    refuse_device(path)
    folder = beside(path)
    folder.mkdir()
    try:
        yield folder if path not in parts else folder / path.name
        parts[0].parent.mkdir(exist_ok=True)
        for part in reversed(parts):  # the named one last: who sees it, sees the others
            with open(folder / part.name, "r+b") as file:
                os.fsync(file.fileno())
            os.replace(folder / part.name, part)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    flush_directory(parts[0].parent)


def sweep(directory: Path) -> None:
    """Remove what this package, for this user, left there half written more than a day ago, killed."""
    with suppress(OSError), os.scandir(directory) as entries:  # housekeeping never stands in the way of the work
        for entry in entries:
            if not TEMPORARY.fullmatch(entry.name):
                continue
            status = entry.stat(follow_symlinks=False)
            ours = not hasattr(os, "getuid") or status.st_uid == os.getuid()
            if ours and status.st_mtime < time.time() - STALE_SECONDS:
                if stat.S_ISREG(status.st_mode):
                    os.unlink(entry.path)
                elif stat.S_ISDIR(status.st_mode):
                    shutil.rmtree(entry.path, ignore_errors=True)


@contextmanager
def held(folder: str | os.PathLike[str]) -> Iterator[bool]:
    """Hold ``folder`` while the block runs; False if another process holds it.

    Nothing is written for it, and it ends with the process, however that ends. Where the system or the disk knows no
    such locks (Windows, some network file systems), everyone may.
    """
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield True
        return
    free = True
    try:
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                free = False
        yield free
    finally:
        os.close(descriptor)


def flush_directory(directory: Path) -> None:
    """Make the rename itself survive a power loss, where directories can be opened (not on Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):  # some network file systems refuse it
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def shown(path: str | bytes | os.PathLike[str]) -> str:
    """``path``, or other text from outside, for people: on one line, escaped where it would act on a terminal."""
    return "".join(
        each if each.isprintable() or unicodedata.category(each) == "Zs" else ascii(each)[1:-1]
        for each in os.fsdecode(path)
    )


def expanded(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """``path``, its ``~`` or ``~user`` replaced by that home directory, unless something has the name as it is."""
    if not os.fsdecode(path).startswith("~") or os.path.lexists(path):
        return path
    return os.path.expanduser(path)
