"""The photos in folders, and what was left out of them: nothing is passed over without a word."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..errors import DatasetError
from ..files import expanded, shown
from .formats import remedy, suffixes

Told = Callable[[str], object]  # is given a line for each folder of which something was left out


class LeftOut:
    """What a folder holds and is not read; as text, one line."""

    def __init__(self) -> None:
        self.suffixes: Counter[str] = Counter()
        self.others: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self.suffixes or self.others)

    def __str__(self) -> str:
        counts = self.others.copy()
        if self.suffixes:
            common = sorted(self.suffixes.items(), key=lambda item: (-item[1], item[0]))  # not as the disk has them
            kinds = [shown(kind)[:20] for kind, _ in common[:5]]
            kinds = [f"{kind}: {remedy(kind)}" if remedy(kind) else kind for kind in kinds]
            listed = ", ".join(kinds + ["..."] * (len(self.suffixes) > 5))
            counts[f"file that is no photo by name ({listed})|files that are no photos by name ({listed})"] = (
                self.suffixes.total()
            )
        return ", ".join(f"{count} {kind.split('|')[count > 1]}" for kind, count in counts.items())


HIDDEN = "hidden|hidden"
BROKEN = "broken link|broken links"
AGAIN = "link to a folder read already|links to folders read already"
CLOSED = "folder that cannot be listed|folders that cannot be listed"
UNLABELLED = "file in no class's folder|files in no class's folder"


def find_photos(paths: Iterable[str | os.PathLike[str]], told: Told = lambda line: None) -> list[Path]:
    """Files as given; of folders what is a photo by its suffix, recursively and sorted, without hidden files.

    Args:
        paths: ``~`` is the home directory.
        told: is given a line for each folder of which something was left out.

    Raises:
        DatasetError: a folder holds no photo, or cannot be listed.
    """
    photos: list[Path] = []
    for path in (Path(expanded(each)) for each in paths):
        if not path.is_dir():
            photos.append(path)
            continue
        left_out = LeftOut()
        photos += list_photos(path, left_out)
        tell(path, left_out, told)
    return photos


def tell(folder: Path, left_out: LeftOut, told: Told) -> None:
    if left_out:
        told(f"left out of {shown(folder)}: {left_out}")


def list_photos(folder: Path, left_out: LeftOut) -> list[Path]:
    """The photos of one folder, sorted; what else is in it is counted in ``left_out``.

    Raises:
        DatasetError: it holds no photo, or cannot be listed.
    """
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise DatasetError(f"the folder {shown(folder)} cannot be listed: {error.strerror}") from error
    found = sorted(_walk(folder, left_out))
    if not found:
        beside = f"; in it: {left_out}" if left_out else ""
        raise DatasetError(f"the folder {shown(folder)} holds no photo ({', '.join(suffixes())}){beside}")
    return found


def _walk(top: Path, left_out: LeftOut) -> Iterator[Path]:
    """Links to folders are followed, each folder is read once: those that are no links first."""
    wanted = suffixes()
    seen: set[tuple[int, int]] = set()
    folders: list[Path] = [top]
    links: list[Path] = []
    while folders or links:
        folder = folders.pop() if folders else links.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                left_out.others[AGAIN] += 1
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            left_out.others[CLOSED] += 1
            continue
        for entry in reversed(entries):  # the last that is put on a stack is taken first
            if entry.name.startswith("."):
                left_out.others[HIDDEN] += 1
            elif entry.is_symlink() and not os.path.exists(entry.path):
                left_out.others[BROKEN] += 1
            elif entry.is_dir():
                (links if entry.is_symlink() else folders).append(Path(entry.path))
            elif entry.name.lower().endswith(wanted):
                yield Path(entry.path)
            else:
                left_out.suffixes[os.path.splitext(entry.name)[1].lower() or "without a suffix"] += 1
