"""``docs/faults.md``, made of the marks that the tests carry (``tests/support/fault_rows.py``)."""

import json
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.processes import run_module

from shufflenetv2 import transport
from shufflenetv2.files import STALE_SECONDS
from shufflenetv2.package import CHECKOUT
from shufflenetv2.photos import decode, formats, reading, tiff
from shufflenetv2.weights import download

from . import photo_mutants

ROWS = range(1, 43)

INTRODUCTION = """\
# Faults and bad input

Made from the tests by `python -m tools update`; `python -m tools check` fails when it is out of date.

Three promises:

1. **The bytes that are hashed are the bytes that are loaded, on every load**, hits of the cache included. A file that
   is rejected leaves the model untouched.
2. **Every fetch ends within a stated time and byte count, whatever the server does**: {total:g} s over everything (name
   lookup, connection, TLS, headers, bodies, pauses and all mirrors; `SHUFFLENETV2_TIMEOUT` allows more or less),
   {progress:g} s without progress for one attempt, {tries} tries of a mirror, {redirects} redirects, and of a body the
   size in the manifest plus one byte.
3. **No image costs more than a stated memory and time, or fails with anything but `ImageError`**: {bytes:,} bytes and
   {pixels:,} pixels at most, {copied:,} of a WEBP, TIFF, AVIF or HEIC and {cmyk:,} of a CMYK JPEG
   (`SHUFFLENETV2_MAX_BYTES` and `SHUFFLENETV2_MAX_PIXELS` in the environment replace them, as `--max-pixels` and
   `max_pixels=` do the latter), {scans} scans and {segments:,} segments of a JPEG, {chunks:,} chunks of a PNG,
   {blocks:,} blocks of a GIF before its first frame, {runs:,} bytes and pixels of a BMP compressed by runs, {parts:,}
   strips or tiles of a TIFF. Within those bounds no file takes more than 1 GB of memory or 30 s of one core; ordinary
   photos take milliseconds. Photos of up to {exact:,} pixels become what torchvision's preset makes of them, bit for
   bit; larger ones are halved first. (HEIC is measured by hand only, and has its decoder's bounds where the size within
   is larger than the file says.)

After a failure the cache is as it was before and free of temporary files, unless the row says otherwise. All errors
derive from `ShuffleNetError` and from the built-in exception they resemble (`shufflenetv2/errors.py`).

What the evidence means:

* **injected**: the test makes the fault happen, and asserts that it did;
* **order observed**: the calls into the operating system are recorded or replaced, and their order is asserted;
* **elsewhere**: a test that only another system can run;
* **argued**: no test, but a reason.

Only the first may be called tested.

| row | fault | what happens | evidence | test |
|---|---|---|---|---|
"""

LIMITS = """
## Damaged photos

Besides the mutants in the table, which every test run tries, `python -m tools photos --seed {seed} --count {mutants}`
damaged the sample photos of the seven formats {mutants:,} times, and read each in {seconds} s and {mebibytes} MB:
{pictures:,} became pictures, {refused:,} an `ImageError`, {wrong} anything else ({date}; {with}).

## What it costs

Hashing and checking add some 22 ms to loading a cached x2.0 file (30 MB): 105 ms against 83 ms, first quartiles of the
first loads in 15 fresh processes each, taking turns; `python -m tools cost` on 2 cores of an AMD EPYC with SHA
instructions, torch 2.15.0, Python 3.11, 25 November 2026. The machine had other work, hence quartiles and no medians.
The hash takes 20 ms of it; a second thread that hashes while the first reads made no difference (20.2 against 20.1 ms).

## What is not promised

* A thread that is left in a name lookup ends when the resolver gives up, one in headers that drip when the server ends
  them, one in a body at its next byte. It is a daemon thread, holds a stack and a socket, and the caller has gone on.
* A Python-level deadline needs the interpreter to run: a process that is stopped, or starved by others, is late.
* Windows: what happens while a target is open is shown with `os.replace` replaced by one that fails as it does there.
* Temporary files of another user, or younger than a day ({stale:g} s), are left alone: they may be in use.
* On a file system that ignores `fsync`, a power loss can leave a damaged file. It is detected on the next load.
* A fetch is not resumed: the files are at most 30 MB.
"""


@dataclass
class Fault:
    happens: list[str] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    tests: list[str] = field(default_factory=list)


class Collector:
    def __init__(self) -> None:
        self.faults: dict[tuple[int, str], Fault] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for mark in item.iter_markers("fault"):
                self._add(item.nodeid.partition("[")[0].removeprefix("tests/"), **mark.kwargs)

    def _add(self, test: str, row: int, what: str, happens: str, evidence: str) -> None:
        fault = self.faults.setdefault((row, what), Fault())
        for values, value in ((fault.happens, happens), (fault.evidence, evidence), (fault.tests, f"`{test}`")):
            if value not in values:
                values.append(value)


def document() -> str:
    """The whole text, from the marks of every test file that imports them."""
    files = [str(path) for path in sorted((CHECKOUT / "tests").rglob("test_*.py")) if "fault_rows" in path.read_text()]
    collector = Collector()
    arguments = ["--collect-only", "-p", "no:terminal", "-p", "no:cacheprovider", "--rootdir", str(CHECKOUT), *files]
    status = pytest.main(arguments, plugins=[collector])
    if status != pytest.ExitCode.OK:
        raise SystemExit(f"the tests could not be collected (status {status}); run pytest --collect-only to see why")
    missing = sorted(set(ROWS) - {row for row, _ in collector.faults})
    if missing:
        raise SystemExit(f"no test claims the rows {missing}")
    mutants = json.loads(photo_mutants.RESULT.read_text(encoding="utf-8"))
    values: dict[str, Any] = {
        "total": download.TOTAL_SECONDS,
        "progress": download.PROGRESS_SECONDS,
        "tries": download.TRIES,
        "redirects": transport.MAX_REDIRECTS,
        "bytes": reading.MAX_BYTES,
        "pixels": formats.MAX_PIXELS,
        "copied": formats.MAX_PIXELS_COPIED,
        "cmyk": formats.MAX_PIXELS * 3 // 4,
        "scans": formats.MAX_SCANS,
        "segments": formats.MAX_SEGMENTS,
        "chunks": formats.MAX_CHUNKS,
        "blocks": formats.MAX_BLOCKS,
        "runs": formats.MAX_RUNS,
        "parts": tiff.MAX_PARTS,
        "exact": decode.EXACT_PIXELS,
        "stale": STALE_SECONDS,
        **mutants,
        "wrong": len(mutants["wrong"]) or "none",
        "seconds": photo_mutants.SECONDS,
        "mebibytes": photo_mutants.BYTES // 2**20,
    }
    lines = [
        f"| {row} | {what} | {'; '.join(fault.happens)} | {', '.join(fault.evidence)} | {', '.join(fault.tests)} |\n"
        for (row, what), fault in sorted(collector.faults.items(), key=lambda item: item[0])
    ]
    return INTRODUCTION.format(**values) + "".join(lines) + LIMITS.format(**values)


def faults() -> None:
    sys.stdout.write(document())


def rewritten(text: str) -> str:
    """The document as the tests make it today; a process of its own collects them, since pytest may be running here."""
    del text
    return str(run_module("tools", "faults").stdout)
