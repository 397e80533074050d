"""Files are read once, whole or to an agreed limit, and the hash is that of the bytes that come back."""

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from shufflenetv2.files import NotRegularError, read_and_hash, read_regular

MEGABYTE = 1 << 20


def test_content_and_hash_at_the_seams(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for size in (0, 1, MEGABYTE - 1, MEGABYTE, MEGABYTE + 1, 3 * MEGABYTE + 7):
        data = random.Random(size).randbytes(size)
        path.write_bytes(data)
        assert read_regular(path, size) == data
        assert read_and_hash(path, size) == (data, hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("limit", [0, 10, MEGABYTE])
def test_an_excess_shows_as_one_byte(limit: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = random.Random(0).randbytes(2 * MEGABYTE)
    path.write_bytes(data)
    kept = data[: limit + 1]
    assert read_regular(path, limit) == kept
    assert read_and_hash(path, limit) == (kept, hashlib.sha256(kept).hexdigest())


@pytest.mark.parametrize("read", [read_regular, read_and_hash])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_anything_else_is_refused(
    read: Callable[[Path, int], object], make: Callable[[Path], None], tmp_path: Path
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    make(tmp_path / "it")
    with pytest.raises(NotRegularError, match="expected a regular file"):
        read(tmp_path / "it", 10)
    assert len(os.listdir("/proc/self/fd")) == before
