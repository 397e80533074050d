"""One resolver: every spelling that any part of the package prints or documents is taken by every part."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision.models
from support.processes import ROOT

from shufflenetv2 import entrypoints
from shufflenetv2.__main__ import main
from shufflenetv2.builder import build, from_entry, resolve
from shufflenetv2.description import STANDARD, Description
from shufflenetv2.errors import CheckpointError, ManifestError
from shufflenetv2.network.model import SPECS, ShuffleNetV2
from shufflenetv2.weights import manifest
from shufflenetv2.weights.checkpoint import write_checkpoint
from shufflenetv2.weights.manifest import Entry, load_manifest

CIFAR = "shufflenet_v2_x0_5/cifar10_v2"
SPELLINGS = {
    "default": "shufflenet_v2_x1_0/imagenet1k_v1",
    "DEFAULT": "shufflenet_v2_x1_0/imagenet1k_v1",
    "imagenet1k": "shufflenet_v2_x1_0/imagenet1k_v1",
    "IMAGENET1K_V1": "shufflenet_v2_x1_0/imagenet1k_v1",
    "cifar10": CIFAR,
    "cifar10_v2": CIFAR,
    CIFAR: CIFAR,
    "ShuffleNet_V2_x0_5/CIFAR10_v2": CIFAR,
    "shufflenet_v2_x0_5/cifar10": CIFAR,
    "shufflenet_v2_x2_0": "shufflenet_v2_x2_0/imagenet1k_v1",
    "shufflenet_v2_x2_0/default": "shufflenet_v2_x2_0/imagenet1k_v1",
    "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1": "shufflenet_v2_x0_5/imagenet1k_v1",
    "ShuffleNet_V2_X2_0_Weights.DEFAULT": "shufflenet_v2_x2_0/imagenet1k_v1",
    "shufflenetv2_x2_0-8be3c8ee.pth": "shufflenet_v2_x2_0/imagenet1k_v1",
}


@pytest.mark.parametrize(("spelling", "title"), SPELLINGS.items())
def test_every_spelling_everywhere(spelling: str, title: str, capsys: pytest.CaptureFixture[str]) -> None:
    arch, _, name = title.partition("/")
    assert resolve(None, spelling).title == title
    assert resolve(arch, spelling).title == title
    assert entrypoints.preprocess(weights=spelling).reference == (arch, name)
    assert main(["weights", "list", spelling, "--json"]) == 0
    assert title in [json.loads(line)["weights"] for line in capsys.readouterr().out.splitlines()]
    assert main(["weights", "path", spelling]) == 0


def test_what_weights_list_prints_can_be_given_to_other_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]  # after the header
    assert listed == [str(entry) for entry in load_manifest()]
    for name in listed:
        assert resolve(None, name).title == name
    assert main(["classify", str(ROOT / "images/cat.jpg"), "--weights", CIFAR]) == 0
    assert "cat" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arch", "spelling", "message"),
    [
        (None, "cifar100", "did you mean 'cifar10'"),
        (None, "imagenet1k_v9", "there are no weights 'imagenet1k_v9' for any architecture"),
        (None, "shufflenet_v2_x0_5/cifar_v9", "there are no weights 'shufflenet_v2_x0_5/cifar_v9'"),
        ("shufflenet_v2_x1_0", "cifar10", f"the weights 'cifar10' are {CIFAR}, not for shufflenet_v2_x1_0"),
        ("shufflenet_v2_x1_0", "shufflenet_v2_x0_5", "not for shufflenet_v2_x1_0"),
        (None, "ResNet50_Weights.DEFAULT", r"there are no weights 'ResNet50_Weights.DEFAULT'"),
        (
            "shufflenet_v2_x1_0",
            "ShuffleNet_V2_X2_0_Weights.DEFAULT",
            "X2_0_Weights.DEFAULT' are .*not for",
        ),
        ("resnet18", "default", "there is no architecture 'resnet18'"),
    ],
)
def test_a_name_that_means_nothing(arch: str | None, spelling: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(arch, spelling)


def test_torchvisions_enums() -> None:
    weights = torchvision.models.ShuffleNet_V2_X2_0_Weights
    for member in (weights.DEFAULT, weights.IMAGENET1K_V1):
        assert resolve(None, member).title == "shufflenet_v2_x2_0/imagenet1k_v1"
        assert entrypoints.preprocess(weights=member).preprocess.resize == 232
        with pytest.raises(ValueError, match=r"X2_0_Weights.IMAGENET1K_V1' are .*, not for"):
            entrypoints.shufflenet_v2_x1_0(weights=member)
    foreign = torchvision.models.ResNet50_Weights.DEFAULT
    for entry_point in (entrypoints.classifier, entrypoints.preprocess, entrypoints.shufflenet_v2_x1_0):
        with pytest.raises(ValueError, match=r"there are no weights 'ResNet50_Weights.IMAGENET1K_V2'"):
            entry_point(weights=foreign)


def test_the_newest_version_is_taken_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    one = load_manifest()[0]
    entries = tuple(entry_like(one, name=f"x_v{number}", default=number == 2) for number in (9, 2, 10))
    monkeypatch.setattr(manifest, "load_manifest", lambda: entries)
    assert resolve(None, "x").name == "x_v10"
    assert resolve(None, "x_v9").name == "x_v9"
    assert resolve(None, one.arch).name == "x_v2"


def entry_like(entry: Entry, **changes: Any) -> Entry:
    return Entry(**{**vars(entry), **changes})


def test_several_architectures_without_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [entry for entry in load_manifest() if entry.arch != manifest.DEFAULT_ARCH]
    monkeypatch.setattr(manifest, "load_manifest", lambda: tuple(entries))
    with pytest.raises(ValueError, match=r"several architectures have weights 'imagenet1k': .*; say which arch"):
        resolve(None, "imagenet1k")


@pytest.mark.parametrize("name", ["cifar10", "shufflenet_v2_x0_5/cifar10_v2"])
def test_a_name_is_not_looked_up_on_disk(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(b"a file of that name")
    assert resolve(None, name).title == CIFAR
    with pytest.raises(CheckpointError, match="cannot be loaded as a checkpoint"):
        resolve(None, f"./{name}")


@pytest.mark.parametrize("weights", [None, 5, True, SimpleNamespace(name=3)])
def test_neither_a_name_nor_a_path(weights: object) -> None:
    for entry_point in (entrypoints.classifier, entrypoints.preprocess, entrypoints.categories):
        with pytest.raises(TypeError, match="weights must be a name or a path, got") as caught:
            entry_point(weights=weights)
        assert "pretrained" not in str(caught.value)  # they have no such argument


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], num_classes=2, in_channels=1)
    path = tmp_path / "grey.pth"
    write_checkpoint(path, model.state_dict(), Description("shufflenet_v2_x0_5", 1, ("cat", "dog"), STANDARD))
    return path


def test_one_grey_checkpoint_one_answer(grey: Path) -> None:
    model = entrypoints.shufflenet_v2_x0_5(weights=grey)
    assert model.in_channels == 1
    assert entrypoints.preprocess(weights=grey).in_channels == 1
    assert entrypoints.preprocess(weights=grey)(ROOT / "images/cat.jpg").shape == (1, 1, 224, 224)
    classifier = entrypoints.classifier(weights=grey)
    assert classifier.model.in_channels == classifier.transform.in_channels == 1
    assert {each.label for each in classifier(ROOT / "images/cat.jpg")} == {"cat", "dog"}
    assert entrypoints.shufflenet_v2_x0_5(weights=grey, in_channels=3).in_channels == 3


@pytest.mark.parametrize("weights", [None, "cifar10"])
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"num_classes": True}, TypeError, r"num_classes is a whole number, got True \(a bool\)"),
        ({"num_classes": "10"}, TypeError, r"num_classes is a whole number, got '10'"),
        ({"num_classes": -1}, ValueError, "num_classes must be from 0 to 1,000,000, got -1"),
        ({"num_classes": 10**9}, ValueError, "num_classes must be from 0 to 1,000,000, got 1000000000"),
        ({"in_channels": 0}, ValueError, "in_channels must be from 1 to 1,024, got 0"),
        ({"in_channels": 3.0}, TypeError, r"in_channels is a whole number, got 3.0 \(a float\)"),
        ({"deploy": "false"}, TypeError, "deploy is True or False, got 'false'"),
    ],
)
def test_arguments_out_of_range(
    weights: str | None, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        entrypoints.shufflenet_v2_x0_5(weights=weights, **given)


def test_a_name_in_the_wrong_place() -> None:
    with pytest.raises(ValueError, match="no architecture 'cifar10'; 'cifar10' is the name of weights"):
        entrypoints.classifier("cifar10")
    with pytest.raises(ValueError, match="a classifier needs weights"):
        entrypoints.classifier(pretrained=False)
    assert entrypoints.classifier(weights="cifar10", pretrained=True).categories[3] == "cat"


@pytest.mark.parametrize("in_channels", [1, 2, 3, 4, 7])
def test_other_channels_deploy_to_the_same_function(in_channels: int) -> None:
    plain, deployed = (
        entrypoints.shufflenet_v2_x0_5(weights="cifar10", in_channels=in_channels, deploy=deploy)
        for deploy in (False, True)
    )
    assert plain.in_channels == in_channels
    assert plain.conv1[0].kernel_size == (3, 3)
    images = torch.rand(2, in_channels, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = plain(images)
        assert logits.std(0).max() > 0.01
        torch.testing.assert_close(deployed(images), logits, rtol=0, atol=1e-4 * float(logits.abs().max()))


def test_channels_without_weights() -> None:
    assert entrypoints.shufflenet_v2_x0_5().in_channels == 3
    assert entrypoints.shufflenet_v2_x0_5(in_channels=4).in_channels == 4


def test_a_checkpoint_without_classes(tmp_path: Path) -> None:
    path = tmp_path / "features.pth"
    torch.save(ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], num_classes=0).state_dict(), path)
    assert entrypoints.shufflenet_v2_x0_5(weights=path).num_classes == 0
    for entry_point in (entrypoints.classifier, entrypoints.categories):
        with pytest.raises(CheckpointError, match=r"features.pth has no classifier \(fc.weight\)"):
            entry_point(weights=path)


def test_a_file_that_does_not_say_its_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "bare.pth"
    torch.save(ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], num_classes=10).state_dict(), path)
    assert entrypoints.shufflenet_v2_x0_5(weights=path).num_classes == 10
    for entry_point in (entrypoints.classifier, entrypoints.preprocess, entrypoints.categories):
        with pytest.raises(CheckpointError, match="has 10 classes and does not say which"):
            entry_point(weights=path)
    assert not caplog.records
    torch.save(ShuffleNetV2(SPECS["shufflenet_v2_x0_5"]).state_dict(), path)
    assert entrypoints.categories(weights=path) == entrypoints.categories("shufflenet_v2_x0_5")
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} does not describe itself: treated like shufflenet_v2_x0_5/imagenet1k_v1, with the paper's stem (a "
        "network for small photos may have the small one: load it with small_stem=True, and save it)"
    ]


def test_a_tilde_in_a_name_is_a_home_or_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("~nobody-of-this-name/mine.pth", "~nobody-of-this-name/mine.onnx"):
        with pytest.raises(CheckpointError, match=f"{path} cannot be read: .*o such file"):
            resolve(None, path)
    torch.save(ShuffleNetV2(SPECS["shufflenet_v2_x0_5"]).state_dict(), "~mine.pth")
    assert resolve(None, "~mine.pth").name == str(tmp_path / "~mine.pth")
    assert entrypoints.shufflenet_v2_x0_5(weights="~mine.pth").num_classes == 1000


class TestWidths:
    """A width may have no weights; weights must have a width."""

    def test_a_width_without_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        entries = tuple(entry for entry in load_manifest() if entry.arch != "shufflenet_v2_x2_0")
        for module in (manifest, entrypoints):
            monkeypatch.setattr(module, "load_manifest", lambda: entries)
        entry_point = entrypoints._entry_point("shufflenet_v2_x2_0")
        assert (entry_point.__doc__ or "").startswith("ShuffleNet V2 2.0x.\n")
        assert entry_point(num_classes=3).num_classes == 3
        with pytest.raises(ValueError, match="not for shufflenet_v2_x2_0; there are: none"):
            entry_point(pretrained=True)

    def test_weights_without_a_width(self, monkeypatch: pytest.MonkeyPatch) -> None:
        foreign = entry_like(load_manifest()[0], arch="shufflenet_v2_x9_9")
        monkeypatch.setattr(manifest, "load_manifest", lambda: (*load_manifest(), foreign))
        with pytest.raises(ManifestError, match="shufflenet_v2_x9_9/imagenet1k_v1 is for no architecture"):
            resolve(None, "shufflenet_v2_x9_9")
        with pytest.raises(ManifestError, match="shufflenet_v2_x9_9/imagenet1k_v1 is for no architecture"):
            from_entry(foreign)


def test_reading_twice_gives_two_models() -> None:
    weights = resolve(None, "cifar10")
    first, second = build(weights.arch, weights), build(weights.arch, weights)
    assert first.state_dict().keys() == second.state_dict().keys()
    pointers = {tensor.data_ptr() for tensor in first.state_dict().values()}
    assert pointers.isdisjoint(tensor.data_ptr() for tensor in second.state_dict().values())
