"""Exported files: the model's function in every promised shape, categories inside, and nothing left of a failure."""

import errno
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.processes import ROOT, run
from support.skips import needs, needs_posix
from torch import Tensor

from shufflenetv2 import exporting, package
from shufflenetv2.__main__ import main
from shufflenetv2.builder import resolve
from shufflenetv2.description import Description, Preprocess
from shufflenetv2.entrypoints import classifier
from shufflenetv2.network.formats import program
from shufflenetv2.network.formats.table import FORMATS, Format, Shape
from shufflenetv2.network.model import SPECS, ShuffleNetV2
from shufflenetv2.weights.checkpoint import write_checkpoint

CATEGORIES = ("tabby", "ビーグル", "otter")
PREPROCESS = Preprocess(64, 56, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
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
    if form in ("torchscript", "ncnn") and "--fixed-batch" in arguments:
        assert main(call) == 1
        assert "leave --fixed-batch out" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []
        return
    assert main(call) == 0
    printed = capsys.readouterr().out
    assert "largest difference" in printed
    assert "the photo cat.jpg" in printed
    assert sorted(tmp_path.rglob("*.*")) == sorted(FORMATS[form].files(output))
    _, metadata = FORMATS[form].open(output)
    assert tuple(json.loads(metadata["categories"])) == CATEGORIES
    assert json.loads(metadata["preprocess"])["mean"] == [0.4, 0.5, 0.6]
    assert json.loads(metadata["arch"]) == "shufflenet_v2_x0_5"
    assert json.loads(metadata["weights"]) == "mine.pth"


def test_the_plain_network_of_weights_that_are_stored_in_half_precision(tmp_path: Path) -> None:
    assert main(["export", "--plain", "--weights", "cifar10", "-o", str(tmp_path / "plain.pt2")]) == 0
    photo = package.CHECKOUT / "images" / "cat.jpg"
    written = classifier(weights=tmp_path / "plain.pt2", device="cpu")
    torch.testing.assert_close(
        written.probabilities(photo), classifier(weights="cifar10", device="cpu").probabilities(photo)
    )


@pytest.mark.slow
def test_size_and_photo_are_those_of_the_weights_and_of_a_wheel(checkpoint, tmp_path, capsys, monkeypatch):
    (tmp_path / "samples").mkdir()
    shutil.copy(package.CHECKOUT / "images" / "cat.jpg", tmp_path / "samples" / "otter.jpg")
    monkeypatch.setattr(package, "PACKAGE", tmp_path)  # where a wheel has the samples
    call = ["export", "--format", "torchscript", "-o", str(tmp_path / "network.pt"), "--weights", str(checkpoint)]
    assert main(call) == 0
    printed = capsys.readouterr().out
    assert "random input (2, 3, 56, 56): largest difference" in printed
    assert "the photo otter.jpg: largest difference" in printed


@dataclass(frozen=True)
class Spoiled(Format):
    """A format that pickles the network, and spoils what comes back."""

    answer: Callable[[Tensor, Tensor], Tensor] = lambda images, logits: logits
    told: Callable[[dict[str, str]], dict[str, str]] = lambda metadata: metadata
    bytes_kept: int | None = None

    def write(self, model, plan, metadata, path):
        torch.save((model, metadata), path)
        path.write_bytes(path.read_bytes()[: self.bytes_kept])

    def open(self, path):
        model, metadata = torch.load(path, weights_only=False)
        return (lambda images: self.answer(images, model(images))), self.told(metadata)


def only(condition: Callable[[Tensor], bool], otherwise: float = float("nan")) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda images, logits: logits if condition(images) else logits * otherwise


def refusing(images: Tensor, logits: Tensor) -> Tensor:
    raise KeyError("Got invalid dimensions for input: images\nand much more")


SPOILS = {
    "not a number": ({"answer": only(lambda images: False)}, "up to nan away"),
    "one number is none": ({"answer": lambda _, logits: logits.index_fill(1, torch.tensor(1), torch.nan)}, "up to nan"),
    "infinite": ({"answer": only(lambda images: False, float("inf"))}, "away from the model's"),
    "one in a thousand more": ({"answer": only(lambda images: False, 1.001)}, "away from the model's"),
    "classes in another order": ({"answer": lambda _, logits: logits.flip(1)}, "away from the model's"),
    "images in another order": ({"answer": lambda _, logits: logits.flip(0)}, "away from the model's"),
    "a class missing": ({"answer": lambda _, logits: logits[:, 1:]}, "gives (2, 2), up to inf away"),
    "one class": ({"answer": lambda _, logits: logits[:, :1]}, "gives (2, 1), up to inf away"),
    "one image": ({"answer": lambda _, logits: logits[:1]}, "gives (1, 3), up to inf away"),
    "a dimension more": ({"answer": lambda _, logits: logits[None]}, "gives (1, 2, 3), up to inf away"),
    "wrong for one image": ({"answer": only(lambda images: len(images) > 1)}, "on random input (1, 3, "),
    "wrong for three images": ({"answer": only(lambda images: len(images) < 3)}, "on random input (3, 3, "),
    "wrong for the smallest": ({"answer": only(lambda images: images.shape[2] > 33)}, "on random input (1, 3, 33, 33)"),
    "wrong for no square": ({"answer": only(lambda images: images.shape[2] == images.shape[3])}, "(3, 3, 69, 88)"),
    "fails": ({"answer": refusing}, "the written file fails: 'Got invalid dimensions for input: images"),
    "metadata lost": ({"told": lambda metadata: {}}, "came back altered"),
    "a key lost": ({"told": lambda metadata: {**metadata, "preprocess": None}}, "came back altered"),
    "labels altered": (
        {"told": lambda metadata: {**metadata, "categories": metadata["categories"].replace("tabby", "Tabby")}},
        "came back altered",
    ),
    "truncated": ({"bytes_kept": 3000}, "what was written cannot be read"),
}


def spoiled_export(monkeypatch, checkpoint, output, *arguments, **spoil) -> int:
    monkeypatch.setitem(FORMATS, "torch-export", Spoiled((".pt2",), "program", "torch", **spoil))
    call = ["export", "--format", "torch-export", "-o", str(output), "--weights", str(checkpoint), *arguments]
    return main(call)


def test_an_unspoiled_file_passes_in_every_shape(checkpoint, tmp_path, capsys, monkeypatch):
    assert spoiled_export(monkeypatch, checkpoint, tmp_path / "network.pt2") == 0
    printed = capsys.readouterr().out
    for shape in ("(2, 3, 56, 56)", "(1, 3, 56, 56)", "(1, 3, 33, 33)", "(3, 3, 69, 88)"):
        assert f"random input {shape}: largest difference" in printed
    assert spoiled_export(monkeypatch, checkpoint, tmp_path / "network.pt2", "--fixed-batch", "4") == 0
    assert capsys.readouterr().out.count("random input") == 1


@pytest.mark.parametrize(("spoil", "told"), SPOILS.values(), ids=SPOILS)
def test_a_spoiled_file_is_refused_and_leaves_nothing(spoil, told, checkpoint, tmp_path, capsys, monkeypatch):
    output = tmp_path / "network.pt2"
    output.write_bytes(b"an earlier export")
    assert spoiled_export(monkeypatch, checkpoint, output, **spoil) == 1
    error = capsys.readouterr().err
    assert told in error
    assert "nothing was written" in error
    assert error.count("\n") == 1
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"an earlier export"]


