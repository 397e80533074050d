"""A folder of overlays: where the network looked, a picture for each photo."""

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from ..files import shown, whole_file
from ..photos.url import is_url
from .explain import Explanation

LONGEST_NAME = 160  # bytes of a photo's name that its overlay's name keeps: most file systems take 255


class Overlays:
    """A folder with an overlay of each photo: NAME.png, and NAME-2.png of the next photo of that name.

    Args:
        folder: is made if need be.
        explain: ``Classifier.explain``.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, folder: Path, explain: Callable[[Any], Explanation]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.explain = folder.resolve(), explain
        self.taken: set[str] = set()

    def write(self, photo: Any) -> Path:
        """Write the overlay of ``photo``, a path or an address.

        Raises:
            ValueError: the photo lies in the folder itself, where overlays might replace photos; or it cannot be
                explained.
            OSError: the file cannot be written.
        """
        if is_url(photo):
            name = PurePosixPath(urlsplit(str(photo)).path).name or "photo"
        elif Path(photo).resolve().parent == self.folder:
            raise ValueError(f"{shown(photo)} lies in the folder of --explain; choose another, which holds no photos")
        else:
            name = Path(photo).name
        name = name if len(os.fsencode(name)) <= LONGEST_NAME else name[-LONGEST_NAME // 4 :]
        path, again = self.folder / f"{name}.png", 1
        while path.name.lower() in self.taken:
            again += 1
            path = self.folder / f"{name}-{again}.png"
        self.taken.add(path.name.lower())
        with whole_file(path, ".png") as temporary:
            self.explain(photo).overlay().save(temporary, "PNG")
        return path
