"""The rules of the entry points: names, paths, heads, channels, modes."""

import enum
import inspect
import logging
import re
from pathlib import Path

import pytest
import torch
from support.checkpoints import ARCHS, checkpoint_bytes, reference_model
from support.stand_in import StandIn
from torch import nn

from shufflenetv2 import builder, entrypoints
from shufflenetv2.description import Metrics
from shufflenetv2.errors import CheckpointError
from shufflenetv2.network.formats.table import SERVED
from shufflenetv2.network.model import SPECS, ShuffleNetV2
from shufflenetv2.weights import manifest
from shufflenetv2.weights.checkpoint import Description, write_checkpoint
from shufflenetv2.weights.manifest import load_manifest, read_categories

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))


@pytest.fixture(autouse=True)
def stand_in_manifest(
    stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in's manifest instead of ours, and its mirror; the cache is shared by this file's tests."""
    entries = manifest.parse_manifest((stand_in.repository / "weights.json").read_text())
    monkeypatch.setattr(manifest, "load_manifest", lambda: entries)
    monkeypatch.setenv("SHUFFLENETV2_MIRROR", stand_in.mirror)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.getbasetemp() / "entrypoints-home"))


def load(arch: str, *arguments: object, **more: object) -> nn.Module:
    return getattr(entrypoints, arch)(*arguments, progress=False, **more)  # type: ignore[no-any-return]


@pytest.mark.parametrize("arch", ARCHS)
def test_signature_and_documentation(arch: str) -> None:
    entry_point = getattr(entrypoints, arch)
    assert entry_point.__name__ == arch
    assert str(inspect.signature(entry_point)).startswith(
        "(pretrained: bool = False, progress: bool = True, *, weights: "
    )
    own = {"repo_or_dir", "model", "source", "trust_repo", "force_reload", "verbose", "skip_validation"}
    for name in [*ARCHS, "classifier", "preprocess", "categories"]:
        assert not own & set(inspect.signature(getattr(entrypoints, name)).parameters)
    default = next(entry for entry in load_manifest() if entry.arch == arch and entry.default)
    assert f"{default.num_params / 1e6:.2f} M parameters" in entry_point.__doc__
    assert f"top-1 {default.metrics.acc1:.2f} %" in entry_point.__doc__


def test_the_runtimes_of_the_documentation_are_those_there_are() -> None:
    named = re.findall(r'"(\w+)"', entrypoints.classifier.__doc__.partition("runtime (str):")[2].partition(". ")[0])
    assert named == ["torch", *SERVED]


def test_default_weights_of_another_width_are_refused() -> None:
    of_x1_0 = next(entry for entry in load_manifest() if entry.arch == "shufflenet_v2_x1_0" and entry.default)
    with pytest.raises(ValueError, match="the weights are of shufflenet_v2_x1_0, not of shufflenet_v2_x0_5"):
        load("shufflenet_v2_x0_5", pretrained=True, weights=of_x1_0)


@pytest.mark.parametrize("arch", ARCHS)
def test_manifest_counts_are_the_networks(arch: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    entry = next(entry for entry in load_manifest() if entry.arch == arch and entry.default)
    model = ShuffleNetV2(SPECS[arch], entry.num_classes).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.num_params
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, entry.preprocess.crop, entry.preprocess.crop))
    assert counter.get_total_flops() == 2 * entry.macs


class Enumeration(enum.Enum):
    """Stands for torchvision's enum of weights, whose members are taken by their name."""

    IMAGENET1K_V1 = 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"pretrained": True},
        {"weights": "default"},
        {"weights": "DEFAULT"},
        {"weights": "imagenet1k_v1"},
        {"weights": "IMAGENET1K_V1"},
        {"weights": "imagenet1k"},
        {"weights": Enumeration.IMAGENET1K_V1},
        {"pretrained": True, "weights": "imagenet1k_v1"},
    ],
    ids=str,
)
def test_every_spelling_of_the_default_weights(arguments: dict[str, object]) -> None:
    model = load("shufflenet_v2_x0_5", **arguments)
    assert not model.training
    assert torch.equal(model(IMAGES), reference_model("shufflenet_v2_x0_5")(IMAGES))


