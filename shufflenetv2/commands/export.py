"""``export``: a model for other runtimes, with its categories and preprocessing inside, compared after writing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..description import MAX_SIDE, to_json
from ..errors import ExportError
from ..files import whole_file
from ..network.formats.table import (
    FORMATS,
    METADATA,
    SMALLEST_SIZE,
    SMALLEST_WITH_SMALL_STEM,
    Format,
    Shape,
)
from ..package import require, sample_photos
from .options import add_plain, add_weights, bounded, chosen_weights, positive

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..builder import Weights

# Of the largest logit. Runtimes add float32 numbers in other orders: through some 50 layers about 1e-6 is seen.
TOLERANCE = 1e-4
# What is compared is computed in one piece: at the end of the stem this many pixels take 1.6 GB.
LARGEST_INPUT = 2**26


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: the architecture's name")
    add_weights(parser)
    add_plain(parser)
    parser.add_argument(
        "--size", type=size, metavar="PIXELS", help="height and width of the example (default: the crop of the weights)"
    )
    parser.add_argument(
        "--fixed-batch",
        type=positive,
        metavar="N",
        help="allow no other input than N images of --size, for runtimes that ask for it (default: any batch and size)",
    )


def size(text: str) -> int:
    smallest = SMALLEST_WITH_SMALL_STEM
    return bounded(int, text, smallest, MAX_SIDE, f"a whole number of pixels from {smallest} to {MAX_SIDE}")


def run(arguments: argparse.Namespace) -> int:
    import torch

    from ..builder import build

    form = FORMATS[arguments.format]
    require(f"exporting to {arguments.format}", *form.to_write, *form.to_open)
    weights = chosen_weights(arguments)
    output = arguments.output or Path(weights.arch + form.suffix)
    fixed, crop = arguments.fixed_batch, weights.preprocess.crop
    smallest = SMALLEST_WITH_SMALL_STEM if weights.small_stem else SMALLEST_SIZE
    pixels = arguments.size or (crop if fixed else max(crop, smallest))
    if pixels < smallest:
        raise ValueError(f"--size {pixels} is too small for {weights.title}, which takes {smallest} pixels or more")
    # Two images as an example: torch.export takes a dimension of one for a constant.
    shape = Shape(fixed or 2, weights.in_channels, pixels, fixed is None, smallest)
    if shape.batch * pixels**2 > LARGEST_INPUT:
        raise ValueError(f"--fixed-batch {fixed} is too large: {fixed} images of {pixels}x{pixels} cannot be compared")
    check_output(output)
    with whole_file(output, form.suffix) as temporary:
        model = build(weights.arch, weights, deploy=not arguments.plain)
        with torch.inference_mode():
            for line in export(model, weights, form, shape, temporary):
                print(line)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
    return 0


def check_output(output: Path) -> None:
    if output.is_dir():
        raise IsADirectoryError(f"{output} is a directory; -o takes the name of the file to write")
    if output.exists() and not output.is_file():
        raise FileExistsError(f"{output} is a pipe, a socket or a device; -o takes the name of a file")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"there is no directory {output.parent} to write {output.name} into")


def export(model: nn.Module, weights: Weights, form: Format, shape: Shape, path: Path) -> Iterator[str]:
    """Write ``model`` to ``path``, read it back and compare.

    Yields:
        What was compared and how much it differed.

    Raises:
        ExportError: it could not be written or read, or the outputs differ by more than ``TOLERANCE``.
        OSError: the file cannot be written.
    """
    import torch

    metadata = metadata_of(weights)
    advice = "; with --fixed-batch N it need not allow every batch and size" if shape.dynamic else ""
    with told(f"torch {torch.__version__} cannot write this network", advice, RuntimeError):  # the exporters' own
        form.write(model, shape, metadata, path)
    with told("what was written cannot be read"):
        network, found = form.open(path)
    if {key: found.get(key) for key in metadata} != metadata:
        raise ExportError("the categories and preprocessing came back altered; nothing was written")
    for name, images in trials(weights, shape):
        expected = model(images)
        with told(f"on {name} the written file fails"):
            got = network(images)
        largest = float(expected.abs().max())
        difference = float((got - expected).abs().max()) if got.shape == expected.shape else float("inf")
        if not difference <= TOLERANCE * largest:
            raise ExportError(
                f"on {name} the written file gives {tuple(got.shape)}, up to {difference:.3g} away from the model's "
                f"{tuple(expected.shape)}, where {TOLERANCE * largest:.3g} is allowed; nothing was written"
            )
        yield f"{name}: largest difference {difference:.2g}, largest logit {largest:.3g}"


@contextmanager
def told(what: str, advice: str = "", kind: type[Exception] = Exception) -> Iterator[None]:
    """Every exporter and runtime raises errors of its own; the first line of theirs is kept."""
    try:
        yield
    except kind as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ExportError(f"{what}: {reason}{advice}; nothing was written") from error


def metadata_of(weights: Weights) -> dict[str, str]:
    import torch

    values = {
        "arch": weights.arch,
        "weights": Path(weights.name).name,
        "categories": weights.labels,
        "preprocess": to_json(weights.preprocess),
        "producer": f"shufflenetv2 {__version__}, torch {torch.__version__}",
    }
    return {key: json.dumps(values[key], ensure_ascii=False) for key in METADATA}


def trials(weights: Weights, shape: Shape) -> Iterator[tuple[str, Tensor]]:
    """Inputs to compare on: random ones in every shape that is promised, and a photo."""
    import torch

    generator = torch.Generator().manual_seed(0)
    shapes = [(shape.batch, shape.size, shape.size)]
    if shape.dynamic:
        shapes += [
            (1, shape.smallest, shape.smallest),
            (1, shape.size, shape.size),
            (3, shape.size + 13, shape.size + 32),
        ]
    for batch, height, width in shapes:
        images = torch.randn(batch, shape.channels, height, width, generator=generator)
        yield f"random input {tuple(images.shape)}", images
    sample = next(iter(sample_photos()), None)
    if sample and shape.channels in (1, 3):
        from ..photos.transform import PhotoTransform

        photo = PhotoTransform(weights.preprocess, shape.channels)(sample)
        if shape.dynamic or photo.shape[-1] == shape.size:
            yield f"the photo {sample.name}", photo.expand(shape.batch, -1, -1, -1).contiguous()
            return
    print("no sample photo of this size or these channels at hand: compared on random input alone", file=sys.stderr)
