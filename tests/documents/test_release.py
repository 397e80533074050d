"""What a release consists of: the archive that torch.hub downloads, and the files that describe it."""

import io
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, run_python

from shufflenetv2 import __version__
from shufflenetv2.weights.manifest import load_manifest


@pytest.fixture(scope="module")
def archive() -> bytes:
    """What GitHub makes of HEAD, by git archive and the rules of .gitattributes."""
    command = ["git", "archive", "--format=zip", "--worktree-attributes", "--prefix=repo/", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def unpacked(archive: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("archive")
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        file.extractall(directory)
    return directory / "repo"


def test_the_archive_is_small_and_leaves_out_documents(archive: bytes, unpacked: Path) -> None:
    assert len(archive) < 3_000_000
    assert not (unpacked / "docs").exists()
    assert not list(unpacked.rglob("*.png"))
    assert (unpacked / "images/cat.jpg").is_file()


def test_the_archive_knows_its_revision(unpacked: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "shufflenetv2", "--version"], cwd=unpacked, capture_output=True, text=True, check=True
    ).stdout
    revision = subprocess.run(
        ["git", "log", "-1", "--format=%h %cs"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert shown == f"shufflenetv2 {__version__} ({revision})\n"


def test_the_archive_loads_and_lists(unpacked: Path) -> None:
    program = """
import torch
model = torch.hub.load(".", "shufflenet_v2_x0_5", source="local")
print(model(torch.rand(2, 3, 64, 64)).shape[1], len(torch.hub.load(".", "categories", source="local")))
"""
    assert run_python(program, cwd=unpacked, env=dict(os.environ)).stdout == "1000 1000\n"


def test_the_archive_passes_its_tests(unpacked: Path) -> None:
    """Every test file can be collected; two that read the copy's own files are run."""
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    for arguments in (["--collect-only"], ["tests/weights/test_manifest.py", "tests/test_entrypoints.py"]):
        result = subprocess.run([*run, *arguments], cwd=unpacked, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout[-3000:]


def test_the_files_of_a_release_agree() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^version: {re.escape(__version__)}$", citation, re.MULTILINE)
    assert citation.startswith("cff-version: 1.2.0\n")
    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "BSD 3-Clause" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert sum(entry.size for entry in load_manifest() if entry.path) < 1_700_000
