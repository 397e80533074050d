"""``export``: a model for other runtimes, with its categories and preprocessing inside, compared after writing."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..description import MAX_SIDE
from ..errors import DatasetError
from ..files import check_folder, is_device
from ..network.formats.table import FORMATS, PRECISIONS, SMALLEST_WITH_SMALL_STEM, Format
from .options import add, add_weights, any_path, chosen_weights, positive, say, whole

if TYPE_CHECKING:
    from torch import Tensor

    from ..builder import Weights

LEAST_PHOTOS, PHOTOS = 100, 300  # to calibrate with; more are left out, evenly


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, help="default: the one that -o FILE ends like")
    parser.add_argument("-o", "--output", type=any_path, metavar="FILE", help="default: the architecture's name")
    add_weights(parser)
    add(parser, "--plain")
    size = whole(SMALLEST_WITH_SMALL_STEM, MAX_SIDE, " of pixels")
    parser.add_argument(
        "--size", type=size, metavar="PIXELS", help="height and width of the example (default: the crop of the weights)"
    )
    parser.add_argument(
        "--fixed-batch",
        type=positive,
        metavar="N",
        help="allow no other input than N images of --size, for runtimes that ask for it (default: any batch and size, "
        f"but for {' and '.join(name for name, form in FORMATS.items() if not form.dynamic)} 1)",
    )
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument("--precision", choices=PRECISIONS[:-1], default=PRECISIONS[0], help="default: %(default)s")
    precision.add_argument(
        "--int8", dest="precision", action="store_const", const="int8", help="8-bit integers; needs --calibrate"
    )
    parser.add_argument(
        "--calibrate",
        type=any_path,
        metavar="DIR",
        help=f"a folder of at least {LEAST_PHOTOS} photos such as will be classified ({PHOTOS} are taken): int8 gets "
        "its ranges from them, and labels are compared on them",
    )


def run(arguments: argparse.Namespace) -> int:
    from ..exporting import Order, check_packages, shape_for, write

    arguments.format = arguments.format or format_by_name(arguments.output)
    form = FORMATS[arguments.format]
    if arguments.precision not in form.precisions:
        able = ", ".join(name for name, each in FORMATS.items() if arguments.precision in each.precisions)
        raise ValueError(f"{arguments.format} has no {arguments.precision}; there is {able}")
    if arguments.precision == "int8" and not arguments.calibrate:
        raise ValueError("--int8 needs --calibrate DIR: the ranges of its numbers are those that photos give")
    check_packages(arguments.format, arguments.precision)
    weights = chosen_weights(arguments)
    output = arguments.output or Path(weights.arch + form.suffix)
    if not arguments.output and (there := [file for file in form.files(output) if file.exists()]):
        raise FileExistsError(f"{there[0]} is there; -o {output} replaces it, or give another name")
    if form.folder and not output.name:  # "." has no name, which temporary files take theirs from
        output = output.absolute()
    shape = shape_for(form, weights, arguments.size, arguments.fixed_batch)
    check_output(output, form, weights)
    if not shape.dynamic:  # what the file says of photos is what it takes
        weights = for_size(weights, shape.size)
    photos = calibration_photos(arguments.calibrate, weights) if arguments.calibrate else None
    batch = arguments.fixed_batch or 1
    if photos is not None and arguments.precision == "int8" and len(photos) // batch * batch < LEAST_PHOTOS:
        raise DatasetError(
            f"--fixed-batch {batch} leaves fewer than {LEAST_PHOTOS} of {len(photos)} photos to calibrate"
        )
    order = Order(weights, arguments.format, shape, arguments.precision, arguments.plain, photos)
    for line in list(write(order, output)):  # all of them first: a reader who goes must not stop the writing
        print(line)
    files = form.files(output)
    print(f"{output}: {arguments.precision}, {sum(file.stat().st_size for file in files) / 1e6:.2f} MB")
    return 0


def format_by_name(output: Path | None) -> str:
    """The format whose files end as ``output`` does."""
    endings = {form.suffix: name for name, form in FORMATS.items() if form.suffix}
    for suffix, name in endings.items():
        if output is not None and output.name.lower().endswith(suffix):
            return name
    known = ", ".join(f"{name} ({suffix})" for suffix, name in endings.items())
    others = ", ".join(name for name, form in FORMATS.items() if not form.suffix)
    raise ValueError(f"which format? give -o FILE with its ending, or --format: {known}, {others} (a folder)")


def for_size(weights: Weights, pixels: int) -> Weights:
    """``weights`` whose photos are prepared for a file that takes so many pixels a side alone."""
    said = weights.preprocess
    if pixels == said.crop:
        return weights
    resize = round(pixels * said.resize / said.crop)
    if resize > MAX_SIDE:
        raise ValueError(
            f"--size {pixels} asks for photos of {resize} pixels, of which the centre is kept; give at most "
            f"{MAX_SIDE * said.crop // said.resize}"
        )
    return replace(weights, preprocess=replace(said, resize=resize, crop=pixels), metrics=None)  # of photos otherwise


def check_output(output: Path, form: Format, weights: Weights) -> None:
    said = output / form.parts[0]  # of a folder
    if output.is_dir() and not form.folder:
        raise IsADirectoryError(f"{output} is a directory; -o takes the name of the file to write")
    if is_device(output):
        raise FileExistsError(f"{output} is a pipe, a socket or a device; -o takes the name of a file")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"there is no directory {output.parent} to write {output.name} into")
    try:
        check_folder(output.parent)
    except OSError as error:
        raise PermissionError(
            f"nothing can be written into {output.parent}: {error.strerror}; choose another -o"
        ) from error
    if form.folder:
        others = [each.name for each in output.iterdir() if each.name not in form.parts] if output.is_dir() else []
        if output.is_file() or others:
            raise FileExistsError(f"{output} is no folder of an earlier export; -o takes the name of a new folder")
        if said.exists() and b'"shufflenetv2"' not in said.read_bytes():
            raise FileExistsError(f"{said} is no file of an earlier export; -o takes the name of a new folder")
    elif not output.name.lower().endswith(form.suffix) or len(output.name) == len(form.suffix):
        raise ValueError(
            f"{output} must be a name that ends in {form.suffix}: by its suffix the file is known when it is opened"
        )
    there = [file for file in form.files(output) if file.exists()]
    own = [*there, output] if output.exists() else there
    if os.path.isabs(weights.name) and any(os.path.samefile(file, weights.name) for file in own):
        raise FileExistsError(f"{output} would replace the file of the weights themselves; -o takes another name")
    if there and len(there) < len(form.parts) and not (form.folder and said in there):
        raise FileExistsError(
            f"{there[0]} is there without the other parts of an export: maybe another's; remove it, or give another -o"
        )


def calibration_photos(folder: Path, weights: Weights) -> Tensor:
    """Photos of ``folder``, evenly chosen and preprocessed: ``float32 (N, C, crop, crop)``.

    Raises:
        DatasetError: it is no folder, or there are too few.
        ImageError: naming one that cannot be used.
    """
    import torch

    from ..photos.ahead import read_ahead
    from ..photos.listing import find_photos
    from ..photos.transform import PhotoTransform

    if not folder.is_dir():
        raise DatasetError(f"--calibrate {folder} is not a folder")
    paths = list(find_photos([folder], say))
    if len(paths) < LEAST_PHOTOS:
        raise DatasetError(
            f"--calibrate {folder}: {len(paths)} photos were found there, at least {LEAST_PHOTOS} are needed: with "
            "fewer, the ranges of int8 depend on chance"
        )
    step = max(len(paths) / PHOTOS, 1.0)
    chosen = [paths[int(index * step)] for index in range(min(len(paths), PHOTOS))]
    images = []
    for batch in read_ahead(chosen, PhotoTransform(weights.preprocess, weights.in_channels)):
        for _, image in batch:
            if isinstance(image, Exception):
                raise image
            images.append(image)
    return torch.cat(images)
