"""Exported files beside each other: milliseconds in rounds, size, and accuracy on labelled photos."""

import argparse
import statistics
from pathlib import Path
from typing import Any

from ..builder import Weights, resolve
from ..computing import network_of
from ..devices import Group
from ..evaluation.counting import count_hits
from ..network.formats.table import FORMATS, format_of
from ..photos.folders import read_labelled
from ..photos.transform import PhotoTransform
from .rounds import measure
from .runtimes import ROUNDS, Candidate, Task

Row = dict[str, Any]


def compare_files(arguments: argparse.Namespace) -> Row:
    """Time ``--files`` against each other, for each ``--batch``.

    Raises:
        CheckpointError: one of them is no exported file that can be used.
        ValueError: it is a checkpoint or a folder, which has no runtime of its own.
        DatasetError: ``--labelled`` is no folder of their classes.
    """
    opened = {file: resolve(None, file) for file in arguments.files}
    for file, weights in opened.items():
        if weights.exported is None:
            raise ValueError(f"--files takes exported files; {file} is a checkpoint: measure it without --files")
    accuracies = {file: accuracy(weights, arguments.labelled) for file, weights in opened.items() if arguments.labelled}
    rows: list[Row] = []
    for batch in arguments.batch:
        tasks = [
            Task(Candidate("file", str(file), "nchw"), weights.arch, batch, arguments.threads)
            for file, weights in opened.items()
        ]
        times = measure(tasks, ROUNDS)
        for (file, weights), milliseconds in zip(opened.items(), times, strict=True):
            rows.append(row_of(file, weights, batch, milliseconds) | accuracies.get(file, {}))
    for row in rows:
        base = [each for each in rows if all(each[key] == row[key] for key in ("runtime", "batch", "weights", "input"))]
        base = [each for each in base if each["precision"] == "float32"]
        row["ratio_to_float32"] = round(base[0]["ms"] / row["ms"], 2) if base else None
    return {"files": rows}


def row_of(file: Path, weights: Weights, batch: int, milliseconds: list[float]) -> Row:
    first, median, third = statistics.quantiles(milliseconds, n=4, method="inclusive")
    exported, form = weights.exported, format_of(file)
    assert exported is not None
    assert form is not None
    return {
        "file": str(file),
        "arch": weights.arch,
        "runtime": exported.runtime,
        "precision": exported.inside.precision,
        "weights": exported.inside.sha256,
        "input": weights.preprocess.crop,
        "megabytes": round(sum(part.stat().st_size for part in FORMATS[form].files(file)) / 1e6, 2),
        "batch": batch,
        "ms": round(median, 3),
        "ms_quartiles": [round(first, 3), round(third, 3)],
        "images_per_second": round(1000 * batch / median, 1),
    }


def accuracy(weights: Weights, folder: Path) -> Row:
    import torch

    photos = read_labelled(folder, weights.classes)
    transform = PhotoTransform(weights.preprocess, weights.in_channels)
    counts = count_hits(network_of(weights), transform, photos, Group(0, 1, torch.device("cpu")))
    return {"photos": counts.photos, "acc@1": round(100 * counts.top1 / counts.photos, 2)}


def files_table(report: Row) -> str:
    """Text; a line a file and batch."""
    lines = [", ".join(f"{key} {value}" for key, value in report["machine"].items() if value is not None)]
    width = max(28, *(len(row["file"]) + 2 for row in report["files"]))
    header = (
        f"{'file':{width}}{'runtime':13}{'precision':11}{'MB':>7}{'batch':>6}{'ms':>9}{'quartiles':>18}{'images/s':>10}"
    )
    lines.append(header + "  times float32    top-1")
    for row in report["files"]:
        first, third = row["ms_quartiles"]
        ratio = "" if row["ratio_to_float32"] is None else f"{row['ratio_to_float32']:.2f}"
        top1 = f"{row['acc@1']:.2f} %" if "acc@1" in row else ""
        lines.append(
            f"{row['file']:{width}}{row['runtime']:13}{row['precision']:11}{row['megabytes']:>7.2f}{row['batch']:>6}"
            f"{row['ms']:>9.2f}{f'{first:.2f} - {third:.2f}':>18}{row['images_per_second']:>10.1f}{ratio:>15}{top1:>9}"
        )
    return "\n".join(lines)
