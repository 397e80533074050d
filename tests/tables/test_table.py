"""A table is there whole or not at all, whatever ends the process that writes it; and everyone reads it."""

import csv
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pandas
import polars
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.processes import ROOT, importing, run
from support.skips import needs_posix

from shufflenetv2.__main__ import main
from shufflenetv2.builder import resolve
from shufflenetv2.errors import DatasetError, TableError
from shufflenetv2.inference.classifier import Classifier
from shufflenetv2.inference.stream import Result
from shufflenetv2.tables import table as table_module
from shufflenetv2.tables.cluster import find_remote
from shufflenetv2.tables.rows import COLUMNS, photo_name, photo_path, to_row
from shufflenetv2.tables.table import Table

WEIGHTS = ("--weights", "cifar10")
KINDS = ("parquet", "csv", "jsonl")
# The command, which writes a part every tenth of a second instead of every five.
OFTEN = """
import sys
from shufflenetv2.__main__ import main
from shufflenetv2.tables import table
table.SECONDS = 0.1
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 crops of a sample photo in three folders; one is broken."""
    folder = tmp_path_factory.mktemp("photos")
    with Image.open(ROOT / "images/coffee.jpg") as photograph:
        for index in range(90):
            place = folder / f"{index % 3}" / f"{index:03}.jpg"
            place.parent.mkdir(exist_ok=True)
            photograph.crop((index, index, 150 + index, 130 + index)).save(place)
    (folder / "1/022.jpg").write_bytes(b"broken")
    return folder


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with open(path, newline="", encoding="utf-8") as file:
        return [dict(row) for row in csv.DictReader(file)]


