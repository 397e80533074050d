"""Virtual environments that hold what one line of pip would install, and nothing else, without installing it again.

Every installed file of the named distributions, and of all that they require, is linked to from a new environment. What
they do not require is not there, so that an import of it fails as it would for a reader.
"""

import os
import sysconfig
import tomllib
import venv
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from shufflenetv2.package import CHECKOUT

OWN = "shufflenetv2"


@cache
def installed() -> dict[str, Distribution]:
    """By name; the first on ``sys.path``, as an import finds it."""
    found: dict[str, Distribution] = {}
    for each in distributions():
        found.setdefault(canonicalize_name(each.name), each)
    return found


def required(requirement: Requirement) -> Iterator[Requirement]:
    """What ``requirement`` asks for in its turn; of this package, by pyproject.toml."""
    if requirement.name == OWN:
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        lines = [*project["dependencies"]]
        for extra in requirement.extras:
            lines += project["optional-dependencies"][extra]
    else:
        lines = installed()[canonicalize_name(requirement.name)].requires or []
    for each in map(Requirement, lines):
        extras = [{"extra": extra} for extra in (*requirement.extras, "")]
        if each.marker is None or any(each.marker.evaluate(extra) for extra in extras):
            yield each


def closure(lines: Iterable[str]) -> set[str]:
    """The names of all distributions that pip would install for ``lines``.

    Raises:
        PackageNotFoundError: this environment lacks one of them, or has another version than is asked for.
    """
    names: set[str] = set()
    seen: set[str] = set()
    waiting = [Requirement(line) for line in lines]
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        name = canonicalize_name(requirement.name)
        if name != OWN:
            if name not in installed() or not requirement.specifier.contains(installed()[name].version, True):
                raise PackageNotFoundError(str(requirement))
            names.add(name)
        waiting += required(requirement)
    return names


@cache
def owners() -> dict[Path, dict[str, set[str]]]:
    """For each folder that packages are installed in: its files' and folders' paths, and who has files in them."""
    found: dict[Path, dict[str, set[str]]] = {}
    for name, distribution in installed().items():
        root = Path(str(distribution.locate_file(""))).resolve()
        paths = found.setdefault(root, {})
        for file in distribution.files or ():
            parts = file.parts
            if parts[0] == ".." or "__pycache__" in parts:
                continue
            for length in range(1, len(parts) + 1):
                paths.setdefault("/".join(parts[:length]), set()).add(name)
    return found


def link(root: Path, target: Path, names: set[str]) -> None:
    """Make ``target`` show the files in ``root`` that belong to ``names``: a folder of theirs alone as one link."""
    mixed: set[str] = set()
    for path, belongs in sorted(owners()[root].items()):
        parent = path.rpartition("/")[0]
        if (parent and parent not in mixed) or not belongs & names or not (root / path).exists():
            continue
        if belongs <= names or not (root / path).is_dir():
            (target / path).symlink_to(root / path)
        else:
            (target / path).mkdir()
            mixed.add(path)


def make_environment(directory: Path, lines: Iterable[str]) -> Path:
    """Make a virtual environment with pip and what ``lines`` require; return its folder of programs.

    ``lines`` are requirements as of pip; ``shufflenetv2[train]`` stands for what it requires, without the package.

    Raises:
        PackageNotFoundError: this environment lacks something.
    """
    names = closure((*lines, "pip"))
    venv.create(directory, with_pip=False)
    paths = {"base": str(directory), "platbase": str(directory)}
    target = Path(sysconfig.get_path("purelib", "venv", paths))
    for root in owners():
        link(root, target, names)
    programs = Path(sysconfig.get_path("scripts", "venv", paths))
    for name in names:
        for entry in installed()[name].entry_points.select(group="console_scripts"):
            script = programs / entry.name
            script.write_text(
                f"#!{programs / 'python'}\nimport sys\nfrom {entry.module} import {entry.attr.partition('.')[0]}\n"
                f"sys.exit({entry.attr}())\n"
            )
            script.chmod(0o755)
    return programs


def environment(programs: Path, wheels: Path) -> dict[str, str]:
    """What a process needs that is to live there; its pip finds ``wheels``, and asks no index."""
    return {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(programs.parent),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def fetch_backend(wheels: Path) -> None:
    """Fetch what builds this package, the only thing that pip still has to find in such an environment."""
    from support.processes import run_module

    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    run_module("pip", "download", "-q", "-d", wheels, *project["build-system"]["requires"])
