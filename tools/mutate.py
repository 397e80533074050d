"""Mutation testing: change the package in one place, and see whether the tests of its area notice.

mutmut and cosmic-ray choose no sample by a seed and start a process per mutant; this imports torch once, forks for each
mutant, and runs the tests that execute the mutated line, the quickest first, in a copy of the work tree.
"""

import hashlib
import inspect
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from datetime import date
from pathlib import Path
from types import FrameType
from typing import Any

import hypothesis  # noqa: F401  # what tests import, once for all forks
import matplotlib.pyplot  # noqa: F401
import pytest
import requests  # noqa: F401
import torchvision  # noqa: F401
import trustme  # noqa: F401

from shufflenetv2.package import CHECKOUT

from .mutants import Mutant, mutants

AREAS = {  # what is mutated in shufflenetv2/, and the tests in tests/ that must notice
    "weights": (
        "weights transport.py description.py files.py",
        "weights test_files.py test_entrypoints.py test_details.py",
    ),
    "builder": (
        "builder.py entrypoints.py package.py naming.py saving.py rebuilding.py network/origin.py",
        "test_builder.py test_entrypoints.py test_details.py test_ways_in.py test_saving.py weights/test_manifest.py "
        "weights/test_checkpoint.py",
    ),
    "training": ("training commands/train.py devices.py", "training test_details.py"),
    "network": (
        "network/model.py network/deploy.py network/deploy_form.py network/dissect.py",
        "network commands/test_export.py test_details.py",
    ),
    "formats": (
        "network/formats exporting.py computing.py commands/export.py",
        "network commands/test_export.py test_details.py",
    ),
    "photos": (
        "photos/decode.py photos/formats.py photos/tiff.py photos/avif.py photos/colours.py photos/framing.py "
        "photos/transform.py photos/url.py",
        "photos test_entrypoints.py test_details.py",
    ),
    "folders": (
        "photos/folders.py photos/listing.py photos/ahead.py tables",
        "photos tables commands/test_classify.py commands/test_evaluate.py test_entrypoints.py test_details.py",
    ),
    "inference": (
        "inference evaluation commands/classify.py commands/evaluate.py commands/options.py",
        "test_entrypoints.py test_builder.py test_details.py test_ways_in.py inference evaluation "
        "commands/test_classify.py commands/test_evaluate.py commands/test_sources.py commands/test_cli.py tables",
    ),
}
RESULTS, DOCUMENT = CHECKOUT / "build" / "mutants.jsonl", CHECKOUT / "docs" / "mutants.md"
BROKEN = 70  # exit status of a fork in which pytest itself failed


class Plugin:
    """pytest runs ``chosen`` in that order; if it is ``None``, all, noting the lines that each test executes."""

    def __init__(self, package: str, chosen: list[str] | None) -> None:
        self.package, self.chosen = package, chosen
        self.tests: dict[str, tuple[float, list[str]]] = {}  # seconds, and lines as in "package.py:20"
        self.lines: set[str] = set()

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(self.package):
            return None
        if frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # in a function: what an import executes, all tests execute
            self.lines.add(f"{frame.f_code.co_filename[len(self.package) :]}:{frame.f_lineno}")
        return self.trace

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        named = {each.nodeid: each for each in items}
        items[:] = items if self.chosen is None else [named[each] for each in self.chosen if each in named]

    def pytest_runtest_logreport(self, report: Any) -> None:
        seconds, lines = self.tests.get(report.nodeid, (0.0, []))
        self.tests[report.nodeid] = (seconds + (report.duration if report.passed else 1e9), [*lines, *self.lines])
        self.lines.clear()


