"""The three forms of a table: Parquet, CSV and JSON lines. A table grows as parts, which are joined at its end."""

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..package import require
from .rows import COLUMNS, FEATURES, Row

ROW_GROUP = 10_000


@dataclass(frozen=True)
class Form:
    """How one kind of file is written and read; ``features`` is their length, or 0 where there are none."""

    write: Callable[[Path, Sequence[Row], int], object]  # a part
    photos: Callable[[Path], Iterator[str]]  # the names in a part
    join: Callable[[Path, Sequence[Path], int, dict[str, str]], object]  # parts to a table that carries a description
    weights: Callable[[Path], str | None]  # the sha256 in a table's first row
    needs: tuple[str, ...] = ()


def _write_jsonl(path: Path, rows: Sequence[Row], features: int) -> None:
    with open(path, "w", encoding="ascii", newline="\n") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="ascii") as file:
        yield from map(json.loads, file)


def _write_csv(path: Path, rows: Sequence[Row], features: int) -> None:
    names = [*COLUMNS, FEATURES] if features else list(COLUMNS)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in rows:  # lists are JSON, nothing is an empty field
            values = [row.get(name) for name in names]
            writer.writerow([json.dumps(value) if isinstance(value, list) else value for value in values])


def _read_csv(path: Path) -> Iterator[list[str]]:
    csv.field_size_limit(1 << 24)
    with open(path, encoding="utf-8", newline="") as file:
        yield from csv.reader(file)


def _join_text(heading: Callable[[int], str]) -> Callable[[Path, Sequence[Path], int, dict[str, str]], None]:
    def join(path: Path, parts: Sequence[Path], features: int, description: dict[str, str]) -> None:
        with open(path, "wb") as file:
            file.write(heading(features).encode())
            for part in parts:
                with open(part, "rb") as source:
                    shutil.copyfileobj(source, file)

    return join


def _csv_heading(features: int) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([*COLUMNS, FEATURES] if features else COLUMNS)
    return text.getvalue()


def _csv_weights(path: Path) -> str | None:
    rows = _read_csv(path)
    heading, first = next(rows, None), next(rows, None)
    return first[heading.index("weights_sha256")] if heading and first and "weights_sha256" in heading else None


def _schema(features: int) -> Any:
    import pyarrow as pa

    types = {str: pa.string(), int: pa.int32(), float: pa.float32()}
    types |= {list[kind]: pa.list_(type_) for kind, type_ in types.items()}  # type: ignore[valid-type]
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    return schema.append(pa.field(FEATURES, pa.list_(pa.float32(), features))) if features else schema


def _write_parquet(path: Path, rows: Sequence[Row], features: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows), _schema(features)), path, compression="zstd")


def _read_parquet(path: Path, column: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=[column]):
            yield from batch.column(0).to_pylist()


def _join_parquet(path: Path, parts: Sequence[Path], features: int, description: dict[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(features)
    waiting: list[Any] = []
    with pq.ParquetWriter(path, schema.with_metadata(description), compression="zstd") as writer:
        for part in parts:
            waiting.append(pq.read_table(part, schema=schema))
            if sum(map(len, waiting)) >= ROW_GROUP:
                whole = pa.concat_tables(waiting)
                writer.write_table(whole[:ROW_GROUP], ROW_GROUP)
                waiting = [whole[ROW_GROUP:]]
        if waiting:
            writer.write_table(pa.concat_tables(waiting), ROW_GROUP)


FORMS = {
    ".parquet": Form(
        _write_parquet,
        lambda path: _read_parquet(path, "photo"),
        _join_parquet,
        lambda path: next(_read_parquet(path, "weights_sha256"), None),
        ("pyarrow>=18",),
    ),
    ".csv": Form(_write_csv, lambda path: (row[0] for row in _read_csv(path)), _join_text(_csv_heading), _csv_weights),
    ".jsonl": Form(
        _write_jsonl,
        lambda path: (row["photo"] for row in _read_jsonl(path)),
        _join_text(lambda features: ""),
        lambda path: next((row.get("weights_sha256") for row in _read_jsonl(path)), None),
    ),
}


def form_of(path: Path) -> Form:
    """The form that the suffix names.

    Raises:
        ValueError: it names none.
        ImportError: the form needs a package that is not installed; the message has the pip line.
    """
    form = FORMS.get(path.suffix.lower())
    if form is None:
        raise ValueError(f"a table's name ends in {', '.join(FORMS)}, got {path.name!r:.80}")
    require(f"a table in {path.suffix}", *form.needs)
    return form
