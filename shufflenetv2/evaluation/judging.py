"""How good answers are: what a network says of labelled photos, in numbers; and one temperature."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..description import COLDEST, HOTTEST
from ..errors import CheckpointError, DatasetError
from ..files import shown
from ..inference.classifier import Classifier
from ..inference.stream import answered, check_finite, ranked
from ..naming import Weights
from ..network.model import SPECS
from ..photos.folders import LabelledPhotos
from ..saving import checked_path
from ..weights.checkpoint import read_checkpoint, write_checkpoint
from .counting import Counts, usable

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

    @property
    def counts(self) -> Counts:
        _, first = ranked(self.logits, 5)
        hits = first == self.labels[:, None]
        return Counts(len(self.paths), int(hits[:, 0].sum()), int(hits.sum()), self.skipped)

    @property
    def calibration(self) -> dict[str, float]:
        """The temperature, and how well probabilities say how often answers are right."""
        return {
            "temperature": self.source.temperature,
            "expected_calibration_error": reliability(self.probabilities, self.right)[0],
            "negative_log_likelihood": likelihood(self.logits, self.labels, self.source.temperature),
        }


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

    kept, rows = [], [torch.empty(0, len(classifier.categories))]
    reading: Any = (classifier.transform, photos.paths, batch_size, workers)
    for index, row in usable(answered(compute, *reading, device=classifier.device), skip_bad, advance):
        kept.append(index)
        rows.append(row[None].clone())
    used, wrong = photos.take(kept), len(photos) - len(kept)
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
    check_count(len(labels))
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


def check_count(photos: int) -> None:
    """Refuse, with ``DatasetError``, fewer photos than a temperature is fitted on."""
    if photos < LEAST_PHOTOS:
        raise DatasetError(f"a temperature is fitted on at least {LEAST_PHOTOS} photos, got {photos}")


def check_output(output: Path) -> None:
    """Before anything is computed: where ``calibrate`` will write, no other file is replaced.

    Raises:
        ValueError, CheckpointError: there is one, nothing can be there, or it could not be read again by its name.
    """
    checked_path(str(output))
    if not output.absolute().parent.is_dir():
        raise ValueError(f"--output {shown(output)} must be a file, in a folder that there is")
    try:
        if output.exists():
            read_checkpoint(output, SPECS)
    except CheckpointError as error:
        raise ValueError(f"--output {shown(output)} is no checkpoint, and is not replaced") from error


def calibrate(answers: Answers, output: Path) -> dict[str, Any]:
    """Fit a temperature, write it into a copy of the weights, and say what it changes on these photos.

    Raises:
        DatasetError: no temperature can be fitted; nothing is written.
        OSError: the file cannot be written.
    """
    source = answers.source
    temperature = fit_temperature(answers.logits, answers.labels)
    write_checkpoint(output, source.read(False).state_dict, replace(source.description, temperature=temperature))
    after = replace(answers, source=replace(source, temperature=temperature)).calibration
    return {"temperature": temperature, "output": str(output), "before": answers.calibration, "after": after}


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
