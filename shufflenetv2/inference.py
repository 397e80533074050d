"""Photos in, predictions out: the classifier, the photos of folders one after the other, and counting hits."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from .builder import Weights, build, resolve
from .description import BATCH_SIZE
from .devices import Group, choose_device
from .errors import CheckpointError, ImageError
from .package import hub_call, made_by_hub
from .photos.folders import LabelledPhotos, read_ahead
from .photos.transform import Photo, PhotoTransform, several

Row = TypeVar("Row")


class Prediction(NamedTuple):
    """One label of a photo: its name, its softmax probability in [0, 1], its index in the logits.

    ``json.dumps`` makes a list of it, and an object of ``_asdict()``.
    """

    label: str
    probability: float
    index: int  # type: ignore[assignment]  # a tuple's method of that name is of no use here

    def __repr__(self) -> str:
        return f"Prediction(label={self.label!r}, probability={self.probability:.4f}, index={self.index})"

    def __str__(self) -> str:
        return f"{self.probability:.2%} {self.label}"


class Classifier:
    """Callable made by the entry point ``classifier``, whose documentation describes the arguments.

    Attributes:
        model: the network in eval mode, on ``device``.
        transform: the ``PhotoTransform`` of the weights, with ``max_pixels`` and ``upright``.
        categories: the labels, in the order of the logits.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        top: int = 5,
        device: str | torch.device | None = None,
        deploy: bool = True,
        progress: bool = True,
        max_pixels: int | None = None,
        upright: bool = True,
    ) -> None:
        if type(top) is not int or top < 1:
            raise ValueError(f"top must be an integer of at least 1, got {top!r:.80}")
        self.weights = weights
        self.top = top
        self.device = choose_device(device)
        self.deploy = deploy
        self.categories = weights.labels
        self.model = build(weights.arch, weights, progress=progress, deploy=deploy).to(self.device)
        self.transform = PhotoTransform(
            weights.preprocess, weights.in_channels, weights.reference, max_pixels=max_pixels, upright=upright
        )

    def __repr__(self) -> str:
        return f"Classifier({', '.join(self.weights.reference)}, top={self.top}, device={str(self.device)!r})"

    def __call__(self, photos: Photo | Iterable[Photo], errors: str = "raise") -> Any:
        """Predict the labels of one photo or several.

        Args:
            photos: a path, bytes, a file object opened in binary mode, a PIL image, a numpy array ``(H, W, 3)`` of
                uint8 in RGB, a uint8 tensor ``(3, H, W)``; or several: a list, a generator or another iterable of
                these, of any length, or a uint8 tensor ``(N, 3, H, W)``.
            errors: of photos that cannot be used: ``"raise"`` the first, or ``"return"`` each in the place of that
                photo's predictions.

        Returns:
            For one photo a list of ``Prediction``, most likely first; for several a list of such lists.

        Raises:
            ImageError: naming the photo that cannot be used, and which element of a list it is.
            TypeError: something else was given, or an element of a list is itself a list or a batch.
            CheckpointError: the network answers with NaN or infinity.
        """
        if errors not in ("raise", "return"):
            raise ValueError(f'errors must be "raise" or "return", got {errors!r:.80}')
        elements = several(photos)
        if elements is not None:
            return self._each(elements, errors)
        if isinstance(photos, Tensor) and photos.dim() == 4:
            return self.predict(self.transform(photos)) if len(photos) else []
        try:
            return self.predict(self.transform(photos))[0]
        except ImageError as error:
            if errors == "raise":
                raise
            return error

    def _each(self, photos: Iterator[Photo], errors: str) -> list[list[Prediction] | ImageError]:
        outcomes: list[list[Prediction] | ImageError] = []
        while batch := list(islice(photos, BATCH_SIZE)):
            images: list[Tensor | ImageError] = []
            for photo in batch:
                try:
                    images.append(self.transform(photo))
                except ImageError as error:
                    named = ImageError(f"photos[{len(outcomes) + len(images)}]: {error}")
                    if errors == "raise":
                        raise named from error
                    images.append(named)
            good = [image for image in images if isinstance(image, Tensor)]
            rows = iter(self.predict(torch.cat(good)) if good else [])
            outcomes += [image if isinstance(image, ImageError) else next(rows) for image in images]
        return outcomes

    @torch.inference_mode()
    def predict(self, images: Tensor) -> list[list[Prediction]]:
        """The most likely labels for each of the preprocessed ``images``, ``float32 (N, C, H, W)``.

        Raises:
            ValueError: the images hold NaN or infinity.
            CheckpointError: the network answers with them.
        """
        logits = self.model(images.to(self.device))
        probabilities, indices = (each.tolist() for each in logits.softmax(1).topk(min(self.top, logits.shape[1])))
        check_finite([row[0] for row in probabilities], images)
        return [
            [Prediction(self.categories[index], probability, index) for probability, index in zip(*row, strict=True)]
            for row in zip(probabilities, indices, strict=True)
        ]

    def __reduce__(self) -> tuple[Any, ...]:
        kwargs = {"top": self.top, "device": str(self.device), "deploy": self.deploy, "progress": False}
        state = {"transform": self.transform}
        if made_by_hub():
            return *hub_call("classifier", *self.weights.reference, **kwargs), state
        return _rebuild, (self.weights.reference, kwargs), state


