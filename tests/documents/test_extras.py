"""Each extra suffices for what it names, in an environment that holds nothing else; those of README.md: there."""

import os
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from support.processes import ROOT, run
from support.skips import NOT_INSTALLED

from shufflenetv2.network.formats.table import FORMATS
from tools.environments import make_environment

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]

pytestmark = pytest.mark.slow


def python_with(extra: str | None, directory: Path) -> Path:
    """The interpreter of an environment with the package's requirements, and those of ``extra``."""
    try:
        return make_environment(directory, [f"shufflenetv2[{extra}]" if extra else "shufflenetv2"]) / "python"
    except PackageNotFoundError as error:
        pytest.skip(f"{NOT_INSTALLED}{error}")


def typed(python: Path, *arguments: object) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return str(run(python, "-m", "shufflenetv2", *arguments, cwd=ROOT, env=environment).stdout)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_needs_its_extra_alone(name: str, tmp_path: Path) -> None:
    """torch's own need none, and so no NumPy."""
    python = python_with(name if name in EXTRAS else None, tmp_path / "environment")
    form = FORMATS[name]
    file = tmp_path / ("cat" if form.folder else f"cat{form.parts[0]}")
    typed(python, "export", "--format", name, "--weights", "cifar10", "-o", file)
    assert typed(python, "classify", ROOT / "images/cat.jpg", "--weights", file).split()[2] == "cat"


def test_completion_needs_its_extra_alone(tmp_path: Path) -> None:
    assert "shufflenetv2" in typed(python_with("completion", tmp_path / "environment"), "completion", "bash")
