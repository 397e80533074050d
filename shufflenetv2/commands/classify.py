"""``classify``: photos and folders of photos in, the most likely labels of each out, in order."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch.hub

from ..errors import ImageError
from ..inference import Classifier, Prediction
from ..network.model import SPECS
from ..photos.folders import BATCH_SIZE, find_photos, read_ahead
from ..sources import resolve
from .options import positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="+", metavar="PHOTO_OR_FOLDER", help="folders are read recursively, in order")
    parser.add_argument("--arch", choices=SPECS, help="default: the one the weights are for, or shufflenet_v2_x1_0")
    parser.add_argument("--weights", default="default", help="a name from `weights list`, or the path of a checkpoint")
    parser.add_argument("--top", type=positive, default=5, help="how many labels a photo (default: %(default)s)")
    parser.add_argument(
        "--batch-size", type=positive, default=BATCH_SIZE, help="photos computed at once (default: %(default)s)"
    )
    parser.add_argument("--device", help="for example cpu or cuda:0 (default: CUDA if there is one)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line, one line a photo")


def run(arguments: argparse.Namespace) -> int:
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


def classify_photos(
    classifier: Classifier, paths: list[Path], batch_size: int = BATCH_SIZE
) -> Iterator[tuple[Path, list[Prediction] | ImageError]]:
    """Each path with its predictions, or with what is wrong with it; in order, in bounded memory."""
    for batch in read_ahead(paths, classifier.transform, batch_size):
        predictions = iter(classifier.predict(batch.images) if batch.images is not None else [])
        for path, error in zip(batch.paths, batch.errors, strict=True):
            yield path, error or next(predictions)


def to_text(path: Path, predictions: list[Prediction]) -> str:
    lines = [f"{each.probability:9.2%}  {each.label}" for each in predictions]
    return "\n".join([str(path), *lines])


def to_json(path: Path, outcome: list[Prediction] | ImageError) -> str:
    if isinstance(outcome, ImageError):
        return json.dumps({"photo": str(path), "error": str(outcome)})
    predictions = [{"label": each.label, "probability": each.probability, "index": each.index} for each in outcome]
    return json.dumps({"photo": str(path), "predictions": predictions})
