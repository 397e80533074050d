"""``classify`` takes photos from anywhere: folders, patterns, lists, addresses, standard input; found as it goes."""

import io
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.processes import ROOT, importing, run, started
from support.skips import needs_posix

from shufflenetv2.__main__ import main
from shufflenetv2.errors import DatasetError
from shufflenetv2.photos import listing
from shufflenetv2.photos.listing import find_listed, find_photos, read_list

CAT, COFFEE = ROOT / "images/cat.jpg", ROOT / "images/coffee.jpg"
WEIGHTS = ("--weights", "cifar10")


def classified(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> list[str]:
    """The photos that were printed."""
    assert main(["classify", *map(str, arguments), *WEIGHTS, "--json"]) == status
    return [json.loads(line)["photo"] for line in capsys.readouterr().out.splitlines()]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["classify", *map(str, arguments), *WEIGHTS]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(CAT, folder / name) if CAT.stat().st_dev == folder.stat().st_dev else (folder / name).write_bytes(
            CAT.read_bytes()
        )
    return folder


class Pipe:
    """Standard input that holds ``data``."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


def test_a_folder_is_listed_as_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, *(f"{folder}/{name}.jpg" for folder in "abc" for name in "21"), "b/x/deep.jpg", "0.jpg")
    opened: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: opened.append(Path(path).name) or scandir(path))
    found = find_photos([tmp_path])
    names = []
    for path in found:
        names.append(str(Path(path).relative_to(tmp_path)))
        assert ("c" in opened) == (names[-1][0] == "c")
    assert names == ["0.jpg", "a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg", "b/x/deep.jpg", "c/1.jpg", "c/2.jpg"]


def test_patterns_that_the_shell_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "b/2.jpg", "b/10.jpg", "a/3.jpg", "a/[1].jpg", "a/x.jpeg", "c/deep/4.jpg")
    monkeypatch.chdir(tmp_path)
    assert classified(capsys, "*/*.jpg") == ["a/3.jpg", "a/[1].jpg", "b/10.jpg", "b/2.jpg"]
    assert classified(capsys, "**/*.jpg") == ["a/3.jpg", "a/[1].jpg", "b/10.jpg", "b/2.jpg", "c/deep/4.jpg"]
    assert classified(capsys, "a/[1].jpg") == ["a/[1].jpg"]  # what exists by a name is no pattern
    assert classified(capsys, "?") == ["a/3.jpg", "a/[1].jpg", "a/x.jpeg", "b/10.jpg", "b/2.jpg", "c/deep/4.jpg"]
    assert "nothing fits the pattern x*.jpg, and no file has that name" in refused(capsys, "x*.jpg")


@pytest.mark.parametrize(
    ("data", "null"),
    [
        (b"{cat}\n\n{coffee}\r\n*/1.jpg\nsub", False),
        (b"{cat}\0\0{coffee}\0*/1.jpg\0sub\0", True),
    ],
)
def test_lists_of_sources(
    data: bytes, null: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "sub/1.jpg", "sub/2.jpg")
    monkeypatch.chdir(tmp_path)
    data = data.replace(b"{cat}", os.fsencode(CAT)).replace(b"{coffee}", os.fsencode(COFFEE))
    (tmp_path / "list").write_bytes(data)
    expected = [str(CAT), str(COFFEE), "sub/1.jpg", "sub/1.jpg", "sub/2.jpg"]
    more = ["-0"] if null else []
    assert classified(capsys, "--files-from", "list", *more) == expected
    monkeypatch.setattr(sys, "stdin", Pipe(data))
    assert classified(capsys, COFFEE, "--files-from", "-", *more) == [str(COFFEE), *expected]


def test_one_photo_on_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Pipe(CAT.read_bytes()))
    assert classified(capsys, COFFEE, "-") == [str(COFFEE), "-"]
    monkeypatch.setattr(sys, "stdin", Pipe(b""))
    assert classified(capsys, "-", status=1) == ["-"]
    assert main(["classify", "-", *WEIGHTS]) == 1
    assert "is empty, expected an image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no photo was given: name a photo, a folder or an address, or --files-from FILE"),
        (["x.jpg", "-0"], "-0 says how --files-from is read"),
        (["-", "--files-from", "-"], "standard input can be read once"),
        (["-", "-"], "standard input can be read once"),
        (["x.jpg", "--resume"], "--resume goes with a table; add --output TABLE"),
        (["x.jpg", "--features"], "--features goes with a table; add --output TABLE"),
        (["x.jpg", "--ray"], "--ray goes with a table; add --output TABLE"),
        (["x.jpg", "--output", "x.csv", "--actors", "2"], "--actors goes with --ray"),
        (["x.jpg", "--output", "x.csv", "--json"], "--json prints lines, --output writes a table"),
        (["x.jpg", "--output", "x.csv", "--features", "--runtime", "openvino"], "PyTorch; leave --runtime out"),
        (["--output", "x.csv", "--ray", str(ROOT)], "write photos before it: classify"),
        (["-", "--output", "x.csv", "--ray"], "standard input is on this machine alone"),
        (["--files-from", "gone.txt"], "gone.txt cannot be read as a list of photos: No such file"),
        (["--files-from", str(ROOT)], "cannot be read as a list of photos: Is a directory"),
        (["--files-from", str(CAT)], "cat.jpg is a photo, not a list of photos; leave --files-from out"),
    ],
)
def test_what_contradicts_itself_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, *arguments)


def test_addresses_are_photos(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shufflenetv2.photos.reading.fetch_photo", lambda url, allowed: CAT.read_bytes())
    address = "https://user:secret@example.org/cat.jpg?token=1"
    assert classified(capsys, address) == [address]
    assert main(["classify", address, *WEIGHTS]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "https://example.org/cat.jpg"
    assert list(find_photos(["http://example.org/*.jpg"])) == ["http://example.org/*.jpg"]


def test_a_list_is_read_as_it_goes_and_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = (f"{index}.jpg" for index in itertools.count())
    assert list(itertools.islice(find_listed(endless), 3)) == [Path("0.jpg"), Path("1.jpg"), Path("2.jpg")]
    (tmp_path / "list").write_bytes(b"x" * 3000)
    monkeypatch.setattr(listing, "MAX_NAME", 1000)
    with pytest.raises(DatasetError, match="list is no list of photos: it has no end of an entry in 1000 bytes"):
        list(read_list(str(tmp_path / "list"), b"\n"))


def test_a_list_in_utf_16_is_refused(tmp_path: Path) -> None:
    """PowerShell writes such ones."""
    (tmp_path / "list").write_text(str(CAT), encoding="utf-16")
    with pytest.raises(DatasetError, match="list is text in UTF-16, as PowerShell writes it; save it as UTF-8"):
        read_list(str(tmp_path / "list"), b"\n")


@pytest.mark.slow
def test_standard_input_that_is_closed_is_empty() -> None:
    command = ('"$@" <&-', "sh", sys.executable, "-m", "shufflenetv2", "classify", *WEIGHTS, "-")
    result = run("sh", "-c", *command, check=False)
    assert result.returncode == 1
    assert "is empty, expected an image" in result.stderr


def test_folders_in_a_list_that_hold_nothing_are_errors_in_their_place(tmp_path: Path) -> None:
    put(tmp_path, "full/1.jpg")
    (tmp_path / "empty").mkdir()
    sources = [str(tmp_path / name) for name in ("empty", "full", "gone*")]
    assert list(find_listed(sources)) == [tmp_path / "empty", tmp_path / "full/1.jpg", tmp_path / "gone*"]


def fifo(path: Path) -> None:
    os.mkfifo(path)


def closed(path: Path) -> None:
    path.write_bytes(CAT.read_bytes())
    path.chmod(0)


@needs_posix
@pytest.mark.parametrize("make", [fifo, closed])
def test_what_cannot_be_read_is_an_error_and_not_the_end(
    make: Callable[[Path], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "a.jpg", "c.jpg")
    make(tmp_path / "b.jpg")
    status = 0 if make is closed and os.getuid() == 0 else 1  # root may read anything
    assert len(classified(capsys, tmp_path, status=status)) == 3


@needs_posix
@pytest.mark.slow
def test_the_first_lines_come_before_the_folder_is_listed(tmp_path: Path) -> None:
    """A list that never ends is answered; Ctrl-C ends the command within seconds."""
    os.mkfifo(tmp_path / "list")
    command = [sys.executable, "-m", "shufflenetv2", "classify", "--files-from", tmp_path / "list", *WEIGHTS]
    with started(*command, env=importing(), stdout=-1) as process:
        with open(tmp_path / "list", "w") as file:
            file.write(f"{CAT}\n" * 60)  # three batches are read ahead
            file.flush()
            assert process.stdout is not None
            assert process.stdout.readline().strip() == str(CAT)  # it does not wait in a buffer
            process.send_signal(2)
            start = time.monotonic()
            process.wait(10)
            assert time.monotonic() - start < 5
        assert process.returncode == 130


def test_a_pattern_of_every_depth_gives_each_photo_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "d/a.jpg", "d/e/b.jpg", "d/e/f/c.jpg")
    expected = [str(tmp_path / name) for name in ("d/a.jpg", "d/e/b.jpg", "d/e/f/c.jpg")]
    assert sorted(classified(capsys, tmp_path / "d/**")) == expected
    assert sorted(classified(capsys, tmp_path / "d/**/*.jpg")) == expected


def test_an_entry_that_is_no_name_is_an_error_and_not_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "list.txt"
    entries = [str(CAT).encode(), b"x" * 300, b"~a\0b", str(COFFEE).encode()]
    listed.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(entries))
    shown = classified(capsys, "--files-from", listed, status=1)
    assert shown == [str(CAT), "x" * 300, "~a\0b", str(COFFEE)]


def test_a_home_directory_behind_an_equals_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    assert classified(capsys, CAT, "--explain=~/overlays") == [str(CAT)]
    assert main(["classify", str(CAT), *WEIGHTS, "--output=~/x.csv"]) == 0
    assert sorted(os.listdir(tmp_path / "home")) == ["overlays", "x.csv"]
    assert os.listdir(tmp_path) == ["home"]


def test_help_is_told_without_torch() -> None:
    program = "import sys; from shufflenetv2.__main__ import main\ntry: main(['classify', '--help'])\n"
    program += "finally: assert 'torch' not in sys.modules and 'pyarrow' not in sys.modules"
    told = run(sys.executable, "-c", program, env=importing()).stdout
    assert "--files-from" in told
