"""Measure a folder of photos: each way that ``classify`` has beside torchvision's loop, and what fast decoding does.

Each way is a process of its own; they take turns. Weights are random, of width x1.0 (values make no difference to the
time), but for the first labels, which are those of the bundled weights.
"""

import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from PIL import Image

from shufflenetv2.__main__ import main
from shufflenetv2.benchmarking import timing
from shufflenetv2.benchmarking.runtimes import Candidate, Task
from shufflenetv2.builder import resolve
from shufflenetv2.description import STANDARD
from shufflenetv2.inference.classifier import Classifier
from shufflenetv2.package import sample_photos
from shufflenetv2.photos.transform import PhotoTransform

from .measure import ARCH, PHOTOS, make_photos, random_checkpoint

ROUNDS = 5
LARGE = 40  # photos of 12 megapixels


@dataclass(frozen=True)
class Way:
    """``file`` is what weights are read from; ``None`` is torchvision's loop."""

    name: str
    file: str | None = None
    runtime: str = "torch"
    precision: str = "float32"


def step_of(way: Way, photos: list[Path]) -> Callable[[], object]:
    if way.file is None:
        return timing.folder(Task(Candidate("folder", "torchvision", "nchw"), ARCH, 32, None, photos=tuple(photos)))
    classifier = Classifier(
        resolve(None, way.file), device="cpu", runtime=way.runtime, precision=way.precision, progress=False
    )
    return lambda: sum(1 for _ in classifier.stream(photos))


def serve(connection: Connection, way: Way, photos: list[Path]) -> None:
    try:
        step = step_of(way, photos)
        step()
        connection.send("ready")
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
        return
    while connection.recv() is not None:
        start = time.perf_counter()
        step()
        connection.send(time.perf_counter() - start)


def compared(ways: list[Way], photos: list[Path]) -> dict[str, object]:
    """Photos a second of each way, the median of the rounds, and how often torchvision's that is."""
    context = multiprocessing.get_context("spawn")
    running: dict[str, Connection] = {}
    report: dict[str, object] = {}
    for way in ways:
        ours, theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, way, photos)).start()  # no daemon: the loader has children
        answer = ours.recv()
        if answer == "ready":
            running[way.name] = ours
        else:
            report[way.name] = answer
    seconds: dict[str, list[float]] = {name: [] for name in running}
    for number in range(ROUNDS):
        print(f"round {number + 1} of {ROUNDS} ...", file=sys.stderr)
        for name, connection in running.items():
            connection.send("go")
            seconds[name].append(connection.recv())
    for name, times in seconds.items():
        ratios = [reference / own for reference, own in zip(seconds["torchvision"], times, strict=True)]
        report[name] = {
            "photos a second": round(len(photos) / statistics.median(times), 1),
            "times torchvision": round(statistics.median(ratios), 2),
        }
        running[name].send(None)
    return report


def fast_decoding(directory: Path, photos: list[Path]) -> dict[str, object]:
    """Milliseconds of a 12-megapixel photo, read exactly and fast, and first labels that change; also of ``photos``."""
    large = []
    for number in range(LARGE):
        path = directory / f"large{number}.jpg"
        with Image.open(photos[number]) as photo:
            photo.resize((4000, 3000), Image.Resampling.BICUBIC).save(path, quality=90)
        large.append(path)
    report: dict[str, object] = {}
    for kind, paths in (("12 megapixels", large), ("500x375", photos), ("samples", sample_photos())):
        labels = {}
        for fast in (False, True):
            transform = PhotoTransform(STANDARD, fast_decode=fast)
            start = time.process_time()
            for path in paths:
                transform(path)
            milliseconds = 1000 * (time.process_time() - start) / len(paths)
            report[f"{kind}, {'fast' if fast else 'exact'}, ms"] = round(milliseconds, 1)
            classifier = Classifier(resolve(None, "cifar10"), device="cpu", progress=False, fast_decode=fast)
            labels[fast] = [result.predictions[0].label for result in classifier.stream(paths)]
        changed = sum(exact != fast for exact, fast in zip(labels[False], labels[True], strict=True))
        report[f"{kind}, first labels changed"] = f"{changed} of {len(paths)}"
    return report


def folder(count: int = PHOTOS) -> None:
    """Print the report as JSON."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        place = directory / "photos"
        place.mkdir()
        make_photos(place)
        photos = sorted(place.iterdir())[:count]
        checkpoint, int8 = str(directory / "x1_0.pth"), str(directory / "int8.onnx")
        random_checkpoint(Path(checkpoint))
        ways = [
            Way("torchvision"),
            Way("torch", checkpoint),
            Way("torch, bfloat16", checkpoint, precision="bfloat16"),
            *(Way(runtime, checkpoint, runtime) for runtime in ("onnxruntime", "openvino", "ncnn")),
            Way("openvino, bfloat16", checkpoint, "openvino", "bfloat16"),
        ]
        if main(["export", "--weights", checkpoint, "--int8", "--calibrate", str(place), "-o", int8]) == 0:
            ways.append(Way("onnxruntime, int8", int8))
        report = {"machine": timing.machine(None), "folder": compared(ways, photos)}
        report["fast decoding"] = fast_decoding(directory, photos)
    print(json.dumps(report, indent=1))
