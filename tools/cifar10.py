"""The pictures of docs/cifar10.md: how the runs went, and what the network makes of the test photos."""

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from shufflenetv2.builder import resolve
from shufflenetv2.description import BATCH_SIZE
from shufflenetv2.evaluation import judging
from shufflenetv2.inference.classifier import Classifier
from shufflenetv2.package import CHECKOUT
from shufflenetv2.photos.decode import open_photo
from shufflenetv2.photos.folders import LabelledPhotos, read_labelled

NAME = "cifar10"
PICTURES = CHECKOUT / "docs/cifar10"
RUNS = ("run1", "run2", "run3", "run3-end")  # with the paper's stem, one after the other
TRIALS = {"labels alone": "plain", "labels and a teacher": "distilled"}
ROWS, COLUMNS = 3, 4  # of mistakes


def draw(test: Path) -> None:
    """The curves of the runs; the confusion matrix, and the mistakes the network is surest of."""
    classifier = Classifier(resolve(None, NAME), device="cpu", progress=False)
    photos = read_labelled(test, classifier.weights.classes)
    answers = judging.collect(classifier, photos, batch_size=BATCH_SIZE)
    matrix = judging.confusion(answers)
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(5, 6), squeeze=False)[0]
    confusion(left, matrix, classifier.categories)
    mistakes(right, photos, answers.probabilities)
    figure.savefig(PICTURES / "answers.png", dpi=80)
    curves().savefig(PICTURES / "curves.png", dpi=80)
    print(f"{int(matrix.trace())} of {len(photos)} right")


def curves() -> Figure:
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    paper, trials, small = figure.subplots(1, 3)
    plot(paper, RUNS, "accuracy", "on training photos")
    paper.set(title="the paper's stem: accuracy")
    for label, name in TRIALS.items():
        plot(trials, [name], "val_accuracy", label)
    trials.set(title="trials: accuracy, held-out photos")
    plot(small, ["clipped"], "accuracy", "bundled: training photos")
    plot(small, ["clipped"], "val_accuracy", "bundled: held-out photos")
    plot(small, ["small-stem"], "val_accuracy", "not clipped: held out")
    small.set(title="small stem, two teachers: accuracy", ylim=(0.4, 0.95))
    for axes in (paper, trials, small):
        axes.set(xlabel="epoch")
        axes.legend(loc="lower right")
    return figure


def plot(axes: Axes, names: Sequence[str], column: str, label: str) -> None:
    """One log after the other."""
    values: list[float] = []
    for name in names:
        with open(PICTURES / f"{name}.csv", newline="") as file:
            values += [float(row[column]) for row in csv.DictReader(file)]
    axes.plot(range(1, len(values) + 1), values, linewidth=1, label=label)


def confusion(figure: SubFigure, matrix: torch.Tensor, names: list[str]) -> None:
    axes = figure.subplots()
    axes.imshow(matrix.float().sqrt().numpy(), cmap="Blues")  # the root shows the few mistakes beside the many hits
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="answer", ylabel="label")
    for row in range(len(names)):
        for column in range(len(names)):
            colour = "white" if row == column else "black"
            axes.text(column, row, str(int(matrix[row, column])), ha="center", va="center", fontsize=7, color=colour)


def mistakes(figure: SubFigure, photos: LabelledPhotos, probabilities: torch.Tensor) -> None:
    labels = torch.tensor(photos.labels)
    surest, answer = probabilities.max(1)
    wrong = torch.where(answer != labels, surest, torch.zeros((), dtype=surest.dtype))
    shown = wrong.topk(ROWS * COLUMNS).indices.tolist()
    for axes, index in zip(figure.subplots(ROWS, COLUMNS).flat, shown, strict=True):
        axes.imshow(open_photo(photos.paths[index]), interpolation="bilinear")
        name, taken_for = photos.categories[photos.labels[index]], photos.categories[int(answer[index])]
        axes.set_title(f"{name}\ntaken for {taken_for}, {surest[index]:.0%}", fontsize=7)
        axes.axis("off")
