"""What the tests of README.md and the hub cards share: code blocks, generated tables, a hub that needs no network.

``python -m pytest tests/documents --update`` rewrites whatever they generate.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import ROOT, StandIn

from shufflenetv2.commands.benchmark import NAMES, ratios, share_of_gemm
from shufflenetv2.weights.manifest import load_manifest

BLOCK = re.compile(
    r"(?:<!-- ci: (?P<ci>\w+) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)```\n(?:```text\n(?P<output>.*?)```\n)?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of code, and the block of text after it: what it prints."""

    language: str
    code: str
    output: str | None
    ci: str | None
    line: int


def read_blocks(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    return [
        Block(
            found["language"], found["code"], found["output"], found["ci"], text[: found.start("code")].count("\n") + 1
        )
        for found in BLOCK.finditer(text)
    ]


def replace_output(document: Path, code: str, output: str) -> None:
    """Write what a block printed below it."""
    old = document.read_text(encoding="utf-8")
    start = old.index("```text\n", old.index(code)) + len("```text\n")
    document.write_text(old[:start] + output + old[old.index("```", start) :], encoding="utf-8")


def hub_home(stand_in: StandIn, home: Path) -> Path:
    """Make ``home`` one of a user who loaded the tag before: torch.hub asks no network for a cached tag."""
    cached = home / "torch" / "hub" / "org_repo_v1.0.0"
    shutil.copytree(stand_in.repository, cached)
    shutil.copytree(ROOT / "images", cached / "images", dirs_exist_ok=True)
    return cached


def models() -> str:
    """The table of README.md, from weights.json."""
    rows = [
        "| entry point | `weights=` | classes | parameters | multiply-adds | top-1 | top-5 | file | measured by |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in load_manifest():
        cells = [
            f"`{entry.arch}`",
            f"`{entry.name}`",
            f"{entry.num_classes}",
            f"{entry.num_params:,}",
            f"{entry.macs / 1e6:.1f} M",
            f"{entry.metrics.acc1:.2f} %",
            f"{entry.metrics.acc5:.2f} %",
            f"{entry.size / 1e6:.1f} MB{', bundled' if entry.path else ''}",
            entry.metrics.measured_by,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def errors() -> str:
    """The table of the hub cards, from weights.json."""
    rows = ["| Model structure | Top-1 error | Top-5 error | Params | MACs |", "|---|---|---|---|---|"]
    for entry in load_manifest():
        if entry.name == "imagenet1k_v1":
            rows.append(
                f"| {entry.arch} | {100 - entry.metrics.acc1:.2f} | {100 - entry.metrics.acc5:.2f} | "
                f"{entry.num_params / 1e6:.2f} M | {entry.macs / 1e6:.0f} M |"
            )
    return "\n".join(rows)


def benchmark_rows() -> list[dict[str, Any]]:
    runs = json.loads((ROOT / "docs/benchmark.json").read_text())["runs"]
    return [row for run in runs for row in run["results"]]


def speed() -> str:
    """The table of README.md, from docs/benchmark.json."""
    lines = [
        "| | batch 1: torchvision | this | times | batch 16: torchvision | this | times |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = [row for row in benchmark_rows() if row["arch"] == "shufflenet_v2_x1_0"]
    for runtime, name in NAMES.items():
        cells = [name]
        for batch in (1, 16):
            beside = [row for row in rows if (row["runtime"], row["batch"]) == (runtime, batch)]
            theirs = [f"{row['ms']:.1f}" for row in beside if row["network"] == "torchvision"]
            (ours,) = (row for row in beside if row["network"] == "deploy")
            cells += [" / ".join(theirs), f"{ours['ms']:.1f}", ratios(ours, " / ")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def measurements() -> str:
    """The table of docs/performance.md: everything in docs/benchmark.json."""
    lines = [
        "| | batch | network | layout | ms (quartiles) | times torchvision | of GEMM |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in benchmark_rows():
        first, third = row["ms_quartiles"]
        lines.append(
            f"| {row['arch'].removeprefix('shufflenet_v2_')} {row['runtime']} | {row['batch']} | {row['network']} | "
            f"{row['layout']} | {row['ms']:.2f} ({first:.2f} to {third:.2f}) | {ratios(row, ' / ')} | "
            f"{share_of_gemm(row)} |"
        )
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "models": models,
    "errors": errors,
    "speed": speed,
    "measurements": measurements,
}


def refreshed(text: str) -> str:
    """``text`` with every table in it made anew."""
    marked = r"(<!-- begin (\w+) -->\n)(?:.*?\n)??(<!-- end \2 -->)"
    return re.sub(marked, lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", text, flags=re.DOTALL)


def check_tables(document: Path, update: bool) -> None:
    text = document.read_text(encoding="utf-8")
    made = refreshed(text)
    if update:
        document.write_text(made, encoding="utf-8")
    else:
        assert text == made, f"{document.name} is out of date; run its test with --update"