def test_weights_without_a_version_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "shufflenetv2"):
        load("shufflenet_v2_x0_5", weights="imagenet1k")
    assert "taking the newest, imagenet1k_v1" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"weights": "imagenet21k"}, ValueError, "there are: .*imagenet1k_v1"),
        ({"weights": "imagenet1k_v9"}, ValueError, "imagenet1k_v1"),
        ({"weights": True}, TypeError, "default weights"),
        ({"pretrained": "imagenet"}, TypeError, "pretrained is True or False"),
        ({"pretrained": True, "weights": "./mine.pth"}, ValueError, "leave one out"),
        ({"weights": "./missing.pth"}, CheckpointError, "cannot be read"),
        ({"pretrained": True, "num_classes": -1}, ValueError, "num_classes"),
        ({"pretrained": True, "in_channels": 0}, ValueError, "in_channels"),
        ({"in_channels": 0}, ValueError, "in_channels"),
        ({"num_classes": -1, "deploy": True}, ValueError, "num_classes"),
        ({"nonsense": 1}, TypeError, "nonsense"),
    ],
    ids=str,
)
def test_nothing_is_silently_ignored(arguments: dict[str, object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        load("shufflenet_v2_x0_5", **arguments)


def test_a_plain_name_is_never_looked_up_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").write_bytes(checkpoint_bytes(reference_model("shufflenet_v2_x0_5").state_dict()))
    with pytest.raises(ValueError, match="no weights 'mine'"):
        load("shufflenet_v2_x0_5", weights="mine")
    assert torch.equal(
        load("shufflenet_v2_x0_5", weights=Path("mine"))(IMAGES), reference_model("shufflenet_v2_x0_5")(IMAGES)
    )


def test_new_head_keeps_the_backbone(caplog: pytest.LogCaptureFixture) -> None:
    whole = load("shufflenet_v2_x0_5", pretrained=True)
    with caplog.at_level(logging.INFO, "shufflenetv2"):
        model = load("shufflenet_v2_x0_5", pretrained=True, num_classes=7)
    assert "1000 classes was replaced by a new one of 7" in caplog.text
    assert model(IMAGES).shape == (2, 7)
    pooled = load("shufflenet_v2_x0_5", pretrained=True, num_classes=0)(IMAGES)
    assert torch.equal(pooled, whole.forward_features(IMAGES)[3].mean([2, 3]))
    assert torch.equal(model.fc(pooled), model(IMAGES))


def test_grey_input_is_the_sum_over_rgb_and_more_channels_keep_the_magnitude() -> None:
    whole = load("shufflenet_v2_x0_5", pretrained=True).double()
    grey = IMAGES[:, :1].double()
    summed = load("shufflenet_v2_x0_5", pretrained=True, in_channels=1).double()
    torch.testing.assert_close(summed(grey), whole(grey.expand(-1, 3, -1, -1)), rtol=1e-5, atol=1e-5)
    six = load("shufflenet_v2_x0_5", pretrained=True, in_channels=6).double()
    torch.testing.assert_close(six(IMAGES.double().repeat(1, 2, 1, 1)), whole(IMAGES.double()), rtol=1e-5, atol=1e-5)


def test_modes() -> None:
    assert load("shufflenet_v2_x0_5").training
    assert not load("shufflenet_v2_x0_5", deploy=True).training
    plain = load("shufflenet_v2_x0_5", pretrained=True)
    deployed = load("shufflenet_v2_x0_5", pretrained=True, deploy=True)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in deployed.modules())
    torch.testing.assert_close(deployed(IMAGES), plain(IMAGES), rtol=1e-4, atol=1e-4)


def test_default_dtype_and_device_are_honoured() -> None:
    with torch.device("cpu"):
        torch.set_default_dtype(torch.float64)
        try:
            model = load("shufflenet_v2_x0_5", pretrained=True)
        finally:
            torch.set_default_dtype(torch.float32)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float64, torch.int64}
    assert torch.equal(model(IMAGES.double()), reference_model("shufflenet_v2_x0_5").double()(IMAGES.double()))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("counters", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_own_checkpoints_of_every_format(tmp_path: Path, dtype: torch.dtype, counters: bool, legacy: bool) -> None:
    reference = reference_model("shufflenet_v2_x0_5").to(dtype)
    (tmp_path / "mine.pth").write_bytes(checkpoint_bytes(reference.state_dict(), legacy, counters))
    model = load("shufflenet_v2_x0_5", weights=str(tmp_path / "mine.pth"))
    assert torch.equal(model(IMAGES), reference.float()(IMAGES))
    assert all(
        tensor.dtype in (torch.float32, torch.int64) and (counters or tensor.dtype is torch.float32 or tensor == 0)
        for tensor in model.state_dict().values()
    )


def test_round_trip_to_torchvision() -> None:
    model = load("shufflenet_v2_x0_5", pretrained=True)
    theirs = reference_model("shufflenet_v2_x0_5", seed=9)
    theirs.load_state_dict(model.state_dict())
    assert torch.equal(theirs(IMAGES), model(IMAGES))


def test_the_wrong_width_is_told_the_right_entry_point(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(checkpoint_bytes(reference_model("shufflenet_v2_x1_5").state_dict()))
    with pytest.raises(CheckpointError, match=r"load it with shufflenet_v2_x1_5\(weights=...\)"):
        load("shufflenet_v2_x0_5", weights=path)


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-describing checkpoint of two classes and grey input."""
    torch.manual_seed(0)
    model = ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], 2, 1)
    path = tmp_path_factory.mktemp("described") / "best.pth"
    preprocess = manifest.Preprocess(80, 64, "bilinear", (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    metrics = Metrics("mine", 90.0, 100.0, "the test")
    write_checkpoint(
        path,
        model.state_dict(),
        Description("shufflenet_v2_x0_5", 1, ("cat", "coffee"), preprocess, metrics),
    )
    return path


def test_described_checkpoints_bring_all_that_is_needed(described: Path) -> None:
    assert entrypoints.categories(weights=described) == ["cat", "coffee"]
    transform = entrypoints.preprocess(weights=described, in_channels=1)
    assert transform.preprocess == manifest.Preprocess(80, 64, "bilinear", (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    classify = entrypoints.classifier(weights=described)
    cat = Path(__file__).parent.parent / "images/cat.jpg"
    predictions = classify(cat)
    assert [each.label for each in predictions] in (["cat", "coffee"], ["coffee", "cat"])
    assert sum(each.probability for each in predictions) == pytest.approx(1)
    assert load("shufflenet_v2_x0_5", weights=described, in_channels=1)(IMAGES[:, :1]).shape == (2, 2)


def test_classifier_equals_the_steps_by_hand() -> None:
    root = Path(__file__).parent.parent / "images"
    photos = [root / "cat.jpg", root / "coffee.jpg"]
    classify = entrypoints.classifier("shufflenet_v2_x0_5", top=3, deploy=False, device="cpu", progress=False)
    images = entrypoints.preprocess("shufflenet_v2_x0_5")(photos)
    labels = entrypoints.categories("shufflenet_v2_x0_5")
    probabilities = reference_model("shufflenet_v2_x0_5")(images).softmax(1)
    rows = classify(photos)
    for row, expected in zip(rows, probabilities, strict=True):
        values, indices = expected.topk(3)
        assert [each.index for each in row] == indices.tolist()
        assert [each.label for each in row] == [labels[index] for index in indices]
        assert [each.probability for each in row] == pytest.approx(values.tolist(), rel=1e-5)
    assert [each.index for each in classify(photos[0])] == [each.index for each in rows[0]]
    assert classify([]) == []
    assert len(entrypoints.classifier("shufflenet_v2_x0_5", top=5000, progress=False)(photos[0])) == 1000


def test_classifier_chooses_the_architecture() -> None:
    assert builder.resolve(None, "default").arch == "shufflenet_v2_x1_0"
    assert builder.resolve(None, "imagenet1k").arch == "shufflenet_v2_x1_0"
    with pytest.raises(ValueError, match="there is no architecture 'resnet18'"):
        builder.resolve("resnet18", "default")
    with pytest.raises(ValueError, match="top must be"):
        entrypoints.classifier(top=0)


def test_categories_are_torchvisions_with_wordnet_ids() -> None:
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    assert entrypoints.categories() == list(_IMAGENET_CATEGORIES)
    ids = [category.wordnet_id for category in read_categories("imagenet1k.txt")]
    assert ids == sorted(set(ids), key=str)
    assert len(ids) == 1000
    assert ids[281] == "n02123045"


def test_every_entrys_categories_match_its_classes() -> None:
    for entry in load_manifest():
        assert len(read_categories(entry.categories)) == entry.num_classes, entry
        assert entry.arch in SPECS
