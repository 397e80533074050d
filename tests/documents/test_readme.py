"""README.md does what it says: its code runs, its links lead somewhere. What it prints: ``test_generated.py``."""

import re
from pathlib import Path

import pytest
from support.processes import ROOT
from support.stand_in import StandIn

from shufflenetv2 import __version__
from tools.outputs import Block, Reader, prepare_reader, printed, read_blocks

README = ROOT / "README.md"
BLOCKS = read_blocks(README.read_text(encoding="utf-8"))
CLASSIFY, TEST = (next(block for block in BLOCKS if block.ci == name) for name in ("classify", "test"))
SILENT = [block for block in BLOCKS if block.output is None and block != TEST]


@pytest.fixture(scope="module")
def reader(stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return prepare_reader(stand_in, tmp_path_factory.mktemp("reader"))


@pytest.mark.slow
@pytest.mark.parametrize("block", SILENT, ids=lambda block: f"line-{block.line}")
def test_block_runs(block: Block, reader: Reader) -> None:
    printed(block, reader)


def test_the_gate_finds_its_two_blocks() -> None:
    for block in (CLASSIFY, TEST):
        assert "pip install" in block.code.splitlines()[0]
    assert CLASSIFY.output is not None
    assert "--weights cifar10" in CLASSIFY.code.splitlines()[-1]
    assert "-m pytest" in TEST.code.splitlines()[-1]


def test_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    linked = re.findall(r"\]\((?!https?://)([^)#]+)\)|<img src=\"([^\"]+)\"", text)
    missing = [path for pair in linked for path in pair if path and not (ROOT / path).exists()]
    assert not missing
    assert all('alt="' in image for image in re.findall(r"<img [^>]*>", text))


@pytest.mark.parametrize("document", ["README.md", "docs/shufflenet_v2.md", "docs/shufflenet_v2.ko.md"])
def test_the_hub_is_always_asked_for_a_release(document: str) -> None:
    for block in read_blocks((ROOT / document).read_text(encoding="utf-8")):
        for call in re.findall(r"hub\.load\(.*", block.code):
            assert f'"org/repo:v{__version__}"' in call
            assert "trust_repo=True" in call or "**load" in call


def test_claimed_python_versions_are_the_tested_ones() -> None:
    def versions(file: str, pattern: str) -> list[str]:
        return re.findall(pattern, Path(ROOT, file).read_text(encoding="utf-8"))

    tested = versions(".github/workflows/ci.yml", r'python-version: "3\.(\d+)"')
    oldest = min(tested, key=int)
    assert versions("pyproject.toml", r'requires-python = ">=3\.(\d+)"') == [oldest]
    assert versions("pyproject.toml", r'target-version = "py3(\d+)"') == [oldest]
    assert versions("README.md", r"Python 3\.(\d+)") == [oldest]
