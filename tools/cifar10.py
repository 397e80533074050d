"""The pictures of docs/cifar10.md: the curves of the runs, and what the network makes of the test photos."""

import csv
from pathlib import Path

import torch
from matplotlib.figure import Figure

from shufflenetv2.builder import build, resolve
from shufflenetv2.inference.stream import answered
from shufflenetv2.package import CHECKOUT
from shufflenetv2.photos.decode import open_photo
from shufflenetv2.photos.folders import LabelledPhotos, read_labelled
from shufflenetv2.photos.transform import PhotoTransform

ARCH, NAME = "shufflenet_v2_x0_5", "cifar10_v1"
PICTURES = CHECKOUT / "docs/cifar10"
LOGS = ("run1.csv", "run2.csv", "run3.csv", "run3-end.csv")


def draw(test: Path) -> None:
    """The curves of all runs, the confusion matrix, and the mistakes the network is surest of."""
    weights = resolve(ARCH, NAME)
    photos = read_labelled(test, weights.classes)
    probabilities = answers(photos)
    matrix = torch.zeros(len(photos.categories), len(photos.categories), dtype=torch.int64)
    for label, answer in zip(photos.labels, probabilities.argmax(1).tolist(), strict=True):
        matrix[label, answer] += 1
    save(curves([PICTURES / name for name in LOGS]), "curves.png")
    save(confusion(matrix, weights.labels), "confusion.png")
    save(mistakes(photos, probabilities), "mistakes.png")
    print(f"{int(matrix.trace())} of {len(photos)} right")


@torch.inference_mode()
def answers(photos: LabelledPhotos) -> torch.Tensor:
    """Probabilities ``(photos, classes)`` by the deploy form, as ``evaluate`` and ``classify`` use it."""
    weights = resolve(ARCH, NAME)
    model = build(weights.arch, weights, deploy=True)
    rows = answered(lambda images: model(images).softmax(1), PhotoTransform(weights.preprocess), photos.paths)
    return torch.stack([row for _, row, _ in rows if isinstance(row, torch.Tensor)])


def curves(logs: list[Path]) -> Figure:
    """One run after the other, a grey line where one ends."""
    rows: list[dict[str, str]] = []
    ends = []
    for log in logs:
        with open(log, newline="") as file:
            rows += csv.DictReader(file)
        ends.append(len(rows) + 0.5)
    epochs = range(1, len(rows) + 1)
    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, column, label in zip(
        figure.subplots(1, 3),
        ("loss", "accuracy", "lr"),
        ("training loss", "training accuracy", "learning rate"),
        strict=True,
    ):
        axes.plot(epochs, [float(row[column]) for row in rows], linewidth=1)
        axes.set(xlabel="epoch", title=label)
        for end in ends[:-1]:
            axes.axvline(end, color="grey", linewidth=0.5)
    return figure


def confusion(matrix: torch.Tensor, names: list[str]) -> Figure:
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(matrix.float().sqrt().numpy(), cmap="Blues")  # the root shows the few mistakes beside the many hits
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="answer", ylabel="label")
    for row in range(len(names)):
        for column in range(len(names)):
            colour = "white" if row == column else "black"
            axes.text(column, row, str(int(matrix[row, column])), ha="center", va="center", fontsize=7, color=colour)
    return figure


def mistakes(photos: LabelledPhotos, probabilities: torch.Tensor, rows: int = 2, columns: int = 6) -> Figure:
    labels = torch.tensor(photos.labels)
    surest, answer = probabilities.max(1)
    wrong = torch.where(answer != labels, surest, torch.zeros(()))
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, index in zip(
        figure.subplots(rows, columns).flat, wrong.topk(rows * columns).indices.tolist(), strict=True
    ):
        axes.imshow(open_photo(photos.paths[index]), interpolation="bilinear")
        name, taken_for = photos.categories[photos.labels[index]], photos.categories[int(answer[index])]
        axes.set_title(f"{name}\ntaken for {taken_for}, {surest[index]:.0%}", fontsize=6)
        axes.axis("off")
    return figure


def save(figure: Figure, name: str) -> None:
    figure.savefig(PICTURES / name, dpi=80)
