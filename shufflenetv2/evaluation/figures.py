"""The figures of a report, drawn of the numbers in its ``report.json``, for light and for dark pages."""

import io
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from ..files import shown

MATRIX = 25  # classes up to which the confusion matrix is drawn
MARK = "#e8710a"
THEMES = {"": ("#1b1f24", "#ffffff", "#0b6bcb"), "-dark": ("#e6edf3", "#14181d", "#6cb6ff")}  # ink, paper, accent


def draw_all(content: dict[str, Any]) -> dict[str, bytes]:
    """PNG files by their names without the suffix."""
    drawn = {}
    for name, draw in DRAWINGS.items():
        if name == "confusion" and len(content["classes"]) > MATRIX:
            continue
        for theme, (ink, paper, accent) in THEMES.items():
            inks = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink)
            papers = dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), paper)
            plain = {"font.family": "DejaVu Sans", "text.parse_math": False, "text.usetex": False, "font.size": 9}
            settings: Any = inks | papers | plain
            with mpl.rc_context(settings), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # labels in scripts that the font lacks
                figure, file = Figure(figsize=(5, 4.2), layout="constrained"), io.BytesIO()
                draw(figure.subplots(), content, accent)
                figure.savefig(file, format="png", dpi=160, metadata={"Software": None})
            drawn[name + theme] = file.getvalue()
    return drawn


def _draw_reliability(axes: Any, content: dict[str, Any], accent: str) -> None:
    bins = content["reliability"]
    lefts, widths = [each["from"] for each in bins], [each["to"] - each["from"] for each in bins]
    axes.bar(lefts, [each["right"] for each in bins], widths, align="edge", color=accent, edgecolor="none", alpha=0.8)
    axes.plot([0, 1], [0, 1], linestyle="--", linewidth=1, color="grey")
    axes.plot([each["said"] for each in bins], [each["right"] for each in bins], "o", markersize=4, color=MARK)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the first label", ylabel="share that is right")
    axes.set_title(f"expected calibration error {100 * content['expected_calibration_error']:.2f} %")


def _draw_coverage(axes: Any, content: dict[str, Any], accent: str) -> None:
    rows = [row for row in content["coverage"] if row["accuracy"] is not None]
    axes.plot([row["answered"] for row in rows], [row["accuracy"] for row in rows], color=accent)
    for row in rows:
        if row["min_probability"] in (0.5, 0.9):
            axes.plot(row["answered"], row["accuracy"], "o", color=MARK)
            told = f"{row['min_probability']:g}"
            axes.annotate(told, (row["answered"], row["accuracy"]), (6, 6), textcoords="offset points")
    axes.set(xlim=(0, 1.02), xlabel="share of photos answered", ylabel="accuracy on these")
    axes.set_title("accuracy against the share answered, by min_probability")


def _draw_confusion(axes: Any, content: dict[str, Any], accent: str) -> None:
    places = {row["index"]: place for place, row in enumerate(content["classes"])}
    names = [shown(row["label"])[:24] for row in content["classes"]]
    table = [[0] * len(names) for _ in names]
    for row, column, count in content["confusion"]:
        table[places[row]][places[column]] = count
    highest = max(map(max, table))
    axes.imshow([[count**0.5 for count in row] for row in table], cmap="cividis")  # the root shows few beside many
    for y, row in enumerate(table):
        for x, count in enumerate(row):
            colour = "black" if count > highest / 4 else "white"
            axes.text(x, y, str(count), ha="center", va="center", fontsize=max(3, 7 - len(names) // 6), color=colour)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="answer", ylabel="label")


DRAWINGS: dict[str, Callable[[Any, dict[str, Any], str], None]] = {
    "reliability": _draw_reliability,
    "coverage": _draw_coverage,
    "confusion": _draw_confusion,
}
NAMES = {name + theme for name in DRAWINGS for theme in THEMES}
