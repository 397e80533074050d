"""Details of one line each, found by mutation testing: every test here fails if its line is changed."""

import importlib.util
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from torch import Tensor, nn

from shufflenetv2 import inference
from shufflenetv2.__main__ import main
from shufflenetv2.builder import resolve
from shufflenetv2.commands import evaluate, export
from shufflenetv2.devices import Group
from shufflenetv2.errors import ExportError
from shufflenetv2.network.formats.table import Shape
from shufflenetv2.photos.folders import LabelledPhotos, find_photos
from shufflenetv2.training.augment import Augmentation, TrainingPhotos, epoch_batches
from shufflenetv2.weights import download
from shufflenetv2.weights.transport import Reply

CIFAR = "shufflenet_v2_x0_5/cifar10_v1"


class FaultyFormat:
    """Stands for a format: what ``spoil`` makes of the network and its metadata is what is read back."""

    suffix = ".pt"

    def __init__(self, spoil: Callable[[Tensor], Tensor], altered: dict[str, str]) -> None:
        self.spoil, self.altered = spoil, altered

    def write(self, model: nn.Module, shape: Shape, metadata: dict[str, str], path: Path) -> None:
        self.model, self.metadata = model, metadata

    def open(self, path: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, str]]:
        return (lambda images: self.spoil(self.model(images))), {**self.metadata, **self.altered}


@pytest.mark.parametrize(
    ("spoil", "altered", "message"),
    [
        (lambda logits: logits * torch.nan, {}, "up to nan away"),
        (lambda logits: logits[:1], {}, r"the file gives \(1, 1\)"),
        (lambda logits: logits * 1.001, {}, "where .* is allowed; nothing was written"),
        (lambda logits: logits, {"categories": "[]"}, "came back altered; nothing was written"),
    ],
    ids=["nan", "shape", "values", "metadata"],
)
def test_export_compares(
    spoil: Callable[[Tensor], Tensor], altered: dict[str, str], message: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    call = (model, resolve(None, CIFAR), FaultyFormat(spoil, altered), Shape(2, 3, 64, True), tmp_path / "network.pt")
    with pytest.raises(ExportError, match=message):
        list(export.export(*call))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("plain", [True, False])
def test_plain_is_the_plain_network(plain: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[nn.Module] = []

    def stop(model: nn.Module, *arguments: Any, **options: Any) -> Any:
        built.append(model)
        raise ExportError("so much is enough")

    monkeypatch.setattr(export, "export", stop)
    monkeypatch.setattr(evaluate, "count_hits", stop)
    (tmp_path / "cat").mkdir()
    shutil.copy(ROOT / "images/cat.jpg", tmp_path / "cat")
    options = ["--weights", CIFAR, *(["--plain"] if plain else [])]
    assert main(["export", "--format", "torchscript", *options]) == 1
    assert main(["evaluate", str(tmp_path), *options]) == 1
    assert [any(isinstance(each, nn.BatchNorm2d) for each in model.modules()) for model in built] == [plain, plain]


@pytest.mark.parametrize("by_hub", [False, True])
def test_a_pickled_classifier_keeps_what_it_was_made_with(by_hub: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    choose = inference.choose_device
    monkeypatch.setattr(inference, "choose_device", lambda device: asked.append(device) or choose("cpu"))
    classify = inference.Classifier(resolve(None, CIFAR), top=3, device="cuda:1", deploy=False, progress=False)
    monkeypatch.setattr(inference, "made_by_hub", lambda: by_hub)
    kept = {"top": 3, "device": "cpu", "deploy": False, "progress": False}
    function, arguments = classify.__reduce__()
    if by_hub:
        assert function.keywords == {"source": "local", **kept}
        assert arguments == (str(ROOT), "classifier", "shufflenet_v2_x0_5", "cifar10_v1")
        return
    assert arguments == (("shufflenet_v2_x0_5", "cifar10_v1"), kept)
    again = pickle.loads(pickle.dumps(classify))
    assert (again.top, again.deploy, again.weights.title) == (3, False, CIFAR)
    assert asked == ["cuda:1", "cpu"]
    assert any(isinstance(each, nn.BatchNorm2d) for each in again.model.modules())


def test_no_two_processes_augment_alike() -> None:
    photos = LabelledPhotos((Path("a.png"), Path("b.png")), (0, 1), ("a", "b"))
    seeds = {
        (epoch, rank): epoch_batches(
            TrainingPhotos(photos, Augmentation(), 32), 1, Group(rank, 2, torch.device("cpu")), 0, 7, epoch
        ).generator.initial_seed()  # of the loaders' workers
        for epoch in range(2)
        for rank in range(2)
    }
    assert len(set(seeds.values())) == 4


@pytest.mark.parametrize(
    ("status", "again"), {**dict.fromkeys((408, 425, 429, 500, 502, 503, 504), True), 403: False, 501: False}.items()
)
def test_what_may_pass_is_tried_again(status: int, again: bool, make_entry: Callable[..., Any]) -> None:
    with pytest.raises(download._AttemptError) as caught:
        download._judge(Reply(status, {}, b""), make_entry(b"data"))
    assert caught.value.retry is again


def test_hidden_files_are_no_photos(tmp_path: Path) -> None:
    (tmp_path / ".Trash").mkdir()
    for name in ("cat.jpg", "._cat.jpg", ".Trash/old.jpg"):  # macOS leaves the second beside each photo on a USB stick
        shutil.copy(ROOT / "images/cat.jpg", tmp_path / name)
    assert find_photos([tmp_path]) == [tmp_path / "cat.jpg"]


def test_a_failed_import_leaves_nothing_behind(tmp_path: Path) -> None:
    shutil.copy(ROOT / "hubconf.py", tmp_path)
    (tmp_path / "weights.json").write_text("{}")
    (tmp_path / "shufflenetv2").mkdir()
    (tmp_path / "shufflenetv2/__init__.py").write_text("raise ImportError('torch is too old')\n")
    before = set(sys.modules)
    for _ in range(2):  # the second time as the first
        spec = importlib.util.spec_from_file_location("hubconf_in_a_test", tmp_path / "hubconf.py")
        assert spec is not None
        assert spec.loader is not None
        with pytest.raises(ImportError, match="torch is too old"):
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert set(sys.modules) == before
