"""The bundled weights: what they score is what the manifest says, in every form, and they are a start for more.

The photos are the archive ``../shared/data/cifar10-jpeg.tar.gz`` beside the repository, or what
``SHUFFLENETV2_TEST_CIFAR10`` names; where there is neither, the tests that need them are skipped, visibly.
"""

import csv
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import torch
from PIL import Image
from support.processes import ROOT, torchrun
from torch import Tensor

from shufflenetv2.__main__ import main
from shufflenetv2.builder import build, resolve
from shufflenetv2.entrypoints import classifier
from shufflenetv2.photos.ahead import read_ahead
from shufflenetv2.photos.folders import read_labelled
from shufflenetv2.photos.transform import PhotoTransform
from shufflenetv2.weights.manifest import load_manifest, read_categories

ARCHIVE = Path(os.environ.get("SHUFFLENETV2_TEST_CIFAR10", ROOT.parent / "shared/data/cifar10-jpeg.tar.gz"))
ENTRY = next(entry for entry in load_manifest() if entry.name == "cifar10_v2")
ARGUMENTS = ["--arch", ENTRY.arch, "--weights", "cifar10"]
TOLERANCE = 3  # hits: convolutions differ in their last bits between CPUs
CLOSE_CALL = 1e-3  # between the two largest logits: below it, rounding may decide


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the 10,000 test photos."""
    if not ARCHIVE.is_file():
        pytest.skip(f"the CIFAR-10 photos are not here: no {ARCHIVE}")
    folder = tmp_path_factory.mktemp("cifar10")
    with tarfile.open(ARCHIVE) as archive:
        members = (member for member in archive if member.name.removeprefix("./").startswith("test/"))
        archive.extractall(folder, members=members, filter="data")
    return folder / "test"


def recorded(percent: float) -> int:
    return round(percent / 100 * 10_000)


@pytest.mark.slow
def test_the_accuracy_is_the_recorded_one(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(photos), *ARGUMENTS, "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["photos"], counts["skipped"]) == (10_000, 0)
    assert abs(counts["top1"]["hits"] - recorded(ENTRY.metrics.acc1)) <= TOLERANCE
    assert abs(counts["top5"]["hits"] - recorded(ENTRY.metrics.acc5)) <= TOLERANCE
    assert counts["stated"]["dataset"] == ENTRY.metrics.dataset


@pytest.mark.slow
def test_two_processes_count_a_part_alike(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in photos.iterdir():
        (tmp_path / folder.name).mkdir()
        for path in sorted(folder.iterdir())[:21]:
            (tmp_path / folder.name / path.name).symlink_to(path)
    assert main(["evaluate", str(tmp_path), *ARGUMENTS, "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    together = json.loads(torchrun(2, "shufflenetv2", "evaluate", tmp_path, *ARGUMENTS, "--json").stdout)
    assert together["photos"] == alone["photos"] == 210
    assert together["top1"] == alone["top1"]
    assert together["top5"] == alone["top5"]


@pytest.mark.slow
def test_every_form_agrees_on_every_photo(photos: Path, tmp_path: Path) -> None:
    """The plain network, its deploy form and the exported ONNX file answer alike wherever rounding cannot decide."""
    source = resolve(ENTRY.arch, "cifar10")
    exact = build(source.arch, source).double()
    onnx = tmp_path / "cifar10.onnx"
    assert main(["export", "--format", "onnx", *ARGUMENTS, "--size", str(ENTRY.preprocess.crop), "-o", str(onnx)]) == 0
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    forms: dict[str, Callable[[Tensor], Tensor]] = {
        "plain": build(source.arch, source),
        "deploy": build(source.arch, source, deploy=True),
        "ONNX": lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]),
    }
    labelled = read_labelled(photos, read_categories(ENTRY.categories))
    clear = 0
    for batch in read_ahead(labelled.paths, PhotoTransform(source.preprocess), batch_size=50):
        images = torch.cat([image for _, image in batch])
        with torch.inference_mode():
            best, answers = exact(images.double()).topk(2)
            decided = best[:, 0] - best[:, 1] > CLOSE_CALL
            for name, form in forms.items():
                differ = (form(images).argmax(1) != answers[:, 0]) & decided
                assert not differ.any(), f"{name}: {[batch[index][0] for index in differ.nonzero()]}"
        clear += int(decided.sum())
    assert clear > 9_900


def test_the_document_states_what_the_manifest_states() -> None:
    document = (ROOT / "docs/cifar10.md").read_text(encoding="utf-8")
    assert f"{ENTRY.metrics.acc1:.2f} %" in document
    assert f"{ENTRY.metrics.acc5:.2f} %" in document
    assert ENTRY.metrics.dataset in document
    assert f"{ENTRY.macs / 1e6:.2f} M" in document
    for line in document.splitlines():  # the pictures are there
        for part in line.split("](")[1:]:
            target = part.split(")")[0]
            assert "://" in target or (ROOT / "docs" / target).exists(), target


def test_the_bundled_file_is_small() -> None:
    assert ENTRY.path is not None
    assert ENTRY.size <= 1_600_000
    assert ENTRY.urls == ()


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small labelled folder: two dozen pieces of each of the repository's own photos."""
    root = tmp_path_factory.mktemp("crops")
    generator = torch.Generator().manual_seed(0)
    for name in ("cat", "coffee"):
        image = Image.open(ROOT / f"images/{name}.jpg").convert("RGB")
        side = min(image.size) // 2
        (root / name).mkdir()
        for index in range(24):
            left = int(torch.randint(image.width - side + 1, (), generator=generator))
            top = int(torch.randint(image.height - side + 1, (), generator=generator))
            piece = image.crop((left, top, left + side, top + side)).resize((128, 128))
            piece.save(root / name / f"{index:02}.jpg")
    return root


@pytest.mark.slow
def test_fine_tuning_from_the_bundled_weights(crops: Path, tmp_path: Path) -> None:
    arguments = ["--epochs", "3", "--batch-size", "6", "--lr", "0.01", "--held-out", "0.25", "--workers", "0"]
    assert main(["train", str(crops), *ARGUMENTS, "--output", str(tmp_path), *arguments]) == 0
    with open(tmp_path / "log.csv", newline="") as file:
        log = list(csv.DictReader(file))
    assert float(log[-1]["loss"]) < float(log[0]["loss"])
    assert max(float(row["val_accuracy"]) for row in log) >= 11 / 12
    classify = classifier(weights=tmp_path / "best.pth")
    found = read_labelled(crops)
    answers = [predictions[0].label for predictions in classify(list(found.paths))]
    right = sum(found.categories[label] == answer for label, answer in zip(found.labels, answers, strict=True))
    assert right >= 46  # of 48
