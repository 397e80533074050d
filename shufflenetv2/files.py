"""Reading a path that may be anything: without waiting, without surprises, and never more than was agreed."""

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO

# Non-blocking: a FIFO without a writer must not hang us before we see that it is one. Windows has O_BINARY instead.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

_PART = 1 << 20  # bytes


class NotRegularError(OSError):
    """The path leads to a directory, a pipe, a socket or a device; the message says which."""


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """Read a regular file once, following links; one byte more than ``limit`` at most, so that an excess shows.

    Raises:
        NotRegularError: it is something else.
        OSError: it cannot be opened or read.
    """
    with _open_regular(path) as file:
        return file.read(min(os.fstat(file.fileno()).st_size, limit) + 1)


def read_and_hash(path: str | os.PathLike[str], limit: int) -> tuple[bytes, str]:
    """As ``read_regular``, and the sha256 of the bytes returned, in hexadecimal digits.

    Each part is hashed in another thread while the next one is read: both take about as long, so the hash is nearly
    free where there are two cores.
    """
    with _open_regular(path) as file, ThreadPoolExecutor(1) as hasher:
        # The file is read into the very memory that is hashed and returned; BytesIO hands it over without a copy.
        buffer = io.BytesIO(bytes(min(os.fstat(file.fileno()).st_size, limit) + 1))
        digest, size = hashlib.sha256(), 0
        with buffer.getbuffer() as memory:
            while part := file.readinto(memory[size : size + _PART]):  # type: ignore[attr-defined]
                hasher.submit(digest.update, memory[size : size + part])
                size += part
            hasher.shutdown()
        buffer.truncate(size)
    return buffer.getvalue(), digest.hexdigest()


@contextmanager
def _open_regular(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    try:
        descriptor = os.open(path, _READ)
    except IsADirectoryError as error:  # Windows says so, or PermissionError, already here
        raise NotRegularError("is a directory, expected a regular file") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
            raise NotRegularError(f"is {kind}, expected a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)
