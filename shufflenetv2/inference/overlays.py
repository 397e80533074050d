"""A folder of overlays: where the network looked, a picture for each photo."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from PIL.PngImagePlugin import PngInfo

from ..files import check_folder, expanded, read_regular, shown, whole_file
from ..photos.reading import OPEN_ALREADY
from ..photos.url import is_url
from .classifier import Classifier

MARK = b"shufflenetv2 --explain"  # in each overlay, so that it is known from a picture of the user's own
LONGEST_NAME = 160  # bytes of a photo's name that its overlay's name keeps: most file systems take 255


def check_sources(sources: Iterable[str], folder: Path) -> None:
    """Refuse what cannot be explained: each photo is read again, and an overlay must replace none.

    Raises:
        ValueError: saying which of the sources cannot be.
    """
    for source in sources:
        if source == "-" or OPEN_ALREADY.fullmatch(source):
            raise ValueError("what is piped in can be read once, and --explain reads each photo again; give a file")
        place = Path(expanded(source))
        place = place if place.is_dir() else place.parent
        if not is_url(source) and place.resolve() == folder.resolve():
            raise ValueError(f"{shown(source)} lies in the folder of --explain; choose another, which holds no photos")


class Overlays:
    """A folder with an overlay of each photo: NAME.png, and NAME-2.png of the next photo of that name.

    Args:
        folder: is made if need be.
        classifier: which answers.

    Raises:
        OSError: it cannot be made, or nothing can be written into it.
        ValueError: the weights are an exported file.
    """

    def __init__(self, folder: Path, classifier: Classifier) -> None:
        if classifier.weights.exported:
            raise ValueError("an exported file does not say where it looked; give the weights that it was made from")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            check_folder(folder)
        except OSError as error:
            raise OSError(
                f"overlays cannot be written into {shown(folder)}: {error.strerror}; name a folder"
            ) from error
        self.folder, self.explain = folder.resolve(), classifier.explain
        self.taken: set[str] = set()
        self.left_out = 0

    def others(self, photos: Iterable[Any]) -> Iterator[Any]:
        """``photos`` without the overlays of an earlier run, which are counted in ``left_out``."""
        for photo in photos:
            if not is_url(photo) and Path(photo).resolve().parent == self.folder and _is_overlay(Path(photo)):
                self.left_out += 1
            else:
                yield photo

    def write(self, photo: Any) -> Path:
        """Write the overlay of ``photo``, a path or an address.

        Raises:
            ImageError: it cannot be read again.
            ValueError: it cannot be explained.
            OSError: the file cannot be written, or another would be replaced that is no overlay.
        """
        name = PurePosixPath(urlsplit(str(photo)).path).name or "photo" if is_url(photo) else Path(photo).name
        name = name if len(os.fsencode(name)) <= LONGEST_NAME else name[-LONGEST_NAME // 4 :]
        path, again = self.folder / f"{name}.png", 1
        while path.name.lower() in self.taken:
            again += 1
            path = self.folder / f"{name}-{again}.png"
        self.taken.add(path.name.lower())
        if os.path.lexists(path) and not _is_overlay(path):
            raise FileExistsError(f"{shown(path)} is there, and is no overlay; choose another folder for --explain")
        said = PngInfo()
        said.add_text("Software", MARK.decode())
        with whole_file(path, ".png") as temporary:
            self.explain(photo).overlay().save(temporary, "PNG", pnginfo=said)
        return path


def _is_overlay(path: Path) -> bool:
    try:
        return MARK in read_regular(path, 1000)
    except OSError:  # gone, a pipe, not ours to read
        return False
