"""The tables that documents show between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from shufflenetv2.commands.benchmark import NAMES, ratios, share_of_gemm
from shufflenetv2.package import CHECKOUT
from shufflenetv2.weights.manifest import load_manifest

BENCHMARK = CHECKOUT / "docs/benchmark.json"
CALIBRATION = CHECKOUT / "docs/calibration.json"


def markdown(heads: str, rows: Iterable[str]) -> str:
    """A table of its first line and the others."""
    return "\n".join([heads, "|---" * (heads.count("|") - 1) + "|", *rows])


def models() -> str:
    """The table of README.md, from weights.json."""
    rows = (
        f"| `{entry.arch}` | `{entry.name}` | {entry.num_classes} | {entry.num_params:,} | {entry.macs / 1e6:.1f} M | "
        f"{entry.metrics.acc1:.2f} % | {entry.metrics.acc5:.2f} % | "
        f"{entry.size / 1e6:.1f} MB{', bundled' if entry.path else ''} | {entry.metrics.measured_by} |"
        for entry in load_manifest()
    )
    heads = "| entry point | `weights=` | classes | parameters | multiply-adds | top-1 | top-5 | file | measured by |"
    return markdown(heads, rows)


def errors() -> str:
    """The table of the hub cards, from weights.json."""
    rows = (
        f"| {entry.arch} | {100 - entry.metrics.acc1:.2f} | {100 - entry.metrics.acc5:.2f} | "
        f"{entry.num_params / 1e6:.2f} M | {entry.macs / 1e6:.0f} M |"
        for entry in load_manifest()
        if entry.name == "imagenet1k_v1"
    )
    return markdown("| Model structure | Top-1 error | Top-5 error | Params | MACs |", rows)


def benchmark_rows() -> list[dict[str, Any]]:
    runs = json.loads(BENCHMARK.read_text(encoding="utf-8"))["runs"]
    return [row for run in runs for row in run["results"]]


def speed() -> str:
    """The table of README.md, from docs/benchmark.json."""
    lines, rows = [], [row for row in benchmark_rows() if row["arch"] == "shufflenet_v2_x1_0"]
    for runtime, name in NAMES.items():
        cells = [name]
        for batch in (1, 16):
            beside = [row for row in rows if (row["runtime"], row["batch"]) == (runtime, batch)]
            theirs = [f"{row['ms']:.1f}" for row in beside if row["network"] == "torchvision"]
            (ours,) = (row for row in beside if row["network"] == "deploy")
            cells += [" / ".join(theirs), f"{ours['ms']:.1f}", ratios(ours, " / ")]
        lines.append(f"| {' | '.join(cells)} |")
    return markdown("| | batch 1: torchvision | this | times | batch 16: torchvision | this | times |", lines)


def measurements() -> str:
    """The table of docs/measurements.md: everything in docs/benchmark.json."""
    lines = []
    for row in benchmark_rows():
        first, third = row["ms_quartiles"]
        lines.append(
            f"| {row['arch'].removeprefix('shufflenet_v2_')} {row['runtime']} | {row['batch']} | {row['network']} | "
            f"{row['layout']} | {row['ms']:.2f} ({first:.2f} to {third:.2f}) | {ratios(row, ' / ')} | "
            f"{share_of_gemm(row)} |"
        )
    return markdown("| | batch | network | layout | ms (quartiles) | times torchvision | of GEMM |", lines)


def foreign() -> str:
    """The table of docs/why.md, from docs/calibration.json: answers about photos of nothing the weights know."""
    found = json.loads(CALIBRATION.read_text(encoding="utf-8"))["foreign"]
    levels = [key for key in next(iter(found["kinds"].values())) if key != "photos"]
    heads = f"| what is shown | photos | {' | '.join(f'answered at {level}' for level in levels)} |"
    lines = []
    for kind, row in found["kinds"].items():
        shares = [f"{row[level]} ({100 * row[level] / row['photos']:.1f} %)" for level in levels]
        lines.append(f"| {kind} | {row['photos']} | {' | '.join(shares)} |")
    told = f"Of {found['weights']} with the temperature {found['temperature']:g}, measured {found['by']}."
    return f"{markdown(heads, lines)}\n\n{told}"


def foreign_short() -> str:
    """The same in the words of README.md."""
    found = json.loads(CALIBRATION.read_text(encoding="utf-8"))["foreign"]
    kinds = found["kinds"]
    *others, last = (f"{row['photos']} of {kind}" for kind, row in kinds.items())
    shares = []
    for level in (key for key in next(iter(kinds.values())) if key != "photos"):
        parts = (f"{100 * row[level] / row['photos']:.0f}" for row in kinds.values())
        shares.append(f"at {level}, {' / '.join(parts)} %")
    told = f"Of photos of none of its classes ({', '.join(others)} and {last}), `{found['weights'].rpartition('/')[2]}`"
    return f"{told}\nanswered {'; '.join(shares)}."


def calibration() -> str:
    """The table of docs/why.md, from docs/calibration.json: what the temperature of the bundled weights changes."""
    found = json.loads(CALIBRATION.read_text(encoding="utf-8"))["calibration"]
    heads, lines = "| temperature | expected calibration error | negative log likelihood |", []
    for name, temperature in (("before", 1.0), ("after", found["temperature"])):
        error, loss = found[name]["expected_calibration_error"], found[name]["negative_log_likelihood"]
        lines.append(f"| {temperature:g} | {100 * error:.2f} % | {loss:.4f} |")
    how = "that it was trained on, and so not used" if found["seen"] else "held out of training"
    told = (
        f"{found['weights']}: fitted on {found['fitted_on']:,} photos {how}. The table is of {found['tried_on']:,} "
        f"test photos, on which nothing was fitted. {found['by']}."
    )
    return f"{markdown(heads, lines)}\n\n{told}"


TABLES: dict[str, Callable[[], str]] = {
    "models": models,
    "errors": errors,
    "speed": speed,
    "measurements": measurements,
    "foreign": foreign,
    "foreign_short": foreign_short,
    "calibration": calibration,
}


def rewritten(text: str) -> str:
    """``text`` with every table in it made anew."""
    marked = r"(<!-- begin (\w+) -->\n)(?:.*?\n)??(<!-- end \2 -->)"
    return re.sub(marked, lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", text, flags=re.DOTALL)
