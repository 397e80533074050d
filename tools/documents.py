"""Everything that is generated, and what is stale of it."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from shufflenetv2.package import CHECKOUT

from . import faults, figures, notebook, outputs, release, screenshot, tables


@dataclass(frozen=True)
class Text:
    """A part of a document, as a function of the text around it."""

    path: str
    rewritten: Callable[[str], str]

    def __str__(self) -> str:
        return f"{self.path} ({self.rewritten.__module__.rpartition('.')[2]})"

    def stale(self) -> bool:
        text = (CHECKOUT / self.path).read_text(encoding="utf-8")
        return self.rewritten(text) != text

    def update(self) -> None:
        path = CHECKOUT / self.path
        old = path.read_text(encoding="utf-8")
        new = self.rewritten(old)
        if new != old:
            path.write_text(new, encoding="utf-8", newline="\n")


@dataclass(frozen=True)
class Picture:
    """A PNG file that carries the sha256 of what it was made from."""

    path: str
    origin: Callable[[Path], str]
    draw: Callable[[Path], None]

    def __str__(self) -> str:
        return self.path

    def stale(self) -> bool:
        path = CHECKOUT / self.path
        if not path.exists():
            return True
        with Image.open(path) as image:
            return bool(image.info.get("Origin") != self.origin(path))

    def update(self) -> None:
        if self.stale():
            self.draw(CHECKOUT / self.path)


CARDS = ("docs/shufflenet_v2.md", "docs/shufflenet_v2.ko.md")
DOCUMENTS = ("README.md", "docs/measurements.md", "docs/why.md", "docs/cifar10.md")
TUTORIALS = ("docs/tutorial-photo.md", "docs/tutorial-fine-tune.md")
PAGES = (*TUTORIALS, "docs/why.md")  # those that name a release
GENERATED: tuple[Text | Picture, ...] = (
    *(Text(path, release.rewritten) for path in ("README.md", "SECURITY.md", "CITATION.cff", *CARDS, *PAGES)),
    *(Text(path, tables.rewritten) for path in (*DOCUMENTS, *CARDS)),
    *(Picture(f"images/{name}", figures.origin, figures.draw) for name in figures.DRAWINGS),
    *(Text(path, outputs.rewritten) for path in ("README.md", *TUTORIALS)),
    Text("docs/tutorial.ipynb", release.rewritten),
    Text("docs/tutorial.ipynb", notebook.rewritten),
    Text("docs/faults.md", faults.rewritten),
    Picture("docs/demo.png", screenshot.origin, screenshot.draw),
)


def chosen(paths: Iterable[str]) -> list[Text | Picture]:
    """What is generated in ``paths``, everything if there are none.

    Raises:
        ValueError: nothing is generated in one of them.
    """
    paths = list(paths)
    for path in paths:
        if path not in {each.path for each in GENERATED}:
            raise ValueError(f"nothing in {path} is generated; there are {sorted({each.path for each in GENERATED})}")
    return [each for each in GENERATED if not paths or each.path in paths]


def update(paths: Iterable[str]) -> None:
    for each in chosen(paths):
        print(f"{each} ...", file=sys.stderr)
        each.update()


def check(paths: Iterable[str]) -> int:
    stale = [each for each in chosen(paths) if each.stale()]
    for each in stale:
        print(f"{each} is stale; type: python -m tools update {each.path}")
    return 1 if stale else 0
