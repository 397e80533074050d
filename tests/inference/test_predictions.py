"""One call from photos to labels: what goes in, what comes back, and what is said of photos that are none."""

import copy
import io
import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from support.photo_mutants import CAT, COFFEE
from torch import Tensor, nn

from shufflenetv2.builder import resolve
from shufflenetv2.description import BATCH_SIZE
from shufflenetv2.devices import Group
from shufflenetv2.entrypoints import shufflenet_v2_x0_5
from shufflenetv2.errors import CheckpointError, ImageError, IntegrityError
from shufflenetv2.evaluation.counting import count_hits
from shufflenetv2.inference.classifier import Classifier, Prediction
from shufflenetv2.photos.folders import LabelledPhotos
from shufflenetv2.photos.transform import PhotoTransform
from shufflenetv2.weights.checkpoint import write_checkpoint


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(resolve(None, "cifar10"), top=3, device="cpu", progress=False)  # its weights are bundled


def close(one: list[Prediction], other: list[Prediction]) -> bool:
    """The same labels; in batches of other sizes the last bits differ."""
    return [each.label for each in one] == [each.label for each in other] and all(
        abs(a.probability - b.probability) < 1e-5 for a, b in zip(one, other, strict=True)
    )


def test_a_network_that_was_exchanged_is_copied_along(classifier: Classifier) -> None:
    mine = copy.copy(classifier)
    mine.model = copy.deepcopy(classifier.model)
    mine.model.fc.bias.data[7] += 100  # type: ignore[union-attr,operator]
    assert mine(CAT)[0].index == 7
    for twin in (pickle.loads(pickle.dumps(mine)), copy.deepcopy(mine)):
        assert twin(CAT)[0].index == 7
    assert pickle.loads(pickle.dumps(classifier))(CAT)[0].label == "cat"


@pytest.mark.parametrize("deploy", [True, False])
def test_a_network_that_was_changed_in_place_is_copied_along(deploy: bool) -> None:
    changes = {
        "numbers": lambda model: model.fc.bias.data[7].add_(100),
        "dtype": lambda model: model.to(torch.bfloat16),
        "layers": lambda model: setattr(model, "fc", nn.Sequential(model.fc, nn.Tanh())),
    }
    for change in changes.values():
        mine = Classifier(resolve(None, "cifar10"), device="cpu", deploy=deploy)
        small = len(pickle.dumps(mine))
        change(mine.model)
        expected = mine.probabilities(CAT)
        for twin in (pickle.loads(pickle.dumps(mine)), copy.deepcopy(mine), copy.copy(mine)):
            assert torch.equal(twin.probabilities(CAT), expected)
        assert small < 10_000 < len(pickle.dumps(mine))


def test_labels_that_were_translated_are_copied_along() -> None:
    mine = Classifier(resolve(None, "cifar10"), device="cpu")
    mine.categories = [f"das {label}" for label in mine.categories]
    for twin in (pickle.loads(pickle.dumps(mine)), copy.deepcopy(mine)):
        assert twin(CAT)[0].label == "das cat"
        assert twin.categories == mine.categories


def test_a_prediction_is_a_value() -> None:
    prediction = Prediction("tabby", 0.53219044, 281)
    assert repr(prediction) == "Prediction(label='tabby', probability=0.5322, index=281)"
    assert str(prediction) == "53.22% tabby"
    assert json.loads(json.dumps(prediction)) == ["tabby", 0.53219044, 281]
    assert json.loads(json.dumps(prediction._asdict())) == {"label": "tabby", "probability": 0.53219044, "index": 281}
    again = pickle.loads(pickle.dumps(prediction))
    assert again == prediction
    assert (again.label, again.probability, again.index) == tuple(prediction)


def test_any_iterable_of_photos_gives_a_list(classifier: Classifier) -> None:
    cat, coffee = classifier(CAT), classifier(COFFEE)
    assert not close(cat, coffee)
    files = [CAT, COFFEE] * BATCH_SIZE  # two batches
    for photos in (files, tuple(files), iter(files), (path.read_bytes() for path in files)):
        answers = classifier(photos)
        assert type(answers) is list
        assert len(answers) == len(files)
        assert all(close(answer, (cat, coffee)[index % 2]) for index, answer in enumerate(answers))
    with open(CAT, "rb") as file:
        assert close(classifier(file), cat)
    assert close(classifier(io.BytesIO(CAT.read_bytes())), cat)
    assert classifier([]) == classifier(iter(())) == classifier(torch.zeros(0, 3, 8, 8, dtype=torch.uint8)) == []


def test_a_generator_is_read_batch_by_batch(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    predict = classifier.predict
    monkeypatch.setattr(classifier, "predict", lambda images: sizes.append(len(images)) or predict(images))
    classifier(Image.new("RGB", (32, 32)) for _ in range(2 * BATCH_SIZE + 1))
    assert sizes == [BATCH_SIZE, BATCH_SIZE, 1]


def test_bad_photos_are_raised_or_returned_in_their_place(classifier: Classifier) -> None:
    photos = [CAT] * BATCH_SIZE + ["missing.jpg", CAT, b"hello"]
    with pytest.raises(ImageError, match=rf"^photos\[{BATCH_SIZE}\]: missing\.jpg cannot be opened"):
        classifier(photos)
    answers = classifier(photos, errors="return")
    kinds = [type(answer) for answer in answers]
    assert kinds == [list] * BATCH_SIZE + [ImageError, list, ImageError]
    assert str(answers[-1]).startswith(f"photos[{BATCH_SIZE + 2}]: <5 bytes> is no image")
    assert [type(answer) for answer in classifier([b"", b"x"], errors="return")] == [ImageError] * 2
    pixels = torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8)
    assert classifier(pixels, errors="return") == classifier(pixels)
    assert [type(answer) for answer in classifier(pixels.float(), errors="return")] == [ImageError] * 2
    alone = classifier("missing.jpg", errors="return")
    assert str(alone).startswith("missing.jpg cannot be opened")
    for errors in ("ignore", None):
        with pytest.raises(ValueError, match=r'^errors must be "raise" or "return", got'):
            classifier(CAT, errors=errors)  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(TypeError, match=r"^photos\[1\] is a list"):
        classifier([CAT, [CAT]], errors="return")


