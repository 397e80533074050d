"""Which of two networks is better, on the same photos."""

import math
from dataclasses import dataclass

from ..description import Category
from ..errors import DatasetError
from .counting import Z
from .judging import Answers


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same photos; shares in percent."""

    photos: int
    only_first: int  # photos that the first alone has right
    only_second: int
    difference: float  # of the second's accuracy to the first's, in points
    interval: tuple[float, float]
    p: float  # McNemar's exact test
    differing: tuple[int, ...]  # the photos for which they name different classes


def compare(first: Answers, second: Answers) -> Comparison:
    """Which of two is better on the photos that both could use, which must be the same ones.

    Raises:
        DatasetError: they are not.
    """
    if first.paths != second.paths or not first.paths:
        raise DatasetError("the two could not use the same photos, of which there must be one at least")
    alone, other = int((first.right & ~second.right).sum()), int((second.right & ~first.right).sum())
    known = zip(first.answers.tolist(), second.answers.tolist(), strict=True)
    one, two = first.source.classes, second.source.classes
    differing = tuple(index for index, (a, b) in enumerate(known) if not _same(one[a], two[b]))
    count = len(first.paths)
    difference = 100 * (other - alone) / count
    return Comparison(
        count, alone, other, difference, paired_interval(alone, other, count), mcnemar(alone, other), differing
    )


def _same(one: Category, two: Category) -> bool:
    """Whether they are one class: a network may know by its label what another calls by its WordNet id."""
    if one.wordnet_id and two.wordnet_id:
        return one.wordnet_id == two.wordnet_id  # two of ImageNet's classes are called crane
    return bool({one.label, one.wordnet_id} & {two.label, two.wordnet_id} - {None})


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
