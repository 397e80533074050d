"""The one way through many photos: each is read ahead, computed in a batch, and answered in order."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..description import BATCH_SIZE
from ..errors import CheckpointError, ImageError
from ..photos.ahead import read_ahead
from ..photos.kinds import Photo, several
from ..photos.transform import PhotoTransform

Row = TypeVar("Row")


class Prediction(NamedTuple):
    """One label of a photo: its name, its softmax probability in [0, 1], its index in the logits.

    ``json.dumps`` makes a list of it, and an object of ``_asdict()``. A pickle of one, or of a ``Result``, that came
    from the hub is read only after a ``torch.hub.load`` from the same, unchanged directory; keep ``tuple(prediction)``.

    Example:
        >>> first = shufflenetv2.classifier(weights="cifar10")("images/cat.jpg")[0]
        >>> first.label, first.index, sorted(first._asdict())
        ('cat', 3, ['index', 'label', 'probability'])
    """

    label: str
    probability: float
    index: int  # type: ignore[assignment]  # a tuple's method of that name is of no use here

    def __repr__(self) -> str:
        return f"Prediction(label={self.label!r}, probability={self.probability:.4f}, index={self.index})"

    def __str__(self) -> str:
        return f"{self.probability:.2%} {self.label}"


class Result(NamedTuple):
    """One photo of a stream, with its answer or with what is wrong with it.

    Attributes:
        photo: as it was given.
        predictions: most likely first; none if there is an error.
        error: what is wrong with the photo, or ``None``.
        features: float32 ``(head_channels,)``, what the last layer reads, if it was asked for.
        size: width and height in pixels, as a person sees the photo.

    Example:
        >>> classify = shufflenetv2.classifier(weights="cifar10")
        >>> for result in classify.stream(["images/cat.jpg", "gone.jpg"], features=True):
        ...     print(result.size, type(result.error).__name__, result.features is not None)
        (451, 300) NoneType True
        None ImageError False
    """

    photo: Any
    predictions: list[Prediction]
    error: ImageError | None = None
    features: Tensor | None = None
    size: tuple[int, int] | None = None


def answered(
    compute: Callable[[Tensor], Iterable[Row]],
    transform: PhotoTransform,
    photos: Iterable[Any],
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    keep: Callable[[Any], Any] = lambda photo: photo,
    *,
    device: torch.device | None = None,
) -> Iterator[tuple[Any, Row | ImageError, tuple[int, int] | None]]:
    """Each photo with its row of what ``compute`` makes of a batch, or with what is wrong with it; and its size.

    In order and in bounded memory: this is the one way through many photos. Where ``compute`` is for CUDA, ``device``
    says so: then a photo's pixels travel as bytes, a quarter of the memory, and are normalised there.
    """
    far = transform.fast_decode == "cuda" or (device is not None and device.type == "cuda")
    prepare = transform.pixels if far else transform.sized  # the CPU normalises faster in the threads that read
    for batch in map(transform.decoded, read_ahead(photos, prepare, batch_size, workers, keep)):
        images = [ready[0] for _, ready in batch if not isinstance(ready, ImageError)]
        rows: Iterator[Row] = iter(())
        if images:
            rows = iter(compute(transform.normalized(_sent(images, device)) if far else torch.cat(images)))
        del images
        for photo, ready in batch:
            if isinstance(ready, ImageError):
                yield photo, ready, None
            else:
                yield photo, next(rows), ready[1]


def _sent(pixels: list[Tensor], device: torch.device | None) -> Tensor:
    """One batch of them on ``device``, or on CUDA's; photos that were tensors may lie elsewhere."""
    device = device or torch.device("cuda")
    if all(each.is_cpu for each in pixels):
        return torch.cat(pixels).pin_memory().to(device, non_blocking=True)
    return torch.cat([each.to(device) for each in pixels])


def ranked(values: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The ``top`` highest of each row, and their places; of equal ones the first, as ``argmax`` has it."""
    best = values.topk(min(top + 1, values.shape[1]))
    if (best.values[:, 1:] == best.values[:, :-1]).any():  # seldom, but in bfloat16; topk takes any of them
        values, places = values.sort(dim=1, descending=True, stable=True)
        return values[:, :top], places[:, :top]
    return best.values[:, :top], best.indices[:, :top]


def likeliest(
    probabilities: Tensor, images: Tensor, categories: Sequence[str], top: int, least: float
) -> list[list[Prediction]]:
    """The ``top`` labels of each row of ``probabilities``; none where not even the first has ``least``."""
    highest, places = ranked(probabilities, top)
    rows = list(zip(highest.tolist(), places.tolist(), strict=True))
    check_finite([values[0] for values, _ in rows], images)
    return [
        [Prediction(categories[index], value, index) for value, index in zip(*row, strict=True)]
        if row[0][0] >= least
        else []
        for row in rows
    ]


def refuse_training(model: nn.Module) -> None:
    """Before it computes: its answers would depend on the batch, and would move what it has learnt."""
    if model.training and any(isinstance(each, (_BatchNorm, nn.Dropout)) and each.training for each in model.modules()):
        raise ValueError("the network is in training mode, in which an answer depends on the batch; call .eval() on it")


def fitting(logits: Tensor, classes: int) -> Tensor:
    """``logits`` of a network that may be another than was loaded, if they are for as many classes."""
    if logits.dim() != 2 or logits.shape[1] != classes:
        got = "x".join(map(str, logits.shape[1:]))
        raise ValueError(
            f"the network gives {got} numbers an image, and there are labels for {classes}; save it with labels of its "
            "own (shufflenetv2.save), and make a classifier of that file"
        )
    return logits


def gathered(
    photos: Photo | Iterable[Photo], transform: PhotoTransform, compute: Callable[[Tensor], Tensor], width: int
) -> Tensor:
    """Rows ``(N, width)``, float32 on the CPU, of what ``compute`` makes of the photos; the first bad one is raised."""
    rows = [torch.empty(0, width, dtype=torch.float32, device="cpu")]
    for images in _batches(photos, transform):
        with torch.inference_mode():
            row = compute(images)
            check_finite(row.abs().amax(1).tolist(), images)
        rows.append(row.to("cpu", torch.float32, copy=True))  # outside: of use in training, too
    return torch.cat(rows)


def _batches(photos: Photo | Iterable[Photo], transform: PhotoTransform) -> Iterator[Tensor]:
    elements = several(photos)
    if elements is None:
        if not isinstance(photos, Tensor) or photos.dim() != 4 or len(photos):
            yield from torch.split(transform(photos), BATCH_SIZE)
        return
    for number, batch in enumerate(read_ahead(elements, transform, keep=transform.keep(photos))):
        for index, (_, images) in enumerate(batch, number * BATCH_SIZE):
            if isinstance(images, ImageError):
                raise ImageError(f"photos[{index}]: {images}") from images
        yield torch.cat([images for _, images in batch if isinstance(images, Tensor)])


def check_finite(highest: Sequence[float], images: Tensor) -> None:
    """Refuse answers to ``images`` of which the ``highest`` number is NaN or infinite: then no other is of use."""
    if all(map(math.isfinite, highest)):
        return
    if not images.isfinite().all():
        raise ValueError("the preprocessed images hold NaN or infinity; their values must be finite")
    raise CheckpointError(
        "the network answers with NaN or infinity: its weights are damaged, or overflow in this device's arithmetic"
    )