def test_what_torch_cannot_write(checkpoint, tmp_path, capsys, monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("Constraints violated (height)!\nFor more information, ask someone else.")

    monkeypatch.setattr(program, "write", refuse)
    arguments = ["export", "--format", "torch-export", "-o", str(tmp_path / "m.pt2"), "--weights", str(checkpoint)]
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert told.endswith(
        "cannot write this network: Constraints violated (height)!; with --fixed-batch N it need not allow "
        "every batch and size; nothing was written\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_come_with_the_pip_line(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["export", "--format", "onnx"]) == 1
    assert capsys.readouterr().err == (
        "shufflenetv2: error: exporting to onnx needs onnx, onnxscript, onnxruntime, which are not installed; "
        "type: pip install 'onnx>=1.19' 'onnxscript>=0.5.4' 'onnxruntime>=1.25'\n"
    )


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (".", ". is a directory"),
        ("..", ".. is a directory"),
        ("folder", "folder is a directory"),
        ("absent/network.pt2", "there is no directory absent"),
        ("file/network.pt2", "there is no directory file"),
        ("pipe", "pipe is a pipe, a socket or a device"),
        ("n" * 300 + ".pt2", "File name too long"),
        ("network.onnx", "network.onnx must be a name that ends in .pt2"),
        (".pt2", ".pt2 must be a name that ends in .pt2"),
        ("locked/network.pt2", "Permission denied"),
    ],
)
def test_the_output_is_tried_before_the_work(output, told, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "locked").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    create = os.mkdir

    def locked(path, *arguments, **options):  # root may write anywhere
        if Path(path).parent.name == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return create(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", locked)
    monkeypatch.setattr(exporting, "build", lambda *arguments, **options: pytest.fail("the model was built"))
    assert main(["export", "--format", "torch-export", "-o", output, "--weights", str(checkpoint)]) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--size", "200000", "must be a whole number of pixels from 9 to 2048, got '200000'"),
        ("--size", "8", "must be a whole number of pixels from 9 to 2048, got '8'"),
        ("--size", "nan", "must be a whole number of pixels from 9 to 2048, got 'nan'"),
        ("--fixed-batch", "0", "must be a whole number from 1 to 1000000, got '0'"),
        ("--fixed-batch", "-1", "must be a whole number from 1 to 1000000, got '-1'"),
    ],
)
def test_numbers_out_of_range(option, value, told, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["export", "--format", "torch-export", option, value])
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"argument {option}: {told}")


