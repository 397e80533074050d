"""One epoch under ``torchrun``, or alone: which photos each process opens, and what is learnt from them.

``torchrun --nproc-per-node=N tests/support/shares.py DIR`` leaves ``DIR/<rank>.pt``: what ``learn`` returned for each
of ``CASES``.
"""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from PIL import Image

from shufflenetv2.builder import build, resolve
from shufflenetv2.devices import Group, join
from shufflenetv2.network.model import ShuffleNetV2
from shufflenetv2.photos.folders import LabelledPhotos
from shufflenetv2.training.augment import Augmentation
from shufflenetv2.training.trainer import Recipe, Trainer

# photos, --batch-size, --accumulate
CASES = ((23, 4, 1), (13, 64, 1), (47, 3, 2), (31, 2, 1))
# No random choice but the order, and no statistics of a batch: what is learnt is the mean over the photos of each step.
EXACT: dict[str, Any] = {"freeze_backbone": True, "augmentation": Augmentation(7, flip=False), "label_smoothing": 0.0}


def learn(group: Group, photos: int, batch_size: int, accumulate: int, **others: Any) -> dict[str, Any]:
    """One epoch: the photos opened, in batches; the reported means; the classifier before and after."""
    source = resolve(None, "cifar10")
    torch.manual_seed(0)
    model = build(source.arch, source, num_classes=3)
    assert isinstance(model, ShuffleNetV2)
    recipe = Recipe(((64, 1.0),), 1, batch_size, accumulate, lr=0.1, warmup=0, workers=0, **{**EXACT, **others})
    names = tuple(Path(str(index)) for index in range(photos))
    labelled = LabelledPhotos(names, tuple(index % 3 for index in range(photos)), ("a", "b", "c"))
    trainer = Trainer(model, labelled, source.preprocess, recipe, group)
    before = model.fc.weight.detach().clone()
    batches: list[list[int]] = [[]]

    def open_photo(path: Path) -> Image.Image:
        batches[-1].append(int(path.name))
        return picture(int(path.name))

    def transform(images: torch.Tensor, labels: torch.Tensor, size: int) -> Any:
        batches.append([])
        return plain(images, labels, size)

    plain = trainer.transform
    bar = SimpleNamespace(update=lambda: None, set_postfix=lambda **_: None)
    with (
        mock.patch("shufflenetv2.training.augment.open_photo", open_photo),
        mock.patch.object(trainer, "transform", transform),
    ):
        result = trainer.run_epoch(bar)
    return {
        "batches": batches[:-1],
        "loss": result.loss,
        "accuracy": result.accuracy,
        "before": before,
        "after": model.fc.weight.detach().clone(),
    }


def picture(index: int) -> Image.Image:
    generator = torch.Generator().manual_seed(index)
    return Image.frombytes("RGB", (7, 7), bytes(torch.randint(256, (147,), generator=generator).tolist()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with join("cpu") as processes:
        torch.save([learn(processes, *case) for case in CASES], Path(sys.argv[1], f"{processes.rank}.pt"))
