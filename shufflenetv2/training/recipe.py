"""How to train: the options of ``train`` and their defaults, which `train --help` reads without waiting for torch."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import TrainingError
from ..package import logger


@dataclass(frozen=True)
class Augmentation:
    """How training changes the photos: options of ``train``, and their defaults.

    ``photo_size`` asks for photos of that many pixels a side, shifted by up to an eighth and then enlarged to the
    training size; ``None`` cuts a random part of at least ``min_scale`` of the area out of the full photo.
    """

    photo_size: int | None = None
    min_scale: float = 0.25
    flip: bool = True
    trivial_augment: bool = False
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """How to train: options of ``train``, and their defaults."""

    sizes: tuple[tuple[int, float], ...]  # of images, and the part of the schedule that each is used for
    epochs: int = 30
    batch_size: int = 64  # photos computed at once by each process
    accumulate: int = 1  # batches a step
    lr: float = 0.05
    decay: str = "cosine"
    warmup: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-5
    clip_norm: float = 0.0  # of the gradients; 0: as they are
    label_smoothing: float = 0.1
    class_weights: str = "equal"
    balanced: bool = False
    temperature: float = 4.0  # of distillation
    distill_weight: float = 0.9
    ema: float = 0.99
    reestimate_norms: bool = False
    freeze_backbone: bool = False
    workers: int = 2
    amp: bool = False
    channels_last: bool = False
    seed: int = 0
    small_stem: bool = False
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.balanced and self.class_weights == "auto":
            raise TrainingError(
                "--balanced and --class-weights auto both make up for classes of unequal size; give one"
            )
        if self.freeze_backbone and self.reestimate_norms:
            raise TrainingError(
                "--reestimate-norms would change the frozen backbone under its classifier; leave one of the two out"
            )
        used = {size_at(epoch / self.epochs, self.sizes) for epoch in range(self.epochs)}
        if unused := [str(size) for size, _ in self.sizes if size not in used]:
            logger.warning("of %s epochs none is left for --sizes %s; give more", self.epochs, " ".join(unused))
        one_pixel = 8 if self.small_stem else 32  # up to which the last stage has one
        small = [size for size, _ in self.sizes if size <= one_pixel]
        if self.batch_size == 1 and not self.freeze_backbone and small:
            raise TrainingError(
                f"--batch-size 1 with --sizes {small[0]} leaves BatchNorm one value a channel, which it cannot "
                f"normalise; give --batch-size 2 or more, or sizes above {one_pixel}"
            )

    def steps(self, photos: int, processes: int) -> int:
        """So many an epoch.

        Every photo is used in every epoch, in batches that differ by one photo at most: BatchNorm suffers from small
        ones, and most from single photos. So batches of 2 or 3 may become larger by one or two, others never.

        Raises:
            TrainingError: the photos are too few.
        """
        batches, least = processes * self.accumulate, min(2, self.batch_size)
        if photos < batches * least:
            raise TrainingError(
                f"{photos} photos are too few for {processes} processes and --accumulate {self.accumulate}: "
                f"a step needs at least {batches * least}"
            )
        return min(math.ceil(photos / (batches * self.batch_size)), photos // (batches * least))

    def batch_sizes(self, photos: int, processes: int) -> tuple[int, int]:
        """Photos in the smallest and in the largest batch; TrainingError: the photos are too few."""
        count = self.steps(photos, processes) * self.accumulate * processes
        return photos // count, math.ceil(photos / count)


def rate_factor(progress: float, warmup: float, decay: str) -> float:
    """What the peak learning rate is multiplied with at ``progress``: up to 1 in a straight line, then down to 0.

    Not torch's schedulers: they step from the rate before, and so cannot change to another schedule half way.
    """
    if progress < warmup:
        return progress / warmup
    remaining = (1 - progress) / (1 - warmup)
    return remaining if decay == "linear" else (1 - math.cos(math.pi * remaining)) / 2


def size_at(progress: float, sizes: Sequence[tuple[int, float]]) -> int:
    """The image size at ``progress``: each of ``sizes`` is a size and the part of the schedule that it is used for."""
    ends = itertools.accumulate(share for _, share in sizes)
    return next((size for (size, _), end in zip(sizes, ends, strict=True) if progress < end - 1e-9), sizes[-1][0])
