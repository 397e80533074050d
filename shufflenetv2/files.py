"""Reading a path that may be anything: without waiting, without surprises, and never more than was agreed."""

import os
import stat

# Non-blocking: a FIFO without a writer must not hang us before we see that it is one. Windows has O_BINARY instead.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


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
