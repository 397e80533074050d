"""What decides what a run learns, in words that tell it from anything else: a resumed run compares them."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError, ImageError
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
