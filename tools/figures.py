"""The figures in images/, drawn from data in the repository.

Each stands on a white ground of its own, so that it reads the same on light and dark pages. Their bytes depend on the
version of matplotlib, so a figure carries the sha256 of what it was drawn from, data and code: by that it is compared.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from shufflenetv2.commands.benchmark import NAMES
from shufflenetv2.network.deploy_form import Route, routing
from shufflenetv2.weights.manifest import load_manifest

from .tables import benchmark_rows

BLUE, ORANGE, GREEN, PINK, GREY = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#555555",
)  # told apart by the colour-blind
COLOURS = (BLUE, ORANGE, GREEN, PINK)

# Top-1 on ImageNet-1K validation, in percent, for 0.5x, 1.0x, 1.5x and 2.0x, each as its source states it. The
# multiply-adds are those of the paper's Table 8; torchvision's row comes from weights.json.
PAPER_MACS = (41, 146, 299, 591)
PUBLISHED = {
    "paper (Table 8)": (60.3, 69.4, 72.6, 74.9),
    "megvii-model/ShuffleNet-Series": (61.1, 69.4, 72.6, 75.0),
    "MegEngine": (60.70, 69.37, 72.81, 75.07),
    "mindcv": (60.68, 69.51, 72.79, 75.14),
    "PaddleClas": (60.3, 68.8, 71.6, 73.2),
    "mmpretrain": (None, 69.55, None, None),
}


def box(axes: Axes, x: float, y: float, text: str, colour: str = "white", width: float = 2.9) -> None:
    """A layer: a rounded box of height 0.6 around (x, y)."""
    style = "round,pad=0,rounding_size=0.12"
    axes.add_patch(FancyBboxPatch((x - width / 2, y - 0.3), width, 0.6, style, facecolor=colour, edgecolor="black"))
    axes.text(x, y, text, ha="center", va="center", fontsize=8.5)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, shrinkA=0, shrinkB=0, color="black")
    )


def chain(axes: Axes, x: float, top: float, bottom: float, layers: list[str]) -> None:
    """Layers from ``top`` to ``bottom``, with arrows into, between and out of them."""
    step = (top - bottom) / (len(layers) + 1)
    heights = [top - step * (index + 1) for index in range(len(layers))]
    for height, layer in zip(heights, layers, strict=True):
        box(axes, x, height, layer, "#e6f1f8")
    edges = [top, *[edge for height in heights for edge in (height + 0.3, height - 0.3)], bottom]
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        arrow(axes, (x, start), (x, end))


def unit(axes: Axes, title: str, first: str, left: list[str], right: list[str]) -> None:
    axes.set_title(title, fontsize=11)
    arrow(axes, (0, 10), (0, 9.5))
    box(axes, 0, 9.2, first, "#f3e3d7" if first != "input" else "white")
    for x, layers in ((-1.6, left), (1.6, right)):
        axes.plot([0, x], [8.9, 8.4], color="black", linewidth=1)
        chain(axes, x, 8.4, 2.7, layers)
        axes.plot([x, 0], [2.7, 2.2], color="black", linewidth=1)
    box(axes, 0, 1.9, "concat", "#f3e3d7")
    arrow(axes, (0, 1.6), (0, 1.1))
    box(axes, 0, 0.8, "channel shuffle", "#f3e3d7")
    arrow(axes, (0, 0.5), (0, 0))
    axes.set_xlim(-3.2, 3.2)
    axes.set_ylim(-0.2, 10.2)
    axes.axis("off")


def wiring(axes: Axes, routes: list[Route]) -> None:
    """Which piece of which output goes to which reader in the deploy form."""
    axes.set_title("(c) a stage in the deploy form: each channel moves once", fontsize=11)
    branch_channels, basic_units = sum(routes[0].sizes), len(routes) - 2
    sources = ["branch 1", "branch 2", *(f"unit {unit}" for unit in range(1, basic_units + 1))]
    readers = [*(f"into unit {unit}" for unit in range(1, basic_units + 1)), "end of stage"]
    gap = 0.35 * branch_channels
    filled = [0] * len(readers)
    lefts = [reader * (branch_channels + gap) for reader in range(len(readers))]
    shift = (lefts[-1] + 2 * branch_channels - len(sources) * branch_channels - (len(sources) - 1) * gap) / 2
    for source, (name, route) in enumerate(zip(sources, routes, strict=True)):
        left = shift + source * (branch_channels + gap)
        axes.text(left + branch_channels / 2, 9.75, name, ha="center", va="center", fontsize=9)
        for size, reader in zip(route.sizes, route.readers, strict=True):
            there = lefts[reader] + filled[reader]
            corners = [(left, 8.6), (left + size, 8.6), (there + size, 1.6), (there, 1.6)]
            axes.add_patch(Polygon(corners, facecolor=COLOURS[reader % 4], alpha=0.35, edgecolor="none"))
            for x, y in ((left, 8.6), (there, 0.9)):
                axes.add_patch(
                    Polygon(
                        [(x, y), (x + size, y), (x + size, y + 0.7), (x, y + 0.7)],
                        facecolor=COLOURS[reader % 4],
                        edgecolor="white",
                        linewidth=0.8,
                    )
                )
            filled[reader] += size
            left += size
    for reader, name in enumerate(readers):
        axes.text(lefts[reader] + filled[reader] / 2, 0.4, name, ha="center", va="center", fontsize=9)
    margin = max(0, -shift) + 2
    axes.set_xlim(-margin, lefts[-1] + 2 * branch_channels + margin)
    axes.set_ylim(-0.2, 10.2)
    axes.axis("off")


def units_data() -> list[Route]:
    """The code's own plan for stage 2 of 1.0x."""
    return routing(branch_channels=58, basic_units=3).routes


