"""What other machines install is enough for what they run there: the jobs of the workflow, and Binder's notebook."""

import os
import re
import shlex
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from conftest import JOBS
from support.processes import ROOT, run
from support.skips import NOT_INSTALLED

from tools.environments import make_environment

WORKFLOW = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
INSTALLED = re.findall(
    r"- run: python -m pip install -e '\.(\[\w+\])' (.*)\n +- run: python -m pytest -m (\w+)\n", WORKFLOW
)


def test_each_job_of_the_workflow_is_known_to_the_tests() -> None:
    assert {job for _, _, job in INSTALLED} == set(JOBS)
    assert "run: |\n" in WORKFLOW
    assert "bash .ci/run\n" in WORKFLOW


@pytest.mark.slow
@pytest.mark.parametrize(("extra", "others", "job"), INSTALLED, ids=[job for _, _, job in INSTALLED])
def test_a_job_finds_what_its_tests_import(extra: str, others: str, job: str, tmp_path: Path) -> None:
    packages = shlex.split(others.partition("--extra-index-url")[0])
    try:
        python = make_environment(tmp_path / "environment", [f"shufflenetv2{extra}", *packages]) / "python"
    except PackageNotFoundError as error:
        pytest.skip(f"{NOT_INSTALLED}{error}")
    environment = {**os.environ, "CI": "true", "PYTHONPATH": str(ROOT)}
    collected = run(
        python, "-m", "pytest", "-q", "--collect-only", "-m", job, "-p", "no:cacheprovider", env=environment
    )
    assert {test.partition("::")[0] for test in collected.stdout.splitlines() if "::" in test}


def test_binder_has_what_the_notebook_imports() -> None:
    """Versions as everywhere else, and a Python that may have them."""
    lines = (ROOT / ".binder/requirements.txt").read_text(encoding="utf-8").splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    vision = [each for each in project["optional-dependencies"]["train"] if each.startswith("torchvision")]
    assert sorted(line for line in lines if not line.startswith("-")) == sorted([*project["dependencies"], *vision])
    version = (ROOT / ".binder/runtime.txt").read_text(encoding="utf-8").strip().removeprefix("python-")
    assert f'python-version: "{version}"' in WORKFLOW
