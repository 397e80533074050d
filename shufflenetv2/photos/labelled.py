"""Folders with one folder a class, as ``evaluate`` counts them and ``train`` learns from them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..description import Category
from ..errors import ImageError
from .folders import find_photos


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


def class_folders(directory: str | os.PathLike[str]) -> list[Path]:
    """The folders in ``directory``, sorted by name, without hidden ones.

    Raises:
        ImageError: it is missing, no folder, or holds no folder.
    """
    directory = Path(directory)
    try:
        folders = sorted(each for each in directory.iterdir() if each.is_dir() and not each.name.startswith("."))
    except OSError as error:
        raise ImageError(f"{directory} cannot be read as a folder with one folder a class: {error.strerror}") from error
    if not folders:
        raise ImageError(
            f"{directory} must hold one folder a class, with that class's photos in it; it holds no folder"
        )
    return folders


def read_labelled(directory: str | os.PathLike[str], classes: Sequence[Category] | None = None) -> LabelledPhotos:
    """List the photos below ``directory``; a folder's name says what the photos in it show.

    Args:
        directory: holds one folder a class; a subset of ``classes`` will do.
        classes: in the order of their indices, each known by its label and its WordNet id; ``None`` takes the folders'
            names, sorted.

    Raises:
        ImageError: a folder is empty, or its name is that of no class, or of several.
    """
    folders = class_folders(directory)
    if classes is None:
        classes = [Category(folder.name, None) for folder in folders]
    indices: dict[str, list[int]] = {}
    for index, category in enumerate(classes):
        for name in filter(None, category):
            indices.setdefault(name, []).append(index)
    unknown = [folder.name for folder in folders if folder.name not in indices]
    if unknown:
        known = _some([" or ".join(filter(None, category)) for category in classes])
        raise ImageError(f"{directory} has folders that are no class: {_some(unknown)}; the classes are {known}")
    ambiguous = [folder.name for folder in folders if len(indices[folder.name]) > 1]
    if ambiguous:
        raise ImageError(f"several classes share the label {ambiguous[0]!r}; name the folder by its WordNet id")
    paths: list[Path] = []
    labels: list[int] = []
    for folder in folders:
        found = find_photos([folder])  # refuses an empty folder
        paths += found
        labels += indices[folder.name] * len(found)
    return LabelledPhotos(tuple(paths), tuple(labels), tuple(category.label for category in classes))


def hold_out(photos: LabelledPhotos, fraction: float, seed: int) -> tuple[LabelledPhotos, LabelledPhotos]:
    """Split every class at random, alike for the same ``seed``: ``(1 - fraction, fraction)`` of its photos.

    Raises:
        ImageError: a class would have no photo left on one side.
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
            raise ImageError(
                f"holding out {fraction:g} of the {len(order)} photos of class {name!r} leaves {len(order) - count} "
                f"for training and {count} for validation; add photos, change --held-out, or give --val DIR"
            )
        held += order[:count]
        kept += order[count:]
    return photos.take(sorted(kept)), photos.take(sorted(held))


def find_split(directory: str | os.PathLike[str], names: Sequence[str]) -> Path | None:
    """The first of ``names`` that is a folder in ``directory``, if it is one of a data set split into folders."""
    return next((Path(directory, name) for name in names if Path(directory, name).is_dir()), None)


def _some(names: Sequence[str], most: int = 10) -> str:
    listed = ", ".join(repr(name) for name in names[:most])
    return listed if len(names) <= most else f"{listed}, ... ({len(names)} in all)"
