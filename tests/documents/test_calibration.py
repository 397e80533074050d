"""The commands behind docs/why.md's tables: a temperature into weights.json, and answers about photos of nothing."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from support.processes import ROOT, run_module
from support.repository import copy_repository

from shufflenetv2.builder import resolve
from shufflenetv2.inference.classifier import Classifier
from shufflenetv2.inference.explain import picture
from tools.calibration import KINDS, make

NAME = "shufflenet_v2_x0_5/cifar10_v2"


def test_foreign_photos_are_the_same_each_time() -> None:
    for kind in KINDS:
        first, second = ([image.tobytes() for image in make(kind, 4)] for _ in range(2))
        assert first == second
        assert len(set(first)) == 4


def labelled(root: Path, per_class: int) -> Path:
    """Noise under what the network says of it, or, for three in ten, under another label."""
    classify = Classifier(resolve(None, "cifar10"))
    generator = torch.Generator().manual_seed(0)
    counts = dict.fromkeys(classify.categories, 0)
    for label in classify.categories:
        (root / label).mkdir(parents=True)
    while min(counts.values()) < per_class:
        pixels = torch.rand(1, 3, 3, 3, generator=generator)
        pixels = torch.nn.functional.interpolate(pixels, (32, 32), mode="bicubic").clamp(0, 1)[0].mul(255).byte()
        said = classify(pixels)[0].index
        wrong = torch.rand((), generator=generator) < 0.3
        index = int(torch.randint(10, (), generator=generator)) if wrong else said
        label = classify.categories[index]
        if counts[label] >= per_class:  # rare answers are filled up with others
            label = min(counts, key=lambda each: counts[each])
        picture(pixels).save(root / label / f"{counts[label]}.png")
        counts[label] += 1
    return root


@pytest.mark.slow
def test_a_temperature_is_put_into_the_manifest(tmp_path: Path) -> None:
    checkout = copy_repository(tmp_path / "checkout")
    shutil.copytree(ROOT / "tools", checkout / "tools")
    for name in ("docs", "images"):
        shutil.copytree(ROOT / name, checkout / name, dirs_exist_ok=True)
    photos = labelled(tmp_path / "photos", 41)
    manifest = checkout / "weights.json"
    before = manifest.read_text(encoding="utf-8")
    command = ["tools", "calibrate", NAME, photos, photos, "--held-out", "0.5", "--by", "a test"]
    run_module(*command, "--seen", cwd=checkout)
    assert manifest.read_text(encoding="utf-8") == before
    run_module(*command, cwd=checkout)
    told = json.loads((checkout / "docs/calibration.json").read_text(encoding="utf-8"))
    assert told["calibration"]["fitted_on"] == 200  # 20 of 41, rounded to even, of ten classes
    assert told["foreign"]  # as it was
    [entry] = [
        each for each in json.loads(manifest.read_text(encoding="utf-8"))["entries"] if each["name"] == "cifar10_v2"
    ]
    assert entry["temperature"] == told["calibration"]["temperature"] != 1
    assert (
        told["calibration"]["after"]["negative_log_likelihood"]
        < told["calibration"]["before"]["negative_log_likelihood"]
    )
    run_module("tools", "foreign", NAME, "--count", "2", "--by", "a test", cwd=checkout)
    told = json.loads((checkout / "docs/calibration.json").read_text(encoding="utf-8"))
    assert {row["photos"] for row in told["foreign"]["kinds"].values()} == {2}
    assert told["foreign"]["temperature"] == entry["temperature"]
    listed = run_module("shufflenetv2", "classify", "images/cat.jpg", "--weights", "cifar10", "--json", cwd=checkout)
    first = json.loads(listed.stdout)["predictions"][0]
    assert first["probability"] != pytest.approx(
        Classifier(resolve(None, "cifar10"))(ROOT / "images/cat.jpg")[0].probability
    )
