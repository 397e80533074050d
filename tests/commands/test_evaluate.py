"""Every labelled photo is counted once, and what is counted is what the model answers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from shufflenetv2.__main__ import main
from shufflenetv2.builder import build, resolve
from shufflenetv2.description import Metrics, Preprocess
from shufflenetv2.evaluation.counting import wilson
from shufflenetv2.network.model import SPECS, ShuffleNetV2
from shufflenetv2.photos.transform import PhotoTransform
from shufflenetv2.weights.checkpoint import Description, write_checkpoint

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = ("ant", "bee", "cow", "dog", "elk", "fox", "gnu")
COUNTS = (4, 3, 1, 5, 2, 3, 5)  # 23 photos: no batch size or number of processes divides them


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in folders; the labels mean nothing, but a random network answers it with many different classes."""
    root = tmp_path_factory.mktemp("labelled")
    generator = torch.Generator().manual_seed(5)
    for name, count in zip(NAMES, COUNTS, strict=True):
        (root / name).mkdir()
        for index in range(count):
            coarse = torch.rand(1, 3, 3, 3, generator=generator)
            pixels = torch.nn.functional.interpolate(coarse, (40, 50), mode="bicubic").clamp(0, 1).mul(255).byte()
            image = Image.frombytes("RGB", (50, 40), bytes(pixels[0].permute(1, 2, 0).flatten().tolist()))
            image.save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    model = ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], len(NAMES))
    model.train()
    for _ in range(30):  # statistics that let the noise through to the logits
        model(torch.randn(16, 3, 64, 64) + torch.randn(16, 3, 1, 1))
    torch.nn.init.normal_(model.fc.weight, std=1.0)
    path = tmp_path_factory.mktemp("weights") / "noise.pth"
    preprocess = Preprocess(72, 64, "bilinear", (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    metrics = Metrics("noise", 12.5, 62.5, "nobody")
    write_checkpoint(path, model.state_dict(), Description("shufflenet_v2_x0_5", 3, NAMES, preprocess, metrics))
    return path


def expected(data: Path, weights: Path) -> tuple[int, int]:
    """Hits counted one photo at a time."""
    source = resolve(None, str(weights))
    model, transform = build(source.arch, source), PhotoTransform(source.preprocess)
    top1 = top5 = 0
    for label, name in enumerate(NAMES):
        for path in sorted((data / name).iterdir()):
            with torch.inference_mode():
                order = model(transform(path))[0].argsort(descending=True).tolist()
            top1 += order[0] == label
            top5 += label in order[:5]
    assert 0 < top1 < top5 < sum(COUNTS)  # else the comparisons below say nothing
    return top1, top5


@pytest.mark.parametrize("arguments", [[], ["--plain"], ["--batch-size", "7", "--workers", "1"]])
def test_counts(data: Path, weights: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(data), "--weights", str(weights), "--json", *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["photos"], result["skipped"]) == (sum(COUNTS), 0)
    assert (result["top1"]["hits"], result["top5"]["hits"]) == expected(data, weights)
    assert result["top1"]["percent"] == pytest.approx(100 * result["top1"]["hits"] / sum(COUNTS))
    assert result["stated"] == {"dataset": "noise", "acc@1": 12.5, "acc@5": 62.5}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])  # one process: test_counts
def test_every_number_of_processes_counts_alike(data: Path, weights: Path, processes: int) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "shufflenetv2", "evaluate", str(data), "--weights", str(weights), "--json", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    counts = json.loads(result.stdout)  # printed once, by one process
    assert counts["photos"] == sum(COUNTS)
    assert (counts["top1"]["hits"], counts["top5"]["hits"]) == expected(data, weights)


def test_stated_accuracy_beside_the_measured_one(
    data: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(data), "--weights", str(weights)]) == 0
    text = capsys.readouterr().out
    top1, _ = expected(data, weights)
    assert f"{100 * top1 / 23:6.2f} %" in text
    assert f"{top1} of 23" in text
    assert "stated: 12.50 %" in text
    assert "noise, measured by nobody" in text
    # Some of the classes are another data set than the one the weights state their accuracy for.
    for name in NAMES[:3]:
        (tmp_path / name).symlink_to(data / name)
    assert main(["evaluate", str(tmp_path), "--weights", str(weights)]) == 0
    text = capsys.readouterr().out
    assert "of 8" in text
    assert "stated" not in text


def test_a_bad_photo_stops_or_is_counted_apart(
    data: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in NAMES:
        (tmp_path / name).mkdir()
        for path in (data / name).iterdir():
            (tmp_path / name / path.name).symlink_to(path)
    broken = tmp_path / "cow" / "broken.jpg"
    broken.write_bytes((ROOT / "images/cat.jpg").read_bytes()[:3000])
    assert main(["evaluate", str(tmp_path), "--weights", str(weights)]) == 1
    captured = capsys.readouterr()
    assert str(broken) in captured.err
    assert captured.out == ""
    assert main(["evaluate", str(tmp_path), "--weights", str(weights), "--skip-bad", "--json"]) == 0
    captured = capsys.readouterr()
    assert str(broken) in captured.err
    result = json.loads(captured.out)
    assert (result["photos"], result["skipped"]) == (23, 1)
    assert (result["top1"]["hits"], result["top5"]["hits"]) == expected(data, weights)


def test_photos_of_which_none_can_be_used_are_a_failure(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in NAMES[:2]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "broken.jpg").write_bytes(b"hello")
    assert main(["evaluate", str(tmp_path), "--weights", str(weights), "--skip-bad", "--json"]) == 1
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (result["photos"], result["skipped"], result["top1"]["percent"]) == (0, 2, 0.0)
    assert captured.err.endswith("shufflenetv2: none of the 2 photos could be used\n")


def test_larger_photos_are_allowed_by_an_option(data: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", str(data), "--weights", str(weights), "--max-pixels"]
    assert main([*command, "1999"]) == 1
    assert "is 50x40 pixels, more than the 1,999 allowed" in capsys.readouterr().err
    assert main([*command, "2e3"]) == 0
    assert "of 23" in capsys.readouterr().out


def test_unknown_folders_are_listed(
    data: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ant", "yak", "zebra"):
        (tmp_path / name).symlink_to(data / "ant")
    assert main(["evaluate", str(tmp_path), "--weights", str(weights)]) == 1
    message = capsys.readouterr().err
    assert "'yak', 'zebra'" in message
    assert "'ant', 'bee', 'cow'" in message


@pytest.mark.parametrize("against", [False, True])
def test_weights_without_a_classifier_are_told_not_the_folders(
    against: bool, data: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = tmp_path / "features.pth"
    torch.save(build("shufflenet_v2_x0_5", None, num_classes=0).state_dict(), features)
    options = [str(weights), "--against", str(features)] if against else [str(features)]
    assert main(["evaluate", str(data), "--weights", *options]) == 1
    assert f"error: {features} has no classifier (fc.weight)" in capsys.readouterr().err


# Published values of the 95 % Wilson score interval.
@pytest.mark.parametrize(
    ("hits", "photos", "low", "high"),
    [(0, 10, 0.0, 27.75), (5, 10, 23.66, 76.34), (10, 10, 72.25, 100.0), (9013, 10000, 89.53, 90.70)],
)
def test_wilson(hits: int, photos: int, low: float, high: float) -> None:
    assert wilson(hits, photos) == pytest.approx((low, high), abs=0.005)
