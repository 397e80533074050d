"""Imports inside the package point one way, wherever in a file they stand: each floor knows those before it alone."""

import ast
import graphlib
import re

from support.processes import ROOT

FLOORS = (
    "package errors files devices description transport", "network weights photos", "naming rebuilding", "saving",
    "builder", "exporting", "computing", "inference", "evaluation", "benchmarking tables training service",
    "documentation", "entrypoints commands", "__init__ __main__",
)  # fmt: skip
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms.split()}
FILES = {path.relative_to(ROOT / "shufflenetv2").with_suffix("").parts: path.read_text(encoding="utf-8")
         for path in (ROOT / "shufflenetv2").rglob("*.py")}  # fmt: skip


def imports(file: tuple[str, ...]) -> set[tuple[str, ...]]:
    nodes = [node for node in ast.walk(ast.parse(FILES[file])) if isinstance(node, ast.ImportFrom) and node.level]
    modules = [(file[: -node.level] + tuple((node.module or "").split(".")), node.names) for node in nodes]
    named = {(tuple(filter(None, module)), each.name) for module, names in modules for each in names}
    return {(*module, name) if (*module, name) in FILES else module for module, name in named} - {()}  # __version__


def test_imports_point_one_way() -> None:
    graph = {file: imports(file) for file in FILES}
    for file, target in ((file, target) for file, targets in graph.items() for target in targets):
        same = file[0] == target[0] or FLOOR[file[0]] == FLOOR[target[0]] == 0
        assert same or FLOOR[target[0]] < FLOOR[file[0]], f"{file} must not import {target}"
        assert target[0] != "commands" or target[1] == "options", f"{file} imports the command {target[1]}"
    graphlib.TopologicalSorter(graph).prepare()  # refuses circles
    assert [file for file in FILES if file[-1] == "__init__" and len(file) > 1 and FILES[file]] == []


def test_the_map_names_what_there_is() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("Imports point one way")[0]
    rooms = re.findall(r"^\| (`shufflenetv2/(\w+/(?:\w+/)?)`.*?) \|(.*)\|$", text, re.MULTILINE)
    assert len(rooms) >= 9
    for _, room, told in rooms:
        for name in re.findall(r"`(\w+)`", told):
            assert (ROOT / "shufflenetv2" / room / f"{name}.py").exists(), (room, name)
    ground = text.partition("ground floor up:")[2]
    names = {name for row in re.findall(r"^\| (`.*?) \|", ground, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert names == {file[0] for file in FILES if len(file) == 1}
