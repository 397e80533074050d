"""``evaluate``: exact top-1 and top-5 accuracy on a folder of labelled photos, in one process or several.

Under ``torchrun --nproc-per-node=N -m shufflenetv2 evaluate ...`` every process takes each N-th photo, whole numbers
are added up, and so every photo is counted exactly once, whatever N.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.hub
from torch import nn

from ..builder import Weights, build, resolve
from ..description import Metrics
from ..devices import Group, join
from ..photos.folders import BATCH_SIZE, read_ahead
from ..photos.labelled import LabelledPhotos, read_labelled
from ..photos.transform import PhotoTransform
from .options import add_batch_size, add_device, add_json, add_plain, add_weights, positive


@dataclass(frozen=True)
class Counts:
    """Photos looked at; of those, the ones whose label came first and among the first five; and bad photos."""

    photos: int
    top1: int
    top5: int
    skipped: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="one folder a class, named by WordNet id or label")
    add_weights(parser)
    add_batch_size(parser)
    parser.add_argument(
        "--workers", type=positive, help="threads that decode photos in each process (default: one a core)"
    )
    add_device(parser)
    add_plain(parser)
    parser.add_argument("--skip-bad", action="store_true", help="count photos that cannot be used, and go on")
    add_json(parser, "one JSON object")


def run(arguments: argparse.Namespace) -> int:
    source = resolve(arguments.arch, arguments.weights)
    photos = read_labelled(arguments.directory, source.classes)
    with join(arguments.device) as group:
        model = build(source.arch, source, progress=group.leads, deploy=not arguments.plain).to(group.device)
        transform = PhotoTransform(source.preprocess, source.in_channels)
        hidden = not (group.leads and sys.stderr.isatty())
        start = time.perf_counter()
        # tqdm's bar where it is installed, a plain one otherwise
        with torch.hub.tqdm(total=len(photos), unit="photo", disable=hidden) as bar:  # type: ignore[attr-defined]
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
    return 0


@torch.inference_mode()
def count_hits(
    model: nn.Module,
    transform: PhotoTransform,
    photos: LabelledPhotos,
    group: Group,
    *,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    skip_bad: bool = False,
    advance: Callable[[int], object] = lambda count: None,
) -> Counts:
    """Count over all processes of ``group``.

    Args:
        model: in eval mode, on the group's device; its logits are in the order of ``photos.categories``.
        transform: what the model's photos need.
        photos: the same in every process.
        batch_size: photos computed at once.
        workers: threads that decode; ``None`` is one a core.
        skip_bad: count photos that cannot be used and name them on stderr, instead of stopping at the first.
        advance: told after each batch how many photos this process has behind it.

    Raises:
        ImageError: naming a photo that cannot be used.
    """
    mine = photos.take(range(group.rank, len(photos), group.size))
    labels = iter(mine.labels)
    counts = torch.zeros(4, dtype=torch.int64, device=group.device)  # photos, top-1, top-5, skipped
    for batch in read_ahead(mine.paths, transform, batch_size, workers):
        expected = []
        for error, label in zip(batch.errors, labels, strict=False):  # errors first: zip asks it first, and it ends
            if error is None:
                expected.append(label)
            elif skip_bad:
                print(f"shufflenetv2: skipped: {error}", file=sys.stderr)
                counts[3] += 1
            else:
                raise error
        if batch.images is not None:
            logits = model(batch.images.to(group.device))
            ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
            hits = ranked == torch.tensor(expected, device=group.device).unsqueeze(1)
            counts[:3] += torch.stack((torch.ones_like(hits[:, 0]), hits[:, 0], hits.any(1))).sum(1)
        advance(len(batch.paths))
    return Counts(*group.add(counts).tolist())


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


def to_text(source: Weights, counts: Counts, seconds: float, stated: Metrics | None) -> str:
    def line(name: str, hits: int, claim: float | None) -> str:
        low, high = wilson(hits, counts.photos)
        row = f"{name:<9} {percent(hits, counts.photos):6.2f} %  [{low:.2f}, {high:.2f}]  {hits} of {counts.photos}"
        return row if claim is None else f"{row}  stated: {claim:.2f} %"

    lines = [
        f"{', '.join(source.reference)}",
        line("top-1", counts.top1, stated.acc1 if stated else None),
        line("top-5", counts.top5, stated.acc5 if stated else None),
        f"{counts.photos / seconds:.1f} photos a second, {counts.skipped} skipped",
    ]
    if stated:
        lines.append(f"stated for {stated.dataset}, measured by {stated.measured_by}")
    return "\n".join(lines)


def to_json(source: Weights, counts: Counts, seconds: float, stated: Metrics | None) -> str:
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
