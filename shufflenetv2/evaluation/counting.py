"""Counting hits: how often a labelled photo's label comes first, or among the first five, over several processes."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..description import BATCH_SIZE
from ..devices import Group
from ..errors import ImageError
from ..inference.runner import Runner
from ..inference.stream import answered, check_finite, ranked
from ..photos.folders import LabelledPhotos
from ..photos.transform import PhotoTransform

Z = 1.959963984540054  # the standard normal's 97.5 % point


@dataclass(frozen=True)
class Counts:
    """Photos looked at; of those, the ones whose label came first and among the first five; and bad photos."""

    photos: int
    top1: int
    top5: int
    skipped: int = 0


def count_hits(
    model: nn.Module,
    transform: PhotoTransform,
    photos: LabelledPhotos,
    group: Group,
    *,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    skip_bad: bool = False,
    advance: Callable[[int], object] = lambda count: None,
) -> Counts:
    """Count over all processes of ``group``.

    Args:
        model: in eval mode, on the group's device; its logits are in the order of ``photos.categories``.
        transform: what the model's photos need.
        photos: the same in every process.
        batch_size: photos computed at once.
        workers: threads that decode; ``None`` is one a core.
        skip_bad: count photos that cannot be used and name them on stderr, instead of stopping at the first.
        advance: told how many more photos this process has behind it.

    Raises:
        ImageError: naming a photo that cannot be used.
        CheckpointError: the network answers with NaN or infinity.
        DeviceError: there is no memory left; the message says which batch to try.
    """
    run = Runner(model, group.device)

    def rank(images: Tensor) -> list[list[int]]:
        logits = run(images)
        highest, indices = (each.tolist() for each in ranked(logits, 5))  # a NaN counts as highest
        check_finite([row[0] for row in highest], images)
        return indices

    mine = photos.take(range(group.rank, len(photos), group.size))
    answers = answered(rank, transform, mine.paths, batch_size, workers, device=group.device)
    used = top1 = top5 = 0
    for index, first in usable(answers, skip_bad, advance):
        used += 1
        top1 += mine.labels[index] == first[0]
        top5 += mine.labels[index] in first
    counts = torch.tensor([used, top1, top5, len(mine) - used], device=group.device)
    return Counts(*group.add(counts).tolist())


def usable(answers: Iterable[Any], skip_bad: bool, advance: Callable[[int], object]) -> Iterator[tuple[int, Any]]:
    """Of what ``answered`` gives, which photo and its row; one that cannot be used is named on stderr, or raised."""
    for index, (_, row, _) in enumerate(answers):
        advance(1)
        if not isinstance(row, ImageError):
            yield index, row
        elif skip_bad:
            print(f"shufflenetv2: skipped: {row}", file=sys.stderr)
        else:
            raise row


def scores(counts: Counts) -> dict[str, Any]:
    """Counts, percentages and intervals, as JSON holds them."""
    rows = {
        f"top{among}": {"hits": hits, "percent": percent(hits, counts.photos), "interval": wilson(hits, counts.photos)}
        for among, hits in ((1, counts.top1), (5, counts.top5))
    }
    return {"photos": counts.photos, "skipped": counts.skipped, **rows}


def wilson(hits: int, photos: int) -> tuple[float, float]:
    """The 95 % interval of a proportion, in percent (Wilson 1927, "Probable Inference", JASA 22)."""
    if not photos:
        return 0.0, 100.0
    z = Z
    share = hits / photos
    centre = share + z * z / (2 * photos)
    margin = z * math.sqrt(share * (1 - share) / photos + z * z / (4 * photos**2))
    scale = 100 / (1 + z * z / photos)
    return max(0.0, scale * (centre - margin)), min(100.0, scale * (centre + margin))


def percent(hits: int, photos: int) -> float:
    return 100 * hits / photos if photos else 0.0


def mcnemar(alone: int, other: int) -> float:
    """The two-sided exact p-value that ``alone`` and ``other`` of the differing photos are as likely (McNemar 1947)."""
    photos, fewer = alone + other, min(alone, other)
    ways = total = 1
    for count in range(fewer):
        ways = ways * (photos - count) // (count + 1)
        total += ways
    p: float = 2 * total / 2**photos
    return min(1.0, p)


def paired_interval(alone: int, other: int, photos: int) -> tuple[float, float]:
    """The 95 % interval of the difference of two paired proportions, in points.

    Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine 24
    (2005): half a photo is added to each of the four counts, which holds where Wald's own interval is too short.
    """
    photos, alone_half, other_half = photos + 2, alone + 0.5, other + 0.5
    centre = (other_half - alone_half) / photos
    margin = Z * math.sqrt((alone_half + other_half) / photos - centre**2) / math.sqrt(photos)
    return 100 * max(-1.0, centre - margin), 100 * min(1.0, centre + margin)
