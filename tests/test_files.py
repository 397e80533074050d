"""Files are read once, whole or to an agreed limit; they appear whole or not at all."""

import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from support.skips import needs_linux

from shufflenetv2.files import TEMPORARY, NotRegularError, read_regular, shown, whole_file, whole_files, write_whole

MEGABYTE = 1 << 20


@pytest.mark.parametrize("size", [0, 1, MEGABYTE, 3 * MEGABYTE + 7])
def test_content(size: int, tmp_path: Path) -> None:
    data = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(data)
    assert read_regular(tmp_path / "file", size) == data


@pytest.mark.parametrize("limit", [0, 10, MEGABYTE])
def test_an_excess_shows_as_one_byte(limit: int, tmp_path: Path) -> None:
    data = random.Random(0).randbytes(2 * MEGABYTE)
    (tmp_path / "file").write_bytes(data)
    assert read_regular(tmp_path / "file", limit) == data[: limit + 1]


@needs_linux
@pytest.mark.parametrize("make", [Path.mkdir, lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero")])
def test_anything_else_is_refused(make: Callable[[Path], None], tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    make(tmp_path / "it")
    with pytest.raises(NotRegularError, match="expected a regular file"):
        read_regular(tmp_path / "it", 10)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def interrupted() -> None:
        with whole_file(path) as temporary:
            temporary.write_bytes(b"half of the new")
            assert TEMPORARY.fullmatch(temporary.name)
            assert path.read_bytes() == b"old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_what_is_flushed_before_what_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    flush, replace = os.fsync, os.replace

    def flushed(descriptor: int) -> None:
        order.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        flush(descriptor)

    def replaced(source: Path, target: Path) -> None:
        order.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    with whole_file(tmp_path / "file", replace=replaced) as temporary:
        temporary.write_bytes(b"all of it")
    assert order == ["file", "rename", *(["directory"] if hasattr(os, "O_DIRECTORY") else [])]


def test_the_umask_and_a_suffix(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "file.onnx", suffix=".onnx") as temporary:
            assert temporary.suffix == ".onnx"
            assert TEMPORARY.fullmatch(temporary.name)
    finally:
        os.umask(before)
    assert os.name != "posix" or stat.S_IMODE((tmp_path / "file.onnx").stat().st_mode) == 0o640


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"kept")
    (tmp_path / "file").symlink_to(tmp_path / "precious")
    write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "precious").read_bytes() == b"kept"
    assert not (tmp_path / "file").is_symlink()


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("photo.jpg", "photo.jpg"),
        ("a\x1b[31m\nb", "a\\x1b[31m\\nb"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\udcff.jpg", "\\udcff.jpg"),
        ("Straße\u00a0\u3000\U0001f600", "Straße\u00a0\u3000\U0001f600"),
        (b"\xff.jpg", "\\udcff.jpg"),
        (Path("a") / "b", os.path.join("a", "b")),
    ],
)
def test_a_name_for_people(name: str | bytes | Path, seen: str) -> None:
    assert shown(name) == seen


@pytest.mark.parametrize(
    "name",
    ["a" * 240 + ".pth", "é" * 120, "사진" * 30 + ".onnx", "a" + "\U0001f600" * 60],
    ids=["one byte", "two", "three", "four"],
)
def test_the_longest_names_are_written(name: str, tmp_path: Path) -> None:
    write_whole(tmp_path / name, b"data")
    with whole_files(tmp_path / name, [tmp_path / name]) as target:
        target.write_bytes(b"more")
        (made,) = (each.name for each in tmp_path.iterdir() if each.name != name)
        assert TEMPORARY.fullmatch(made)
        assert made.encode()  # whole characters
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [(name, b"more")]
