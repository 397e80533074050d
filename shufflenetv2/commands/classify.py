"""``classify``: photos and folders of photos in, the most likely labels of each out, in order."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ImageError
from .options import add_batch_size, add_device, add_json, add_weights, positive

if TYPE_CHECKING:
    from ..inference import Prediction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="+", metavar="PHOTO_OR_FOLDER", help="folders are read recursively, in order")
    add_weights(parser)
    parser.add_argument("--top", type=positive, default=5, help="how many labels a photo (default: %(default)s)")
    add_batch_size(parser)
    add_device(parser)
    add_json(parser, "one JSON object a line, one line a photo")


def run(arguments: argparse.Namespace) -> int:
    import torch.hub

    from ..builder import resolve
    from ..inference import Classifier, classify_photos
    from ..photos.folders import find_photos

    paths = find_photos(arguments.photos)
    source = resolve(arguments.arch, arguments.weights)
    classifier = Classifier(source, top=arguments.top, device=arguments.device)
    failed = 0
    hidden = len(paths) == 1 or not sys.stderr.isatty()
    # tqdm's bar where it is installed, a plain one otherwise
    with torch.hub.tqdm(total=len(paths), unit="photo", disable=hidden) as bar:  # type: ignore[attr-defined]
        # On a terminal the bar has to step aside for each line; a file or a pipe gets the lines alone.
        write: Callable[[str], object] = bar.write if sys.stdout.isatty() and not hidden else print
        for path, outcome in classify_photos(classifier, paths, arguments.batch_size):
            bar.update(1)
            if isinstance(outcome, ImageError):
                failed += 1
                print(f"shufflenetv2: error: {outcome}", file=sys.stderr)
            if arguments.json:
                write(to_json(path, outcome))
            elif not isinstance(outcome, ImageError):
                write(to_text(path, outcome))
    if failed:
        print(f"shufflenetv2: {failed} of {len(paths)} photos could not be classified", file=sys.stderr)
    return 1 if failed else 0


def to_text(path: Path, predictions: "list[Prediction]") -> str:
    lines = [f"{each.probability:9.2%}  {each.label}" for each in predictions]
    return "\n".join([str(path), *lines])


def to_json(path: Path, outcome: "list[Prediction] | ImageError") -> str:
    if isinstance(outcome, ImageError):
        return json.dumps({"photo": str(path), "error": str(outcome)})
    predictions = [{"label": each.label, "probability": each.probability, "index": each.index} for each in outcome]
    return json.dumps({"photo": str(path), "predictions": predictions})
