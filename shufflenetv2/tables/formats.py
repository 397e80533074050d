"""The forms of a table: Parquet, CSV and JSON lines, each written from rows that come one after the other."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import TableError
from ..files import shown
from ..package import require
from .rows import COLUMNS, FEATURES, Row

Answer = tuple[str | None, str]  # the error of a row, and the sha256 of the weights

ROW_GROUP = 10_000
PREFIX = b"shufflenetv2."  # of what a table says of itself in its metadata
_AT_ONCE = 500  # rows as Python's objects: with features, one takes 30 kB
_LONGEST_FIELD = 1 << 30  # of CSV, where Python allows 128 kB: --top may ask for many labels


def write_jsonl(path: Path, rows: Iterable[Row], features: int, metadata: Mapping[str, str]) -> None:
    with open(path, "w", encoding="ascii", newline="\n") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_csv(path: Path, rows: Iterable[Row], features: int, metadata: Mapping[str, str]) -> None:
    """Lists are JSON, and nothing is an empty field."""
    names = [*COLUMNS, FEATURES] if features else list(COLUMNS)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        # A name may hold a carriage return, of which older Pythons think that it needs no quotes.
        quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        for row in rows:
            values = (row.get(name) for name in names)
            fields = [json.dumps(value) if isinstance(value, list) else value for value in values]
            (quoted if any(isinstance(each, str) and "\r" in each for each in fields) else writer).writerow(fields)


def write_parquet(path: Path, rows: Iterable[Row], features: int, metadata: Mapping[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"text": pa.string(), "int": pa.int32(), "float": pa.float32()}
    types |= {f"{name}s": pa.list_(kind) for name, kind in types.items()}
    fields = [(name, types[kind]) for name, kind in COLUMNS.items()]
    schema = pa.schema(fields + [(FEATURES, pa.list_(pa.float32(), features))] * bool(features))
    upcoming = iter(rows)
    waiting = [schema.empty_table()]
    with pq.ParquetWriter(path, schema.with_metadata(dict(metadata)), compression="zstd") as writer:
        while some := list(islice(upcoming, _AT_ONCE)):
            waiting.append(pa.Table.from_pylist(some, schema))
            if sum(map(len, waiting)) >= ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))


def read_jsonl(path: Path) -> Iterator[Answer]:
    with open(path, encoding="utf-8") as file:
        for row in map(json.loads, file):
            yield row["error"], row["weights_sha256"]


def read_csv(path: Path) -> Iterator[Answer]:
    csv.field_size_limit(_LONGEST_FIELD)
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        places = header.index("error"), header.index("weights_sha256")
        for row in rows:
            error, sha256 = (row[place] for place in places)
            yield error or None, sha256


def read_parquet(path: Path) -> Iterator[Answer]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["error", "weights_sha256"]):
            yield from zip(batch["error"].to_pylist(), batch["weights_sha256"].to_pylist(), strict=True)


def described(path: Path) -> dict[str, Any]:
    """What a Parquet file says that it was made with and of; nothing of other files, which keep rows alone."""
    if path.suffix.lower() != ".parquet":
        return {}
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        said = pq.read_schema(path).metadata or {}
    except pa.ArrowInvalid:
        return {}
    own = {key.decode().partition(".")[2]: json.loads(value) for key, value in said.items() if key.startswith(PREFIX)}
    own.pop("description", None)
    return own


def noted(note: Path) -> dict[str, Any]:
    """What a table that is not finished keeps beside its rows.

    Raises:
        TableError: it cannot be read, so that nothing says what the rows were made with.
    """
    try:
        said = json.loads(note.read_bytes())
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise TableError(f"{shown(note)} is damaged: what made the rows is not known; --overwrite begins anew")
    return said


class Form(NamedTuple):
    """How a table is written (path, rows, length of the features or 0, what the file says of itself), and read."""

    write: Callable[[Path, Iterable[Row], int, Mapping[str, str]], Any]
    read: Callable[[Path], Iterator[Answer]]  # row by row; ValueError, LookupError, ... of what is no table
    needs: tuple[str, ...] = ()


FORMS = {  # by suffix
    ".parquet": Form(write_parquet, read_parquet, ("pyarrow>=18",)),
    ".csv": Form(write_csv, read_csv),
    ".jsonl": Form(write_jsonl, read_jsonl),
}


def form_of(path: Path) -> Form:
    """The form that the suffix names.

    Raises:
        ValueError: it names none.
        ImportError: the form needs a package that is not installed; the message has the pip line.
    """
    if path.suffix.lower() not in FORMS:
        raise ValueError(f"a table's name ends in {', '.join(FORMS)}, got {path.name!r:.80}")
    form = FORMS[path.suffix.lower()]
    require(f"a table in {path.suffix}", *form.needs)
    return form
