"""The tutorials are run as they stand. What their blocks print is compared by ``test_generated.py``."""

import re
from pathlib import Path

import pytest
from support.processes import ROOT
from support.stand_in import StandIn

from tools.outputs import Block, Reader, prepare_reader, printed, read_blocks

PAGES = ("docs/tutorial-photo.md", "docs/tutorial-fine-tune.md")
BLOCKS = [(page, block) for page in PAGES for block in read_blocks((ROOT / page).read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def reader(stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return prepare_reader(stand_in, tmp_path_factory.mktemp("reader"))


@pytest.mark.slow
@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=lambda part: getattr(part, "line", part))
def test_block_runs(page: str, block: Block, reader: Reader) -> None:
    """One after the other: later blocks use what earlier ones wrote."""
    if block.output is None:
        printed(block, reader)


@pytest.mark.parametrize("page", [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page: str) -> None:
    folder, text = (ROOT / page).parent, (ROOT / page).read_text(encoding="utf-8")
    linked = re.findall(r"\]\((?!https?://)([^)#\s]+)", text)
    assert [each for each in linked if not (folder / each).exists()] == []


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    pages = {Path(path).name for path in (ROOT / "docs").glob("*") if path.suffix in (".md", ".ipynb")} - {"index.md"}
    assert {page for page in pages if f"({page})" not in index} == set()
