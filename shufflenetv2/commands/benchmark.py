"""``benchmark``: speed beside torchvision in the same runtime, each candidate in a process of its own, in turn.

Alternating: whatever else the machine does meanwhile falls on all alike. Medians with quartiles, and the ratio of the
medians. The roofline is the rate of one large single-precision matrix product, measured in the same rounds.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..benchmarking.rounds import measure
from ..benchmarking.runtimes import GEMM_SIZE, REFERENCE, RUNTIMES, Candidate, Task
from ..description import STANDARD
from ..errors import DatasetError
from ..package import require
from ..weights.manifest import DEFAULT_ARCH
from .options import add, any_path, arch, say, whole

NAMES = {key: runtime.name for key, runtime in RUNTIMES.items() if runtime.listed}

Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--archs",
        nargs="+",
        type=arch,
        metavar="ARCH",
        help=f"such as x0_5 x1_0 (default: {DEFAULT_ARCH})",
    )
    parser.add_argument("--batch", nargs="+", type=whole(1, 4096), metavar="N", help="images at once (default: 1 16)")
    parser.add_argument("--threads", type=whole(1, 1024), help="default: PyTorch's, one a core")
    parser.add_argument("--runtimes", nargs="+", choices=NAMES, help="default: all installed ones but compile")
    parser.add_argument("--training", action="store_true", help="time training steps instead (96x96, batch 64, SGD)")
    parser.add_argument(
        "--folder", type=any_path, metavar="DIR", help="classify a folder's photos instead, beside torchvision's way"
    )
    parser.add_argument(
        "--files",
        nargs="+",
        type=any_path,
        metavar="FILE",
        help="compare exported files instead, each in its own runtime",
    )
    parser.add_argument(
        "--labelled",
        type=any_path,
        metavar="DIR",
        help="with --files: a folder a class of photos, to measure accuracy on",
    )
    add(parser, "--json", help="print one JSON object with all the numbers")


def run(arguments: argparse.Namespace) -> int:
    from ..benchmarking.timing import machine

    if arguments.batch and (arguments.training or arguments.folder):
        raise ValueError("--training and --folder have batches of their own; leave --batch out")
    arguments.batch = arguments.batch or [1, 16]
    if arguments.files:
        given = {name for name in ("archs", "runtimes", "training", "folder") if getattr(arguments, name)}
        if given:
            raise ValueError(f"--files says what is compared, so leave out --{', --'.join(sorted(given))}")
        from ..benchmarking.comparing import compare_files, files_table

        report = {"machine": machine(arguments.threads), **compare_files(arguments)}
        print(json.dumps(report, indent=1) if arguments.json else files_table(report))
        return 0
    if arguments.labelled:
        raise ValueError("--labelled is for --files: networks of random weights have no accuracy")
    archs = arguments.archs or [DEFAULT_ARCH]
    runtimes, left_out = choose_runtimes(arguments)
    for reason in left_out.values():
        print(f"left out: {reason}", file=sys.stderr)
    photos = find_folder(arguments.folder) if arguments.folder else ()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory:
        for arch, runtime in itertools.product(archs, runtimes):
            row = RUNTIMES[runtime]
            for batch in [row.batch] if row.batch else arguments.batch:
                print(f"{arch}, {runtime}, batch {batch} ...", file=sys.stderr, flush=True)
                candidates = [Candidate(runtime, *names) for names in row.networks]
                tasks = [Task(candidate, arch, batch, arguments.threads) for candidate in candidates]
                if runtime == "folder":
                    tasks = [replace(task, photos=photos) for task in tasks]
                if row.reads_onnx:
                    tasks = [with_onnx_file(task, Path(directory)) for task in tasks]
                rows += summarise(tasks, measure(tasks, row.rounds))
    report = {
        "machine": machine(arguments.threads),
        "results": add_roofline(rows),
        "left_out": [{"runtime": runtime, "reason": reason} for runtime, reason in left_out.items()],
    }
    print(json.dumps(report, indent=1) if arguments.json else table(report))
    return 0


def find_folder(folder: Path) -> tuple[Path, ...]:
    """The photos of ``--folder``.

    Raises:
        DatasetError: it is not a folder, or holds no photo.
        ImageError: naming one that cannot be used, which would end the measurement later.
    """
    from ..photos.ahead import check_photos
    from ..photos.listing import find_photos
    from ..photos.transform import PhotoTransform

    if not folder.is_dir():
        raise DatasetError(f"--folder {folder} is not a folder")
    photos = tuple(map(Path, find_photos([folder], say)))
    check_photos(photos, PhotoTransform(STANDARD))
    return photos


def choose_runtimes(arguments: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """What was asked for by name, or all the default ones that are installed; and why the others are not.

    Raises:
        ImportError: a package is missing without which nothing, or not what was named, can be measured.
        ValueError: runtimes are named beside what is measured in PyTorch alone.
    """
    import torch

    asked = ["folder"] * bool(arguments.folder) + ["training"] * arguments.training or arguments.runtimes or []
    if arguments.runtimes and asked != arguments.runtimes:
        raise ValueError("--folder and --training are measured in PyTorch alone; leave --runtimes out")
    require("this benchmark", REFERENCE, *(each for key in asked for each in RUNTIMES[key].needs))
    if asked:
        return asked, {}
    defaults = [key for key, runtime in RUNTIMES.items() if runtime.default]
    left_out: dict[str, str] = {}
    for key in defaults:
        try:
            require(f"measuring in {RUNTIMES[key].name}", *RUNTIMES[key].needs)
        except ImportError as error:
            left_out[key] = str(error)
    return [key for key in defaults if key not in left_out] + ["cuda"] * torch.cuda.is_available(), left_out


def with_onnx_file(task: Task, directory: Path) -> Task:
    from ..benchmarking.timing import write_onnx

    path = directory / f"{task.arch}-{task.candidate.network}.onnx"
    if not path.exists():
        write_onnx(task, path)
    return replace(task, onnx_file=path)


def summarise(tasks: Sequence[Task], times: Sequence[Sequence[float]]) -> list[Row]:
    """A row a task: quartiles in milliseconds, images a second, and the ratio to torchvision in the same rounds."""
    quartiles = [
        statistics.quantiles(each, n=4, method="inclusive") if len(each) > 1 else [each[0]] * 3 for each in times
    ]
    references = {
        task.candidate.layout: middle
        for task, (_, middle, _) in zip(tasks, quartiles, strict=True)
        if task.candidate.network == "torchvision"
    }
    rows = []
    for task, (first, median, third) in zip(tasks, quartiles, strict=True):
        count = len(task.photos) or task.batch
        row = {"arch": task.arch, **asdict(task.candidate), "batch": task.batch}
        row |= {"ms": round(median, 3), "ms_quartiles": [round(first, 3), round(third, 3)]}
        if task.candidate.network != "gemm":
            row["images_per_second"] = round(1000 * count / median, 2)
            row["ratio_to_torchvision"] = {layout: round(middle / median, 3) for layout, middle in references.items()}
        rows.append(row)
    return rows


def add_roofline(rows: list[Row]) -> list[Row]:
    """Each inference row's share of the rate of a matrix product measured beside it, where one was."""
    from ..benchmarking.timing import flops

    rates = {
        (row["arch"], row["batch"]): 2 * GEMM_SIZE**3 / row["ms"] / 1e6 for row in rows if row["network"] == "gemm"
    }
    for row in rows:
        rate = rates.get((row["arch"], row["batch"]))
        if rate is None or not RUNTIMES[row["runtime"]].listed:
            continue
        if row["network"] == "gemm":
            row["gflops"] = round(rate, 1)
        else:
            row["share_of_gemm"] = round(flops(row["arch"]) * row["batch"] / row["ms"] / 1e6 / rate, 3)
    return rows


