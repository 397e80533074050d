"""A table that appears whole or not at all, and survives whatever ends the process that writes it.

While it grows it is parts of JSON lines in ``TABLE.parts/``. Each is written whole, named by its number and the sha256
of its bytes, and holds whole batches, so that a run that goes on computes the same batches, and the same bits, as one
that was never interrupted. ``about.json`` there says what the rows were made with; the folder is held against others.
"""

import csv
import hashlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ..description import BATCH_SIZE
from ..errors import ShuffleNetError, TableError
from ..files import TEMPORARY, flush_directory, held, refuse_device, shown, whole_file, write_whole
from .formats import ROW_GROUP, described, form_of, noted
from .rows import Row

Photo = TypeVar("Photo")

SECONDS = 5.0  # what a kill may cost
# In TABLE.parts/, and what is there once the table is: then all beside it is of no more use.
_FINISHED = "finished"
_OURS = re.compile(rf"about\.json|{_FINISHED}|[0-9]{{8,}}-[0-9a-f]{{16}}|{TEMPORARY.pattern}|\.DS_Store")


class Table:
    """A context manager: within it, ``missing`` says which photos to do, ``add`` takes their rows, ``finish`` ends it.

    Args:
        path: ends in ``.parquet``, ``.csv`` or ``.jsonl``; of a link it is the file that is written, as a shell has it.
        about: what the rows are made with and of; a run that goes on must have the same. ``weights_sha256`` is one.
        description: what the file's metadata says besides, where it has any.
        features: the length of the column of features, or 0.
        batch_size: rows are written in multiples of it.
        resume, overwrite: go on with what a run left that was interrupted; begin anew, whatever is there.

    Raises:
        TableError: it is there, unfinished, being written, made with something else, or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        about: dict[str, Any],
        *,
        description: dict[str, Any] | None = None,
        features: int = 0,
        batch_size: int = BATCH_SIZE,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.form = form_of(path)
        self.path = Path(os.path.realpath(path)) if os.path.islink(path) else path
        self.folder = self.path.with_name(f"{self.path.name}.parts")
        self.about = json.loads(json.dumps(about))  # as it will be read back
        self.description = description or {}
        self.features = features
        self.batch_size = batch_size
        self.resume, self.overwrite = resume, overwrite
        self.complete = False  # it was, before this run: there is nothing to do
        self.compared = True  # with what it was made with and of; a finished table that is no Parquet has rows alone
        self.done = self.failed = 0  # rows of the whole table, once it is complete; those of them with an error
        self.repeated = 0  # photos that were named more than once
        self.unnamed = 0  # rows, of an earlier run, of photos that were not named in this one
        self._rows: list[Row] = []
        self._parts: list[Path] = []
        self._written = time.monotonic()
        self._lock = ExitStack()

    def __enter__(self) -> "Table":
        with self._told("cannot be written"):
            if self.path.is_dir():
                raise TableError(f"{shown(self.path)} is a folder, expected the name of a table")
            refuse_device(self.path)
            with held(self.folder) as free:
                if free and (self.folder / _FINISHED).exists():  # a run was killed while it removed them
                    _remove(self.folder)
            if not self.folder.exists() and self.path.exists() and not self.overwrite:
                if not self.resume:
                    raise TableError(f"{shown(self.path)} exists; --overwrite replaces it")
                if self.path.stat().st_size:  # nothing is no table: `touch` makes it, and a full disk
                    self._check_finished()
                    return self
            begun = self.folder.exists()
            self.folder.mkdir(exist_ok=True)
            with ExitStack() as lock:
                if not lock.enter_context(held(self.folder)):
                    raise TableError(f"another run is writing {shown(self.path)}; wait for its end")
                self._begin(begun)
                self._lock = lock.pop_all()
        return self

    def _begin(self, begun: bool) -> None:
        if others := _others(self.folder):
            raise TableError(
                f"{shown(self.folder)} holds files that are no table's, such as {shown(others[0])}; move them"
            )
        if begun and not (self.resume or self.overwrite):
            raise TableError(
                f"an unfinished table is in {shown(self.folder)}; --resume goes on with it, --overwrite begins anew"
            )
        note = self.folder / "about.json"
        if self.overwrite:
            note.unlink(missing_ok=True)
        if note.exists():
            self._compare(noted(note))
            self._parts = self._whole_parts()
        else:
            for part in self.folder.glob("[0-9]*"):
                part.unlink()
            write_whole(note, json.dumps(self.about, indent=1).encode())

    def _check_finished(self) -> None:
        before = described(self.path)
        if before:
            self._compare(before)
        try:
            for error, sha256 in self.form.read(self.path):
                if sha256 != self.about["weights_sha256"]:
                    raise TableError(f"{shown(self.path)} is complete, by other weights; --overwrite replaces it")
                self._count(error)
        except (ValueError, LookupError, TypeError, csv.Error) as error:
            raise TableError(f"{shown(self.path)} is no table of this command; --overwrite replaces it") from error
        self.complete, self.compared = True, bool(before)

    def _count(self, error: str | None) -> None:
        self.done += 1
        self.failed += error is not None

    def _compare(self, before: dict[str, Any]) -> None:
        for name in sorted({*before, *self.about}):
            was, now = before.get(name), self.about.get(name)
            if was != now:
                raise TableError(
                    f"{shown(self.path)} was begun with other {name}: {json.dumps(was)}, now {json.dumps(now)}; give "
                    "the same to go on, or --overwrite to begin anew"
                )

    def _whole_parts(self) -> list[Path]:
        """Those up to the first that is damaged; the rest is done again, so that the rows keep their order."""
        good: list[Path] = []
        for number, part in enumerate(sorted(self.folder.glob("[0-9]*"))):
            if len(good) == number and part.name == _name(number, part.read_bytes()):
                good.append(part)
            else:
                part.unlink()
        return good

    def missing(self, photos: Iterable[Photo], name: Callable[[Photo], str]) -> Iterator[Photo]:
        """Those of the ``photos`` that have no row yet, each once. What was seen is kept on disk, not in memory."""
        names = sqlite3.connect("", check_same_thread=False)  # a temporary file, which is gone with the connection
        try:
            names.execute("PRAGMA journal_mode=OFF")
            names.execute("CREATE TABLE seen (photo BLOB PRIMARY KEY, again INTEGER) WITHOUT ROWID")
            done = (json.JSONDecoder().raw_decode(line, len('{"photo": '))[0] for line in _lines(self._parts))
            names.executemany("INSERT OR IGNORE INTO seen VALUES (?, 0)", ((photo.encode(),) for photo in done))
            for photo in photos:
                key = (name(photo).encode(),)
                if names.execute("INSERT OR IGNORE INTO seen VALUES (?, 1)", key).rowcount:
                    yield photo
                elif not names.execute("UPDATE seen SET again = 1 WHERE photo = ? AND again = 0", key).rowcount:
                    self.repeated += 1
            [self.unnamed] = names.execute("SELECT count(*) FROM seen WHERE again = 0").fetchone()
        except sqlite3.OperationalError as error:
            raise TableError(
                f"the names of the photos that were seen could not be kept ({error}); is the folder for temporary "
                "files full? SQLITE_TMPDIR names another"
            ) from error
        finally:
            names.close()

    def add(self, row: Row) -> None:
        """Take the next row; it is on disk a few seconds later."""
        self._rows.append(row)
        full = len(self._rows) >= ROW_GROUP or time.monotonic() - self._written >= SECONDS
        if full and len(self._rows) % self.batch_size == 0:
            self._write(len(self._rows))

    def _write(self, count: int) -> None:
        rows, self._rows = self._rows[:count], self._rows[count:]
        if rows:
            data = "".join(json.dumps(row) + "\n" for row in rows).encode()
            part = self.folder / _name(len(self._parts), data)
            with self._told(f"cannot go on; --resume will, with the rows in {shown(self.folder)}"):
                write_whole(part, data)
            self._parts.append(part)
            self._written = time.monotonic()

    def finish(self) -> None:
        """Join the parts; the table is there whole, and its parts are gone."""
        self._write(len(self._rows))
        said = {f"shufflenetv2.{key}": json.dumps(value) for key, value in {**self.about, **self.description}.items()}
        with self._told(f"cannot be written; --resume will, with the rows in {shown(self.folder)}"):
            # The temporary file is among the parts, so that nothing else lies about if this process is killed.
            with whole_file(self.folder / "table", replace=lambda new, _: os.replace(new, self.path)) as temporary:
                self.form.write(temporary, self._counted(), self.features, said)
            flush_directory(self.path.parent)
            self.complete = True
            (self.folder / _FINISHED).touch()
            _remove(self.folder)

    def _counted(self) -> Iterator[Row]:
        for row in map(json.loads, _lines(self._parts)):
            self._count(row.get("error"))
            yield row

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self.complete:
                return
            try:
                if not isinstance(error, TableError):  # the whole batches so far are kept
                    self._write(len(self._rows) // self.batch_size * self.batch_size)
            finally:
                if not self._parts:  # it failed before its first row: there is nothing to go on with
                    _remove(self.folder)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except ShuffleNetError:
            raise
        except OSError as error:
            raise TableError(f"{shown(self.path)} {what} ({error.strerror or error})") from error


def _name(number: int, data: bytes) -> str:
    return f"{number:08}-{hashlib.sha256(data).hexdigest()[:16]}"


def _others(folder: Path) -> list[str]:
    """What lies in ``folder`` and is not ours."""
    return sorted(each.name for each in folder.iterdir() if not _OURS.fullmatch(each.name))


def _remove(folder: Path) -> None:
    """Remove ``folder`` and what is ours in it; it stays if there is more."""
    with suppress(OSError):
        for each in sorted(folder.iterdir(), key=lambda each: each.name == _FINISHED):  # which says so to the end
            if _OURS.fullmatch(each.name):
                each.unlink()
        folder.rmdir()


def _lines(parts: Iterable[Path]) -> Iterator[str]:
    for part in parts:
        with open(part, encoding="ascii") as file:
            yield from file
