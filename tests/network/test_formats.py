"""The table of formats, and what the exporters make of the deploy form."""

import logging
import os
import re
import sys
import threading
import tomllib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import onnx
import pytest
import torch
from support.processes import ROOT, run_python
from support.skips import needs

from shufflenetv2.errors import CheckpointError
from shufflenetv2.exporting import _in_float32
from shufflenetv2.network.deploy import deploy
from shufflenetv2.network.formats.quiet import quiet
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
        "print(sorted(name for name in sys.modules if name.startswith(('onnx', 'shufflenetv2.network.formats.'))))"
    )
    printed = run_python(program, cwd=ROOT, env=dict(os.environ)).stdout
    assert printed == "['shufflenetv2.network.formats.quiet', 'shufflenetv2.network.formats.table']\n"


@pytest.mark.parametrize("changed", [quiet, _in_float32])
def test_two_at_once_leave_the_process_as_it_was(changed: Callable[[], AbstractContextManager[None]]) -> None:
    def state() -> list[object]:
        levels = [logging.getLogger(name).level for name in ("torch.onnx", "nncf", "root")]
        return [sys.stdout, torch.get_default_dtype(), *levels]

    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with changed():
            first_in.set()
            second_in.wait(0.1)  # in vain, where one waits for the other
        first_out.set()

    def second() -> None:
        first_in.wait()
        with changed():
            second_in.set()
            first_out.wait()

    torch.set_default_dtype(torch.float64)
    try:
        before = state()
        with ThreadPoolExecutor(2) as threads:
            for each in [threads.submit(first), threads.submit(second)]:
                each.result()
        assert state() == before
    finally:
        torch.set_default_dtype(torch.float32)


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


def test_other_threads_print_where_they_did(capsys: pytest.CaptureFixture[str]) -> None:
    inside, printed = threading.Event(), threading.Event()

    def other() -> None:
        inside.wait()
        print("a result")
        printed.set()

    there_before = threading.Thread(target=other)
    there_before.start()
    with quiet():
        print("chatter")
        (helper := threading.Thread(target=print, args=["its thread's"])).start()
        helper.join()
        inside.set()
        printed.wait()
    there_before.join()
    assert capsys.readouterr() == ("a result\n", "chatter\nits thread's\n")


@pytest.fixture(scope="module")
def openvino_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = Spec(stage_channels=(8, 12, 20), head_channels=16, stem_channels=4, stage_units=(3, 4, 2))
    torch.manual_seed(0)
    model = ShuffleNetV2(spec, num_classes=5).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):  # so that other images have visibly other logits
            layer.running_var.fill_(0.1)
    path = tmp_path_factory.mktemp("openvino") / "network.xml"
    FORMATS["openvino"].write(deploy(model), Plan(Shape(2, 3, 64, dynamic=True)), {}, path)
    return path


@needs("openvino")
@pytest.mark.slow
def test_each_thread_gets_the_answer_to_its_own_image(openvino_file: Path) -> None:
    network, _ = FORMATS["openvino"].open(openvino_file)
    images = [torch.randn(1, 3, 64 + index % 2, 64) for index in range(40)]
    expected = [network(each) for each in images]
    with ThreadPoolExecutor(8) as threads:
        got = list(threads.map(network, images * 10))
    for index, logits in enumerate(got):
        torch.testing.assert_close(logits, expected[index % len(images)])
    assert len({str(logits) for logits in expected}) == len(images)


@needs("openvino")
@pytest.mark.slow
def test_an_open_network_keeps_its_weights_when_the_file_is_written_over(openvino_file: Path) -> None:
    network, _ = FORMATS["openvino"].open(openvino_file)
    expected = network(images := torch.randn(1, 3, 64, 64))
    with openvino_file.with_suffix(".bin").open("r+b") as weights:  # in place: it is the file that was opened
        kept = weights.read()
        weights.seek(0)
        weights.write(bytes(len(kept)))
        weights.flush()
        torch.testing.assert_close(network(images.expand(2, -1, -1, -1))[:1], expected)  # a shape that is new to it
        weights.seek(0)
        weights.write(kept)


@needs("openvino")
@pytest.mark.slow
def test_the_files_of_openvino_belong_together(openvino_file: Path, tmp_path: Path) -> None:
    path, weights = tmp_path / "other.xml", tmp_path / "other.bin"
    path.write_bytes(openvino_file.read_bytes())
    weights.write_bytes(openvino_file.with_suffix(".bin").read_bytes())
    FORMATS["openvino"].open(path)  # under another name, but the two of one export
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))  # of another network of this shape
    with pytest.raises(CheckpointError, match=r"other\.xml and other\.bin are of different exports"):
        FORMATS["openvino"].open(path)
    earlier, count = re.subn(rb"<bin value=\"[0-9a-f]{64}\" ?/>", b"", path.read_bytes())
    path.write_bytes(earlier)
    assert count == 1
    FORMATS["openvino"].open(path)  # written before the sum was
