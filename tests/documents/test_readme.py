"""README.md does what it says: its code runs, its links lead somewhere. What it prints: ``test_generated.py``."""

import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from support.processes import ROOT, run
from support.skips import NOT_INSTALLED
from support.stand_in import StandIn

from shufflenetv2 import __version__
from shufflenetv2.weights.manifest import find_entry
from tools.environments import closure, make_environment
from tools.outputs import HUB, Reader, prepare_reader, printed, read_blocks

README = ROOT / "README.md"
BLOCKS = read_blocks(README.read_text(encoding="utf-8"))
CLASSIFY, TEST = (next(block for block in BLOCKS if block.ci == name) for name in ("classify", "test"))
SILENT = [block for block in BLOCKS if block.output is None and block != TEST]


@pytest.fixture(scope="module")
def reader(stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return prepare_reader(stand_in, tmp_path_factory.mktemp("reader"))


@pytest.mark.slow
def test_blocks_run_one_after_the_other(reader: Reader) -> None:
    """Each in an environment that holds what it names, and nothing else; what they print: ``test_generated.py``."""
    for block in SILENT:
        try:
            printed(block, reader)
        except PackageNotFoundError as error:
            pytest.skip(f"{NOT_INSTALLED}{error}, which line {block.line} needs")


def test_the_gate_finds_its_two_blocks_of_one_line() -> None:
    for block in (CLASSIFY, TEST):
        assert re.fullmatch(r"python3 -m venv \.venv && \.venv/bin/pip install .* && .*\n", block.code)
    assert CLASSIFY.output is not None
    assert "classify images/cat.jpg --weights cifar10" in CLASSIFY.code
    assert "-m pytest" in TEST.code


def test_after_the_two_lines_nothing_names_their_environment() -> None:
    """The text says once to activate it."""
    text = README.read_text(encoding="utf-8")
    assert ".venv" not in text[text.index("source .venv/bin/activate") + 25 :]


@pytest.mark.slow
def test_an_environment_holds_what_is_named_and_no_more(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "environment", HUB) / "python"
    program = "import importlib.util as u, torch, requests, PIL; print(*(bool(u.find_spec(name)) for name in {!r}))"
    found = run(python, "-c", program.format(("torchvision", "pytest", "onnx", "shufflenetv2")), cwd=tmp_path)
    assert found.stdout == "False False False False\n"
    with pytest.raises(PackageNotFoundError, match="no-such-package"):
        closure(["no-such-package"])
    with pytest.raises(PackageNotFoundError, match="torch<1"):
        closure(["torch<1"])


def test_the_comparison_shows_the_accuracy_of_the_manifest() -> None:
    accuracy = find_entry("shufflenet_v2_x0_5", "cifar10_v2").metrics.acc1
    assert f"CIFAR-10 (x0.5: {accuracy:.1f} %, bundled)" in README.read_text(encoding="utf-8")


def test_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    linked = re.findall(r"\]\((?!https?://)([^)#]+)\)|<img src=\"([^\"]+)\"", text)
    missing = [path for pair in linked for path in pair if path and not (ROOT / path).exists()]
    assert not missing
    assert all('alt="' in image for image in re.findall(r"<img [^>]*>", text))


@pytest.mark.parametrize("document", ["README.md", "docs/shufflenet_v2.md", "docs/shufflenet_v2.ko.md", "docs/why.md"])
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
