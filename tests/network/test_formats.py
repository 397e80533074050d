"""The table of formats, and what the exporters make of the deploy form."""

import os
import tomllib
from collections import Counter

import onnx
import pytest
import torch
from support.processes import ROOT, run_python

from shufflenetv2.network.deploy import deploy
from shufflenetv2.network.formats.table import FORMATS, Plan, Shape
from shufflenetv2.network.model import ShuffleNetV2, Spec

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_extra_of_a_format_installs_what_it_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for name, form in FORMATS.items():
        assert set(extras.get(name, ())) == {*form.to_write, *form.to_open}
        assert set(form.to_quantise) <= set(extras["int8"])


def test_a_format_is_imported_when_it_is_used() -> None:
    program = (
        "import sys\n"
        "from shufflenetv2.network.formats.table import FORMATS\n"
        "print([name for name in sys.modules if name.startswith(('onnx', 'shufflenetv2.network.formats.'))])"
    )
    printed = run_python(program, cwd=ROOT, env=dict(os.environ)).stdout
    assert printed == "['shufflenetv2.network.formats.table']\n"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the legacy exporter is one, and calls others
@pytest.mark.parametrize("dynamo", [pytest.param(True, marks=pytest.mark.slow), False], ids=["dynamo", "legacy"])
def test_onnx_graph(dynamo, tmp_path):
    """Every layer is a convolution or free; no exporter falls back to moving channels or to computing shapes."""
    spec = Spec(stage_channels=(8, 12, 20), head_channels=16, stem_channels=4, stage_units=(3, 4, 2))
    model = deploy(ShuffleNetV2(spec, num_classes=5).eval())
    path = tmp_path / "network.onnx"
    shape = Shape(2, 3, 64, dynamic=True)
    if dynamo:
        FORMATS["onnx"].write(model, Plan(shape), {}, path)
    else:
        axes = {"images": {0: "batch", 2: "height", 3: "width"}}
        torch.onnx.export(
            model, (shape.example(),), path, input_names=["images"], dynamic_axes=axes, dynamo=False, verbose=False
        )
    graph = onnx.load(path).graph
    kinds = Counter(node.op_type for node in graph.node)
    assert not set(kinds) & {"Transpose", "Reshape", "Shape", "Gather", "MatMul"}
    units = sum(spec.stage_units)
    assert kinds["Conv"] == 2 + 3 * units + 2 * 3  # a downsampling unit has two more than a basic one
    assert (kinds["Concat"], kinds["MaxPool"]) == (units, 1)
    # torch 2.15 writes a slice a piece where others write one split; they take the same time in ONNX Runtime, OpenVINO.
    outputs = [sizes for stage in (model.stage2, model.stage3, model.stage4) for sizes in stage.sizes]
    pieces = sum(len(sizes) for sizes in outputs if len(sizes) > 1)
    assert (kinds["Split"], kinds["Slice"]) in {(len(outputs), 0), (0, pieces)}
    batch, channels, height, width = graph.input[0].type.tensor_type.shape.dim
    assert (batch.dim_param, channels.dim_value, height.dim_param, width.dim_param) == ("batch", 3, "height", "width")
