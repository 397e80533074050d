"""Exported files: the model's function in every promised shape, categories inside, and nothing left of a failure."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch

from shufflenetv2.__main__ import main
from shufflenetv2.commands import export
from shufflenetv2.description import Preprocess
from shufflenetv2.network.deploy import deploy
from shufflenetv2.network.model import SPECS, ShuffleNetV2, Spec
from shufflenetv2.weights.checkpoint import Description, write_checkpoint

CATEGORIES = ("tabby", "ビーグル", "otter")
PREPROCESS = Preprocess(64, 56, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
SUFFIX = {"onnx": ".onnx", "torch-export": ".pt2", "torchscript": ".pt"}

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
@pytest.mark.parametrize("arguments", [[], ["--plain"], ["--fixed-batch", "3", "--size", "56"]], ids=str)
@pytest.mark.parametrize("form", SUFFIX)
def test_export(form, arguments, checkpoint, tmp_path, capsys):
    output = tmp_path / ("network" + SUFFIX[form])
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
    _, metadata = export.FORMATS[form].read(output)
    assert tuple(json.loads(metadata["categories"])) == CATEGORIES
    assert json.loads(metadata["preprocess"])["mean"] == [0.4, 0.5, 0.6]
    assert json.loads(metadata["arch"]) == "shufflenet_v2_x0_5"
    assert json.loads(metadata["weights"]) == "mine.pth"


def test_a_failed_comparison_leaves_nothing(checkpoint, tmp_path, capsys, monkeypatch):
    form = export.FORMATS["torch-export"]

    def read_wrongly(path):
        runtime, metadata = form.read(path)
        return (lambda images: runtime(images) * 1.01), metadata

    monkeypatch.setitem(export.FORMATS, "torch-export", replace(form, read=read_wrongly))
    output = tmp_path / "network.pt2"
    output.write_bytes(b"an earlier export")
    call = ["export", "--format", "torch-export", "-o", str(output), "--weights", str(checkpoint), "--size", "64"]
    assert main(call) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"an earlier export"]


def test_what_torch_cannot_write(checkpoint, tmp_path, capsys, monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("Constraints violated (height)!\nFor more information, ask someone else.")

    monkeypatch.setitem(export.FORMATS, "torch-export", replace(export.FORMATS["torch-export"], write=refuse))
    arguments = ["export", "--format", "torch-export", "-o", str(tmp_path / "m.pt2"), "--weights", str(checkpoint)]
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert told.endswith(
        "cannot write this: Constraints violated (height)!; with --fixed-batch N it need not allow "
        "every batch and size\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_come_with_the_pip_line(monkeypatch, capsys):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    assert main(["export", "--format", "onnx"]) == 1
    assert "pip install onnx onnxscript onnxruntime" in capsys.readouterr().err


def test_missing_directory(checkpoint, tmp_path, capsys):
    output = tmp_path / "absent" / "network.pt2"
    call = ["export", "--format", "torch-export", "-o", str(output), "--weights", str(checkpoint)]
    assert main(call) == 1
    assert "there is no directory" in capsys.readouterr().err


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "legacy"])
def test_onnx_graph(dynamo, tmp_path):
    """Every layer is a convolution or free; no exporter falls back to moving channels or to computing shapes."""
    spec = Spec(stage_channels=(8, 12, 20), head_channels=16, stem_channels=4, stage_units=(3, 4, 2))
    model = deploy(ShuffleNetV2(spec, num_classes=5).eval())
    path = tmp_path / "network.onnx"
    shape = export.Shape(2, 3, 64, dynamic=True)
    with export.quiet():
        if dynamo:
            export.write_onnx(model, shape, {}, path)
        else:
            axes = {"images": {0: "batch", 2: "height", 3: "width"}}
            torch.onnx.export(
                model, (shape.example(),), path, input_names=["images"], dynamic_axes=axes, dynamo=False, verbose=False
            )
    graph = onnx.load(path).graph
    kinds = Counter(node.op_type for node in graph.node)
    assert not set(kinds) & {"Transpose", "Reshape", "Shape", "Gather", "Slice", "MatMul"}
    units = sum(spec.stage_units)
    assert kinds["Conv"] == 2 + 3 * units + 2 * 3  # a downsampling unit has two more than a basic one
    assert (kinds["Concat"], kinds["Split"], kinds["MaxPool"]) == (units, units + 3, 1)
    batch, channels, height, width = graph.input[0].type.tensor_type.shape.dim
    assert (batch.dim_param, channels.dim_value, height.dim_param, width.dim_param) == ("batch", 3, "height", "width")
