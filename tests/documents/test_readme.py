"""README.md does what it says: every block of code runs, and prints what stands below it."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, StandIn
from PIL import Image
from support.documents import Block, check_tables, hub_home, read_blocks, replace_output

README = ROOT / "README.md"
BLOCKS = [block for block in read_blocks(README) if block.language in ("python", "sh")]
CLASSIFY, TEST = (next(block for block in BLOCKS if block.ci == name) for name in ("classify", "test"))


@pytest.fixture(scope="module")
def checkout(stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader stands: a checkout, with the folders of photos that the text speaks of."""
    directory = tmp_path_factory.mktemp("reader") / "checkout"
    shutil.copytree(stand_in.repository, directory)
    shutil.copytree(ROOT / "images", directory / "images", dirs_exist_ok=True)
    for folder, photo in (("photos/cat", "cat.jpg"), ("photos/coffee", "coffee.jpg")):
        (directory / folder).mkdir(parents=True)
        with Image.open(ROOT / "images" / photo) as image:
            for index in range(8):
                image.crop((5 * index, 3 * index, 256 + 5 * index, 256 + 3 * index)).save(
                    directory / folder / f"{index}.jpg"
                )
    for wordnet_id, photo in (("n02123159", "cat.jpg"), ("n07930864", "coffee.jpg")):  # tiger cat, cup
        folder = directory / "imagenet/val" / wordnet_id
        folder.mkdir(parents=True)
        shutil.copy(ROOT / "images" / photo, folder)
    return directory


@pytest.fixture(scope="module")
def home(stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("reader-home")
    hub_home(stand_in, directory)
    return directory


def same(printed: str, shown: str) -> bool:
    """Equal, but for the last digits of percentages, in which CPUs differ."""
    ours, theirs = printed.split(), shown.split()
    return len(ours) == len(theirs) and all(
        a == b or (a[-1] == b[-1] == "%" and abs(float(a[:-1]) - float(b[:-1])) < 0.5)
        for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize(
    "block",
    [
        block if block.ci is None else replace(block, code=block.code.splitlines()[-1])
        for block in BLOCKS
        if block != TEST
    ],
    ids=lambda block: f"line-{block.line}",
)
def test_block_runs_and_prints_what_is_shown(
    block: Block, stand_in: StandIn, checkout: Path, home: Path, pytestconfig: pytest.Config
) -> None:
    code = block.code.replace(".venv/bin/python ", "python ")
    command = ["bash", "-euo", "pipefail", "-c", code] if block.language == "sh" else [sys.executable, "-c", code]
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        command,
        cwd=checkout,
        env=stand_in.environment(home, PATH=tools),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert not re.search("warning|traceback", result.stderr, re.IGNORECASE), result.stderr
    if block.output is None:
        return
    if pytestconfig.getoption("update"):
        replace_output(README, block.code, result.stdout)
    else:
        assert same(result.stdout, block.output), result.stdout


def test_the_gate_finds_its_two_blocks() -> None:
    for block in (CLASSIFY, TEST):
        assert "pip install" in block.code.splitlines()[0]
    assert CLASSIFY.output is not None
    assert "--weights cifar10" in CLASSIFY.code.splitlines()[-1]
    assert TEST.code.splitlines()[-1].endswith("-m pytest")


@pytest.mark.parametrize("document", ["README.md", "docs/performance.md"])
def test_tables_come_from_the_data(document: str, pytestconfig: pytest.Config) -> None:
    check_tables(ROOT / document, pytestconfig.getoption("update"))


def test_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    linked = re.findall(r"\]\((?!https?://)([^)#]+)\)|<img src=\"([^\"]+)\"", text)
    missing = [path for pair in linked for path in pair if path and not (ROOT / path).exists()]
    assert not missing
    assert all('alt="' in image for image in re.findall(r"<img [^>]*>", text))


def test_the_hub_is_always_asked_for_a_release() -> None:
    for document in (README, *sorted((ROOT / "docs").glob("shufflenet_v2*.md"))):
        for block in read_blocks(document):
            for call in re.findall(r"hub\.load\(.*", block.code):
                assert '"org/repo:v1.0.0"' in call, f"{document.name}: {call}"
                assert "trust_repo=True" in call or "**load" in call, f"{document.name}: {call}"
