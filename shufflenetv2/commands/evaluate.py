"""``evaluate``: exact top-1 and top-5 accuracy on a folder of labelled photos, in one process or several.

Under ``torchrun --nproc-per-node=N -m shufflenetv2 evaluate ...`` every process takes each N-th photo, whole numbers
are added up, and so every photo is counted exactly once, whatever N.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..description import Metrics
from ..files import check_folder, shown
from ..package import progress_bar
from .options import add, add_weights, any_path, chosen_weights, say

if TYPE_CHECKING:
    from ..builder import Weights
    from ..description import Category
    from ..evaluation.counting import Counts
    from ..evaluation.judging import Answers
    from ..inference.classifier import Classifier
    from ..photos.folders import LabelledPhotos


LISTED = 20  # photos on which two differ, in the text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="one folder a class, named by WordNet id or label")
    add_weights(parser)
    add(parser, "--batch-size", "--workers", "--device", "--runtime", "--precision", "--plain", "--max-pixels")
    parser.add_argument("--skip-bad", action="store_true", help="count photos that cannot be used, and go on")
    add(parser, "--json", help="print one JSON object")
    parser.add_argument(
        "--against",
        metavar="WEIGHTS",
        help="count these on the same photos, in their deploy form or own runtime, and say which is better; --plain, "
        "--runtime and --precision are for --weights alone",
    )
    parser.add_argument("--report", type=any_path, metavar="FOLDER", help="write report.html, report.json and figures")
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="fit a temperature, so that probabilities say how often answers are right, and write it into a copy of "
        "the weights, --output; needs 200 photos that were not trained on",
    )
    parser.add_argument("--output", "-o", type=any_path, metavar="FILE", help="of --calibrate")


def run(arguments: argparse.Namespace) -> int:
    from ..computing import device_for
    from ..devices import join
    from ..evaluation.counting import count_hits
    from ..inference.classifier import Classifier
    from ..photos.folders import read_labelled

    source = chosen_weights(arguments)
    left_out: list[str] = []
    photos = read_labelled(arguments.directory, _classes(source), left_out.append)
    if arguments.calibrate != (arguments.output is not None):
        raise ValueError("--calibrate and --output FILE go together: the one fits, the other is the copy to write")
    if arguments.report or arguments.against or arguments.calibrate:
        counts = judge(arguments, source, photos)
        _tell(counts, left_out)
        return 0 if counts.photos else 1
    with join(device_for(source, arguments.runtime, arguments.device)) as group:
        classifier = Classifier(source, device=group.device, progress=group.leads, **_settings(arguments))
        start = time.perf_counter()
        with progress_bar(len(photos), "photo", shown=None if group.leads else False) as bar:
            counts = count_hits(
                classifier.model,
                classifier.transform,
                photos,
                group,
                batch_size=arguments.batch_size,
                workers=arguments.workers,
                skip_bad=arguments.skip_bad,
                advance=lambda count: bar.update(count * group.size),
            )
        seconds = time.perf_counter() - start
        if group.leads:
            answer = to_json if arguments.json else to_text
            print(answer(source, counts, seconds, _stated(source, photos)))
            _tell(counts, left_out)
    return 0 if counts.photos else 1


def _stated(source: "Weights", photos: "LabelledPhotos") -> Metrics | None:
    """What was measured before, where the photos show every class."""
    return source.metrics if len(set(photos.labels)) == len(photos.categories) else None


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Of the classifier of --weights."""
    own = {name: getattr(arguments, name) for name in ("runtime", "precision", "max_pixels")}
    return {**own, "deploy": not arguments.plain}


def _tell(counts: "Counts", left_out: list[str]) -> None:
    for line in left_out:
        say(line)
    if not counts.photos:
        say(f"none of the {counts.skipped} photos could be used")


def judge(arguments: argparse.Namespace, source: "Weights", photos: "LabelledPhotos") -> "Counts":
    """What needs every answer, not their count alone."""
    from ..evaluation import judging, report
    from ..inference.classifier import Classifier

    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ["WORLD_SIZE"] != "1":
        raise ValueError("--against, --report and --calibrate work in one process; start it without torchrun")
    other = _second(arguments)
    both = other and _labelled_by(other, arguments.directory)
    if arguments.report:
        report.check_packages()  # before anything is computed
        if arguments.report.resolve().is_relative_to(os.path.realpath(arguments.directory)):
            raise ValueError(f"--report {shown(arguments.report)} is among the photos; name a folder beside them")
        _check_report(arguments.report)
    first = Classifier(source, device=arguments.device, **_settings(arguments))
    classifiers, answers, more = [first], [], dict[str, Any]()
    if arguments.calibrate:
        source.read(False)  # an exported file has no tensors to copy, and says so
        judging.check_output(arguments.output)
        judging.check_count(len(photos))
        check_folder(arguments.output.absolute().parent)
    start = time.perf_counter()
    answers.append(one := _asked(arguments, first, photos))
    seconds = time.perf_counter() - start
    if other and both:
        places = {path: index for index, path in enumerate(both.paths)}
        classifiers.append(Classifier(other, device=arguments.device, max_pixels=arguments.max_pixels))
        answers.append(_asked(arguments, classifiers[1], both.take([places[path] for path in one.paths])))
        more["against"] = report.compared(*answers)
    counts = one.counts
    answer = to_json if arguments.json else to_text
    try:
        if arguments.calibrate:
            more["calibration"] = judging.calibrate(one, arguments.output)
        if arguments.report and one.paths:
            content = report.numbers(arguments.directory, *answers)
            written = report.write_report(arguments.report, content, *zip(classifiers, answers, strict=True))
            more["report"] = str(written)
    finally:  # what was found out is told, whatever becomes of the files
        print(answer(source, counts, seconds, _stated(source, photos), more))
    return counts


