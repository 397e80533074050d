"""Exported files are weights again: described, checked when they are opened, and refused for what they are not."""

import json
import os
import re
import shutil
import struct
import time
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.processes import ROOT, importing, run_module, run_python
from support.skips import needs, needs_posix
from torch import Tensor

from shufflenetv2 import exporting, package, save
from shufflenetv2.__main__ import main
from shufflenetv2.builder import build, resolve
from shufflenetv2.computing import in_runtime
from shufflenetv2.entrypoints import categories, classifier, shufflenet_v2_x0_5
from shufflenetv2.errors import CacheError, CheckpointError, DeviceError, ExportError
from shufflenetv2.exporting import Order, shape_for, trials, write
from shufflenetv2.naming import Weights
from shufflenetv2.network.formats.described import ExportedNetwork, Inside, check, choose_probes, parse_metadata
from shufflenetv2.network.formats.table import FORMATS, SERVED
from shufflenetv2.network.model import SPECS
from shufflenetv2.package import BUNDLED

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
CIFAR = "shufflenet_v2_x0_5/cifar10_v2"
CAT = ROOT / "images" / "cat.jpg"


def package_name(requirement: str) -> str:
    return requirement.partition(">")[0]


EACH = [
    pytest.param(name, marks=[needs(*map(package_name, (*form.to_write, *form.to_open))), pytest.mark.slow])
    for name, form in FORMATS.items()
]


