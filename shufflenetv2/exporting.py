"""Weights become a file for another runtime, compared with the model in that runtime before it appears."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.hub
from torch import Tensor, nn

from . import __version__
from .builder import Weights, build
from .errors import CheckpointError, ExportError
from .files import whole_files
from .network.formats.described import ExportedNetwork, Inside, check, choose_probes, parse_metadata
from .network.formats.table import FORMATS, SMALLEST_SIZE, SMALLEST_WITH_SMALL_STEM, Format, Network, Plan, Shape
from .network.model import SPECS
from .package import logger, require, sample_photos
from .photos.transform import PhotoTransform

# Of the largest logit. Runtimes add float32 numbers in other orders: through some 50 layers about 1e-6 is seen.
TOLERANCE = 1e-4
HALF_TOLERANCE = 0.1  # bfloat16 has 8 bits; on photos labels are compared besides
AGREEMENT = 0.9  # of the labels on the calibration photos, below which something is wrong with the file
# What is compared is computed in one piece: at the end of the stem this many pixels take 1.6 GB.
LARGEST_INPUT = 2**26
BATCH = 16


@dataclass(frozen=True)
class Order:
    """A file that is to be written: of which weights, in which format, for which input and precision."""

    weights: Weights
    format: str
    shape: Shape
    precision: str = "float32"
    plain: bool = False
    photos: Tensor | None = None  # to calibrate int8 with, and to compare labels on; float32 (N, C, size, size)

    @property
    def form(self) -> Format:
        return FORMATS[self.format]


def shape_for(form: Format, weights: Weights, size: int | None = None, fixed_batch: int | None = None) -> Shape:
    """The input that a file promises: any where the format can and ``fixed_batch`` is ``None``, else the one given.

    Raises:
        ValueError: it is smaller than the network takes, or its photos are, or too large to compare.
    """
    fixed, crop = fixed_batch if form.dynamic else fixed_batch or 1, weights.preprocess.crop
    smallest = SMALLEST_WITH_SMALL_STEM if weights.small_stem else SMALLEST_SIZE
    if form.guarded and not fixed and crop < smallest:
        raise ValueError(
            f"the photos of {weights.title} are cut to {crop} pixels, and a file for every size takes {smallest} or "
            "more: give --fixed-batch 1"
        )
    pixels = size or (crop if fixed else max(crop, smallest))
    least = smallest - bool(fixed)  # which is too small for a file that takes other sizes, too
    if size and size < least:
        raise ValueError(f"--size {size} is too small for {weights.title}, which takes {least} pixels or more")
    # Two images as an example: torch.export takes a dimension of one for a constant.
    shape = Shape(fixed or 2, weights.in_channels, pixels, fixed is None, smallest)
    if shape.batch * pixels**2 > LARGEST_INPUT:
        raise ValueError(f"--fixed-batch {fixed} is too large: {fixed} images of {pixels}x{pixels} cannot be compared")
    return shape


def check_packages(name: str, precision: str) -> None:
    """Refuse to begin without the packages that the format ``name`` needs.

    Raises:
        ImportError: with the line for pip.
    """
    form = FORMATS[name]
    needed = (*form.to_write, *form.to_open, *(form.to_quantise if precision == "int8" else ()))
    require(f"exporting to {name}", *needed)


def write(order: Order, output: Path, progress: bool = True) -> Iterator[str]:
    """Write the file ``output`` (for some formats with others beside it, or a folder), read it back and compare.

    Yields:
        What was compared and how much it differed.

    Raises:
        ImportError: a package is missing; the message has the pip line.
        ExportError: it could not be written or read, or the outputs differ by too much. Nothing is left behind.
        OSError: the file cannot be written.
    """
    form = order.form
    check_packages(order.format, order.precision)
    with (
        whole_files(output, form.files(output)) as temporary,
        torch.inference_mode(),
        torch.device("cpu"),  # whatever the caller computes on, and in
        torch.autocast("cpu", enabled=False),
    ):
        deploy = not (order.plain or form.plain)
        with _in_float32():
            model = build(order.weights.arch, order.weights, progress=progress, deploy=deploy)
            model.requires_grad_(False)  # torch.export would ask it of an inference tensor, which the plain form has
        yield from write_built(model, order, temporary)


_ONE_AT_A_TIME = threading.Lock()  # the default dtype is one for all threads


@contextmanager
def _in_float32() -> Iterator[None]:
    """Runtimes take float32, and a file in the cache serves everyone, whatever the default dtype was as it was made."""
    with _ONE_AT_A_TIME:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def write_built(model: nn.Module, order: Order, path: Path) -> Iterator[str]:
    metadata = describe(model, order).to_metadata()
    advice = "; with --fixed-batch N it need not allow every batch and size" if order.shape.dynamic else ""
    told = _told(f"torch {torch.__version__} cannot write this network", advice, RuntimeError)  # the exporters' own
    with told, torch.inference_mode(False), torch.no_grad():
        order.form.write(model, Plan(order.shape, order.precision, order.photos), metadata, path)
    with _told("what was written cannot be read"):
        network, found = order.form.open(path)
    if {key: found.get(key) for key in metadata} != metadata:
        raise ExportError("the categories and preprocessing came back altered; nothing was written")
    for name, images in trials(order.weights, order.shape):
        expected = model(images)
        with _told(f"on {name} the written file fails"):
            got = network(images)
        yield _compared(name, got, expected, order.precision)
    opened = ExportedNetwork(network, parse_metadata(found, SPECS, path.name), path.name, order.form.runtime)
    if order.photos is not None:
        yield _agreement(opened, model, order.photos)
    with _told("the inputs that it carries come out otherwise", kind=CheckpointError):
        check(opened)


def describe(model: Network, order: Order) -> Inside:
    """What the file says of itself."""
    weights, shape = order.weights, order.shape
    size = shape.size if not shape.dynamic else max(weights.preprocess.crop, shape.smallest)
    return Inside(
        description=weights.description,
        classes=weights.classes,
        weights=Path(weights.name).name,
        sha256=weights.sha256,
        precision=order.precision,
        batch=None if shape.dynamic else shape.batch,
        size=None if shape.dynamic else shape.size,
        smallest=shape.smallest,
        probes=choose_probes(model, weights.in_channels, size),
        producer=f"shufflenetv2 {__version__}, torch {torch.__version__}",
    )


def _compared(name: str, got: Tensor, expected: Tensor, precision: str) -> str:
    largest = float(expected.abs().max())
    difference = float((got - expected).abs().max()) if got.shape == expected.shape else float("inf")
    allowed = {"float32": TOLERANCE, "int8": 1.0}.get(precision, HALF_TOLERANCE) * largest
    if not difference <= allowed:
        raise ExportError(
            f"on {name} the written file gives {tuple(got.shape)}, up to {difference:.3g} away from the model's "
            f"{tuple(expected.shape)}, where {allowed:.3g} is allowed; nothing was written"
        )
    return f"{name}: largest difference {difference:.2g}, largest logit {largest:.3g}"


def _agreement(network: Network, model: Network, photos: Tensor) -> str:
    batches = torch.split(photos, BATCH)
    same = sum(int(torch.sum(network(each).argmax(1) == model(each).argmax(1))) for each in batches)
    told = f"{len(photos)} calibration photos: the same label for {same}, {same / len(photos):.1%}"
    if same < AGREEMENT * len(photos):
        raise ExportError(f"{told}, where {AGREEMENT:.0%} is expected; nothing was written")
    return told


@contextmanager
def _told(what: str, advice: str = "", kind: type[Exception] = Exception) -> Iterator[None]:
    """Every exporter and runtime raises errors of its own; the first line of theirs is kept."""
    try:
        yield
    except kind as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ExportError(f"{what}: {reason}{advice}; nothing was written") from error


def trials(weights: Weights, shape: Shape) -> Iterator[tuple[str, Tensor]]:
    """Inputs to compare on: random ones in every shape that is promised, and a photo."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(shape.batch, shape.size, shape.size)]
    if shape.dynamic:
        shapes += [
            (1, shape.smallest, shape.smallest),
            (1, weights.preprocess.crop, weights.preprocess.crop),
            (3, shape.size + 13, shape.size + 32),
        ]
    for batch, height, width in shapes:
        images = torch.randn(batch, shape.channels, height, width, generator=generator, dtype=torch.float32)
        yield f"random input {tuple(images.shape)}", images
    sample = next(iter(sample_photos()), None)
    if sample and shape.channels in (1, 3):
        photo = PhotoTransform(weights.preprocess, shape.channels)(sample)
        if shape.dynamic or photo.shape[-1] == shape.size:
            yield f"the photo {sample.name}", photo.expand(shape.batch, -1, -1, -1).contiguous()
            return
    logger.warning("no sample photo of this size or these channels at hand: compared on random input alone")
