"""Mutation testing: change the package in one place, and see whether the tests of its area notice.

mutmut and cosmic-ray choose no sample by a seed and start a process per mutant; this imports torch once, forks for each
mutant, and runs the tests that execute the mutated line, the quickest first, in a copy of the work tree.
"""

import hashlib
import inspect
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
from datetime import date
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import hypothesis  # noqa: F401  # what tests import, once for all forks
import matplotlib.pyplot  # noqa: F401
import pytest
import torchvision  # noqa: F401

from shufflenetv2.package import CHECKOUT

from .areas import AREAS, RESULTS, results, write_page
from .mutants import Mutant, mutants

Tests = dict[str, tuple[float, list[str]]]  # by name: seconds, and what it executes, as in "package.py:20"


class Tracer:
    """Has pytest write into ``file`` how long each test takes, and which lines in ``package`` it executes."""

    def __init__(self, package: Path, file: Path) -> None:
        self.package, self.file = f"{package}/", file
        self.tests: Tests = {}
        self.lines: set[str] = set()

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(self.package):
            return None
        if frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # in a function: what an import executes, all tests execute
            self.lines.add(f"{frame.f_code.co_filename[len(self.package) :]}:{frame.f_lineno}")
        return self.trace

    def pytest_sessionstart(self) -> None:
        threading.settrace(self.trace)
        sys.settrace(self.trace)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        seconds, lines = self.tests.get(report.nodeid, (0.0, []))
        self.tests[report.nodeid] = (seconds + (report.duration if report.passed else 1e9), [*lines, *self.lines])
        self.lines.clear()

    def pytest_sessionfinish(self) -> None:
        sys.settrace(None)
        self.file.write_text(json.dumps(self.tests))


def passes(root: Path, plugin: object, seconds: float, *options: str) -> bool:
    """Whether pytest, in a fork of this process, ends well within ``seconds``."""

    def run() -> None:
        os.setsid()
        os.chdir(root)
        sys.dont_write_bytecode = True
        for name in [each for each in sys.modules if each.partition(".")[0] in ("shufflenetv2", "tools")]:
            del sys.modules[name]  # the copy's are imported instead
        status = pytest.main(["-p", "no:cacheprovider", "--assert=plain", *options], plugins=[plugin])
        sys.stdout.flush()
        os._exit(status)

    fork = multiprocessing.get_context("fork").Process(target=run)
    fork.start()
    fork.join(seconds)
    if fork.is_alive() and fork.pid:
        os.killpg(fork.pid, signal.SIGKILL)
        fork.join()
    return fork.exitcode == 0


def tests_of(area: str, root: Path, slow: bool) -> Tests:
    """The area's tests; they are run once for each state of the code."""
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(root.rglob("*.py")))).hexdigest()[:16]
    file = RESULTS.with_name(f"{'all' if slow else 'quick'}-tests-{area}-{code}.json")
    if not file.exists():
        paths = [f"tests/{each}" for each in (*AREAS[area][1].split(), "test_details.py")]
        passes(root, Tracer(root / "shufflenetv2", file), 3600, "-q", "-m", "" if slow else "not slow", *paths)
    return dict(json.loads(file.read_text()))


def chosen_tests(tests: Tests, mutant: Mutant, budget: float) -> list[str]:
    """The quickest of those that execute the line, then others of their files, with which they may share fixtures."""
    near = [name for name, test in tests.items() if test[0] <= budget and f"{mutant.file}:{mutant.line}" in test[1]]
    if not near:  # an import or TorchScript executes it: then those that execute any of the file, longer ones too
        near = [name for name, test in tests.items() if any(line.startswith(f"{mutant.file}:") for line in test[1])]
        budget *= 4
    files = {name.partition("::")[0] for name in near}
    beside = [name for name in tests if name not in near and name.partition("::")[0] in files]
    names = [name for part in (near, beside) for name in sorted(part, key=lambda name: tests[name][0])]
    spent = itertools.accumulate(tests[name][0] for name in names)
    return [name for name, seconds in zip(names, spent, strict=True) if seconds <= budget]


def survives(mutant: Mutant, root: Path, chosen: list[str], seconds: float) -> bool:
    """Whether the chosen tests pass with ``mutant`` in the copy of the work tree in ``root``."""

    def choose(items: list[pytest.Item]) -> None:
        named = {each.nodeid: each for each in items}
        items[:] = [named[name] for name in chosen if name in named]

    path, files = root / "shufflenetv2" / mutant.file, sorted({name.partition("::")[0] for name in chosen})
    data = path.read_bytes()
    path.write_bytes(data[: mutant.begin] + mutant.new.encode() + data[mutant.end :])
    plugin, options = SimpleNamespace(pytest_collection_modifyitems=choose), ("-p", "no:terminal", "-x")
    survived = not chosen or passes(root, plugin, seconds, *options, *files)
    path.write_bytes(data)
    return survived


def try_area(area: str, seed: int, count: int, again: bool, slow: bool, budget: float) -> None:
    found, killed = list(mutants(AREAS[area][0])), {key: each["killed"] for key, each in results().items()}
    drawn = found if again else random.Random(f"{seed} {area}").sample(found, min(count, len(found)))
    sample = [mutant for mutant in drawn if killed.get(mutant.key) is (False if again else None)]
    ignored = [Path(each).name for each in (CHECKOUT / ".gitignore").read_text().split()]
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        root = shutil.copytree(CHECKOUT, Path(folder, "copy"), ignore=shutil.ignore_patterns(".git", *ignored))
        tests = tests_of(area, root, slow)
        for mutant in sample:
            survived = survives(mutant, root, chosen_tests(tests, mutant, budget), 20 + 4 * budget)
            line = {"area": area, "seed": seed, "date": str(date.today()), "killed": not survived, "line": mutant.line}
            with RESULTS.open("a") as file:
                print(json.dumps({**line, "key": mutant.key}), file=file)
            print("SURVIVED" if survived else "killed  ", f"line {mutant.line} of {mutant.key}", flush=True)


def mutate(area: str | None, document: bool, **how: Any) -> None:
    """Try mutants of an area, or of each; ``document``: write docs/mutants.md, and no more."""
    if document:
        write_page()
        return
    RESULTS.parent.mkdir(exist_ok=True)
    for each in [area] if area else AREAS:
        try_area(each, **how)
