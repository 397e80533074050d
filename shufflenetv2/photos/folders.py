"""Folders of labelled photos: a folder a class, found in order, and split in two."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..description import Category
from ..errors import DatasetError
from ..files import expanded, shown
from .listing import BROKEN, HIDDEN, UNLABELLED, LeftOut, Told, is_hidden, list_photos, tell

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
            if is_hidden(each.name):
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
        DatasetError: a folder is empty, or another one by a link, or its name is that of no class, or of several; or
            folders are parts of a data set, not classes.
    """
    left_out = LeftOut()
    folders = class_folders(directory, left_out)
    names = [composed(folder.name) for folder in folders]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DatasetError(f"{shown(directory)} has two folders {twice[0]!r}, in two forms of Unicode; join them")
    own = classes is None
    classes = [Category(name) for name in names] if classes is None else classes
    indices = named(classes)
    unknown = [name for name in names if name not in indices]
    if unknown:
        known = _some([" or ".join(filter(None, category)) for category in classes])
        raise DatasetError(
            f"{shown(directory)} has folders that are no class: {_some(unknown)}; the classes are {known}"
        )
    ambiguous = [name for name in names if len(indices[name]) > 1]
    if ambiguous:
        raise DatasetError(f"several classes share the label {ambiguous[0]!r}; name the folder by its WordNet id")
    _refuse_links(directory, folders)
    paths: list[Path] = []
    labels: list[int] = []
    within: dict[str, set[str]] = {}
    for folder, name in zip(folders, names, strict=True):
        found = list_photos(folder, left_out)  # refuses an empty folder
        paths += found
        labels += indices[name] * len(found)
        if own:
            within[name] = {composed(path.relative_to(folder).parts[0]) for path in found if path.parent != folder}
    if own:
        _refuse_parts(directory, within, told)
    tell(Path(directory), left_out, told)
    return LabelledPhotos(tuple(paths), tuple(labels), tuple(category.label for category in classes))


def composed(name: str) -> str:
    """``name`` in one form of Unicode: macOS may write an accent as a character of its own."""
    return unicodedata.normalize("NFC", name)


def named(classes: Sequence[Category]) -> dict[str, list[int]]:
    """The indices of the classes that a label or a WordNet id is the name of."""
    indices: dict[str, list[int]] = {}
    for index, category in enumerate(classes):
        for name in filter(None, category):
            indices.setdefault(composed(name), []).append(index)
    return indices


def _refuse_links(directory: str | os.PathLike[str], folders: Sequence[Path]) -> None:
    seen: dict[str, Path] = {}
    for folder in folders:
        other = seen.setdefault(os.path.realpath(folder), folder)
        if other is not folder:
            raise DatasetError(
                f"{shown(directory)} has folders {other.name!r} and {folder.name!r} that are one by a link: its photos "
                "would have two labels, or count twice; remove one"
            )


def _refuse_parts(directory: str | os.PathLike[str], within: Mapping[str, Collection[str]], told: Told) -> None:
    """``within`` the folder of each class are these others: where they are the classes, it is a part of the data set.

    Folders of the same names in several of them may be either: parts called 1 and 2, or cats and dogs of two years.
    """
    names = [*within]
    if len(names) > 1 and all(map(_is_part, names)) and any(within.values()):
        raise DatasetError(
            f"{shown(directory)} holds {_some(names)}, which look like the parts of a data set, not like classes; call "
            "them train and val, or give one as the folder of photos and another with --val"
        )
    for name, folders in within.items():
        both = sorted({*folders} & {*names} - {name})
        if len(both) > 1:
            raise DatasetError(
                f"{shown(directory)} holds {name!r}, in which there are folders called as classes beside it, "
                f"{_some(both)}: it looks like a part of the data set, not like a class; move it out of there, and "
                "give it with --val if it is to validate on"
            )
    sets = Counter(frozenset(folders) for folders in within.values() if len(folders) > 1)
    for folders, count in sets.most_common(1):
        if count > 1:
            alike = _some([name for name in names if within[name] == folders])
            told(
                f"{alike} are classes, and hold folders of the same names, {_some(sorted(folders))}; if those are the "
                "classes, give one as the folder of photos and another with --val"
            )


def _is_part(name: str) -> bool:
    return re.sub(r"[\W_]*(set|data|images|photos)$", "", name.lower()) in PARTS


def read_apart(
    directory: str | os.PathLike[str], learnt: str | os.PathLike[str], categories: Sequence[str], told: Told
) -> LabelledPhotos:
    """The photos in ``directory``, to validate on, of the classes that are learnt from the photos in ``learnt``.

    Raises:
        DatasetError: they would be learnt from, too; and as ``read_labelled``.
    """
    here, there = (Path(os.path.realpath(expanded(each))) for each in (directory, learnt))
    if here.is_relative_to(there) and not any(map(is_hidden, here.relative_to(there).parts)):
        raise DatasetError(
            f"{shown(directory)}, to validate on, is {shown(learnt)} or lies in it, so that its photos would be learnt "
            "from; give others with --val, or leave it out: then a part of every class is held out"
        )
    photos = read_labelled(directory, [Category(name) for name in categories], told)
    there_are = {*photos.labels}
    if missing := [name for index, name in enumerate(categories) if index not in there_are]:
        told(f"{shown(directory)} has no photos of {_some(missing)}: its accuracy is that of the other classes")
    return photos


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
    if any(each.is_dir() and not is_hidden(each.name) for each in found.iterdir()):
        raise DatasetError(
            f"{shown(found)} may be a class or a part of the data set: it holds folders, as a part does, beside "
            f"{_some(beside)}; give a folder that holds classes alone, or {', '.join(SPLITS)} alone"
        )
    return None


def _some(names: Sequence[str], most: int = 10) -> str:
    listed = ", ".join(repr(name) for name in names[:most])
    return listed if len(names) <= most else f"{listed}, ... ({len(names)} in all)"
