"""``classify``: photos and folders of photos in, the most likely labels of each out, in order."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ImageError
from ..files import shown
from ..package import progress_bar
from .options import add_batch_size, add_device, add_json, add_max_pixels, add_weights, positive

if TYPE_CHECKING:
    from ..inference import Prediction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="+", metavar="PHOTO_OR_FOLDER", help="folders are read recursively, in order")
    add_weights(parser)
    parser.add_argument("--top", type=positive, default=5, help="how many labels a photo (default: %(default)s)")
    add_batch_size(parser)
    add_device(parser)
    add_max_pixels(parser)
    add_json(parser, "one JSON object a line, one line a photo")


def run(arguments: argparse.Namespace) -> int:
    from ..builder import resolve
    from ..inference import Classifier, classify_photos
    from ..photos.folders import find_photos

    left_out: list[str] = []
    paths = find_photos(arguments.photos, left_out.append)
    source = resolve(arguments.arch, arguments.weights)
    classifier = Classifier(source, top=arguments.top, device=arguments.device, max_pixels=arguments.max_pixels)
    failed = 0
    shows = len(paths) > 1 and sys.stderr.isatty()
    with progress_bar(len(paths), "photo", shown=shows) as bar:
        # On a terminal the bar has to step aside for each line; a file or a pipe gets the lines alone.
        write: Callable[[str], object] = bar.write if sys.stdout.isatty() and shows else print
        for path, outcome in classify_photos(classifier, paths, arguments.batch_size):
            bar.update(1)
            if isinstance(outcome, ImageError):
                failed += 1
                print(f"shufflenetv2: error: {outcome}", file=sys.stderr)
            if arguments.json:
                write(to_json(path, outcome))
            elif not isinstance(outcome, ImageError):
                write(to_text(path, outcome))
    for line in left_out:
        print(f"shufflenetv2: {line}", file=sys.stderr)
    if failed:
        print(f"shufflenetv2: {failed} of {len(paths)} photos could not be classified", file=sys.stderr)
    return 1 if failed else 0


def to_text(path: Path, predictions: "list[Prediction]") -> str:
    lines = [f"{each.probability:9.2%}  {each.label}" for each in predictions]
    return "\n".join([shown(path), *lines])


def to_json(path: Path, outcome: "list[Prediction] | ImageError") -> str:
    """In ASCII: the bytes of a name that is no text come back from ``os.fsencode``."""
    if isinstance(outcome, ImageError):
        return json.dumps({"photo": str(path), "error": str(outcome)})
    return json.dumps({"photo": str(path), "predictions": [each._asdict() for each in outcome]})
