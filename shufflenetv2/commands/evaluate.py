"""``evaluate``: exact top-1 and top-5 accuracy on a folder of labelled photos, in one process or several.

Under ``torchrun --nproc-per-node=N -m shufflenetv2 evaluate ...`` every process takes each N-th photo, whole numbers
are added up, and so every photo is counted exactly once, whatever N.
"""

import argparse
import json
import math
import sys
import time
from typing import TYPE_CHECKING

from ..description import Metrics
from ..files import shown
from ..package import progress_bar
from .options import (
    add_batch_size,
    add_device,
    add_json,
    add_max_pixels,
    add_plain,
    add_runtime,
    add_weights,
    add_workers,
    chosen_weights,
)

if TYPE_CHECKING:
    from ..builder import Weights
    from ..counting import Counts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="one folder a class, named by WordNet id or label")
    add_weights(parser)
    add_batch_size(parser)
    add_workers(parser)
    add_device(parser)
    add_runtime(parser)
    add_plain(parser)
    add_max_pixels(parser)
    parser.add_argument("--skip-bad", action="store_true", help="count photos that cannot be used, and go on")
    add_json(parser, "one JSON object")


def run(arguments: argparse.Namespace) -> int:
    from ..counting import count_hits
    from ..devices import join
    from ..exporting import device_for, network_of
    from ..photos.folders import read_labelled
    from ..photos.transform import PhotoTransform

    source = chosen_weights(arguments)
    left_out: list[str] = []
    photos = read_labelled(arguments.directory, source.classes, left_out.append)
    with join(device_for(source, arguments.runtime, arguments.device)) as group:
        model = network_of(
            source,
            runtime=arguments.runtime,
            precision=arguments.precision,
            progress=group.leads,
            deploy=not arguments.plain,
        ).to(group.device)
        transform = PhotoTransform(source.preprocess, source.in_channels, max_pixels=arguments.max_pixels)
        start = time.perf_counter()
        with progress_bar(len(photos), "photo", shown=None if group.leads else False) as bar:
            counts = count_hits(
                model,
                transform,
                photos,
                group,
                batch_size=arguments.batch_size,
                workers=arguments.workers,
                skip_bad=arguments.skip_bad,
                advance=lambda count: bar.update(count * group.size),
            )
        seconds = time.perf_counter() - start
        if group.leads:
            whole = len(set(photos.labels)) == len(photos.categories)
            stated = source.metrics if whole else None
            report = to_json if arguments.json else to_text
            print(report(source, counts, seconds, stated))
            for line in left_out:
                print(f"shufflenetv2: {line}", file=sys.stderr)
            if not counts.photos:
                print(f"shufflenetv2: none of the {counts.skipped} photos could be used", file=sys.stderr)
    return 0 if counts.photos else 1


def wilson(hits: int, photos: int) -> tuple[float, float]:
    """The 95 % interval of a proportion, in percent (Wilson 1927, "Probable Inference", JASA 22)."""
    if not photos:
        return 0.0, 100.0
    z = 1.959963984540054  # the standard normal's 97.5 % point
    share = hits / photos
    centre = share + z * z / (2 * photos)
    margin = z * math.sqrt(share * (1 - share) / photos + z * z / (4 * photos**2))
    scale = 100 / (1 + z * z / photos)
    return max(0.0, scale * (centre - margin)), min(100.0, scale * (centre + margin))


def percent(hits: int, photos: int) -> float:
    return 100 * hits / photos if photos else 0.0


def to_text(source: "Weights", counts: "Counts", seconds: float, stated: Metrics | None) -> str:
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
    return "\n".join(lines)


def to_json(source: "Weights", counts: "Counts", seconds: float, stated: Metrics | None) -> str:
    def row(hits: int) -> dict[str, object]:
        return {"hits": hits, "percent": percent(hits, counts.photos), "interval": wilson(hits, counts.photos)}

    arch, weights = source.reference
    return json.dumps(
        {
            "arch": arch,
            "weights": weights,
            "photos": counts.photos,
            "skipped": counts.skipped,
            "top1": row(counts.top1),
            "top5": row(counts.top5),
            "photos_per_second": counts.photos / seconds,
            "stated": stated and {"dataset": stated.dataset, "acc@1": stated.acc1, "acc@5": stated.acc5},
        }
    )
