"""Folders of labelled photos: a folder a class, found in order, and split in two."""

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..description import Category
from ..errors import DatasetError
from ..files import expanded, shown
from .listing import BROKEN, HIDDEN, UNLABELLED, LeftOut, Told, list_photos, tell

SPLITS = ("train", "val", "test")  # the folders of a data set that is split
PARTS = {*SPLITS, "training", "validation", "valid", "testing", "eval", "dev"}  # as others call them


@dataclass(frozen=True)
class LabelledPhotos:
    """Paths and their labels: ``labels[i]`` is the index in ``categories`` of what ``paths[i]`` shows."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    categories: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Sequence[int]) -> "LabelledPhotos":
        """The photos at ``indices``, in that order."""
        return LabelledPhotos(
            tuple(self.paths[i] for i in indices), tuple(self.labels[i] for i in indices), self.categories
        )


def class_folders(directory: str | os.PathLike[str], left_out: LeftOut | None = None) -> list[Path]:
    """The folders in ``directory``, sorted by name, without hidden ones; what lies beside them is counted.

    Raises:
        DatasetError: it is missing, no folder, or holds no folder.
    """
    directory = Path(expanded(directory))
    left_out = LeftOut() if left_out is None else left_out
    folders = []
    try:
        for each in sorted(directory.iterdir()):
            if each.name.startswith("."):
                left_out.others[HIDDEN] += 1
            elif each.is_dir():
                folders.append(each)
            else:
                left_out.others[UNLABELLED if each.exists() else BROKEN] += 1
    except OSError as error:
        raise DatasetError(
            f"{shown(directory)} cannot be read as a folder of one folder a class: {error.strerror}"
        ) from error
    if not folders:
        raise DatasetError(
            f"{shown(directory)} must hold one folder a class, with that class's photos in it; it holds no folder"
        )
    return folders


def read_labelled(
    directory: str | os.PathLike[str], classes: Sequence[Category] | None = None, told: Told = lambda line: None
) -> LabelledPhotos:
    """List the photos below ``directory``; a folder's name says what the photos in it show.

    Args:
        directory: holds one folder a class; a subset of ``classes`` will do.
        classes: in the order of their indices, each known by its label and its WordNet id; ``None`` takes the folders'
            names, sorted.
        told: is given a line if something was left out.

    Raises:
        DatasetError: a folder is empty, or its name is that of no class, or of several.
    """
    left_out = LeftOut()
    folders = class_folders(directory, left_out)
    names = [composed(folder.name) for folder in folders]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DatasetError(f"{shown(directory)} has two folders {twice[0]!r}, in two forms of Unicode; join them")
    if classes is None:
        _refuse_parts(directory, folders)
        classes = [Category(name, None) for name in names]
    indices: dict[str, list[int]] = {}
    for index, category in enumerate(classes):
        for name in filter(None, category):
            indices.setdefault(composed(name), []).append(index)
    unknown = [name for name in names if name not in indices]
    if unknown:
        known = _some([" or ".join(filter(None, category)) for category in classes])
        raise DatasetError(
            f"{shown(directory)} has folders that are no class: {_some(unknown)}; the classes are {known}"
        )
    ambiguous = [name for name in names if len(indices[name]) > 1]
    if ambiguous:
        raise DatasetError(f"several classes share the label {ambiguous[0]!r}; name the folder by its WordNet id")
    paths: list[Path] = []
    labels: list[int] = []
    for folder, name in zip(folders, names, strict=True):
        found = list_photos(folder, left_out)  # refuses an empty folder
        paths += found
        labels += indices[name] * len(found)
    tell(Path(directory), left_out, told)
    return LabelledPhotos(tuple(paths), tuple(labels), tuple(category.label for category in classes))


def composed(name: str) -> str:
    """``name`` in one form of Unicode: macOS may write an accent as a character of its own."""
    return unicodedata.normalize("NFC", name)


def _refuse_parts(directory: str | os.PathLike[str], folders: Sequence[Path]) -> None:
    """Folders called as the parts of a data set are, in which there are folders: they are no classes."""
    names = [folder.name for folder in folders]
    called = len(names) > 1 and all(name.lower() in PARTS for name in names)
    if called and any(each.is_dir() for folder in folders for each in folder.iterdir()):
        raise DatasetError(
            f"{shown(directory)} holds {_some(names)}, which look like the parts of a data set, not like classes; call "
            "them train and val, or give one as the folder of photos and another with --val"
        )


def hold_out(photos: LabelledPhotos, fraction: float, seed: int) -> tuple[LabelledPhotos, LabelledPhotos]:
    """Split every class at random, alike for the same ``seed``: ``(1 - fraction, fraction)`` of its photos.

    Raises:
        DatasetError: a class would have no photo left on one side.
    """
    generator = torch.Generator().manual_seed(seed)
    kept: list[int] = []
    held: list[int] = []
    labels = torch.tensor(photos.labels)
    for label, name in enumerate(photos.categories):
        members = (labels == label).nonzero().flatten()
        order = members[torch.randperm(len(members), generator=generator)].tolist()
        count = round(len(order) * fraction)
        if not 0 < count < len(order):
            raise DatasetError(
                f"holding out {fraction:g} of the {len(order)} photos of class {name!r} leaves {len(order) - count} "
                f"for training and {count} for validation; add photos, change --held-out, or give --val DIR"
            )
        held += order[:count]
        kept += order[count:]
    return photos.take(sorted(kept)), photos.take(sorted(held))


def find_split(directory: str | os.PathLike[str], names: Sequence[str]) -> Path | None:
    """The first of ``names`` that is a folder in ``directory``, if that is a data set split into folders.

    Beside other folders a folder of photos is a class, whatever its name.

    Raises:
        DatasetError: it may be either.
    """
    directory = Path(expanded(directory))
    found = next((directory / name for name in names if (directory / name).is_dir()), None)
    beside = [] if found is None else [each.name for each in class_folders(directory) if each.name not in SPLITS]
    if found is None or not beside:
        return found
    if any(each.is_dir() and not each.name.startswith(".") for each in found.iterdir()):
        raise DatasetError(
            f"{shown(found)} may be a class or a part of the data set: it holds folders, as a part does, beside "
            f"{_some(beside)}; give a folder that holds classes alone, or {', '.join(SPLITS)} alone"
        )
    return None


def _some(names: Sequence[str], most: int = 10) -> str:
    listed = ", ".join(repr(name) for name in names[:most])
    return listed if len(names) <= most else f"{listed}, ... ({len(names)} in all)"