def ratios(row: Row, separator: str) -> str:
    """How many times as fast as torchvision in each of its layouts."""
    return separator.join(f"{ratio:.2f}" for ratio in row.get("ratio_to_torchvision", {}).values())


def share_of_gemm(row: Row) -> str:
    return f"{row['share_of_gemm']:.0%}" if "share_of_gemm" in row else ""


def table(report: Row) -> str:
    lines = [", ".join(f"{key} {value}" for key, value in report["machine"].items() if value is not None)]
    header = (
        f"{'arch':20}{'runtime':13}{'network':13}{'layout':15}{'batch':>5}{'ms':>10}{'quartiles':>20}{'images/s':>10}"
    )
    lines += [header + "  times torchvision (nchw, channels-last)  of GEMM"]
    for row in report["results"]:
        first, third = row["ms_quartiles"]
        speed = f"{row['images_per_second']:.1f}" if "images_per_second" in row else f"{row.get('gflops', 0)} GF"
        lines.append(
            f"{row['arch']:20}{row['runtime']:13}{row['network']:13}{row['layout']:15}{row['batch']:>5}{row['ms']:>10.2f}"
            f"{f'{first:.2f} - {third:.2f}':>20}{speed:>10}  {ratios(row, ', '):39}{share_of_gemm(row):>9}"
        )
    return "\n".join(lines)
