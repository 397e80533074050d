"""``export``: a model for other runtimes, with its categories and preprocessing inside, compared after writing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..description import MAX_SIDE, to_json
from ..errors import ExportError
from ..files import whole_file
from ..network.formats.table import FORMATS, METADATA, SMALLEST_SIZE, Format, Shape
from ..package import require, sample_photos
from .options import add_plain, add_weights, bounded, positive

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..builder import Weights

# Of the largest logit. Runtimes add float32 numbers in other orders: through some 50 layers about 1e-6 is seen.
TOLERANCE = 1e-4


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
    return bounded(int, text, SMALLEST_SIZE, MAX_SIDE, f"a whole number from {SMALLEST_SIZE} to {MAX_SIDE}")


def run(arguments: argparse.Namespace) -> int:
    import torch

    from ..builder import build, resolve

    form = FORMATS[arguments.format]
    require(f"exporting to {arguments.format}", *form.to_write, *form.to_open)
    weights = resolve(arguments.arch, arguments.weights)
    output = arguments.output or Path(weights.arch + form.suffix)
    fixed, crop = arguments.fixed_batch, weights.preprocess.crop
    pixels = arguments.size or (crop if fixed else max(crop, SMALLEST_SIZE))
    # Two images as an example: torch.export takes a dimension of one for a constant.
    shape = Shape(fixed or 2, weights.in_channels, pixels, dynamic=fixed is None)
    model = build(weights.arch, weights, deploy=not arguments.plain)
    with torch.inference_mode():
        for line in export(model, weights, form, shape, output):
            print(line)
    return 0


def export(model: nn.Module, weights: Weights, form: Format, shape: Shape, output: Path) -> Iterator[str]:
    """Write ``model`` to ``output``, which appears only once the file was read back and computed the same.

    Yields:
        What was compared and how much it differed, then what was written.

    Raises:
        ExportError: it could not be written, or the outputs differ by more than ``TOLERANCE``.
        OSError: the file cannot be written.
    """
    import torch

    if not output.parent.is_dir():
        raise FileNotFoundError(f"there is no directory {output.parent} to write {output.name} into")
    metadata = metadata_of(weights)
    with whole_file(output, form.suffix) as temporary:
        try:
            form.write(model, shape, metadata, temporary)
        except RuntimeError as error:  # also what torch.export and torch.onnx raise
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            advice = "; with --fixed-batch N it need not allow every batch and size" if shape.dynamic else ""
            raise ExportError(f"{output}: torch {torch.__version__} cannot write this: {reason}{advice}") from error
        network, found = form.open(temporary)
        if {key: found.get(key) for key in metadata} != metadata:
            raise ExportError(f"{output}: the categories and preprocessing came back altered; nothing was written")
        for name, images in trials(weights, shape):
            expected, got = model(images), network(images)
            difference, largest = float((got - expected).abs().max()), float(expected.abs().max())
            if got.shape != expected.shape or not difference <= TOLERANCE * largest:
                raise ExportError(
                    f"{output}: on {name} the file gives {tuple(got.shape)}, up to {difference:.3g} away from the "
                    f"model's {tuple(expected.shape)}, where {TOLERANCE * largest:.3g} is allowed; nothing was written"
                )
            yield f"{name}: largest difference {difference:.2g}, largest logit {largest:.3g}"
    yield f"{output}: {output.stat().st_size / 1e6:.1f} MB"


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
        shapes += [(1, shape.size, shape.size), (3, shape.size + 13, shape.size + 32)]
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