def test_a_batch_too_large_to_compare(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = ["export", "--format", "torch-export", "--weights", str(checkpoint), "--fixed-batch", "30000"]
    assert main(call) == 1
    assert capsys.readouterr().err == (
        "shufflenetv2: error: --fixed-batch 30000 is too large: 30000 images of 56x56 cannot be compared\n"
    )


def test_a_size_below_what_the_stem_takes(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--format", "torch-export", "--weights", str(checkpoint), "--size", "32"]) == 1
    assert f"--size 32 is too small for {checkpoint}, which takes 33 pixels or more" in capsys.readouterr().err
    assert [*tmp_path.glob("*.pt2")] == []


@pytest.fixture
def cut_small(tmp_path):
    """Weights of the paper's stem whose photos are cut to 28 pixels."""
    torch.manual_seed(0)
    model = ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], num_classes=3)
    said = Description("shufflenet_v2_x0_5", 3, CATEGORIES, replace(PREPROCESS, resize=28, crop=28))
    write_checkpoint(path := tmp_path / "small.pth", model.state_dict(), said)
    return path


@pytest.mark.slow
def test_labels_are_compared_on_photos_of_their_own_size(cut_small, tmp_path, capsys):
    """Whatever the size of the example is: a file for every size takes them."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(100):
        Image.new("RGB", (30, 40), (2 * index, 255 - 2 * index, index)).save(photos / f"{index}.png")
    command = ["export", "--weights", str(cut_small), "-o", str(tmp_path / "m.pt"), "--calibrate"]
    for more in ([], ["--size", "64"]):
        assert main([*command, str(photos), *more]) == 0
        assert "100 calibration photos: the same label for 100, 100.0%" in capsys.readouterr().out
    assert main([*command, str(tmp_path / "absent")]) == 1
    assert capsys.readouterr().err == f"shufflenetv2: error: --calibrate {tmp_path / 'absent'} is not a folder\n"


@needs("safetensors")
@pytest.mark.slow
def test_a_folder_says_what_its_photos_are_cut_to(cut_small, tmp_path):
    folder = tmp_path / "folder"
    assert main(["export", "--weights", str(cut_small), "--format", "safetensors", "-o", str(folder)]) == 0
    timms = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    assert (timms["input_size"], timms["crop_pct"]) == ([3, 28, 28], 1.0)  # of other sizes no photo is made


def test_photos_below_what_a_file_for_every_size_takes(cut_small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(exporting, "build", lambda *arguments, **options: pytest.fail("the model was built"))
    command = ["export", "--weights", str(cut_small), "-o", str(tmp_path / "m.pt2")]
    for more in ([], ["--size", "64"]):
        assert main([*command, *more]) == 1
        assert capsys.readouterr().err == (
            f"shufflenetv2: error: the photos of {cut_small} are cut to 28 pixels, and a file for every size takes 33 "
            "or more: give --fixed-batch 1\n"
        )
    assert main([*command, "--fixed-batch", "1", "--size", "31"]) == 1
    assert f"--size 31 is too small for {cut_small}, which takes 32 pixels or more" in capsys.readouterr().err
    weights = resolve(None, cut_small)
    for name in ("torch-export", "ncnn"):
        assert exporting.shape_for(FORMATS[name], weights, None, 1) == Shape(1, 3, 28, dynamic=False)


def test_a_file_is_tried_with_what_its_photos_are_cut_to(cut_small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(exporting, "sample_photos", list)
    output = tmp_path / "m.pt2"
    assert spoiled_export(monkeypatch, cut_small, output, answer=only(lambda images: images.shape[2] >= 33)) == 1
    assert "on random input (1, 3, 28, 28) the written file gives" in capsys.readouterr().err
    assert not output.exists()


def test_the_file_of_the_weights_is_never_written_over(checkpoint, tmp_path, capsys):
    mine = tmp_path / "mine.pt"
    mine.write_bytes(checkpoint.read_bytes())
    before = mine.read_bytes()
    (tmp_path / "link.pt").symlink_to(mine)
    for output in (mine, tmp_path / "link.pt"):
        assert main(["export", "--format", "torchscript", "--weights", str(mine), "-o", str(output)]) == 1
        assert "would replace the file of the weights themselves; -o takes another name" in capsys.readouterr().err
        assert mine.read_bytes() == before


@pytest.mark.slow
def test_what_no_export_wrote_is_not_replaced(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "pytorch_model.bin"
    weights.write_bytes(checkpoint.read_bytes())
    command = ["export", "--weights", str(weights)]
    assert main([*command, "-o", "pytorch_model.xml"]) == 1
    assert "would replace the file of the weights themselves" in capsys.readouterr().err
    (tmp_path / "other.bin").write_text("mine")
    assert main([*command, "-o", "other.xml"]) == 1
    assert "other.bin is there without the other parts of an export" in capsys.readouterr().err
    assert (tmp_path / "other.bin").read_text() == "mine"
    for name, content in (("README.md", "my notes"), ("config.json", "{}")):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text(content)
        assert main([*command, "--format", "safetensors", "-o", str(folder)]) == 1
        assert "export" in capsys.readouterr().err
        assert [(each.name, each.read_text()) for each in folder.iterdir()] == [(name, content)]
    assert main([*command, "--format", "safetensors", "-o", "folder"]) == 0
    assert main([*command, "--format", "safetensors", "-o", "folder"]) == 0  # its own may be replaced
    os.remove("folder/README.md")
    assert main([*command, "--format", "safetensors", "-o", "folder"]) == 0
    before = Path("folder/model.safetensors").read_bytes()
    again = ["export", "--weights", "./folder", "--format", "safetensors", "--precision", "float16", "-o", "folder"]
    assert main(again) == 1
    assert "would replace the file of the weights themselves" in capsys.readouterr().err
    assert Path("folder/model.safetensors").read_bytes() == before


@pytest.mark.slow
def test_the_suffix_is_as_it_was_spelled(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--weights", str(checkpoint), "-o", "MINE.PT"]) == 0
    assert os.listdir() == ["MINE.PT"]
    assert resolve(None, "./MINE.PT").exported is not None


@needs("openvino")
@pytest.mark.slow
def test_openvinos_suffix_is_as_it_was_spelled(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--weights", str(checkpoint), "-o", "MINE.XML"]) == 0
    assert sorted(os.listdir()) == ["MINE.XML", "MINE.bin"]
    assert resolve(None, "./MINE.XML").exported is not None


@needs("safetensors")
def test_the_folder_that_one_is_in(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert main(["export", "--weights", str(checkpoint), "--format", "safetensors", "-o", "."]) == 0
    assert sorted(os.listdir()) == sorted(FORMATS["safetensors"].parts)
    assert os.listdir("..") == ["mine"]


@pytest.mark.slow
def test_a_file_of_one_size_says_that_photos_are_prepared_for_it(checkpoint, tmp_path, capsys):
    path = tmp_path / "small.pt2"
    assert main(["export", "--weights", str(checkpoint), "-o", str(path), "--size", "48", "--fixed-batch", "1"]) == 0
    before, after = resolve(None, checkpoint).preprocess, resolve(None, path).preprocess
    assert (after.crop, after.resize) == (48, round(48 * before.resize / before.crop))
    assert resolve(None, path).metrics is None
    capsys.readouterr()
    assert main(["classify", str(ROOT / "images/cat.jpg"), "--weights", str(path)]) == 0


def test_a_size_for_which_photos_would_be_too_large(capsys, tmp_path):
    path = str(tmp_path / "big.pt2")
    command = ["export", "--arch", "x0_5", "--weights", "imagenet1k_v1", "-o", path, "--fixed-batch", "1"]
    assert main([*command, "--size", "1800"]) == 1
    assert "--size 1800 asks for photos of 2057 pixels, of which the centre is kept; give at most 1792" in (
        capsys.readouterr().err
    )


def test_a_batch_that_leaves_too_few_photos_to_calibrate(checkpoint, tmp_path, capsys):
    for index in range(120):
        Image.new("RGB", (40, 40), (index, 0, 0)).save(tmp_path / f"{index}.png")
    (tmp_path / "notes.txt").touch()
    command = ["export", "--weights", str(checkpoint), "-o", str(tmp_path / "m.onnx"), "--int8"]
    assert main([*command, "--calibrate", str(tmp_path), "--fixed-batch", "64"]) == 1
    error = capsys.readouterr().err
    assert "--fixed-batch 64 leaves fewer than 100 of 120 photos" in error
    assert f"left out of {tmp_path}: 1 file that is no photo by name (.txt)" in error


def test_a_folder_that_cannot_be_written_is_told_before_the_work(checkpoint, capsys, monkeypatch):
    monkeypatch.setattr(exporting, "build", lambda *arguments, **options: pytest.fail("the model was built"))
    assert main(["export", "--format", "torchscript", "--weights", str(checkpoint), "-o", "/proc/mine.pt"]) == 1
    error = capsys.readouterr().err
    assert "nothing can be written into /proc: " in error
    assert error.count("\n") == 1


def test_a_file_that_nobody_named_is_not_replaced(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shufflenet_v2_x0_5.pt").write_bytes(b"mine")
    command = ["export", "--format", "torchscript", "--weights", "cifar10"]
    assert main(command) == 1
    told = "shufflenet_v2_x0_5.pt is there; -o shufflenet_v2_x0_5.pt replaces it, or give another name"
    assert told in capsys.readouterr().err
    assert (tmp_path / "shufflenet_v2_x0_5.pt").read_bytes() == b"mine"


@needs_posix
@pytest.mark.slow
def test_a_reader_who_goes_does_not_stop_the_writing(tmp_path):
    line = '"$@" | true; echo ${PIPESTATUS[0]}'
    command = [sys.executable, "-m", "shufflenetv2", "export", "--weights", "cifar10", "-o", tmp_path / "net.pt"]
    result = run("bash", "-c", line, "bash", *command, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert result.stdout == "0\n"
    assert (tmp_path / "net.pt").exists()