def classify(*arguments: object) -> int:
    return main(["classify", *map(str, arguments), *WEIGHTS])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_the_rows_are_those_of_the_stream(kind: str, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / f"table.{kind}"
    assert classify(photos, "--output", output, "--features", "--top", 3) == 1  # one photo is broken
    assert [each.name for each in tmp_path.iterdir()] == [output.name]
    classifier = Classifier(resolve(None, "cifar10"), top=3, device="cpu", progress=False)
    paths = sorted(photos.rglob("*.jpg"))
    rows = rows_of(output)
    assert [row["photo"] for row in rows] == list(map(str, paths))
    for row, result in zip(rows, classifier.stream(paths, features=True), strict=True):
        assert list(row) == [*COLUMNS, "features"]
        if kind == "csv":
            row = {name: json.loads(value) if value[:1] == "[" else value or None for name, value in row.items()}
        assert row["error"] == (str(result.error) if result.error else None)
        assert row["top_labels"] == [each.label for each in result.predictions]
        assert row["top_indices"] == [each.index for each in result.predictions]
        assert row["top_probabilities"] == [each.probability for each in result.predictions]
        assert (row["weights"], row["weights_sha256"]) == (classifier.weights.title, classifier.weights.sha256)
        if result.features is None:
            assert (row["label"], row["probability"], row["features"], row["width"]) == (None,) * 4
        else:
            assert row["label"] == result.predictions[0].label
            assert float(row["probability"]) == result.predictions[0].probability
            assert row["features"] == result.features.tolist()
            assert (int(row["width"]), int(row["height"])) == result.size


def test_parquet_is_read_by_everyone(photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "table.parquet"
    classify(photos, "--output", output, "--features")
    with pq.ParquetFile(output) as file:
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
        metadata = {key.decode(): json.loads(value) for key, value in file.schema_arrow.metadata.items()}
        assert str(file.schema_arrow.field("features").type) == "fixed_size_list<element: float>[1024]"
    assert metadata["shufflenetv2.weights"] == "shufflenet_v2_x0_5/cifar10_v2"
    assert metadata["shufflenetv2.description"]["preprocess"]["crop"] == 32
    query = f"SELECT count(*), count(label), max(len(top_labels)) FROM '{output}' WHERE photo LIKE '%.jpg'"
    assert duckdb.sql(query).fetchall() == [(90, 89, 5)]
    assert pandas.read_parquet(output)["label"].notna().sum() == 89
    assert polars.read_parquet(output)["features"][0].len() == 1024


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_there_is_not_touched_unless_asked(
    kind: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / f"table.{kind}"
    output.write_text("mine")
    assert classify(photos, "--output", output) == 1
    assert "exists; --overwrite replaces it" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert classify(photos / "0", "--output", output, "--overwrite") == 0
    before = output.read_bytes()
    assert len(rows_of(output)) == 30
    assert classify(photos / "0", "--output", output, "--resume") == 0  # a script may always say so
    assert "is complete" in capsys.readouterr().err
    assert output.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [output.name]


def test_names_that_end_in_nothing_known(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("table", "table.xlsx"):
        assert classify(photos, "--output", tmp_path / name) == 1
        assert "a table's name ends in .parquet, .csv, .jsonl, got" in capsys.readouterr().err
    (tmp_path / "folder.csv").mkdir()
    assert classify(photos, "--output", tmp_path / "folder.csv") == 1
    assert "folder.csv is a folder, expected the name of a table" in capsys.readouterr().err
    assert classify(photos, "--output", tmp_path / "nowhere" / "x.csv") == 1
    assert "x.csv cannot be written (No such file or directory)" in capsys.readouterr().err


def interrupted(photos: Path, output: Path, after: int = 40) -> Table:
    """A run that ended by an error after some rows, of which the whole batches are on disk."""
    about = {"weights_sha256": "0", "x": 1}
    table = Table(output, about, batch_size=16)
    with suppress(ZeroDivisionError), table:
        for index in range(after):
            table.add(row(index))
        raise ZeroDivisionError
    return table


@contextmanager
def stopped_at_the_end() -> Iterator[None]:
    """A run that ends by an error when all of its rows are written, and its table is not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Table, "finish", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            yield


def row(index: int) -> dict[str, Any]:
    return {**dict.fromkeys(COLUMNS), "photo": f"{index}.jpg", "top_labels": [], "weights": "w", "weights_sha256": "0"}


def test_names_that_cannot_be_kept_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def small(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count=20")
        return connection

    monkeypatch.setattr("sqlite3.connect", small)
    with (
        pytest.raises(TableError, match=r"not be kept \(database or disk is full\); .* SQLITE_TMPDIR names another"),
        Table(tmp_path / "x.jsonl", {"weights_sha256": "0"}, batch_size=16) as table,
    ):
        list(table.missing((f"{index}.jpg" * 20 for index in range(10_000)), str))


def test_a_name_of_weights_that_is_no_utf8() -> None:
    weights = replace(resolve(None, "cifar10"), name=os.fsdecode(b"caf\xe9.pth"))
    to_row(Result("a.jpg", []), "a.jpg", weights)["weights"].encode()


def resumed(output: Path, **about: object) -> list[str]:
    """The photos, of 100, that a run that goes on finds without a row."""
    table = Table(output, {"weights_sha256": "0", "x": 1, **about}, batch_size=16, resume=True)
    names = (f"{index}.jpg" for index in range(100))
    with table:
        done = []
        for name in table.missing(names, str):
            table.add(row(int(name[:-4])))
            done.append(name)
        table.finish()
    return done


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_where_the_whole_batches_end(kind: str, tmp_path: Path) -> None:
    output = tmp_path / f"x.{kind}"
    interrupted(tmp_path, output)
    assert not output.exists()
    with pytest.raises(TableError, match=r"^an unfinished table is in .*x\..*\.parts; --resume goes on with it"):
        interrupted(tmp_path, output)
    with pytest.raises(TableError, match=r"was begun with other x: 1, now 2; give the same to go on, or --overwrite"):
        resumed(output, x=2)
    assert resumed(output) == [f"{index}.jpg" for index in range(32, 100)]
    assert [each["photo"] for each in rows_of(output)] == [f"{index}.jpg" for index in range(100)]
    assert [each.name for each in tmp_path.iterdir()] == [output.name]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "empty"])
def test_a_part_that_was_damaged_is_done_again(
    kind: str, damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "SECONDS", 0)  # a part a batch
    output = tmp_path / f"x.{kind}"
    table = interrupted(tmp_path, output, after=64)
    parts = sorted(table.folder.glob("0*"))
    assert len(parts) == 4
    data = parts[2].read_bytes()
    if damage == "gone":
        parts[2].unlink()
    else:
        parts[2].write_bytes({"cut": data[:-20], "flipped": data[:20] + b"!" + data[21:], "empty": b""}[damage])
    assert resumed(output) == [f"{index}.jpg" for index in range(32, 100)]
    assert [each["photo"] for each in rows_of(output)] == [f"{index}.jpg" for index in range(100)]


def test_photos_named_again_have_one_row(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [str(each) for each in sorted((photos / "0").iterdir())[:5]]
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(names * 200))
    assert classify("--files-from", listed, "--output", tmp_path / "x.csv") == 0
    assert [row["photo"] for row in rows_of(tmp_path / "x.csv")] == names
    assert "995 photos were named more than once" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_table_of_something_else_is_not_called_complete(
    kind: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / f"x.{kind}"
    output.write_text("my,own,data\n1,2,3\n")
    assert classify(photos / "0", "--output", output, "--resume") == 1
    assert "is no table of this command" in capsys.readouterr().err
    assert output.read_text().startswith("my,own")
    assert classify(photos / "0", "--output", output, "--overwrite") == 0
    capsys.readouterr()
    other = classify(photos / "1", "--output", output, "--resume")
    told = capsys.readouterr().err
    if kind == "parquet":
        assert (other, "was begun with other sources" in told) == (1, True)
    else:
        assert (other, "its rows alone are kept: sources and options were not compared" in told) == (0, True)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_list_is_an_empty_table(kind: str, tmp_path: Path) -> None:
    (tmp_path / "list").touch()
    for _ in range(2):
        assert classify("--files-from", tmp_path / "list", "--output", tmp_path / f"x.{kind}", "--resume") == 0
    assert rows_of(tmp_path / f"x.{kind}") == []


def test_absolute_names_are_the_same_from_everywhere(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        assert classify(photos / "0", "--output", tmp_path / "x.parquet", "--resume") == 0


def test_another_list_is_told(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed, output = tmp_path / "list.txt", tmp_path / "x.jsonl"
    names = sorted(map(str, (photos / "0").iterdir()))
    listed.write_text("\n".join(names))

    def begun(*arguments: object) -> None:
        with stopped_at_the_end():
            classify(*arguments, "--output", output, "--batch-size", 5)

    begun("--files-from", listed)
    listed.write_text("\n".join(names[:3]))
    assert classify("--files-from", listed, "--output", output, "--batch-size", 5, "--resume") == 1
    assert "was begun with other list_sha256" in capsys.readouterr().err


@needs_posix
def test_another_list_through_a_pipe_is_told(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, pipe = tmp_path / "x.jsonl", tmp_path / "pipe"
    names = sorted(map(str, (photos / "0").iterdir()))
    os.mkfifo(pipe)

    def run_with(listed: list[str], *arguments: object) -> int:
        writer = threading.Thread(target=pipe.write_text, args=("\n".join(listed),))
        writer.start()
        try:
            return classify("--files-from", pipe, "--output", output, "--batch-size", 5, *arguments)
        finally:
            writer.join(5)

    with stopped_at_the_end():
        run_with(names)
    assert run_with(names[:3], "--resume") == 1
    assert f"the list leaves out {len(names) - 3} photos" in capsys.readouterr().err
    assert not output.exists()
    assert run_with(names, "--resume") == 0
    assert [row["photo"] for row in rows_of(output)] == names


def test_photos_that_went_from_a_folder_are_told(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "photos", tmp_path / "x.csv"
    shutil.copytree(photos / "0", folder)
    with stopped_at_the_end():
        classify(folder, "--output", output, "--batch-size", 5)
    for path in sorted(folder.iterdir())[:2]:
        path.unlink()
    assert classify(folder, "--output", output, "--batch-size", 5, "--resume") == 0
    assert "2 photos of the first run are gone" in capsys.readouterr().err
    assert len(rows_of(output)) == 30


@needs_posix
def test_names_that_are_no_text_come_back(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    odd = [
        b"caf\xe9.jpg",
        b"file:x.jpg",
        b"carriage\rreturn.jpg",
        b'a "quoted", one\nin two lines.jpg',
        "\u4e2d.jpg".encode(),
        b"=1+1.jpg",
    ]
    for name in odd:
        (folder / os.fsdecode(name)).write_bytes((photos / "0/000.jpg").read_bytes())
    for kind in KINDS:
        output = tmp_path / f"x.{kind}"
        assert classify(folder, "--output", output) == 0
        names = [os.fsencode(photo_path(row["photo"])) for row in rows_of(output)]
        assert names == [os.fsencode(each) for each in sorted(folder.iterdir())]
    assert photo_name(Path(os.fsdecode(b"caf\xe9 %.jpg"))) == "file:caf%E9%20%25.jpg"


def test_a_photo_that_is_gone_is_an_error_row(photos: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_bytes(b"\0".join([os.fsencode(photos / "0/000.jpg"), b"gone[1].jpg", os.fsencode(tmp_path / "x")]))
    assert classify("--files-from", listed, "-0", "--output", tmp_path / "x.jsonl") == 1
    first, gone, folder = rows_of(tmp_path / "x.jsonl")
    assert first["error"] is None
    assert gone["error"].startswith("gone[1].jpg cannot be opened: No such file or directory")
    assert gone["label"] is None
    assert folder["error"].endswith("cannot be opened: No such file or directory")


@needs_posix
def test_a_second_run_is_told(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "x.csv"
    with suppress(KeyboardInterrupt), Table(output, {"weights_sha256": ""}):
        for option in ("--resume", "--overwrite"):
            assert classify(photos, "--output", output, option) == 1
            assert "another run is writing" in capsys.readouterr().err
        raise KeyboardInterrupt
    assert classify(photos / "0", "--output", output, "--overwrite") == 0


@needs_posix
@pytest.mark.slow
def test_a_full_disk_keeps_the_rows(photos: Path, tmp_path: Path) -> None:
    program = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)); {OFTEN}"
    program = program.replace("import sys", "import signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)", 1)
    output = tmp_path / "x.jsonl"
    command = (sys.executable, "-c", program, "classify", photos, "--output", output, *WEIGHTS)
    ran = run(*command, env=importing(), check=False)
    assert ran.returncode == 1
    assert "x.jsonl cannot go on; --resume will, with the rows in " in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not output.exists()
    assert classify(photos, "--output", output, "--resume") == 1  # one photo is broken
    assert len(rows_of(output)) == 90


@needs_posix
@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="needs POSIX")
def test_a_folder_that_is_read_only(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    assert classify(photos, "--output", tmp_path / "x.csv") == 1
    assert "x.csv cannot be written (Permission denied)" in capsys.readouterr().err


def kills(command: list[str], done: Callable[[], bool], longest: float, seed: int) -> Iterator[float]:
    """Run ``command``, which takes ``longest`` seconds, again and again, killed after a random part of them, until
    ``done``; yields the times."""
    draw = random.Random(seed)
    while not done():
        with subprocess.Popen(command, env=importing(), stderr=subprocess.DEVNULL, cwd=ROOT) as process:
            seconds = draw.uniform(0.3, 0.8) * longest
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                yield seconds


@needs_posix
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_and_resumed_it_is_the_same_table(kind: str, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    sources = sorted(photos.rglob("*.jpg"))
    for index in range(1000):
        os.link(sources[index % 90], folder / f"{index:04}.jpg")
    whole, output = tmp_path / f"whole.{kind}", tmp_path / f"x.{kind}"
    command = [sys.executable, "-c", OFTEN, "classify", str(folder), *WEIGHTS, "--features", "--output"]
    start = time.monotonic()
    assert run(*command, whole, env=importing(), check=False).returncode == 1
    longest = time.monotonic() - start
    command += [str(output), "--resume"]
    parts = output.with_name(f"{output.name}.parts")
    times = list(kills(command, lambda: output.exists() and not parts.exists(), longest, seed=len(kind)))
    assert output.read_bytes() == whole.read_bytes()
    assert len(times) >= 1
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".x")] == []


@needs_posix
def test_memory_does_not_grow_with_the_photos(tmp_path: Path) -> None:
    output = tmp_path / "x.jsonl"
    most = []
    for count in (10_000, 60_000):
        table = Table(output, {"weights_sha256": "0"}, overwrite=True)
        with table:
            for name in table.missing((f"folder/with/photos/{index:09}.jpg" for index in range(count)), str):
                table.add({"photo": name})
            table.finish()
        most.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert most[1] - most[0] < 20_000  # kB


def test_an_interrupted_first_second_leaves_nothing_that_hinders(tmp_path: Path) -> None:
    output = tmp_path / "x.csv"
    (tmp_path / "x.csv.parts").mkdir()  # as a kill leaves it, right at the beginning
    (tmp_path / "x.csv.parts" / "00000000-0123456789abcdef").write_text("left")
    (tmp_path / "x.csv.parts" / f".about.json.{'0' * 32}.shufflenetv2-partial").write_text("left")
    assert resumed(output) == [f"{index}.jpg" for index in range(100)]
    assert len(rows_of(output)) == 100


@pytest.mark.parametrize("damage", [b"", b'{"weights', b"[]", b"\xff\xfe{"])
def test_rows_of_which_nothing_says_what_they_were_made_with(damage: bytes, tmp_path: Path) -> None:
    output, about = tmp_path / "x.csv", {"weights_sha256": "0", "x": 1}
    interrupted(tmp_path, output)
    (tmp_path / "x.csv.parts" / "about.json").write_bytes(damage)
    before = sorted(os.listdir(tmp_path / "x.csv.parts"))
    with pytest.raises(TableError, match=r"about\.json is damaged: .* --overwrite begins anew$"):
        Table(output, about, resume=True).__enter__()
    assert sorted(os.listdir(tmp_path / "x.csv.parts")) == before
    with Table(output, about, overwrite=True) as table:
        table.add(row(0))
        table.finish()
    assert len(rows_of(output)) == 1


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("option", [None, "resume", "overwrite"])
def test_killed_while_it_removes_the_parts(
    option: str | None, half: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(folder: Path) -> None:
        if half:
            (folder / "about.json").unlink()
        raise KeyboardInterrupt

    output, about = tmp_path / "x.csv", {"weights_sha256": "0"}
    with monkeypatch.context() as patch, suppress(KeyboardInterrupt), Table(output, about) as table:
        table.add(row(0))
        patch.setattr(table_module, "_remove", killed)
        table.finish()
    assert len(list((tmp_path / "x.csv.parts").iterdir())) == (2 if half else 3)
    if option:
        with Table(output, about, **{option: True}) as table:  # type: ignore[arg-type]
            assert table.complete is (option == "resume")
            if not table.complete:
                table.add(row(0))
                table.finish()
    else:
        with pytest.raises(TableError, match=r"x\.csv exists; --overwrite replaces it$"):
            Table(output, about).__enter__()
    assert [each.name for each in tmp_path.iterdir()] == ["x.csv"]
    assert [each["photo"] for each in rows_of(output)] == ["0.jpg"]


def test_photos_named_more_than_once_are_counted(tmp_path: Path) -> None:
    table = Table(tmp_path / "x.jsonl", {"weights_sha256": "0"}, batch_size=16)
    with table:
        assert list(table.missing(["a", "b", "a", "c", "a", "b"], str)) == ["a", "b", "c"]
        table.add({**row(0), "photo": "a"})
    assert table.repeated == 3


@pytest.mark.parametrize("features", [(), ("features",)])
def test_the_header_of_csv_alone_is_a_table(features: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(",".join((*COLUMNS, *features)) + "\n")
    with Table(tmp_path / "x.csv", {"weights_sha256": "0"}, resume=True) as table:
        assert (table.complete, table.done, table.failed) == (True, 0, 0)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", b"\n"),
        ("x.csv", b"photo\n"),
        ("x.csv", ",".join(COLUMNS).encode() + b"\nx"),
        ("x.csv", b"\xff\xfe"),
        ("x.jsonl", b"\n"),
        ("x.jsonl", b"[]\n"),
        ("x.jsonl", b'{"photo": "x"}\n'),
        ("x.jsonl", b'{"error": null, "weights_sha256": "0"}\n{"err'),
        ("x.parquet", b"PAR1"),
    ],
)
def test_what_is_no_table_is_not_called_complete(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    told = rf"{name} is no table of this command; --overwrite replaces it$"
    with pytest.raises(TableError, match=told), Table(tmp_path / name, {"weights_sha256": "0"}, resume=True):
        pass
    assert (tmp_path / name).read_bytes() == content


def test_a_table_of_other_columns_or_weights_is_told(tmp_path: Path) -> None:
    pandas.DataFrame({"photo": ["x"]}).to_parquet(tmp_path / "x.parquet")
    with (
        pytest.raises(TableError, match=r"is no table of this command"),
        Table(tmp_path / "x.parquet", {"weights_sha256": "0"}, resume=True),
    ):
        pass
    (tmp_path / "x.jsonl").write_text(json.dumps(row(0)) + "\n")
    with (
        pytest.raises(TableError, match=r"x\.jsonl is complete, by other weights; --overwrite replaces it"),
        Table(tmp_path / "x.jsonl", {"weights_sha256": "1"}, resume=True),
    ):
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_file_is_begun(kind: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / f"x.{kind}"
    output.touch()
    assert classify(photos / "0", "--output", output) == 1
    assert "exists; --overwrite replaces it" in capsys.readouterr().err
    assert classify(photos / "0", "--output", output, "--resume") == 0
    assert "complete" not in capsys.readouterr().err
    assert len(rows_of(output)) == 30
    assert [each.name for each in tmp_path.iterdir()] == [output.name]


@pytest.mark.parametrize("kind", KINDS)
def test_photos_that_failed_before_count_when_a_run_goes_on(
    kind: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / f"x.{kind}"
    with stopped_at_the_end():
        classify(photos / "1", "--output", output, "--batch-size", 10)
    for told in ("", "is complete"):
        assert classify(photos / "1", "--output", output, "--batch-size", 10, "--resume") == 1
        printed = capsys.readouterr().err
        assert "1 of 30 photos could not be classified" in printed
        assert told in printed
    assert len([row for row in rows_of(output) if row["error"]]) == 1


def test_a_long_field_of_csv_is_read_again(tmp_path: Path) -> None:
    output = tmp_path / "x.csv"
    with Table(output, {"weights_sha256": "0"}) as table:
        table.add({**row(0), "top_labels": ["a label"] * 20_000, "error": "broken"})
        table.finish()
    with Table(output, {"weights_sha256": "0"}, resume=True) as table:
        assert (table.complete, table.done, table.failed) == (True, 1, 1)


@pytest.mark.parametrize("option", [None, "--resume", "--overwrite"])
@pytest.mark.parametrize("name", ["2024.txt", "about.json.orig", "00000000-0123456789abcdef.csv"])
def test_files_that_are_not_ours_stay(
    name: str, option: str | None, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine.csv.parts"
    folder.mkdir()
    (folder / name).write_text("precious")
    assert classify(photos / "0", "--output", tmp_path / "mine.csv", *([option] if option else [])) == 1
    told = f"mine.csv.parts holds files that are no table's, such as {name}; move them"
    assert told in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == [folder.name]
    assert [each.read_text() for each in folder.iterdir()] == ["precious"]


@pytest.mark.parametrize("finished", [True, False])
def test_a_file_that_came_between_the_parts_stays(finished: bool, tmp_path: Path) -> None:
    table = Table(tmp_path / "x.jsonl", {"weights_sha256": "0"})
    with suppress(ZeroDivisionError), table:
        (table.folder / "mine.txt").write_text("precious")
        if not finished:
            raise ZeroDivisionError
        table.add(row(0))
        table.finish()
    assert (tmp_path / "x.jsonl").exists() is finished
    assert [each.name for each in (tmp_path / "x.jsonl.parts").iterdir()] == ["mine.txt"]


def test_a_long_name_is_a_table_without_parts(tmp_path: Path) -> None:
    output = tmp_path / f"{'n' * 243}.jsonl"  # with its .parts 255, which is as much as file systems take
    assert len(resumed(output)) == 100
    assert len(rows_of(output)) == 100
    assert [each.name for each in tmp_path.iterdir()] == [output.name]


@needs_posix
@pytest.mark.parametrize("there", [True, False])
def test_of_a_link_the_file_is_written(there: bool, tmp_path: Path) -> None:
    link, target = tmp_path / "link.csv", tmp_path / "elsewhere" / "target.csv"
    target.parent.mkdir()
    if there:
        target.write_text("old")
    link.symlink_to(Path("elsewhere", "target.csv"))
    with Table(link, {"weights_sha256": "0"}, overwrite=True) as table:
        table.add(row(0))
        table.finish()
    assert link.is_symlink()
    assert [each["photo"] for each in rows_of(target)] == ["0.jpg"]
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["elsewhere", "link.csv", "target.csv"]


@needs_posix
@pytest.mark.parametrize("option", ["resume", "overwrite"])
def test_no_table_takes_the_place_of_a_pipe(option: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.csv")
    table = Table(tmp_path / "x.csv", {"weights_sha256": "0"}, **{option: True})
    with pytest.raises(TableError, match=r"x\.csv cannot be written \(is a pipe, a socket or a device; name"), table:
        pass
    assert (tmp_path / "x.csv").is_fifo()


def test_photos_of_another_file_system(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.png", "sub dir/c.JPG", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    base = tmp_path.as_uri()
    assert list(find_remote(f"{base}/")) == [f"{base}/{each}" for each in ("a.png", "b.jpg", "sub dir/c.JPG")]
    assert list(find_remote(f"{base}/note.txt")) == [f"{base}/note.txt"]  # what was named is tried
    with pytest.raises(DatasetError, match="holds no photo"):
        find_remote(f"{base}/nowhere")