def test_settings_reach_the_transform_and_survive_pickling(classifier: Classifier) -> None:
    small = Classifier(classifier.weights, top=1, device="cpu", progress=False, max_pixels=1000, upright=False)
    for each in (small, pickle.loads(pickle.dumps(small))):
        assert (each.transform.max_pixels, each.transform.upright, each.top) == (1000, False, 1)
        with pytest.raises(ImageError, match="more than the 1,000 allowed"):
            each(CAT)


class Answers(nn.Module):
    """A network that answers so, whatever it sees."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor([logits])

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_answers_that_are_no_numbers_are_refused(classifier: Classifier, wrong: float) -> None:
    network = Answers(*[0.0] * 9, wrong)
    broken = Classifier(classifier.weights, device="cpu", progress=False)
    broken.model = network
    message = "the network answers with NaN or infinity: its weights are damaged, or overflow"
    for photos in (CAT, [CAT, COFFEE]):
        with pytest.raises(CheckpointError, match=message):
            broken(photos, errors="return")
    photos = LabelledPhotos((CAT,), (0,), tuple(classifier.categories))
    with pytest.raises(CheckpointError, match=message):
        count_hits(network, classifier.transform, photos, Group(0, 1, torch.device("cpu")), skip_bad=True)
    with pytest.raises(ValueError, match="the preprocessed images hold NaN or infinity") as caught:
        classifier.predict(torch.full((1, 3, 32, 32), wrong))
    assert not isinstance(caught.value, CheckpointError)


def test_weights_that_overflow_are_refused(classifier: Classifier, tmp_path: Path) -> None:
    broken = Classifier(classifier.weights, device="cpu", progress=False)
    with torch.no_grad():
        for parameter in broken.model.parameters():
            parameter.mul_(1e30)
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        broken(CAT)


def test_a_transform_that_divides_by_nothing_is_no_probability(classifier: Classifier) -> None:
    broken = Classifier(classifier.weights, device="cpu", progress=False)
    preprocess = replace(broken.transform.preprocess, std=(1e-45,) * 3)
    broken.transform = PhotoTransform(preprocess)
    with pytest.raises(ValueError, match="the preprocessed images hold NaN or infinity"):
        broken(CAT)


def made(**options: bool) -> Classifier:
    return Classifier(resolve(None, "cifar10"), device="cpu", progress=False, **options)  # type: ignore[arg-type]


def test_a_network_that_does_not_fit_is_refused() -> None:
    classify = made(deploy=False)
    expected = classify(CAT)
    classify.model.train()
    with pytest.raises(ValueError, match=r"is in training mode, .*; call \.eval\(\) on it"):
        classify(CAT)
    classify.model.eval()
    assert classify(CAT) == expected
    for classes in (5, 20):
        classify.model = shufflenet_v2_x0_5(num_classes=classes)
        classify.model.eval()
        asked = [classify, classify.probabilities, classify.explain]
        asked += [lambda photo, more=more: list(classify.stream([photo], features=more)) for more in (False, True)]
        for ask in asked:
            with pytest.raises(ValueError, match=f"the network gives {classes} numbers an image, and there are labels"):
                ask(CAT)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_answers_have_their_dtype_whatever_the_default(dtype: torch.dtype) -> None:
    classify = made()
    expected, explained = classify.probabilities(CAT), classify.explain(CAT).heatmap
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        assert torch.equal(classify.probabilities(CAT), expected)
        assert classify.features(CAT).dtype is torch.float32
        assert torch.equal(classify.explain(CAT).heatmap, explained)
    finally:
        torch.set_default_dtype(before)


def test_a_file_that_is_another_since_is_not_unpickled(tmp_path: Path) -> None:
    weights, other = resolve(None, "cifar10"), shufflenet_v2_x0_5(num_classes=10).state_dict()
    for state in (weights.read(False).state_dict, other):
        write_checkpoint(tmp_path / "best.pth", state, weights.description)
        if state is not other:
            pickled = pickle.dumps(Classifier(resolve(None, tmp_path / "best.pth"), device="cpu"))
            assert pickle.loads(pickled)(CAT)[0].label == "cat"
    with pytest.raises(IntegrityError, match=r"best\.pth has sha256 .*; when pickled, [0-9a-f]{64}"):
        pickle.loads(pickled)


def test_a_column_of_paths(tmp_path: Path) -> None:
    classify = made()
    for column in (numpy.array([str(CAT), str(CAT)]), numpy.array([CAT, "gone.jpg"], dtype=object)):
        first, second = classify(column, errors="return")
        assert first[0].label == "cat"
        assert len(list(classify.stream(column))) == 2
        assert isinstance(second, ImageError) is (column.dtype == object)
