"""``classify``: photos and folders of photos in, the most likely labels of each out, in order."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..files import shown
from ..package import progress_bar
from .options import (
    add_batch_size,
    add_device,
    add_json,
    add_max_pixels,
    add_runtime,
    add_weights,
    chosen_weights,
    positive,
)

if TYPE_CHECKING:
    from ..stream import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="+", metavar="PHOTO_OR_FOLDER", help="folders are read recursively, in order")
    add_weights(parser)
    parser.add_argument("--top", type=positive, default=5, help="how many labels a photo (default: %(default)s)")
    add_batch_size(parser)
    add_device(parser)
    add_runtime(parser)
    add_max_pixels(parser)
    add_json(parser, "one JSON object a line, one line a photo")


def run(arguments: argparse.Namespace) -> int:
    from ..inference import Classifier
    from ..photos.listing import find_photos

    left_out: list[str] = []
    paths = find_photos(arguments.photos, left_out.append)
    source = chosen_weights(arguments)
    classifier = Classifier(
        source,
        top=arguments.top,
        device=arguments.device,
        runtime=arguments.runtime,
        precision=arguments.precision,
        max_pixels=arguments.max_pixels,
    )
    failed = 0
    shows = len(paths) > 1 and sys.stderr.isatty()
    with progress_bar(len(paths), "photo", shown=shows) as bar:
        # On a terminal the bar has to step aside for each line; a file or a pipe gets the lines alone.
        write: Callable[[str], object] = bar.write if sys.stdout.isatty() and shows else print
        for result in classifier.stream(paths, batch_size=arguments.batch_size):
            bar.update(1)
            if result.error:
                failed += 1
                print(f"shufflenetv2: error: {result.error}", file=sys.stderr)
            if arguments.json:
                write(to_json(result))
            elif not result.error:
                write(to_text(result))
    for line in left_out:
        print(f"shufflenetv2: {line}", file=sys.stderr)
    if failed:
        print(f"shufflenetv2: {failed} of {len(paths)} photos could not be classified", file=sys.stderr)
    return 1 if failed else 0


def to_text(result: "Result") -> str:
    lines = [f"{each.probability:9.2%}  {each.label}" for each in result.predictions]
    return "\n".join([shown(result.photo), *lines])


def to_json(result: "Result") -> str:
    """In ASCII: the bytes of a name that is no text come back from ``os.fsencode``."""
    if result.error:
        return json.dumps({"photo": str(result.photo), "error": str(result.error)})
    return json.dumps({"photo": str(result.photo), "predictions": [each._asdict() for each in result.predictions]})
