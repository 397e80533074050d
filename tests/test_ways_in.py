"""What hangs on the classifier, the transform and the list of weights; labels for files that do not say them."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch
from support.processes import ROOT
from torch import Tensor

import shufflenetv2
from shufflenetv2 import categories, classifier, list_weights, preprocess, shufflenet_v2_x0_5
from shufflenetv2.__main__ import main
from shufflenetv2.builder import resolve
from shufflenetv2.errors import CheckpointError, ImageError
from shufflenetv2.inference.classifier import Classifier
from shufflenetv2.weights.manifest import load_manifest

CAT, COFFEE = ROOT / "images/cat.jpg", ROOT / "images/coffee.jpg"
TEN = categories(weights="cifar10")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def classify() -> Classifier:
    return classifier(weights="cifar10")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """The weights of ten classes, in a file that says nothing of them."""
    torch.save(shufflenet_v2_x0_5(weights="cifar10").state_dict(), tmp_path / "bare.pth")
    return tmp_path / "bare.pth"


# All probabilities, and features.


def test_probabilities_are_those_of_the_predictions(classify: Classifier) -> None:
    given = classify.probabilities([CAT, COFFEE.read_bytes()])
    assert (given.shape, given.dtype, given.device.type) == ((2, 10), torch.float32, "cpu")
    assert torch.allclose(given.sum(1), torch.ones(2))
    for row, predictions in zip(given, classify([CAT, COFFEE]), strict=True):
        assert [row[each.index].item() for each in predictions] == [each.probability for each in predictions]


def test_features_are_what_the_last_layer_reads(classify: Classifier) -> None:
    given = classify.features([CAT, COFFEE])
    assert (given.shape, given.dtype) == ((2, 1024), torch.float32)
    plain: Any = shufflenet_v2_x0_5(weights="cifar10", num_classes=0)
    assert torch.allclose(given, plain(classify.transform([CAT, COFFEE])), atol=1e-5)
    logits = classify.model.fc(given) / classify.weights.temperature
    assert torch.allclose(logits.softmax(1), classify.probabilities([CAT, COFFEE]), atol=1e-6)
    (given * torch.ones(1024, requires_grad=True)).sum().backward()  # of use in training


FORMS: dict[str, tuple[Callable[[], Any], int]] = {
    "one": (lambda: CAT, 1),
    "list": (lambda: [CAT] * 3, 3),
    "generator": (lambda: (CAT for _ in range(20)), 20),
    "batch": (lambda: torch.zeros(18, 3, 40, 40, dtype=torch.uint8), 18),
    "tensor": (lambda: torch.zeros(3, 40, 40, dtype=torch.uint8), 1),
    "none": (list, 0),
    "empty batch": (lambda: torch.zeros(0, 3, 40, 40, dtype=torch.uint8), 0),
}


@pytest.mark.parametrize(("make", "count"), FORMS.values(), ids=FORMS)
def test_both_take_what_a_call_takes(make: Callable[[], Any], count: int, classify: Classifier) -> None:
    assert classify.probabilities(make()).shape == (count, 10)
    assert classify.features(make()).shape == (count, 1024)


def test_a_bad_photo_is_named_by_its_place(classify: Classifier) -> None:
    for method in (classify.probabilities, classify.features):
        with pytest.raises(ImageError, match=r"^photos\[18\]: missing.jpg cannot be opened"):
            method([CAT] * 18 + ["missing.jpg"])
        with pytest.raises(TypeError, match=r"photos\[1\] is a list"):
            method([CAT, [CAT]])


def test_answers_of_nan_are_refused() -> None:
    broken = classifier(weights="cifar10")
    broken.model.conv1.weight.data[:] = float("nan")
    for method in (broken.probabilities, broken.features):
        with pytest.raises(CheckpointError, match="NaN or infinity"):
            method(CAT)


# The transform: settings through every entry point, and one photo at a time.


def test_bounds_and_orientation_come_through_the_entry_points() -> None:
    for made in (classifier(weights="cifar10", max_pixels=1000, upright=False).transform,
                 preprocess(weights="cifar10", max_pixels=1000, upright=False)):  # fmt: skip
        assert (made.max_pixels, made.upright) == (1000, False)
        with pytest.raises(ImageError, match="more than the 1,000 allowed"):
            made(CAT)
        again = pickle.loads(pickle.dumps(made))
        assert (again.max_pixels, again.upright) == (1000, False)
    with pytest.raises(ValueError, match="max_pixels must be from 1 to"):
        preprocess(max_pixels=0)


def test_one_photo_without_a_batch() -> None:
    transform = preprocess(weights="cifar10", batch=False)
    assert torch.equal(transform(CAT), preprocess(weights="cifar10")(CAT)[0])
    assert pickle.loads(pickle.dumps(transform))(CAT).shape == (3, 32, 32)
    for several in ([CAT], torch.zeros(1, 3, 40, 40, dtype=torch.uint8), (CAT for _ in range(1))):
        with pytest.raises(TypeError, match="batch=False this takes one photo"):
            transform(several)


@pytest.mark.slow
def test_it_drops_into_image_folder_and_spawned_workers(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets", reason="not installed: torchvision")
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(CAT.read_bytes())
    data = datasets.ImageFolder(tmp_path, transform=preprocess(weights="cifar10", batch=False))
    loader = torch.utils.data.DataLoader(data, 2, num_workers=1, multiprocessing_context="spawn")
    [(images, labels)] = [*loader]
    assert images.shape == (2, 3, 32, 32)
    assert labels.tolist() == [0, 1]


# The weights there are.


def test_weights_are_listed_as_values() -> None:
    entries = list_weights()
    assert entries == [*load_manifest()]
    assert all(str(shufflenetv2.entrypoints.resolve(None, str(entry)).title) == str(entry) for entry in entries)  # type: ignore[attr-defined]
    assert {entry.arch for entry in list_weights("shufflenet_v2_x0_5")} == {"shufflenet_v2_x0_5"}
    [best] = list_weights("shufflenet_v2_x2_0")
    assert (best.num_classes, best.metrics.acc1, best.default) == (1000, 76.23, True)
    with pytest.raises(ValueError, match="there is no architecture 'x3'; there are shufflenet_v2_x0_5"):
        list_weights("x3")


def test_weights_as_values_are_taken_for_what_they_are(tmp_path: Path) -> None:
    for entry in list_weights():
        found = resolve(None, entry)
        assert (found.arch, found.name) == (entry.arch, entry.name)
        assert preprocess(weights=entry).reference == found.reference
    model: Any = shufflenet_v2_x0_5(weights="cifar10")
    model.save(tmp_path / "mine.pth")
    for weights in (model.weights, shufflenet_v2_x0_5(weights=tmp_path / "mine.pth").weights):
        assert classifier(weights=weights).categories == TEN
        assert repr(weights).count("airplane") == 0
    with pytest.raises(ValueError, match="the weights are of shufflenet_v2_x0_5, not of shufflenet_v2_x2_0"):
        classifier("shufflenet_v2_x2_0", weights=model.weights)
    for wrong in (model, model.state_dict()):
        with pytest.raises(TypeError, match=r"save the network to a file, and give its path: model.save\('mine.pth'"):
            classifier(weights=wrong)
    with pytest.raises(TypeError, match=r"arch must be one of .*, got a ShuffleNetV2"):
        classifier(model)


def test_a_files_name_may_look_like_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model: Any = shufflenet_v2_x0_5(weights="cifar10")
    model.save("best_Weights.pth")
    assert categories(weights="best_Weights.pth") == TEN
    for foreign in ("VGG16_Weights.IMAGENET1K_FEATURES", "FCOS_ResNet50_FPN_Weights.COCO_V1"):
        with pytest.raises(ValueError, match=f"there are no weights '{foreign}'"):
            categories(weights=foreign)
        with pytest.raises(ValueError, match="would be read as a name of weights"):
            model.save(foreign)


@pytest.mark.parametrize("name", ["batch", "upright", "fast_decode"])
def test_flags_are_flags(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} is True or False.*, got 'no'"):
        preprocess(weights="cifar10", **{name: "no"})  # type: ignore[arg-type]


# Labels for a file that does not say them.


def test_labels_are_given_to_a_bare_file(bare: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CheckpointError, match=r"categories=\[\.\.\.\], or --categories FILE"):
        classifier(weights=bare)
    named = classifier(weights=bare, categories=(label.upper() for label in TEN))
    assert named(CAT)[0].label.isupper()
    assert "does not describe itself: treated like" in caplog.text
    for twin in (copy.deepcopy(named), pickle.loads(pickle.dumps(named))):
        assert twin(CAT) == named(CAT)
    with pytest.raises(ValueError, match=r"2 categories were given, and .*bare.pth has 10 classes"):
        classifier(weights=bare, categories=["a", "b"])
    with pytest.raises(TypeError, match="categories must be a list of labels, got 'abcdefghij'"):
        classifier(weights=bare, categories="abcdefghij")
    with pytest.raises(
        TypeError, match=r"got PurePosixPath\('labels.txt'\); of a file with one a line: categories=open\(FILE"
    ):
        classifier(weights=bare, categories=PurePosixPath("labels.txt"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="categories must be a list of labels, got 10"):
        classifier(weights=bare, categories=10)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="printable"):
        classifier(weights=bare, categories=["\x1b", *TEN[1:]])


def test_the_message_for_a_bare_file_works_to_the_letter(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError) as caught:
        classifier(weights=bare)
    call = str(caught.value).partition("says both: ")[2].partition(", of the weights")[0]
    assert call.startswith("shufflenet_v2_x0_5(weights=")
    call = (
        call.replace("NEW", repr(str(bare.with_name("new.pth"))))
        .replace("[...]", repr(TEN))
        .replace("NAME", "'cifar10'")
    )
    eval(call, {"shufflenet_v2_x0_5": shufflenet_v2_x0_5})
    assert classifier(weights=bare.with_name("new.pth")).categories == TEN


def test_weights_that_say_their_labels_keep_them() -> None:
    assert classifier(weights="cifar10", categories=TEN).categories == TEN
    with pytest.raises(CheckpointError, match="cifar10_v2 says its own categories, and those given differ"):
        classifier(weights="cifar10", categories=TEN[::-1])


@pytest.mark.parametrize("text", ["\n".join(TEN), "\n".join(TEN) + "\n", "\ufeff" + "\r\n".join(TEN) + "\r\n\r\n"])
def test_the_command_line_reads_labels_from_a_file(
    text: str, bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "names.txt"
    names.write_bytes(text.encode())
    assert main(["classify", str(CAT), "--weights", str(bare), "--categories", str(names), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"][0]["label"] == "cat"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"\xff\xfe", "codec can't decode"), (b"", "0 categories were given")],
)
def test_a_bad_file_of_labels_is_told(
    content: bytes | None, message: str, bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "names.txt"
    if content is not None:
        names.write_bytes(content)
    command = ["classify", str(CAT), "--weights", str(bare), "--categories", str(names)]
    if content == b"":
        assert main(command) == 1
    else:
        with pytest.raises(SystemExit):
            main(command)
    assert message in capsys.readouterr().err


def test_tensors_are_answered_like_photos(classify: Classifier) -> None:
    batch = torch.randint(0, 256, (3, 3, 50, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows: Tensor = classify.probabilities(batch)
    assert torch.allclose(rows, torch.cat([classify.probabilities(each) for each in batch]), atol=1e-6)