def _rebuild(reference: tuple[str, str], kwargs: dict[str, Any]) -> Classifier:
    return Classifier(resolve(*reference), **kwargs)


def check_finite(highest: Sequence[float], images: Tensor) -> None:
    """Refuse answers to ``images`` of which the ``highest`` number is NaN or infinite: then no other is of use."""
    if all(map(math.isfinite, highest)):
        return
    if not images.isfinite().all():
        raise ValueError("the preprocessed images hold NaN or infinity; their values must be finite")
    raise CheckpointError(
        "the network answers with NaN or infinity: its weights are damaged, or overflow in this device's arithmetic"
    )


def classify_photos(
    classifier: Classifier, paths: Sequence[Path], batch_size: int = BATCH_SIZE
) -> Iterator[tuple[Path, list[Prediction] | ImageError]]:
    """Each path with its predictions, or with what is wrong with it; in order, in bounded memory."""
    return _one_by_one(classifier.predict, classifier.transform, paths, batch_size)


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
    """

    @torch.inference_mode()
    def rank(images: Tensor) -> list[list[int]]:
        logits = model(images.to(group.device))
        highest, indices = (each.tolist() for each in logits.topk(min(5, logits.shape[1])))  # a NaN counts as highest
        check_finite([row[0] for row in highest], images)
        return indices  # type: ignore[no-any-return]

    mine = photos.take(range(group.rank, len(photos), group.size))
    ranked = _one_by_one(rank, transform, mine.paths, batch_size, workers)
    top1 = top5 = skipped = 0
    for label, (_, outcome) in zip(mine.labels, ranked, strict=True):
        if not isinstance(outcome, ImageError):
            top1 += label == outcome[0]
            top5 += label in outcome
        elif skip_bad:
            print(f"shufflenetv2: skipped: {outcome}", file=sys.stderr)
            skipped += 1
        else:
            raise outcome
        advance(1)
    counts = torch.tensor([len(mine) - skipped, top1, top5, skipped], device=group.device)
    return Counts(*group.add(counts).tolist())


def _one_by_one(
    compute: Callable[[Tensor], Sequence[Row]],
    transform: PhotoTransform,
    paths: Sequence[Path],
    batch_size: int,
    workers: int | None = None,
) -> Iterator[tuple[Path, Row | ImageError]]:
    """Each path with its row of what ``compute`` makes of a batch, or with what is wrong with the photo."""
    for batch in read_ahead(paths, transform, batch_size, workers):
        rows = iter(compute(batch.images) if batch.images is not None else ())
        for path, error in zip(batch.paths, batch.errors, strict=True):
            yield path, error or next(rows)
