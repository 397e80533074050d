"""Tutorials and pages are run as they stand. What the tutorials' blocks print: ``test_generated.py``."""

import re
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from support.processes import ROOT
from support.skips import NOT_INSTALLED
from support.stand_in import StandIn

import shufflenetv2
from tools.outputs import Block, Reader, prepare_reader, printed, read_blocks

PAGES = ("docs/tutorial-photo.md", "docs/tutorial-fine-tune.md")
LATER = ("docs/why.md", "docs/phone.md")  # these speak of weights and of photos that a reader has by then


def blocks(pages: tuple[str, ...]) -> list[tuple[str, Block]]:
    return [(page, block) for page in pages for block in read_blocks((ROOT / page).read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def reader(stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return prepare_reader(stand_in, tmp_path_factory.mktemp("reader"))


@pytest.fixture(scope="module")
def equipped(stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """A reader with weights of their own, a photo, and as many labelled ones as calibration asks for.

    Most are of the cat, about which no network in fewer bits changes its mind; a few are in the wrong folder, so that a
    temperature is best.
    """
    reader = prepare_reader(stand_in, tmp_path_factory.mktemp("equipped"))
    bundled = shufflenetv2.shufflenet_v2_x0_5(weights="cifar10")
    model = shufflenetv2.shufflenet_v2_x0_5(weights="cifar10", num_classes=2)
    for own, known in ((model.fc.weight, bundled.fc.weight), (model.fc.bias, bundled.fc.bias)):
        own.data = known.data[[3, 1]]  # cat and automobile
    for name in ("mine", "first", "second"):
        shufflenetv2.save(model, reader.checkout / f"{name}.pth", categories=["cat", "coffee"])
    shutil.copy(reader.checkout / "images/cat.jpg", reader.checkout / "photo.jpg")
    photos = reader.checkout / "photos"
    for index in range(8, 190):
        shutil.copy(reader.checkout / "photo.jpg", photos / "cat" / f"{index}.jpg")
    for index in range(8, 20):
        of = "cat" if index < 12 else "coffee"
        shutil.copy(photos / of / f"{index % 8}.jpg", photos / "coffee" / f"{index}.jpg")
    return reader


@pytest.mark.slow
@pytest.mark.parametrize(("page", "block"), blocks(LATER), ids=lambda part: getattr(part, "line", part))
def test_block_of_a_later_page_runs(page: str, block: Block, equipped: Reader) -> None:
    try:
        printed(block, equipped)
    except PackageNotFoundError as error:
        pytest.skip(f"{NOT_INSTALLED}{error}, which line {block.line} needs")


@pytest.mark.slow
@pytest.mark.parametrize(("page", "block"), blocks(PAGES), ids=lambda part: getattr(part, "line", part))
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
