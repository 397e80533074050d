"""What surrounds the code: its name, revision, files, log and optional packages, and how its objects are rebuilt.

A checkout, GitHub's archive, a wheel and the hub's private alias differ here and nowhere else.
"""

import difflib
import importlib.metadata
import importlib.util
import logging
import operator
import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from .errors import ManifestError

NAME = "shufflenetv2"
PACKAGE = Path(__file__).parent.resolve()  # the directory's links alone: each file may be one, into a store
BUNDLED = PACKAGE / "bundled"  # weights files that need no network
CATEGORIES = PACKAGE / "categories"
CHECKOUT = PACKAGE.parent  # or the archive that torch.hub unpacked; in a wheel's place, site-packages

# The commit this copy was archived from; empty in a work tree, filled in by `git archive` (see .gitattributes).
_STAMP = "$Format:%h %cs$"
REVISION = "" if _STAMP.startswith("$") else _STAMP

logger = logging.getLogger(NAME)


def manifest_path() -> Path:
    """``weights.json``: inside the package in a wheel, else beside ``hubconf.py``.

    Raises:
        ManifestError: it is in neither place, or in an archive that is not unpacked.
    """
    inside, beside = PACKAGE / "weights.json", CHECKOUT / "weights.json"
    if inside.is_file():
        return inside
    if beside.is_file() and (CHECKOUT / "hubconf.py").is_file():
        return beside
    if not PACKAGE.is_dir():
        raise ManifestError(f"weights.json cannot be read within an archive: unpack it, and import {NAME} from there")
    raise ManifestError(f"weights.json is missing: expected {inside}, or {beside} beside hubconf.py; install again")


def sample_photos() -> list[Path]:
    """The sample photos: inside the package in a wheel, else in ``images/`` of the checkout or archive."""
    inside = PACKAGE / "samples"
    return sorted((inside if inside.is_dir() else CHECKOUT / "images").glob("*.jpg"))


def installed_version(name: str) -> str | None:
    """The version of the package ``name``; ``None`` where its installation does not say."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def guess(text: str, names: Iterable[str]) -> str:
    """``; did you mean 'NAME'?``, or nothing where no name is like ``text``."""
    near = difflib.get_close_matches(text.lower(), names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def count(name: str, value: Any, least: int, most: int = 10**12) -> int:
    """``value``, a count that a user gave: any whole number will do, NumPy's too.

    Raises:
        TypeError: it is none.
        ValueError: it is below ``least`` or above ``most``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} is a whole number, got {value!r:.80} (a {type(value).__name__})")
    if not least <= number <= most:
        raise ValueError(f"{name} must be from {least} to {most:,}, got {number}")
    return number


def missing(requirements: Iterable[str]) -> list[str]:
    """Those of the ``requirements``, as pip takes them (``"pillow>=12.3"``), whose package is not installed."""
    modules = {each: each.partition(">")[0].partition("[")[0] for each in requirements}
    return [each for each, name in modules.items() if not importlib.util.find_spec({"pillow": "PIL"}.get(name, name))]


def outdated(requirements: Iterable[str]) -> dict[str, str]:
    """The installed versions of those of the ``requirements`` that ask for a later one."""
    found = {each: installed_version(each.partition(">")[0]) or "" for each in requirements}
    least = {each: each.partition(">=")[2].partition(",")[0] for each in requirements}
    return {each: version for each, version in found.items() if version and _numbers(version) < _numbers(least[each])}


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3]]


def require(purpose: str, *requirements: str) -> None:
    """Refuse to go on without optional packages.

    Raises:
        ImportError: naming ``purpose``, the packages that are missing or too old, and the line for pip.
    """
    lacking, old = missing(requirements), outdated(requirements)
    if lacking or old:
        names = ", ".join(each.partition(">")[0].partition("[")[0] for each in lacking)
        reasons = [f"{names}, which {'is' if len(lacking) == 1 else 'are'} not installed"] * bool(lacking)
        reasons += [f"{each} (version {version} is installed)" for each, version in old.items() if each not in lacking]
        quoted = " ".join(f"'{each}'" if ">" in each else each for each in dict.fromkeys((*lacking, *old)))
        raise ImportError(f"{purpose} needs {' and '.join(reasons)}; type: pip install {quoted}")


def limit(variable: str, default: float) -> float:
    """A bound that users may raise: the number in the environment's ``variable``, else ``default``.

    Raises:
        ValueError: it is set to something else than a number above 0 (in whole numbers, from 1 up).
    """
    text = os.environ.get(variable, "").strip()
    with suppress(ValueError):
        value = float(text or default)
        if (1 if isinstance(default, int) else 1e-9) <= value < float("inf"):
            return value
    raise ValueError(f"the environment variable {variable} must be a number above 0, got {text!r:.40}")


def offline() -> bool:
    """Whether ``SHUFFLENETV2_OFFLINE`` forbids the network."""
    return os.environ.get("SHUFFLENETV2_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")


def progress_bar(total: int | None, unit: str, *, shown: bool | None = None, **options: Any) -> Any:
    """A bar on stderr: tqdm's where it is installed, else the plain one that torch.hub shows.

    ``shown=None`` is the rule for commands: on a terminal only, so that a log file gets lines alone.
    """
    import torch.hub  # `--help` need not wait for torch

    shown = sys.stderr.isatty() if shown is None else shown
    return torch.hub.tqdm(total=total, unit=unit, disable=not shown, **options)  # type: ignore[attr-defined]


def made_by_hub(module: str = __name__) -> bool:
    """Whether ``module``'s package was imported by ``hubconf.py`` under a private name; without one, this copy."""
    return module.startswith(f"_{NAME}_")


def hub_call(entry_point: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """A ``__reduce__`` value: load ``entry_point`` with these arguments from this copy's directory.

    The private name cannot be imported in another process, a spawned DataLoader worker for one; ``torch.hub`` can.
    """
    import torch.hub

    return partial(torch.hub.load, source="local", **kwargs), (str(CHECKOUT), entry_point, *args)
