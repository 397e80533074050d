"""What decides what a run learns, in words that tell it from anything else: a resumed run compares them.

And what tells files from others that are called otherwise, or hold the same.
"""

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError, DatasetError, ImageError
from ..files import shown
from ..network.model import SPECS
from ..photos.folders import LabelledPhotos
from ..weights.checkpoint import read_checkpoint


def learnt_from(train: LabelledPhotos, val: LabelledPhotos | None) -> dict[str, str]:
    """Each class in words that tell it from others: name, numbers of photos, and a digest of their names and sizes.

    Raises:
        ImageError: naming a photo that is not there.
    """
    said = {f"class {index}": repr(name) for index, name in enumerate(train.categories, 1)}
    for photos, purpose in ((train, "learn from"), (val, "validate on")):
        members: list[list[Path]] = [[] for _ in said]
        for path, label in zip(photos.paths, photos.labels, strict=True) if photos else ():
            members[label].append(path)
        for key, paths in zip(said, members, strict=True):
            hashed = hashlib.sha256()
            for path in paths:
                try:
                    size = path.stat().st_size
                except OSError as error:
                    raise ImageError(f"{path} cannot be read: {error.strerror}") from error
                hashed.update(os.fsencode(path.name) + b"\0%d\0" % size)
            said[key] += f", {len(paths)} photos to {purpose} (names and sizes {hashed.hexdigest()[:8]})"
    return said


def contents(tensors: Mapping[str, Tensor]) -> str:
    """Words for exactly these tensors, wherever they are kept."""
    hashed = hashlib.sha256()
    for key, tensor in sorted(tensors.items()):
        hashed.update(f"{key} {tensor.dtype} {list(tensor.shape)}".encode())
        hashed.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return f"one of contents {hashed.hexdigest()[:16]}"


def holds(path: Path, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the checkpoint ``path`` is there, and of exactly these tensors."""
    try:
        return contents(read_checkpoint(path, SPECS).state_dict) == contents(tensors)
    except CheckpointError:
        return False


def refuse_learnt(val: LabelledPhotos, learnt: LabelledPhotos) -> None:
    """Raise ``DatasetError`` where a photo to validate on is learnt from, by a link to it or to its folder."""
    there = {file: path for path in val.paths if (file := _file(path))}
    if both := [(there[file], path) for path in learnt.paths if (file := _file(path)) in there]:
        raise DatasetError(
            f"{len(both)} photos to validate on would be learnt from: {shown(both[0][0])} is by a link the file "
            f"{shown(both[0][1])}; take such out of one of the two"
        )


def _file(path: Path) -> tuple[int, ...] | None:
    """What tells it from others, whatever its name; ``None`` if it is gone, or the disk does not say."""
    with suppress(OSError):
        status = path.stat()
        return (status.st_dev, status.st_ino, status.st_size) if status.st_ino else None
    return None
