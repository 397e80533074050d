"""How good answers are: what a network says of labelled photos, in numbers; which of two is better; one temperature."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..description import COLDEST, HOTTEST, Category
from ..errors import DatasetError, ImageError
from ..inference.classifier import Classifier
from ..inference.stream import answered, check_finite, ranked
from ..naming import Weights
from ..photos.folders import LabelledPhotos
from ..weights.checkpoint import write_checkpoint
from .counting import Z

BINS = 15  # of the reliability diagram, as in Guo et al.
LEAST_PHOTOS = 200  # for a temperature


@dataclass(frozen=True)
class Answers:
    """What one network says of the photos that could be used, and how many could not."""

    source: Weights
    paths: tuple[Path, ...]
    labels: Tensor  # int64 (N,)
    logits: Tensor  # float32 (N, classes)
    skipped: int

    @property
    def probabilities(self) -> Tensor:
        """float64 ``(N, classes)``, with the temperature of the weights."""
        return (self.logits.double() / self.source.temperature).softmax(1)

    @property
    def answers(self) -> Tensor:
        return self.logits.argmax(1)

    @property
    def right(self) -> Tensor:
        return self.answers == self.labels

    def hits(self, among: int) -> int:
        """How often the label is among the first."""
        _, first = ranked(self.logits, among)
        return int((first == self.labels[:, None]).sum())


def collect(
    classifier: Classifier,
    photos: LabelledPhotos,
    *,
    batch_size: int,
    workers: int | None = None,
    skip_bad: bool = False,
    advance: Callable[[int], object] = lambda count: None,
) -> Answers:
    """Ask about every photo, in order; the logits of all of them are kept. ``count_hits`` documents the rest.

    Raises:
        ImageError: naming a photo that cannot be used, unless ``skip_bad``; then it is named on stderr.
        CheckpointError: the network answers with NaN or infinity.
    """

    @torch.inference_mode()
    def compute(images: Tensor) -> Tensor:
        logits = classifier.logits(images).cpu()
        check_finite(logits.abs().amax(1).tolist(), images)
        return logits

    kept, rows, wrong = [], [torch.empty(0, len(classifier.categories))], 0
    for index, (_, row, _) in enumerate(answered(compute, classifier.transform, photos.paths, batch_size, workers)):
        advance(1)
        if not isinstance(row, ImageError):
            kept.append(index)
            rows.append(row[None].clone())
        elif skip_bad:
            print(f"shufflenetv2: skipped: {row}", file=sys.stderr)
            wrong += 1
        else:
            raise row
    used = photos.take(kept)
    return Answers(classifier.weights, used.paths, torch.tensor(used.labels, dtype=torch.int64), torch.cat(rows), wrong)


def reliability(probabilities: Tensor, right: Tensor) -> tuple[float, list[dict[str, float]]]:
    """The expected calibration error, from 0 to 1, and the bins with photos in them, of equal width.

    Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, arXiv 1706.04599.
    """
    surest = probabilities.max(1).values
    places = (surest * BINS).ceil().long().clamp(1, BINS) - 1
    bins = []
    for place in range(BINS):
        here = places == place
        if count := int(here.sum()):
            said, got = float(surest[here].mean()), float(right[here].double().mean())
            bins.append({"from": place / BINS, "to": (place + 1) / BINS, "photos": count, "said": said, "right": got})
    total = max(1, len(surest))
    return sum(each["photos"] / total * abs(each["said"] - each["right"]) for each in bins), bins


def likelihood(logits: Tensor, labels: Tensor, temperature: float) -> float:
    """The mean negative log likelihood of the labels."""
    return float(nn.functional.cross_entropy(logits.double() / temperature, labels))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature under which the labels are likeliest.

    The negative log likelihood is convex in 1 / temperature, so that the zero of its slope is the one minimum.

    Raises:
        DatasetError: there are fewer than 200 photos, or no temperature from 0.01 to 100 is best.
    """
    if len(labels) < LEAST_PHOTOS:
        raise DatasetError(f"a temperature is fitted on at least {LEAST_PHOTOS} photos, got {len(labels)}")
    logits = logits.double()
    given = logits.gather(1, labels[:, None]).mean()

    def slope(inverse: float) -> float:
        return float(((logits * inverse).softmax(1) * logits).sum(1).mean() - given)

    low, high = math.log(1 / HOTTEST), math.log(1 / COLDEST)
    if not slope(math.exp(low)) < 0 < slope(math.exp(high)):
        raise DatasetError(
            f"no temperature from {COLDEST} to {HOTTEST} fits: the answers are all right, or no better than chance; "
            "give photos that are labelled correctly and were not trained on"
        )
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) < 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def calibrate(answers: Answers, output: Path) -> dict[str, Any]:
    """Fit a temperature, write it into a copy of the weights, and say what it changes on these photos.

    Raises:
        DatasetError: no temperature can be fitted; nothing is written.
        OSError: the file cannot be written.
    """
    source = answers.source
    temperature = fit_temperature(answers.logits, answers.labels)
    write_checkpoint(output, source.read(False).state_dict, replace(source.description, temperature=temperature))
    before, after = (
        replace(answers, source=replace(source, temperature=each)) for each in (source.temperature, temperature)
    )
    numbers = {"temperature": temperature, "output": str(output)}
    for name, each in (("before", before), ("after", after)):
        numbers[name] = {
            "temperature": each.source.temperature,
            "expected_calibration_error": reliability(each.probabilities, each.right)[0],
            "negative_log_likelihood": likelihood(each.logits, each.labels, each.source.temperature),
        }
    return numbers


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


def per_class(answers: Answers) -> list[dict[str, object]]:
    """Counts, precision and recall (``None`` where they are of nothing) of the classes that are shown or answered."""
    matrix = confusion(answers)
    rows: list[dict[str, object]] = []
    for index, label in enumerate(answers.source.labels):
        hits, shown, said = int(matrix[index, index]), int(matrix[index].sum()), int(matrix[:, index].sum())
        if shown or said:
            shares = {"precision": hits / said if said else None, "recall": hits / shown if shown else None}
            rows.append({"index": index, "label": label, "photos": shown, "answers": said, "hits": hits, **shares})
    return rows


def confusion(answers: Answers) -> Tensor:
    """int64 ``(classes, classes)``: labels in rows, answers in columns."""
    classes = answers.logits.shape[1]
    return torch.bincount(answers.labels * classes + answers.answers, minlength=classes**2).view(classes, classes)


def coverage(surest: Sequence[float], right: Sequence[bool]) -> list[dict[str, float | None]]:
    """How many photos are answered, and how many of those rightly, at each ``min_probability``."""
    rows: list[dict[str, float | None]] = []
    for least in (step / 100 for step in range(100)):
        kept = [hit for value, hit in zip(surest, right, strict=True) if value >= least]
        accuracy = sum(kept) / len(kept) if kept else None
        rows.append({"min_probability": least, "answered": len(kept) / max(1, len(right)), "accuracy": accuracy})
    return rows
