"""Ray gives the rows of the plain way, in order, also when a node dies; the same class serves other engines."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image
from support.processes import ROOT

from shufflenetv2 import package
from shufflenetv2.__main__ import main
from shufflenetv2.errors import DatasetError, IntegrityError, TableError
from shufflenetv2.tables import cluster
from shufflenetv2.tables.batches import BatchClassifier

WEIGHTS = ("--weights", "cifar10")
# Of Ray itself, which leaves sockets and files to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::FutureWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 names of 60 crops of a sample photo; one of those is broken."""
    folder = tmp_path_factory.mktemp("photos")
    with Image.open(ROOT / "images/cat.jpg") as photograph:
        for index in range(60):
            photograph.crop((index, index, 150 + index, 130 + index)).save(folder / f"{index:03}.jpg")
    (folder / "022.jpg").write_bytes(b"broken")
    for index in range(60, 600):
        os.link(folder / f"{index % 60:03}.jpg", folder / f"{index:03}.jpg")
    return folder


@pytest.fixture(scope="module")
def plain(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    output = tmp_path_factory.mktemp("plain") / "x.parquet"
    main(["classify", str(photos), *WEIGHTS, "--output", str(output)])
    rows: list[dict[str, Any]] = pq.read_table(output).to_pylist()
    return rows


@pytest.fixture(autouse=True)
def _workers_find_the_package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_worker_niceness", "0")  # its 15 would starve beside other tests
    yield
    ray.shutdown()


def same(rows: list[dict[str, Any]], plain: list[dict[str, Any]]) -> bool:
    """Equal but for the last bits of probabilities: an actor has another number of threads."""
    if len(rows) != len(plain):
        return False
    numbers = ("probability", "top_probabilities")
    return all(
        {key: value for key, value in row.items() if key not in numbers}
        == {key: value for key, value in other.items() if key not in numbers}
        and numpy.allclose(row["top_probabilities"], other["top_probabilities"], atol=1e-6)
        for row, other in zip(rows, plain, strict=True)
    )


@pytest.mark.slow
def test_two_actors_give_the_table_of_the_plain_way(photos: Path, plain: list[dict[str, Any]], tmp_path: Path) -> None:
    output = tmp_path / "x.parquet"
    command = ["classify", str(photos), *WEIGHTS, "--ray", "--actors", "2", "--output", str(output)]
    assert main(command) == 1  # a photo is broken
    assert same(pq.read_table(output).to_pylist(), plain)
    assert [each.name for each in tmp_path.iterdir()] == ["x.parquet"]


@pytest.mark.slow
def test_a_node_that_dies_takes_no_row_with_it(photos: Path, plain: list[dict[str, Any]]) -> None:
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    killed = threading.Event()
    try:
        paths = sorted(photos.iterdir())
        options = {"batch_size": 4, "actors": 2, "weights": "cifar10"}
        rows: list[dict[str, Any]] = []
        for row in cluster.classify_on(nodes.address, paths, **options):
            rows.append(row)
            if len(rows) == 100:
                assert len([node for node in ray.nodes() if node["Alive"]]) == 2
                nodes.remove_node(second, allow_graceful=False)
                killed.set()
    finally:
        nodes.shutdown()
    assert killed.is_set()
    assert same(rows, plain)


@pytest.mark.slow
def test_folders_of_other_file_systems_are_read_by_rays_readers(
    photos: Path, plain: list[dict[str, Any]], tmp_path: Path
) -> None:
    output = tmp_path / "x.parquet"
    (photos / "notes.txt").write_text("no photo")
    command = ["classify", f"file://{photos}", *WEIGHTS, "--ray", "--actors", "1", "--output", str(output)]
    assert main(command) == 1
    rows = pq.read_table(output).to_pylist()
    assert [row["photo"] for row in rows] == [f"file://{row['photo']}" for row in plain]
    assert [row["label"] for row in rows] == [row["label"] for row in plain]
    with pytest.raises(DatasetError, match=r"^file:///nowhere holds no photo \(\.jpg"):
        list(cluster.find_remote("file:///nowhere"))


def closed(listener: socket.socket) -> None:
    listener.close()


def silent(listener: socket.socket) -> None:
    listener.listen()


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", [closed, silent])
def test_a_cluster_that_does_not_answer_is_an_error_within_half_a_minute(
    behaviour: Callable[[socket.socket], None],
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        behaviour(listener)
        start = time.monotonic()
        command = ["classify", str(photos), *WEIGHTS, "--ray", address, "--output", str(tmp_path / "x.csv")]
        assert main(command) == 1
        assert time.monotonic() - start < 35  # the import of Ray included
    assert f"shufflenetv2: error: no Ray cluster at {address} (no answer within 22 s)" in capsys.readouterr().err


def test_without_ray_the_line_for_pip_is_told(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "missing", lambda needs: [each for each in needs if each.startswith("ray")])
    assert main(["classify", str(photos), *WEIGHTS, "--ray", "--output", str(tmp_path / "x.csv")]) == 1
    assert "--ray needs ray, which is not installed; type: pip install 'ray[data]>=2.40'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []  # nothing that the next run would ask about


def test_the_class_takes_bytes_and_paths(photos: Path, plain: list[dict[str, Any]]) -> None:
    classify = BatchClassifier(weights="cifar10", top=5)
    paths = sorted(photos.glob("*.jpg"))[:32]  # two whole batches: others may differ in the last bit
    names = numpy.array([str(path) for path in paths])
    contents = numpy.array([path.read_bytes() for path in paths], dtype=object)
    for batch in ({"path": names}, {"bytes": contents, "path": names}, {"path": names, "photo": names}):
        columns = classify(batch)
        assert list(columns) == list(plain[0])
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        for row, other in zip(rows, plain, strict=False):
            assert row == other
    assert classify({"bytes": contents[:1]})["photo"].tolist() == [""]
    nothing = classify({"path": numpy.array([])})  # an empty partition has the columns, too
    assert {name: column.tolist() for name, column in nothing.items()} == {name: [] for name in plain[0]}
    empty = BatchClassifier(weights="cifar10", features=True)({"bytes": contents[:0]})
    assert [*empty] == [*plain[0], "features"]
    with pytest.raises(ValueError, match=r"^a batch needs a column bytes or path, got image$"):
        classify({"image": names})
    with pytest.raises(IntegrityError, match="expected 0123"):
        BatchClassifier(weights="cifar10", sha256="0123")


def test_a_null_is_an_error_in_its_place() -> None:
    classify = BatchClassifier(weights="cifar10")
    for column in ("bytes", "path"):
        good = (ROOT / "images/cat.jpg").read_bytes() if column == "bytes" else str(ROOT / "images/cat.jpg")
        table = classify({column: numpy.array([None, good], dtype=object)})
        assert table["label"].tolist() == [None, "cat"]
        assert "image" in table["error"][0]
        assert table["error"][1] is None


def test_what_a_column_may_hold() -> None:
    classify = BatchClassifier(weights="cifar10")
    cat = ROOT / "images/cat.jpg"
    for held in (str(cat), os.fsencode(cat), cat, numpy.array([os.fsencode(cat)])[0]):
        table = classify({"path": [held]})
        assert (table["photo"].tolist(), table["label"].tolist()) == ([str(cat)], ["cat"])
    for held in (bytearray(cat.read_bytes()), memoryview(cat.read_bytes())):
        assert classify({"bytes": [held], "photo": [b"caf\xe9"]})["photo"].tolist() == ["file:caf%E9"]
    for column, wrong, told in (
        ("bytes", numpy.frombuffer(cat.read_bytes(), "uint8"), "the column bytes holds bytes, or nulls; got ndarray"),
        ("bytes", str(cat), "the column bytes holds bytes, or nulls; got str"),
        ("bytes", 5, "the column bytes holds bytes, or nulls; got int"),
        ("path", 5, "the column path holds text, or nulls; got int"),
    ):
        with pytest.raises(TypeError, match=rf"^{told}$"):
            classify({column: [wrong]})


@pytest.mark.parametrize("null", [None, float("nan"), pandas.NA, pandas.NaT], ids=repr)
def test_nulls_and_paths_as_pandas_has_them(null: object) -> None:
    classify = BatchClassifier(weights="cifar10")
    cat = ROOT / "images/cat.jpg"
    for batch in (
        {"path": [cat, null]},
        {"path": [str(cat), null]},
        {"bytes": [cat.read_bytes(), null], "path": [cat, null]},
        {"bytes": [cat.read_bytes(), null], "photo": [cat, null]},
        {"bytes": [cat.read_bytes(), b"broken"], "photo": [cat, null]},
    ):
        table = classify({name: pandas.Series(values, dtype=object).to_numpy() for name, values in batch.items()})
        assert table["photo"].tolist() == [str(cat), ""]
        assert table["label"].tolist() == ["cat", None]
        assert table["error"][0] is None
        assert "image" in table["error"][1]
    table = classify({"path": numpy.array([Path(os.fsdecode(b"caf\xe9.jpg"))])})
    assert table["photo"].tolist() == ["file:caf%E9.jpg"]
    assert table["error"][0].startswith("caf\\udce9.jpg cannot be opened: No such file")


def test_rows_that_come_in_another_order_are_not_believed() -> None:
    with pytest.raises(TableError, match=r"Ray gave the photo b\.jpg, where a\.jpg was next"):
        cluster.as_given({"photo": "b.jpg", "error": None}, "a.jpg")
    for said, name in (("bucket/a.jpg", "s3://bucket/a.jpg?region=x"), ("/a b/c.jpg", "file:///a%20b/c.jpg")):
        assert cluster.as_given({"photo": said, "error": None}, name)["photo"] == name


def test_dask(photos: Path, plain: list[dict[str, Any]]) -> None:
    dask = pytest.importorskip("dask.dataframe")
    # As docs/many-photos.md has it.
    classify = BatchClassifier(weights="cifar10")
    frame = dask.from_pandas(pandas.DataFrame({"path": [row["photo"] for row in plain[:40]]}), npartitions=2)
    meta = pandas.DataFrame(classify({"path": numpy.array(["missing.jpg"])}))
    table = frame.map_partitions(lambda part: pandas.DataFrame(classify({"path": part["path"].to_numpy()})), meta=meta)
    labels = [label if isinstance(label, str) else None for label in table.compute()["label"]]  # pandas has NaN there
    assert labels == [row["label"] for row in plain[:40]]
