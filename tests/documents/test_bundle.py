"""A checkpoint becomes an entry of weights.json by one command."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.processes import ROOT, run_module
from support.repository import copy_repository

from shufflenetv2.description import STANDARD, Description, Metrics
from shufflenetv2.network.model import SPECS, ShuffleNetV2
from shufflenetv2.weights.checkpoint import write_checkpoint

ARCH = "shufflenet_v2_x0_5"
LABELS = ("daisy", "rose", "tulip")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    copy = copy_repository(tmp_path / "checkout")
    shutil.copytree(ROOT / "tools", copy / "tools")
    return copy


def checkpoint(path: Path, in_channels: int = 3, metrics: Metrics | None = None) -> Path:
    model = ShuffleNetV2(SPECS[ARCH], len(LABELS), in_channels)
    write_checkpoint(path, model.state_dict(), Description(ARCH, in_channels, LABELS, STANDARD, metrics))
    return path


def entries(checkout: Path) -> dict[str, dict[str, Any]]:
    manifest = json.loads((checkout / "weights.json").read_text(encoding="utf-8"))
    return {f"{entry['arch']}/{entry['name']}": entry for entry in manifest["entries"]}


@pytest.mark.slow
def test_one_command_adds_bundled_weights(checkout: Path, tmp_path: Path) -> None:
    before = entries(checkout)
    file = checkpoint(tmp_path / "best.pth", metrics=Metrics("flowers", 90.0, 100.0, "train"))
    run_module("tools", "bundle", file, "--name", "flowers_v1", "--license", "CC0", cwd=checkout)
    after = entries(checkout)
    entry = after.pop(f"{ARCH}/flowers_v1")
    assert after == before
    data = (checkout / "shufflenetv2/bundled" / entry["path"]).read_bytes()
    assert (entry["size"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert len(data) < 0.6 * file.stat().st_size
    assert entry["num_params"] == sum(each.numel() for each in ShuffleNetV2(SPECS[ARCH], 3).parameters())
    assert entry["macs"] == before[f"{ARCH}/imagenet1k_v1"]["macs"] - 1024 * (1000 - 3)
    assert (entry["default"], entry["license"], entry["metrics"]["acc@1"]) == (False, "CC0", 90.0)
    assert (checkout / "shufflenetv2/categories" / entry["categories"]).read_text() == "daisy\nrose\ntulip\n"
    run_module("shufflenetv2", "weights", "verify", f"{ARCH}/flowers_v1", cwd=checkout)
    # What was measured with it is put beside it.
    measured = tmp_path / "measured.json"
    measured.write_text(json.dumps({"top1": {"percent": 91.5}, "top5": {"percent": 100.0}}))
    arguments = ("--dataset", "flowers, test", "--by", "today")
    run_module("tools", "record", f"{ARCH}/flowers_v1", measured, *arguments, cwd=checkout)
    recorded = entries(checkout)[f"{ARCH}/flowers_v1"]
    assert recorded["metrics"]["acc@1"] == 91.5
    assert {**recorded, "metrics": None} == {**entry, "metrics": None}


@pytest.mark.slow
def test_published_weights_are_listed_as_they_are(checkout: Path, tmp_path: Path) -> None:
    file = tmp_path / "published.pth"
    torch.save(ShuffleNetV2(SPECS[ARCH]).state_dict(), file)
    address = "https://example.org/published.pth"
    run_module("tools", "bundle", file, "--name", "imagenet1k_v2", "--url", address, "--default", cwd=checkout)
    after = entries(checkout)
    entry = after[f"{ARCH}/imagenet1k_v2"]
    assert (entry["file"], entry["urls"]) == ("published.pth", [address])
    assert (entry["size"], entry["categories"]) == (file.stat().st_size, "imagenet1k.txt")
    assert entry["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert [name for name, each in after.items() if each["arch"] == ARCH and each["default"]] == [
        f"{ARCH}/imagenet1k_v2"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "in_channels", "told"),
    [("flowers", 3, "must be lower case and end in a version"), ("flowers_v1", 1, "is for 1 channels")],
)
def test_what_makes_no_entry_changes_nothing(
    checkout: Path, tmp_path: Path, name: str, in_channels: int, told: str
) -> None:
    before = {path: path.read_bytes() for path in checkout.rglob("*.*") if path.suffix != ".pyc" and path.is_file()}
    file = checkpoint(tmp_path / "best.pth", in_channels)
    result = run_module("tools", "bundle", file, "--name", name, cwd=checkout, check=False)
    assert result.returncode == 1
    assert told in result.stderr
    assert before == {
        path: path.read_bytes() for path in checkout.rglob("*.*") if path.suffix != ".pyc" and path.is_file()
    }
