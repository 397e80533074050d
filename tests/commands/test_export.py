"""Exported files: the model's function in every promised shape, categories inside, and nothing left of a failure."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

from shufflenetv2 import package
from shufflenetv2.__main__ import main
from shufflenetv2.description import Description, Preprocess
from shufflenetv2.network.formats import pytorch
from shufflenetv2.network.formats.table import FORMATS
from shufflenetv2.network.model import SPECS, ShuffleNetV2
from shufflenetv2.weights.checkpoint import write_checkpoint

CATEGORIES = ("tabby", "ビーグル", "otter")
PREPROCESS = Preprocess(64, 56, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),  # the exporters', of their own older parts
    pytest.mark.filterwarnings("ignore::FutureWarning:torch"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.manual_seed(0)
    model = ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], num_classes=3)
    write_checkpoint(path, model.state_dict(), Description("shufflenet_v2_x0_5", 3, CATEGORIES, PREPROCESS))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["--plain"], ["--fixed-batch", "3"]], ids=str)
@pytest.mark.parametrize("form", FORMATS)
def test_export(form, arguments, checkpoint, tmp_path, capsys):
    output = tmp_path / ("network" + FORMATS[form].suffix)
    call = ["export", "--format", form, "-o", str(output), "--weights", str(checkpoint), *arguments]
    if form == "torchscript" and "--fixed-batch" in arguments:
        assert main(call) == 1
        assert "leave --fixed-batch out" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []
        return
    assert main(call) == 0
    printed = capsys.readouterr().out
    assert "largest difference" in printed
    assert "the photo cat.jpg" in printed
    assert list(tmp_path.iterdir()) == [output]
    _, metadata = FORMATS[form].open(output)
    assert tuple(json.loads(metadata["categories"])) == CATEGORIES
    assert json.loads(metadata["preprocess"])["mean"] == [0.4, 0.5, 0.6]
    assert json.loads(metadata["arch"]) == "shufflenet_v2_x0_5"
    assert json.loads(metadata["weights"]) == "mine.pth"


def test_size_and_photo_are_those_of_the_weights_and_of_a_wheel(checkpoint, tmp_path, capsys, monkeypatch):
    (tmp_path / "samples").mkdir()
    shutil.copy(package.CHECKOUT / "images" / "cat.jpg", tmp_path / "samples" / "otter.jpg")
    monkeypatch.setattr(package, "PACKAGE", tmp_path)  # where a wheel has the samples
    call = ["export", "--format", "torchscript", "-o", str(tmp_path / "network.pt"), "--weights", str(checkpoint)]
    assert main(call) == 0
    printed = capsys.readouterr().out
    assert "random input (2, 3, 56, 56): largest difference" in printed
    assert "the photo otter.jpg: largest difference" in printed


@pytest.mark.slow
def test_a_failed_comparison_leaves_nothing(checkpoint, tmp_path, capsys, monkeypatch):
    open_rightly = pytorch.open_program

    def open_wrongly(path):
        network, metadata = open_rightly(path)
        return (lambda images: network(images) * 1.01), metadata

    monkeypatch.setattr(pytorch, "open_program", open_wrongly)
    output = tmp_path / "network.pt2"
    output.write_bytes(b"an earlier export")
    call = ["export", "--format", "torch-export", "-o", str(output), "--weights", str(checkpoint), "--size", "64"]
    assert main(call) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"an earlier export"]


def test_what_torch_cannot_write(checkpoint, tmp_path, capsys, monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("Constraints violated (height)!\nFor more information, ask someone else.")

    monkeypatch.setattr(pytorch, "write_program", refuse)
    arguments = ["export", "--format", "torch-export", "-o", str(tmp_path / "m.pt2"), "--weights", str(checkpoint)]
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert told.endswith(
        "cannot write this: Constraints violated (height)!; with --fixed-batch N it need not allow "
        "every batch and size\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_come_with_the_pip_line(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["export", "--format", "onnx"]) == 1
    assert capsys.readouterr().err == (
        "shufflenetv2: error: exporting to onnx needs onnx, onnxscript, onnxruntime, which are not installed; "
        "type: pip install 'onnx>=1.19' 'onnxscript>=0.5.4' 'onnxruntime>=1.23'\n"
    )


def test_missing_directory(checkpoint, tmp_path, capsys):
    output = tmp_path / "absent" / "network.pt2"
    call = ["export", "--format", "torch-export", "-o", str(output), "--weights", str(checkpoint)]
    assert main(call) == 1
    assert "there is no directory" in capsys.readouterr().err
