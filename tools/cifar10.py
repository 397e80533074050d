"""From a finished training run to the bundled weights and the pictures of docs/cifar10.md.

python docs/cifar10.py bundle RUN/best.pth                   # half precision -> shufflenetv2/bundled, weights.json
python -m shufflenetv2 evaluate CIFAR10/test --arch shufflenet_v2_x0_5 --weights cifar10 --json > measured.json
python docs/cifar10.py record measured.json "the machine, the date"  # what that measured -> weights.json
python docs/cifar10.py draw CIFAR10/test                     # the pictures in docs/cifar10/, of the logs there
"""

import argparse
import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from shufflenetv2.builder import build, resolve
from shufflenetv2.photos.decode import open_photo
from shufflenetv2.photos.folders import LabelledPhotos, read_ahead, read_labelled
from shufflenetv2.photos.transform import PhotoTransform
from shufflenetv2.weights.checkpoint import Description, write_checkpoint
from shufflenetv2.weights.manifest import read_categories

ROOT = Path(__file__).resolve().parent.parent
ARCH, NAME = "shufflenet_v2_x0_5", "cifar10_v1"
PICTURES = ROOT / "docs/cifar10"
MANIFEST = ROOT / "weights.json"
LOGS = ("run1.csv", "run2.csv", "run3.csv", "run3-end.csv")


def bundle(best: Path) -> None:
    """Store the weights in half precision and list the file in the manifest, not yet with its accuracy."""
    source = resolve(ARCH, str(best))
    checkpoint = source.read(progress=False)
    half = {
        key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in checkpoint.state_dict.items()
    }
    folder = ROOT / "shufflenetv2/bundled"
    unnamed = folder / "cifar10.pth"
    write_checkpoint(unnamed, half, Description(ARCH, source.in_channels, tuple(source.categories), source.preprocess))
    data = unnamed.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    file = f"shufflenetv2_x0_5-cifar10-{sha256[:10]}.pth"
    for old in folder.glob("shufflenetv2_x0_5-cifar10-*.pth"):
        old.unlink()
    unnamed.rename(folder / file)
    (ROOT / "shufflenetv2/categories/cifar10.txt").write_text("\n".join(source.categories) + "\n")

    model = build(ARCH, source, progress=False)
    crop = source.preprocess.crop
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, 3, crop, crop))
    edit(
        num_classes=source.num_classes,
        file=file,
        path=file,
        sha256=sha256,
        size=len(data),
        num_params=sum(parameter.numel() for parameter in model.parameters()),
        macs=counter.get_total_flops() // 2,
        categories="cifar10.txt",
        preprocess={
            "resize": source.preprocess.resize,
            "crop": crop,
            "interpolation": source.preprocess.interpolation,
            "mean": list(source.preprocess.mean),
            "std": list(source.preprocess.std),
        },
        metrics={"dataset": "not measured", "acc@1": 0.0, "acc@5": 0.0, "measured_by": "nobody"},
        license="BSD-3-Clause; trained on CIFAR-10 (Krizhevsky 2009), whose photos have no stated licence",
        source="this repository",
        recipe="docs/cifar10.md",
    )


def record(measured: Path, by: str) -> None:
    """Put what ``evaluate --json`` counted on the test photos into the manifest."""
    counts = json.loads(measured.read_text())
    edit(
        metrics={
            "dataset": "CIFAR-10 test set, JPEG copy",
            "acc@1": counts["top1"]["percent"],
            "acc@5": counts["top5"]["percent"],
            "measured_by": f"shufflenetv2 evaluate, {by}",
        }
    )


def edit(**fields: Any) -> None:
    """Change these fields of the entry, which is added if it is missing."""
    manifest = json.loads(MANIFEST.read_text())
    entries = manifest["entries"]
    entry = next((each for each in entries if (each["arch"], each["name"]) == (ARCH, NAME)), None)
    if entry is None:
        entry = {"name": NAME, "arch": ARCH, "default": False}
        entries.append(entry)
    entry.update(fields)
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    for value in (each["preprocess"][key] for each in entries for key in ("mean", "std")):
        broken = "[\n" + ",\n".join(f"          {number}" for number in value) + "\n        ]"
        text = text.replace(broken, json.dumps(value))  # three numbers read better on one line
    MANIFEST.write_text(text + "\n")


def draw(test: Path) -> None:
    """The curves of all runs, the confusion matrix, and the mistakes the network is surest of."""
    source = resolve(ARCH, NAME)
    photos = read_labelled(test, read_categories("cifar10.txt"))
    probabilities = answers(photos)
    matrix = torch.zeros(len(photos.categories), len(photos.categories), dtype=torch.int64)
    for label, answer in zip(photos.labels, probabilities.argmax(1).tolist(), strict=True):
        matrix[label, answer] += 1
    save(curves([PICTURES / name for name in LOGS]), "curves.png")
    save(confusion(matrix, source.categories), "confusion.png")
    save(mistakes(photos, probabilities), "mistakes.png")
    print(f"{int(matrix.trace())} of {len(photos)} right")


@torch.inference_mode()
def answers(photos: LabelledPhotos) -> torch.Tensor:
    """Probabilities ``(photos, classes)`` by the deploy form, as ``evaluate`` and ``classify`` use it."""
    source = resolve(ARCH, NAME)
    model = build(source.arch, source, deploy=True)
    batches = read_ahead(photos.paths, PhotoTransform(source.preprocess))
    return torch.cat([model(batch.images).softmax(1) for batch in batches])


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for function, arguments in (
        (bundle, {"best": Path}),
        (record, {"measured": Path, "by": str}),
        (draw, {"test": Path}),
    ):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        for name, kind in arguments.items():
            command.add_argument(name, type=kind)
        command.set_defaults(function=function)
    given = vars(parser.parse_args())
    given.pop("function")(**given)
