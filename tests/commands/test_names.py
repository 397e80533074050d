"""File names of any kind: never raw on a terminal, whole in JSON, and no reason to stop; what is left out is told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import ROOT

from shufflenetv2.__main__ import main
from shufflenetv2.files import shown

CAT = ROOT / "images" / "cat.jpg"
WEIGHTS = "cifar10_v2"  # bundled
NAMES = [
    b"plain.jpg", b"new\nline.jpg", b"\x1b[31mred\x07.jpg", "\N{LATIN SMALL LETTER E WITH ACUTE}t\u202f.jpg".encode(),
    b"\xff\xfe.jpg", "\u202egpj.exe.jpg".encode(), b"back\\slash.jpg",
]  # fmt: skip


@pytest.fixture(params=["good", "bad"])
def photos(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A class of photos with odd names; of the bad ones each is cut short."""
    folder = tmp_path / "airplane"
    folder.mkdir()
    for name in NAMES:
        data = CAT.read_bytes()
        (folder / os.fsdecode(name)).write_bytes(data if request.param == "good" else data[:3000])
    return folder


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain \u202f\N{SNOWMAN}.jpg", "plain \u202f\N{SNOWMAN}.jpg"),
        ("a\nb\tc\x1b\x7f\x85", r"a\nb\tc\x1b\x7f\x85"),
        (os.fsdecode(b"\xff.jpg"), r"\udcff.jpg"),
        ("\u202e\u2066\u200b\ufeff\u2028", r"\u202e\u2066\u200b\ufeff\u2028"),
        (Path("a/b"), os.path.join("a", "b")),
    ],
)
def test_shown(name: str | Path, text: str) -> None:
    assert shown(name) == text


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "shufflenetv2", *arguments], cwd=ROOT, env={**os.environ, **environment},
        capture_output=True, timeout=200, check=False,
    )  # fmt: skip


def assert_harmless(output: str) -> None:
    assert "".join(each for each in output if not (each.isprintable() or each in "\n\u202f")) == ""


def test_classify_shows_odd_names_harmlessly(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = photos.joinpath("plain.jpg").stat().st_size > 3000
    assert main(["classify", str(photos), "--weights", WEIGHTS, "--top", "1"]) == (0 if good else 1)
    captured = capsys.readouterr()
    assert_harmless(captured.out)
    assert_harmless(captured.err)
    where = captured.out if good else captured.err
    assert [shown(os.fsdecode(name)) in where for name in NAMES] == [True] * len(NAMES)
    assert len(where.splitlines()) == (2 * len(NAMES) if good else len(NAMES) + 1)


def test_names_come_back_from_json(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["classify", str(photos), "--weights", WEIGHTS, "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(os.path.basename(os.fsencode(row["photo"])) for row in rows) == sorted(NAMES)
    assert all(set(row) in ({"photo", "predictions"}, {"photo", "error"}) for row in rows)
    assert all(set(each) == {"label", "probability", "index"} for row in rows for each in row.get("predictions", ()))


@pytest.mark.slow
def test_evaluate_goes_on_past_odd_names(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = photos.joinpath("plain.jpg").stat().st_size > 3000
    status = main(["evaluate", str(photos.parent), "--weights", WEIGHTS, "--skip-bad", "--json"])
    captured = capsys.readouterr()
    assert status == (0 if good else 1)
    assert json.loads(captured.out)["photos"] == (len(NAMES) if good else 0)
    assert_harmless(captured.err)
    assert captured.err.count("skipped: ") == (0 if good else len(NAMES))


@pytest.mark.parametrize("command", ["classify", "evaluate"])
@pytest.mark.slow
def test_no_encoding_kills_the_output(command: str, photos: Path) -> None:
    extra = {"classify": ["--top", "1"], "evaluate": ["--skip-bad"]}[command]
    target = {"classify": photos, "evaluate": photos.parent}[command]
    for encoding in ("ascii", "cp1252"):
        ran = run(command, str(target), "--weights", WEIGHTS, *extra, PYTHONIOENCODING=encoding)
        assert b"Traceback" not in ran.stderr
        assert b"Error" not in ran.stderr
        both = (ran.stdout + ran.stderr).decode(encoding)
        if command == "classify":
            assert os.path.join("airplane", r"\xe9t" if encoding == "ascii" else "\xe9t") in both
            assert r"\u202egpj.exe.jpg" in both


def test_folders_with_odd_names_are_refused_harmlessly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / os.fsdecode(b"\x1b[31m\xff\n")).mkdir()
    for command in ("evaluate", "classify"):
        assert main([command, str(tmp_path), "--weights", WEIGHTS]) == 1
        message = capsys.readouterr().err
        assert_harmless(message)
        assert len(message.splitlines()) == 1
    assert main(["classify", str(tmp_path / os.fsdecode(b"\x1b[31m\xff\n")), "--weights", WEIGHTS]) == 1
    assert_harmless(capsys.readouterr().err)


@pytest.mark.parametrize("command", ["classify", "evaluate"])
def test_what_is_left_out_is_told_at_the_end(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cat"
    folder.mkdir()
    for name in ("a.jpg", "b.txt", ".c.jpg"):
        (folder / name).write_bytes(CAT.read_bytes())
    target = folder if command == "classify" else tmp_path
    assert main([command, str(target), "--weights", WEIGHTS]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"shufflenetv2: left out of {target}: 1 hidden, 1 file that is no photo by name (.txt)"


def test_larger_photos_are_allowed_by_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", str(CAT), "--weights", WEIGHTS, "--max-pixels", "1e3"]) == 1
    assert "pixels, more than the 1,000 allowed; make it smaller, or set" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["classify", str(CAT), "--max-pixels", "0"])
    assert "must be a number of pixels from 1 to 1e12, got '0'" in capsys.readouterr().err