def run_tests(root: Path, paths: list[str], chosen: list[str] | None, seconds: float, slow: bool = False) -> int:
    """pytest's exit status in a fork of this process; 124 after ``seconds``."""
    if not (child := os.fork()):
        try:
            os.setsid()
            os.chdir(root)
            log = os.open("pytest.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            for name in [each for each in sys.modules if each.partition(".")[0] in ("shufflenetv2", "tools")]:
                del sys.modules[name]
            sys.path[:] = [each for each in sys.path if not Path(each).absolute().is_relative_to(CHECKOUT)]
            sys.dont_write_bytecode = True
            plugin = Plugin(f"{root / 'shufflenetv2'}/", chosen)
            if chosen is None:
                threading.settrace(plugin.trace)
                sys.settrace(plugin.trace)
            options = ["-q", "-p", "no:cacheprovider", "--assert=plain", *(["-x"] if chosen else [])]
            options += [] if chosen or slow else ["-m", "not slow"]
            status = int(pytest.main([*options, *paths], plugins=[plugin]))
            sys.settrace(None)
            (root / "tests.json").write_text(json.dumps(plugin.tests))
            os._exit(status)
        except BaseException:
            traceback.print_exc()
            os._exit(BROKEN)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if os.waitstatus_to_exitcode(status) == BROKEN:
                raise RuntimeError(f"pytest could not be run: {(root / 'pytest.log').read_text()[-2000:]}")
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 124


def chosen_tests(tests: dict[str, tuple[float, list[str]]], mutant: Mutant, budget: float) -> list[str]:
    """The quickest of those that execute the line, else of those that execute any of the file, within the budget; then
    their neighbours, with which they share what a fixture executed.

    Where none executes it, TorchScript may: its tests are among the longer ones.
    """
    quick = {name: lines for name, (seconds, lines) in tests.items() if seconds <= budget}
    names = [name for name, lines in quick.items() if f"{mutant.file}:{mutant.line}" in lines]
    if not names:
        budget *= 4
        names = [
            name for name, (_, lines) in tests.items() if any(line.startswith(f"{mutant.file}:") for line in lines)
        ]
    beside = {name.partition("::")[0] for name in names}
    neighbours = [name for name in quick if name not in names and name.partition("::")[0] in beside]
    names = [*sorted(names, key=lambda name: tests[name][0]), *sorted(neighbours, key=lambda name: tests[name][0])]
    spent = itertools.accumulate(tests[name][0] for name in names)
    return [name for name, seconds in zip(names, spent, strict=True) if seconds <= budget]


def tests_of(area: str, root: Path, slow: bool) -> dict[str, tuple[float, list[str]]]:
    """The area's tests; they are run once for each state of the code."""
    code = b"".join(
        path.read_bytes() for part in ("shufflenetv2", "tests") for path in sorted((root / part).rglob("*.py"))
    )
    kept = RESULTS.with_name(f"{'all' if slow else 'quick'}-tests-{area}-{hashlib.sha256(code).hexdigest()[:16]}.json")
    if not kept.exists():
        print(f"{area}: which test executes what ...", file=sys.stderr)
        run_tests(root, [f"tests/{each}" for each in AREAS[area][1].split()], None, 3600, slow)
        shutil.copy(root / "tests.json", kept)
    tests: dict[str, tuple[float, list[str]]] = json.loads(kept.read_text())
    return tests


def results() -> dict[str, dict[str, Any]]:
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {each["key"]: each for each in map(json.loads, lines)}


def mutate(area: str, seed: int, count: int, again: bool, slow: bool, budget: float) -> None:
    """Try ``count`` mutants of an area, each once; ``again``: those that survived earlier, and no others.

    ``slow``: with the tests that are marked so, too.
    """
    RESULTS.parent.mkdir(exist_ok=True)
    known, found = results(), list(mutants(AREAS[area][0]))
    if again:
        sample = [mutant for mutant in found if mutant.key in known and not known[mutant.key]["killed"]]
    else:
        drawn = random.Random(f"{seed} {area}").sample(found, min(count, len(found)))
        sample = [mutant for mutant in drawn if mutant.key not in known]
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        root = Path(folder, "copy")
        listed = subprocess.run(["git", "ls-files", "-zco", "--exclude-standard"], cwd=CHECKOUT, stdout=subprocess.PIPE)
        for name in filter(None, listed.stdout.decode().split("\0")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, root / name)
        tests = tests_of(area, root, slow)
        for mutant in sample:
            path, chosen, start = root / "shufflenetv2" / mutant.file, chosen_tests(tests, mutant, budget), time.time()
            data = path.read_bytes()
            path.write_bytes(data[: mutant.begin] + mutant.new.encode() + data[mutant.end :])
            files = sorted({each.partition("::")[0] for each in chosen})
            killed = bool(chosen) and run_tests(root, files, chosen, 20 + 4 * budget) != 0
            path.write_bytes(data)
            line = {"area": area, "seed": seed, "date": str(date.today()), "killed": killed, "line": mutant.line}
            with RESULTS.open("a") as file:
                print(json.dumps({**line, "key": mutant.key}), file=file)
            said = f"{'killed  ' if killed else 'SURVIVED'} {time.time() - start:4.1f} s, {len(chosen):3} tests, line"
            print(f"{said} {mutant.line} of", mutant.key.replace(" -> ", "\n    -> "), flush=True)


def document() -> None:
    """Bring docs/mutants.md up to date with the results; it keeps the reasons that it gives for survivors."""
    old, found = DOCUMENT.read_text(encoding="utf-8"), results().values()
    reasons = dict(re.findall(r"^- `` (.+?) ``: (?!to be looked at)(.*)$", old, re.MULTILINE))
    text = (
        old[: old.index("| Area")]
        + "| Area | Seed | Date | Mutants | Killed | | Change nothing |\n|---|---|---|---|---|---|---|\n"
    )
    for area in AREAS:
        ours = [each for each in found if each["area"] == area]
        if ours:
            last, killed = ours[-1], sum(each["killed"] for each in ours)
            nothing = sum(not each["killed"] and each["key"] in reasons for each in ours)
            share = f"{killed / len(ours):.0%} | {nothing}"
            text += f"| {area} | {last['seed']} | {last['date']} | {len(ours)} | {killed} | {share} |\n"
    text += "\n## Alive, and why\n\n"
    alive = sorted(each["key"] for each in found if not each["killed"])
    text += "".join(f"- `` {key} ``: {reasons.get(key, 'to be looked at')}\n" for key in alive)
    DOCUMENT.write_text(text, encoding="utf-8")