def _check_report(folder: Path) -> None:
    """Before anything is computed: whether it can be made and written into; nothing is left where that fails later."""
    there = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    if not there.is_dir():
        raise ValueError(f"--report {shown(folder)} cannot be a folder: {shown(there)} is a file; name another")
    check_folder(there)


def _second(arguments: argparse.Namespace) -> "Weights | None":
    """Of --against; a file that does not say its labels has those of --categories, too."""
    from ..builder import resolve

    other = resolve(None, arguments.against, described=False) if arguments.against else None
    if other and not other.described:
        return resolve(None, arguments.against, categories=arguments.categories)
    return other


def _classes(weights: "Weights") -> "tuple[Category, ...]":
    """Those that the folders must be named by; of weights without a classifier, ``labels`` says what is wrong."""
    return weights.classes if weights.labels else ()


def _labelled_by(other: "Weights", directory: str) -> "LabelledPhotos":
    from ..errors import DatasetError
    from ..photos.folders import read_labelled

    classes = _classes(other)
    try:
        return read_labelled(directory, classes)
    except DatasetError as error:
        raise DatasetError(f"--against {other.title}: {error}") from error


def _asked(arguments: argparse.Namespace, classifier: "Classifier", photos: "LabelledPhotos") -> "Answers":
    from ..evaluation.judging import collect

    with progress_bar(len(photos), "photo") as bar:
        return collect(
            classifier,
            photos,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            skip_bad=arguments.skip_bad,
            advance=bar.update,
        )


def to_text(
    source: "Weights", counts: "Counts", seconds: float, stated: Metrics | None, more: dict[str, Any] | None = None
) -> str:
    from ..evaluation.counting import percent, wilson

    def line(name: str, hits: int, claim: float | None) -> str:
        low, high = wilson(hits, counts.photos)
        row = f"{name:<9} {percent(hits, counts.photos):6.2f} %  [{low:.2f}, {high:.2f}]  {hits} of {counts.photos}"
        return row if claim is None else f"{row}  stated: {claim:.2f} %"

    lines = [
        shown(", ".join(source.reference)),
        line("top-1", counts.top1, stated.acc1 if stated else None),
        line("top-5", counts.top5, stated.acc5 if stated else None),
        f"{counts.photos / seconds:.1f} photos a second, {counts.skipped} skipped",
    ]
    if stated:
        lines.append(f"stated for {stated.dataset}, measured by {stated.measured_by}")
    return "\n".join([*lines, *_more_text(more or {}, line)])


def _more_text(more: dict[str, Any], line: Callable[[str, int, float | None], str]) -> Iterator[str]:
    if against := more.get("against"):
        from ..evaluation.report import verdict

        yield f"against {against['weights']}"
        yield from (line(f"top-{top}", against[f"top{top}"]["hits"], None) for top in (1, 5))
        yield from verdict(against)
        differing = against["differing"]
        for row in differing[:LISTED]:
            yield shown(f"  {row['label']}: first {row['first']}, second {row['second']}  {row['photo']}")
        if len(differing) > LISTED:
            yield f"  and {len(differing) - LISTED} more; --json or --report tells all"
    if fitted := more.get("calibration"):
        yield f"temperature {fitted['temperature']:.4f}, written to {shown(fitted['output'])}; on these photos:"
        for name in ("before", "after"):
            error, loss = fitted[name]["expected_calibration_error"], fitted[name]["negative_log_likelihood"]
            yield f"  {name:<7} expected calibration error {100 * error:.2f} %, negative log likelihood {loss:.4f}"
    if "report" in more:
        yield f"report: {shown(more['report'])}"


def to_json(
    source: "Weights", counts: "Counts", seconds: float, stated: Metrics | None, more: dict[str, Any] | None = None
) -> str:
    from ..evaluation.counting import scores

    arch, weights = source.reference
    return json.dumps(
        {
            "arch": arch,
            "weights": weights,
            **scores(counts),
            "photos_per_second": counts.photos / seconds,
            "stated": stated and {"dataset": stated.dataset, "acc@1": stated.acc1, "acc@5": stated.acc5},
            **(more or {}),
        }
    )