def draw_units(routes: list[Route]) -> Figure:
    figure, (basic, downsampling, deployed) = plt.subplots(1, 3, figsize=(15, 5.4), width_ratios=[1, 1, 1.7])
    unit(
        basic,
        "(a) basic unit",
        "channel split",
        [],
        ["1x1 conv", "BatchNorm, ReLU", "3x3 depthwise", "BatchNorm", "1x1 conv", "BatchNorm, ReLU"],
    )
    unit(
        downsampling,
        "(b) unit for downsampling",
        "input",
        ["3x3 depthwise, /2", "BatchNorm", "1x1 conv", "BatchNorm, ReLU"],
        ["1x1 conv", "BatchNorm, ReLU", "3x3 depthwise, /2", "BatchNorm", "1x1 conv", "BatchNorm, ReLU"],
    )
    wiring(deployed, routes)
    return figure


def accuracy_data() -> list[tuple[str, float, float]]:
    """Width, millions of multiply-adds and top-1 in percent of the ImageNet weights."""
    return [
        (entry.arch.rpartition("_x")[2].replace("_", "."), entry.macs / 1e6, entry.metrics.acc1)
        for entry in load_manifest()
        if entry.name == "imagenet1k_v1"
    ]


def draw_accuracy(ours: list[tuple[str, float, float]]) -> Figure:
    figure, axes = plt.subplots(figsize=(8, 5))
    markers = iter("osv^Dx")
    for name, values in PUBLISHED.items():
        points = [(macs, value) for macs, value in zip(PAPER_MACS, values, strict=True) if value is not None]
        axes.plot(*zip(*points, strict=True), next(markers), markersize=6, alpha=0.75, label=name, linestyle="none")
    _, macs, top1 = zip(*ours, strict=True)
    axes.plot(macs, top1, "*-", color="black", markersize=13, label="these weights (torchvision's figures)")
    for width, x, y in ours:
        axes.annotate(f"{width}x", (x, y), (8, -13), textcoords="offset points", fontsize=10)
    axes.set_xscale("log")
    axes.set_xlim(36, 700)
    axes.set_xticks([40, 100, 200, 300, 400, 600], ["40", "100", "200", "300", "400", "600"], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("multiply-adds for one 224x224 image (millions)")
    axes.set_ylabel("top-1 accuracy on ImageNet-1K validation (%)")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=9)
    return figure


def speed_data() -> list[dict[str, Any]]:
    return [row for row in benchmark_rows() if row["arch"] == "shufflenet_v2_x1_0"]


def draw_speed(rows: list[dict[str, Any]]) -> Figure:
    """Photos a second, x1.0: torchvision in both layouts beside the deploy form."""
    bars = {("torchvision", "nchw"): GREY, ("torchvision", "channels-last"): BLUE, ("deploy", None): ORANGE}
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for axes, batch in zip(panels, (1, 16), strict=True):
        for place, runtime in enumerate(NAMES):
            for offset, ((network, layout), colour) in zip((-0.27, 0, 0.27), bars.items(), strict=True):
                speeds = [
                    row["images_per_second"]
                    for row in rows
                    if (row["runtime"], row["batch"], row["network"]) == (runtime, batch, network)
                    and layout in (None, row["layout"])
                ]
                for value in speeds:
                    axes.barh(place + offset, value, 0.25, color=colour)
                    axes.text(value, place + offset, f" {value:.0f}", va="center", fontsize=8)
        axes.set_yticks(range(len(NAMES)), NAMES.values())
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_title(f"batch {batch}", fontsize=11)
        axes.set_xlabel("images a second (224x224, 2 cores)")
    labels = ["torchvision, NCHW", "torchvision, channels-last", "deploy form"]
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in bars.values()]
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


class Drawing(NamedTuple):
    """A figure as a function of data."""

    data: Callable[[], Any]
    draw: Callable[[Any], Figure]


DRAWINGS = {
    "shufflenet_v2_1.png": Drawing(units_data, draw_units),
    "shufflenet_v2_2.png": Drawing(accuracy_data, draw_accuracy),
    "speed.png": Drawing(speed_data, draw_speed),
}


def origin(path: Path) -> str:
    """The sha256 of what the figure ``path`` is to be drawn from."""
    data = DRAWINGS[path.name].data()
    return hashlib.sha256(Path(__file__).read_bytes() + repr((data, NAMES)).encode()).hexdigest()


def draw(path: Path) -> None:
    mpl.use("Agg")
    drawing = DRAWINGS[path.name]
    # No date, no version: the same data gives the same file.
    metadata = {"Software": None, "Origin": origin(path)}
    with plt.rc_context({"savefig.dpi": 110, "savefig.bbox": "tight", "font.family": "DejaVu Sans"}):
        figure = drawing.draw(drawing.data())
        figure.savefig(path, facecolor="white", metadata=metadata, pad_inches=0.15)
    plt.close(figure)
