"""What a release consists of: the archive that torch.hub downloads, and the files that describe it."""

import os
from pathlib import Path

import pytest
from support.processes import ROOT, run, run_module, run_python
from support.repository import archive, unpacked_archive

from shufflenetv2 import __version__
from shufflenetv2.weights.manifest import load_manifest


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What GitHub makes of HEAD, by git archive and the rules of .gitattributes."""
    return unpacked_archive(tmp_path_factory.mktemp("archive"))


def test_the_archive_is_small_and_leaves_out_documents(unpacked: Path) -> None:
    assert len(archive()) < 3_000_000
    assert not [name for name in ("docs", "tools", "tests/documents") if (unpacked / name).exists()]
    assert not list(unpacked.rglob("*.png"))
    assert (unpacked / "images/cat.jpg").is_file()


def test_the_archive_knows_its_revision(unpacked: Path) -> None:
    revision = run("git", "log", "-1", "--format=%h %cs").stdout.strip()
    shown = run_module("shufflenetv2", "--version", cwd=unpacked).stdout
    assert shown == f"shufflenetv2 {__version__} ({revision})\n"


@pytest.mark.slow
def test_the_archive_loads_and_lists(unpacked: Path) -> None:
    program = """
import torch
model = torch.hub.load(".", "shufflenet_v2_x0_5", source="local")
print(model(torch.rand(2, 3, 64, 64)).shape[1], len(torch.hub.load(".", "categories", source="local")))
"""
    assert run_python(program, cwd=unpacked, env=dict(os.environ)).stdout == "1000 1000\n"


@pytest.mark.slow
def test_the_archive_passes_its_tests(unpacked: Path) -> None:
    """Every test file is collected; the one that reads the copy's own manifest is run."""
    result = run_module("pytest", "-q", "-p", "no:cacheprovider", "-k", "test_manifest", cwd=unpacked, check=False)
    assert result.returncode == 0, result.stdout[-3000:]


def test_the_files_of_a_release_agree() -> None:
    assert (ROOT / "CITATION.cff").read_text(encoding="utf-8").startswith("cff-version: 1.2.0\n")
    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "BSD 3-Clause" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert sum(entry.size for entry in load_manifest() if entry.path) < 1_700_000