def order_of(name: str, precision: str = "float32", photos: Tensor | None = None) -> Order:
    weights = resolve(None, CIFAR)
    return Order(weights, name, shape_for(FORMATS[name], weights), precision, photos=photos)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cheapest of the files, written by the bundled weights."""
    path = tmp_path_factory.mktemp("script") / "cifar.pt"
    assert [*write(order_of("torchscript"), path)]
    return path


@pytest.fixture
def inside(script: Path) -> Inside:
    network = resolve(None, script).exported
    assert network is not None
    return network.inside


@pytest.mark.parametrize("name", EACH)
def test_each_format_classifies_by_itself_elsewhere(name: str, tmp_path: Path) -> None:
    form, here, there = FORMATS[name], tmp_path / "here", tmp_path / "there"
    here.mkdir()
    path = here / ("model" + form.suffix)
    told = [*write(order_of(name), path)]
    assert any("the photo cat.jpg" in line for line in told)
    assert sorted(here.rglob("*")) == sorted({path, *form.files(path)})
    shutil.move(here, there)
    found = there / path.name
    arguments = ("classify", CAT, "--weights", found, "--top", 1, "--json")
    answer = json.loads(run_module("shufflenetv2", *arguments, cwd=tmp_path, env=importing()).stdout)
    [best] = answer["predictions"]
    [expected] = classifier(weights=CIFAR, top=1)(CAT)
    assert best["label"] == expected.label == "cat"
    assert best["probability"] == pytest.approx(expected.probability, abs=1e-4)
    with torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
        weights = resolve(None, found)
    assert (weights.arch, weights.num_classes, weights.metrics) == (
        "shufflenet_v2_x0_5",
        10,
        resolve(None, CIFAR).metrics,
    )
    assert weights.preprocess == resolve(None, CIFAR).preprocess
    if form.folder:
        assert weights.exported is None
        built, original = (build(each.arch, each).state_dict() for each in (weights, resolve(None, CIFAR)))
        assert all(torch.equal(built[key], original[key]) for key in original)
    else:
        assert weights.sha256 == resolve(None, CIFAR).sha256


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["torch-export", *(pytest.param(each, marks=needs(each)) for each in ("openvino", "executorch"))]
)
def test_the_plain_network_of_named_weights(name: str, tmp_path: Path) -> None:
    """Whose tensors are read while the file is written; those of a path were read before."""
    weights, path = resolve(None, CIFAR), tmp_path / ("model" + FORMATS[name].suffix)
    order = Order(weights, name, shape_for(FORMATS[name], weights, fixed_batch=1), plain=True)
    assert [*write(order, path)]
    network = resolve(None, path).exported
    assert network is not None
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = build(weights.arch, weights)(images)
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 photos: crops of the samples, of every size."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    samples = [Image.open(path).convert("RGB") for path in sorted((ROOT / "images").glob("c*.jpg"))]
    for index in range(120):
        sample = samples[index % len(samples)]
        side = min(sample.size) * (60 + index % 40) // 100
        left, top = (sample.width - side) * (index % 7) // 7, (sample.height - side) * (index % 5) // 5
        sample.crop((left, top, left + side, top + side)).resize((96, 96)).save(folder / f"{index:03}.jpg")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("onnx", ["--int8"], marks=needs("onnx", "onnxscript", "onnxruntime")),
        pytest.param("openvino", ["--int8"], marks=needs("openvino", "nncf")),
        pytest.param("executorch", ["--int8"], marks=needs("executorch")),
        pytest.param("onnx", ["--int8", "--fixed-batch", "8"], marks=needs("onnx", "onnxscript", "onnxruntime")),
        pytest.param("openvino", ["--precision", "bfloat16"], marks=needs("openvino")),
        ("torchscript", ["--precision", "float16"]),
        ("torch-export", ["--precision", "bfloat16"]),
        pytest.param("ncnn", ["--precision", "float16"], marks=needs("ncnn", "pnnx")),
    ],
)
def test_smaller_numbers(name: str, options: list[str], folder: Path, tmp_path: Path, capfd: Any) -> None:
    path = tmp_path / ("model" + FORMATS[name].suffix)
    call = ["export", "--format", name, "-o", str(path), "--weights", CIFAR, "--calibrate", str(folder), *options]
    assert main(call) == 0
    printed = capfd.readouterr().out
    assert "120 calibration photos: the same label for 1" in printed  # hundreds of them
    weights = resolve(None, path)
    assert weights.exported is not None
    assert weights.exported.inside.precision == {"--int8": "int8"}.get(options[0], options[1 % len(options)])
    assert classifier(weights=path, top=1)(CAT)[0].label == "cat"
    assert str(ROOT).encode() not in path.read_bytes()  # nothing of this machine is inside


def test_too_few_photos_and_no_photos(tmp_path: Path, capsys: Any) -> None:
    call = ["export", "--format", "executorch", "--weights", CIFAR, "--int8"]
    shutil.copy(CAT, tmp_path)
    if package.missing(FORMATS["executorch"].to_open):
        pytest.skip("not installed: executorch")
    assert main([*call, "-o", str(tmp_path / "m.pte"), "--calibrate", str(tmp_path)]) == 1
    assert "1 photos were found there, at least 100 are needed: with fewer" in capsys.readouterr().err
    assert main(call) == 1
    assert "--int8 needs --calibrate DIR" in capsys.readouterr().err
    assert main(["export", "--format", "ncnn", "--int8", "--calibrate", str(tmp_path)]) == 1
    assert "ncnn has no int8; there is onnx, openvino, executorch" in capsys.readouterr().err


def altered(inside: Inside, **changes: Any) -> dict[str, str]:
    return {**inside.to_metadata(), **{key: json.dumps(value) for key, value in changes.items()}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schema_version": 2}, "file has schema_version 2, this code reads 1; upgrade the package"),
        ({"schema_version": 0}, "file has schema_version 0, this code reads 1; export it anew"),
        ({"schema_version": "1"}, "the field 'schema_version' must be a int"),
        ({"arch": "resnet18"}, "the field 'arch' must be one of shufflenet_v2_x0_5"),
        ({"categories": []}, "the field 'categories' must be a list of labels"),
        ({"categories": ["a\x1b"]}, "1 to 200 printable characters"),
        ({"wordnet_ids": [None]}, "the field 'wordnet_ids' must be null, or an id"),
        ({"wordnet_ids": ["n1"] * 10}, "the field 'wordnet_ids' must be null, or an id"),
        ({"precision": "int4"}, "the field 'precision' must be one of float32"),
        ({"input": {"layout": "NHWC"}}, "the field 'input' must be"),
        ({"input": []}, "the field 'input' must be a dict"),
        ({"probes": [1]}, "the field 'probes' must be a list of objects"),
        ({"probes": [{"squares": "AAAA", "label": 0, "margin": 1.0}]}, "base64 of one square a channel"),
        (
            {"probes": [{"squares": "A", "label": 10, "margin": 1.0}]},
            "the field 'label' must be the index of a category",
        ),
        ({"probes": [{"squares": "A", "label": 0, "margin": -1}]}, "the field 'margin' must be at least 0"),
        ({"sha256": 5}, "the field 'sha256' must be a str"),
    ],
)
def test_descriptions_are_validated(changes: dict[str, Any], told: str, inside: Inside) -> None:
    with pytest.raises(CheckpointError, match="file") as error:
        parse_metadata(altered(inside, **changes), SPECS, "file")
    assert told in str(error.value)


def test_a_description_comes_back_as_it_was(inside: Inside) -> None:
    assert parse_metadata(inside.to_metadata(), SPECS, "file") == inside
    with pytest.raises(CheckpointError, match="does not describe itself"):
        parse_metadata({}, SPECS, "file")
    with pytest.raises(CheckpointError, match="not a number"):
        parse_metadata({**inside.to_metadata(), "metrics": "NaN"}, SPECS, "file")
    with pytest.raises(CheckpointError, match="stands twice"):
        parse_metadata({**inside.to_metadata(), "input": '{"batch": 1, "batch": 2}'}, SPECS, "file")
    with pytest.raises(CheckpointError, match="'probes' is missing"):
        parse_metadata({k: v for k, v in inside.to_metadata().items() if k != "probes"}, SPECS, "file")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda logits: logits.flip(1),
        lambda logits: logits * 2,
        lambda logits: logits * 0.4,
        lambda logits: logits * float("nan"),
        lambda logits: logits * float("inf"),
        lambda logits: logits[:, :5],
    ],
)
def test_a_runtime_that_computes_wrongly_is_named(wrong: Callable[[Tensor], Tensor], script: Path) -> None:
    opened = resolve(None, script).exported
    assert opened is not None
    check(opened)
    assert len({probe.label for probe in opened.inside.probes}) > 1
    network = ExportedNetwork(lambda images: wrong(opened.network(images)), opened.inside, "model.onnx", "onnxruntime")
    with pytest.raises(CheckpointError, match=r"model\.onnx: onnxruntime gives other answers than when the file was"):
        check(network)


@pytest.mark.parametrize(("factor", "right"), [(0.3, True), (2.5, True), (0.05, False), (20, False), (-1, False)])
def test_int8_may_lead_by_half_or_twice_as_much(factor: float, right: bool, script: Path) -> None:
    opened = resolve(None, script).exported
    assert opened is not None
    inside = replace(opened.inside, precision="int8")
    network = ExportedNetwork(lambda images: factor * opened.network(images), inside, "model.onnx", "onnxruntime")
    if right:
        check(network)
        return
    with pytest.raises(CheckpointError, match=r"on an input that it carries, class \d leads by"):
        check(network)


@pytest.mark.parametrize(
    ("precision", "right"), [("float32", False), ("float16", True), ("bfloat16", True), ("int8", True)]
)
def test_a_lead_below_what_rounding_does_may_change(precision: str, right: bool, script: Path) -> None:
    """So is every lead of a network that has only been initialised: 2e-6 where the logits are 0.03."""
    opened = resolve(None, script).exported
    assert opened is not None
    probes = tuple(replace(probe, label=8, margin=2e-6) for probe in opened.inside.probes)
    logits = torch.tensor([-0.03, 0.02, 0, 0, 0, 0, 0, 0, 0.02 - 5e-6, 0.01])

    def network(images: Tensor) -> Tensor:
        return logits.expand(len(images), -1)

    inside = replace(opened.inside, precision=precision, probes=probes)
    if right:
        check(ExportedNetwork(network, inside, "model.onnx", "onnxruntime"))
        logits[1] = 0.025
    with pytest.raises(CheckpointError, match=r"class 1 leads by \S+ where class 8 led by 2e-06"):
        check(ExportedNetwork(network, inside, "model.onnx", "onnxruntime"))


def test_inputs_are_chosen_of_which_the_network_is_sure() -> None:
    leads = iter(torch.tensor([9.0, 8.0, 1.0, 7.0] + 60 * [0.5]))
    classes = iter([0, 1, 2, 0] + 60 * [3])

    def network(images: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(images), 4)
        for row in logits:
            row[next(classes)] = next(leads)
        return logits

    assert [(probe.label, probe.margin) for probe in choose_probes(network, 3, 32)] == [(0, 9), (1, 8), (0, 7), (2, 1)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8])
def test_batches_that_the_file_does_not_allow_are_split_and_filled_up(count: int, inside: Inside) -> None:
    seen: list[int] = []

    def network(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images.flatten(1).sum(1, keepdim=True).expand(-1, 10)

    fixed = ExportedNetwork(network, replace(inside, batch=4, size=40), "model.pte", "executorch")
    images = torch.randn(count, 3, 40, 40)
    torch.testing.assert_close(fixed(images)[:, 0], images.flatten(1).sum(1))
    assert seen == [4] * -(-count // 4)
    with pytest.raises(ValueError, match=r"model\.pte takes images of 40x40 alone, got 41x40"):
        fixed(torch.randn(1, 3, 41, 40))


def test_images_that_a_file_does_not_take(inside: Inside) -> None:
    network = ExportedNetwork(lambda images: torch.from_numpy(images.numpy()).flatten(1), inside, "model.onnx", "none")
    image = torch.rand(3, 4, 4)
    with pytest.raises(ValueError, match=r"^model\.onnx takes images \(N, 3, H, W\), got \(3, 4, 4\); one image alone"):
        network(image)
    with pytest.raises(ValueError, match=r"takes images \(N, 3, H, W\), got \(1, 1, 4, 4\)$"):
        network(image[None, :1])
    assert torch.equal(network(image[None].requires_grad_()), image.flatten()[None])


def test_what_an_exported_file_is_not(script: Path, tmp_path: Path, capsys: Any) -> None:
    assert categories(weights=script)[3] == "cat"
    with pytest.raises(CheckpointError, match="is an exported file, which classifies and has no tensors to load"):
        shufflenet_v2_x0_5(weights=script)
    assert main(["export", "--format", "torchscript", "--weights", str(script), "-o", str(tmp_path / "m.pt")]) == 1
    assert "give the weights that it was made from, cifar10_v2" in capsys.readouterr().err
    with pytest.raises(DeviceError, match="computes in torch on the CPU, not on cuda:0"):
        classifier(weights=script, device="cuda:0")
    with pytest.raises(ValueError, match="runs in torch, not in onnxruntime"):
        classifier(weights=script, runtime="onnxruntime")
    with pytest.raises(ValueError, match="leave out plain"):
        classifier(weights=script, deploy=False)
    with pytest.raises(ValueError, match="there is no runtime 'tensorrt'; there are torch, onnxruntime"):
        classifier(weights=CIFAR, runtime="tensorrt")
    with pytest.raises(CheckpointError, match=r"holds shufflenet_v2_x0_5, not shufflenet_v2_x1_0"):
        classifier("shufflenet_v2_x1_0", weights=script)


@pytest.mark.parametrize("kept", [0, 10, 1000, -1000, -1])
def test_a_truncated_file(kept: int, script: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.pt2"
    shutil.copy(script, path)
    path = path.rename(tmp_path / "cut.pt")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"cut\.pt"):
        resolve(None, path)


def test_the_same_suffix_for_other_files(script: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.pt"  # a checkpoint, which is no TorchScript
    torch.save(build("shufflenet_v2_x0_5", None).state_dict(), mine)
    assert resolve(None, mine).exported is None
    for name in ("model.xml", "model.bin", "model.ncnn.param", "model.ncnn.bin"):
        (tmp_path / name).write_bytes(b"?")
    for part, whole in (("model.bin", "model.xml"), ("model.ncnn.bin", "model.ncnn.param")):
        with pytest.raises(CheckpointError, match=f"{part} is a part of an exported file; give the other one, {whole}"):
            resolve(None, tmp_path / part)
    (tmp_path / "model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"its part model\.bin is not beside it"):
        resolve(None, tmp_path / "model.xml")
    with pytest.raises(CheckpointError, match=r"model\.ncnn\.json is not beside it"):
        resolve(None, tmp_path / "model.ncnn.param")
    with pytest.raises(CheckpointError, match="there is no such file"):
        resolve(None, tmp_path / "absent.onnx")


@needs_posix
@pytest.mark.parametrize("name", ["mine.pt", "mine.pt2"])
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / name)
    monkeypatch.setattr(zipfile, "ZipFile", lambda path: pytest.fail("it was opened"))
    with pytest.raises(CheckpointError, match=f"{name} cannot be read: is a pipe, a socket or a device, expected a"):
        resolve(None, tmp_path / name)


@needs("safetensors")
@pytest.mark.slow
def test_a_folder_whose_tensors_were_changed_is_another(tmp_path: Path, quick_runtime: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "folder"
    assert [*write(order_of("safetensors"), folder)]
    before = resolve(None, folder)
    classify = classifier(weights=folder, runtime="quick")
    assert classify(CAT)[0].label == "cat"
    tensors = load_file(folder / "model.safetensors")
    for key in ("fc.weight", "fc.bias"):
        tensors[key] = tensors[key].roll(1, 0)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r'config\.json and .*of different exports.*deletes the key "files" in'):
        resolve(None, folder)
    config = json.loads((folder / "config.json").read_text())
    del config["shufflenetv2"]["files"]
    (folder / "config.json").write_text(json.dumps(config))
    assert resolve(None, folder).sha256 != before.sha256
    assert classifier(weights=folder, runtime="quick")(CAT)[0].label == "deer"


@needs("safetensors")
@pytest.mark.slow
def test_the_parts_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    assert [*write(order_of("safetensors"), folder)]
    (folder / "README.md").unlink()  # for people alone
    assert resolve(None, folder).labels == resolve(None, folder / "config.json").labels == resolve(None, CIFAR).labels

    model = shufflenet_v2_x0_5(weights="cifar10", num_classes=10)
    model.fc.weight.data = model.fc.weight.data.flip(0)
    digits = resolve(None, save(model, tmp_path / "mine.pth", categories=list("0123456789")))
    monkeypatch.setattr(os, "replace", cut_short(os.replace, 2))
    with pytest.raises(KeyboardInterrupt):
        [*write(replace(order_of("safetensors"), weights=digits), folder)]
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="are of different exports, so its labels may be another network's"):
        resolve(None, folder)

    [*write(order_of("safetensors"), folder)]
    (folder / "config.json").write_bytes(b"\xef\xbb\xbf" + (folder / "config.json").read_bytes())  # as Notepad saves
    assert resolve(None, folder).labels == resolve(None, CIFAR).labels

    for config in ({"architecture": "resnet18"}, [1], {"shufflenetv2": "x"}):
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=r"config\.json was not written by `shufflenetv2 export`"):
            resolve(None, folder)

    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is Git LFS's pointer to a file; type: git lfs pull"):
        resolve(None, folder)


def cut_short(step: Callable[..., object], count: int) -> Callable[..., object]:
    """``step``, interrupted after ``count`` times."""
    left = iter(range(count))

    def interrupted(*arguments: Any) -> object:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return step(*arguments)

    return interrupted


LONG = "Exception from core.cpp:84:\n\tCheck 'size' failed\nIncorrect weights!\n" + 99 * "and so on "
TOLD = "RuntimeError: Exception from core.cpp:84: Check 'size' failed Incorrect weights! and so on"


@pytest.mark.parametrize("when", ["opened", "checked"])
def test_all_that_a_runtime_says_is_told_on_one_line(
    when: str, script: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(images: object) -> Any:
        raise RuntimeError(LONG)

    opened = fail if when == "opened" else lambda path: (fail, inside.to_metadata())
    monkeypatch.setattr("shufflenetv2.network.formats.script.open", opened)
    with pytest.raises(CheckpointError) as caught:
        resolve(None, script)
    told = str(caught.value)
    assert told.startswith(str(script))
    assert TOLD in told
    assert len(told) < len(str(script)) + 420
    assert "\n" not in told
    assert when == "opened" or "torch fails on an input that the file carries" in told
    assert when == "opened" or told.endswith("export it anew")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.slow
def test_the_default_dtype_changes_nothing_in_a_file(
    dtype: torch.dtype, script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_default_dtype(dtype)
    try:
        assert [*write(order_of("torchscript"), tmp_path / "model.pt")]
        assert torch.get_default_dtype() is dtype
    finally:
        torch.set_default_dtype(torch.float32)
    images = torch.randn(2, 3, 40, 40)
    first, second = (resolve(None, path).exported for path in (script, tmp_path / "model.pt"))
    assert first is not None
    assert second is not None
    assert torch.equal(first(images), second(images))


@pytest.mark.parametrize(
    "elsewhere", [torch.device("meta"), torch.autocast("cpu", torch.bfloat16)], ids=["meta", "autocast"]
)
def test_a_file_opens_whatever_the_caller_computes_on(
    elsewhere: AbstractContextManager[object], script: Path, inside: Inside
) -> None:
    with elsewhere:
        opened = resolve(None, script).exported
    assert opened is not None
    assert opened.inside == inside


@pytest.mark.slow
def test_a_file_is_the_same_whatever_the_caller_computes_on(script: Path, inside: Inside, tmp_path: Path) -> None:
    with torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
        assert [*write(order_of("torchscript"), tmp_path / "model.pt")]
        assert torch.empty(1).is_meta
        assert torch.is_autocast_enabled("cpu")
    first, second = (resolve(None, path).exported for path in (script, tmp_path / "model.pt"))
    assert first is not None
    assert second is not None
    assert first.inside == second.inside
    images = torch.randn(2, 3, 40, 40)
    assert torch.equal(first(images), second(images))


LIMITED = """
import resource, sys
from shufflenetv2.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))  # to the process like a full disk
raise SystemExit(main(sys.argv[1:]))
"""


@needs_posix
@pytest.mark.parametrize("name", EACH)
def test_a_full_disk_is_told_in_one_line_and_nothing_is_left(name: str, tmp_path: Path) -> None:
    path = tmp_path / ("model" + FORMATS[name].suffix)
    ended = run_python(LIMITED, "export", "--weights", CIFAR, "--format", name, "-o", path, check=False)
    told = [line for line in ended.stderr.splitlines() if "error" in line.lower()]
    assert ended.returncode == 1, ended.stderr[-1000:]
    assert len(told) == 1
    assert "File too large" in told[0] or "OpenVINO could not write the file (basic_ios::clear: iostream" in told[0]
    assert "Traceback" not in ended.stderr
    assert [*tmp_path.iterdir()] == []


@needs("ncnn", "pnnx")
@pytest.mark.slow
def test_ncnn_computes_float32_in_float32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = shufflenet_v2_x0_5(weights="cifar10", num_classes=64)  # so many that it would halve the classifier
    names = [f"class {index}" for index in range(64)]
    weights = resolve(None, save(model, tmp_path / "mine.pth", categories=names))
    assert [*write(replace(order_of("ncnn"), weights=weights), tmp_path / "model.ncnn.param")]
    network = resolve(None, tmp_path / "model.ncnn.param").exported
    assert network is not None
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model.double()(images.double())
        assert float((network(images) - expected).abs().max() / expected.abs().max()) < 5e-6


@needs("ncnn", "pnnx")
@pytest.mark.slow
def test_the_files_of_ncnn_belong_together(tmp_path: Path) -> None:
    path = tmp_path / "model.ncnn.param"
    assert [*write(order_of("ncnn"), path)]
    said, weights = tmp_path / "model.ncnn.json", tmp_path / "model.ncnn.bin"
    said.write_bytes(b"\xef\xbb\xbf" + said.read_bytes())  # as Notepad saves
    assert resolve(None, path).labels == resolve(None, CIFAR).labels
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"are not the files that model\.ncnn\.json was written for"):
        resolve(None, path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            "is Git LFS's pointer to a file; type: git lfs",
        ),
        (b"\n<!DOCTYPE html>\n<html>", "is a web page; download the file itself"),
        (b"<HTML><body>", "is a web page; download the file itself"),
    ],
)
@pytest.mark.parametrize(
    "part", [part for form in FORMATS.values() if not form.marker for part in form.parts if part not in form.unread]
)
def test_what_git_or_a_browser_leaves_in_place_of_a_file(part: str, content: bytes, told: str, tmp_path: Path) -> None:
    """Told without the runtime."""
    form = next(each for each in FORMATS.values() if part in each.parts)
    path = tmp_path if form.folder else tmp_path / ("model" + form.suffix)
    for file in form.files(path):
        file.write_bytes(content if file.name.endswith(part) else b"<?xml version='1.0'?>")
    with pytest.raises(CheckpointError, match=rf"{re.escape(part)} {told}"):
        resolve(None, path)


@needs("onnx", "onnxscript", "onnxruntime")
@pytest.mark.slow
def test_a_file_that_is_none_of_its_kind_or_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match=r"model\.onnx cannot be opened as onnx \(InvalidProtobuf"):
        resolve(None, path)
    torch.onnx.export(torch.nn.ReLU(), (torch.zeros(1, 3),), path, verbose=False)
    with pytest.raises(CheckpointError, match="does not describe itself: `shufflenetv2 export` did not write it"):
        resolve(None, path)


def test_packages_missing_or_old(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.touch()
    monkeypatch.setattr(package, "missing", lambda requirements: [])
    monkeypatch.setattr(package, "installed_version", lambda name: "1.24.4")
    with pytest.raises(ImportError) as old:
        resolve(None, path)
    assert str(old.value) == (
        "opening model.onnx needs onnxruntime>=1.25 (version 1.24.4 is installed); "
        "type: pip install 'onnxruntime>=1.25'"
    )
    monkeypatch.setattr(package, "installed_version", lambda name: None)
    monkeypatch.setattr(package, "missing", list)
    with pytest.raises(ImportError, match="needs onnxruntime, which is not installed; type: pip install"):
        resolve(None, path)


@pytest.fixture
def quick_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A runtime whose files are TorchScript's, and an empty cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(SERVED, "quick", "torchscript")
    monkeypatch.setattr(torch.hub, "_hub_dir", None, raising=False)
    return tmp_path / "hub" / "shufflenetv2-exported"


@pytest.mark.slow
def test_a_runtime_gets_its_file_once(quick_runtime: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    weights = resolve(None, CIFAR)
    first = in_runtime(weights, "quick")
    path, seal = sorted(quick_runtime.iterdir())
    assert seal.name == f"{path.name}.sha256"
    assert path.name.startswith("shufflenet_v2_x0_5-cifar10_v2-")
    assert (first.name, first.title) == (weights.name, weights.title)
    written = path.stat().st_mtime_ns
    in_runtime(weights, "quick")
    assert path.stat().st_mtime_ns == written
    in_runtime(weights, "quick", plain=True)
    assert len([*quick_runtime.iterdir()]) == 4
    path.write_bytes(path.read_bytes()[:1000])
    assert classifier(weights=CIFAR, runtime="quick", top=1)(CAT)[0].label == "cat"
    assert "writing it anew" in caplog.text
    monkeypatch.setattr(exporting, "write_built", lambda *arguments: iter(()))
    with pytest.raises(CacheError, match="could not be written: No such file"):
        in_runtime(replace(weights, sha256="0" * 64), "quick")
    assert len([*quick_runtime.iterdir()]) == 4


@needs("safetensors")
def test_tensors_of_hugging_face_are_told_what_makes_a_checkpoint_of_them(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors, file = shufflenet_v2_x0_5(num_classes=2).state_dict(), tmp_path / "model.safetensors"
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"no/model\.safetensors cannot be read: there is no such file$"):
        classifier(weights=tmp_path / "no/model.safetensors")
    advice = r"of another program's model.safetensors make a checkpoint: torch.save\(safetensors.torch.load_file"
    with pytest.raises(CheckpointError, match=f"its part config.json is not beside it, as `shuf.* writes it; {advice}"):
        classifier(weights=file)
    (tmp_path / "config.json").write_text('{"model_type": "shufflenet"}')
    for path in (file, tmp_path):
        with pytest.raises(CheckpointError, match=f"config.json was not written by .*; {advice}"):
            classifier(weights=path)
    torch.save(load_file(file), tmp_path / "new.pth")
    again = shufflenet_v2_x0_5(weights=tmp_path / "new.pth").state_dict()
    assert all(torch.equal(again[key], tensors[key]) for key in tensors)


@pytest.mark.slow
def test_a_flipped_bit_in_the_cache_of_a_runtime(quick_runtime: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights, images = resolve(None, CIFAR), torch.rand(2, 3, 32, 32)

    def logits() -> Tensor:
        network = in_runtime(weights, "quick").exported
        assert network is not None
        with torch.inference_mode():
            return network(images)

    before = logits()
    path = min(quick_runtime.iterdir())
    data = bytearray(path.read_bytes())
    bias = struct.pack("<f", float(build(weights.arch, weights, deploy=True).state_dict()["fc.bias"][3]))
    data[data.index(bias) + 1] ^= 128  # a middle bit of the mantissa: too little for the inputs in the file to show it
    path.write_bytes(data)
    assert torch.equal(logits(), before)
    assert f"{path} is not the file that was written there, by its sha256; writing it anew" in caplog.text
    caplog.clear()
    assert torch.equal(logits(), before)
    assert caplog.text == ""
    path.with_name(f"{path.name}.sha256").unlink()  # of a process that was killed
    assert torch.equal(logits(), before)
    assert "writing it anew" in caplog.text


def test_a_cache_that_cannot_be_written(quick_runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, advice = resolve(None, CIFAR), "Set TORCH_HOME to a directory that is writable and has room"
    quick_runtime.parent.mkdir()
    quick_runtime.touch()
    with pytest.raises(CacheError, match=f"shufflenetv2-exported/shuffle.* could not be written: .*{advice}"):
        in_runtime(weights, "quick")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "~/.cache/torch/hub")  # of a user without a home
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CacheError, match=f"could not be written: no home directory is known. {advice}"):
        in_runtime(weights, "quick")
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


@needs_posix
def test_what_a_killed_process_left_in_the_cache_is_swept_a_day_later(quick_runtime: Path) -> None:
    folders = [quick_runtime / f".x.onnx.{digit * 32}.shufflenetv2-partial" for digit in "01"]
    for folder, hours in zip(folders, (23, 25), strict=True):
        folder.mkdir(parents=True)
        (folder / "half.onnx").touch()
        os.utime(folder, (time.time() - hours * 3600,) * 2)
    in_runtime(resolve(None, CIFAR), "quick")
    assert [folder.exists() for folder in folders] == [True, False]


@pytest.mark.slow
def test_labels_that_do_not_agree_are_refused(script: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    order = order_of("torchscript", "bfloat16", torch.randn(100, 3, 112, 112))
    monkeypatch.setattr(exporting, "AGREEMENT", 1.01)
    with pytest.raises(ExportError, match=r"100 calibration photos: the same label for .*, where 101% is expected"):
        [*write(order, tmp_path / "m.pt")]
    assert [*tmp_path.iterdir()] == []


def test_a_file_is_tried_with_a_photo_where_it_takes_one() -> None:
    def tried(weights: Weights, size: int | None = None, batch: int | None = None) -> list[str]:
        return [name for name, _ in trials(weights, shape_for(FORMATS["onnx"], weights, size, batch))]

    weights = resolve(None, CIFAR)
    crop = weights.preprocess.crop
    assert tried(weights)[-1] == tried(weights, crop + 40)[-1] == tried(weights, batch=1)[-1] == "the photo cat.jpg"
    assert tried(weights, crop + 40, 2) == [f"random input (2, 3, {crop + 40}, {crop + 40})"]
    assert not any("photo" in name for name in tried(replace(weights, in_channels=4)))


def test_inputs_are_of_several_labels_though_one_alone_is_clear() -> None:
    def network(images: Tensor) -> Tensor:
        mean = images.mean((1, 2, 3))
        return torch.stack((100 * mean.relu(), 10 * (-mean).relu()), 1)

    assert {probe.label for probe in choose_probes(network, 3, 32)} == {0, 1}


def test_a_checkpoint_beside_an_export_of_its_name_is_no_part_of_it(tmp_path: Path) -> None:
    shutil.copy(next(BUNDLED.glob("*cifar10*.pth")), tmp_path / "net.pth")
    (tmp_path / "net.pth.xml").touch()
    assert resolve(None, tmp_path / "net.pth").num_classes == 10
