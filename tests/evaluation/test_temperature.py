"""A temperature is validated like all else, and is in every probability shown; below the least, nothing is said."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.processes import ROOT

from shufflenetv2.__main__ import main
from shufflenetv2.builder import resolve
from shufflenetv2.description import parse_description, to_json
from shufflenetv2.entrypoints import classifier
from shufflenetv2.errors import ManifestError
from shufflenetv2.inference.classifier import Classifier
from shufflenetv2.network.model import SPECS
from shufflenetv2.package import manifest_path
from shufflenetv2.photos.decode import open_photo
from shufflenetv2.weights.checkpoint import write_checkpoint
from shufflenetv2.weights.manifest import parse_manifest

CAT = ROOT / "images/cat.jpg"
pytestmark = pytest.mark.usefixtures("one_thread")


def described(**changes: Any) -> dict[str, Any]:
    return {**to_json(resolve(None, "cifar10").description), **changes}


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled weights, with a temperature of 2."""
    path = tmp_path_factory.mktemp("warm") / "warm.pth"
    weights = resolve(None, "cifar10")
    write_checkpoint(path, weights.read(False).state_dict, parse_description(described(temperature=2), SPECS, "a test"))
    return path


@pytest.mark.parametrize("wrong", [0, -1, 0.009, 100.1, float("nan"), float("inf"), True, "1", None, [1.0], 10**400])
def test_a_wrong_temperature_is_refused(wrong: object) -> None:
    with pytest.raises(ManifestError, match="'temperature'"):
        parse_description(described(temperature=wrong), SPECS, "a test")
    if wrong == wrong and wrong not in (float("inf"), 10**400):  # which are no JSON, or too long a number
        content = json.loads(manifest_path().read_text(encoding="utf-8"))
        content["entries"][0]["temperature"] = wrong
        with pytest.raises(ManifestError, match="'temperature'"):
            parse_manifest(json.dumps(content))


def test_without_the_field_it_is_one() -> None:
    raw = described()
    del raw["temperature"]
    assert parse_description(raw, SPECS, "a test").temperature == 1
    content = json.loads(manifest_path().read_text(encoding="utf-8"))
    for entry in content["entries"]:
        entry.pop("temperature", None)
    assert {entry.temperature for entry in parse_manifest(json.dumps(content))} == {1.0}
    content["entries"][0]["temperature"] = 1.5
    assert parse_manifest(json.dumps(content))[0].temperature == 1.5


def test_every_probability_is_of_the_temperature(warm: Path) -> None:
    classify = Classifier(resolve(None, str(warm)))
    with torch.inference_mode():
        logits = classify.model(classify.transform(CAT))
    expected = (logits[0] / 2).softmax(0)
    first = classify(CAT)[0]
    assert first.probability == pytest.approx(float(expected.max()), abs=1e-6)
    assert classify.probabilities(CAT)[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    [result] = classify.stream([CAT], features=True)
    assert result.predictions[0].probability == pytest.approx(first.probability, abs=1e-6)
    explanation = classify.explain(CAT, "dog")
    assert explanation.probability == pytest.approx(float(expected[5]), abs=1e-6)
    assert pickle.loads(pickle.dumps(classify))(CAT)[0].probability == pytest.approx(first.probability, abs=1e-6)
    assert (
        first.probability < Classifier(resolve(None, "cifar10"))(CAT)[0].probability
        or resolve(None, "cifar10").temperature > 2
    )


def test_below_the_least_probability_nothing_is_said() -> None:
    always, sure = classifier(weights="cifar10"), classifier(weights="cifar10", min_probability=0.999999)
    first = always(CAT)[0].probability
    assert sure(CAT) == []
    assert sure([CAT, CAT]) == [[], []]
    assert [result.predictions for result in sure.stream([CAT])] == [[]]
    assert classifier(weights="cifar10", min_probability=first - 1e-4)(CAT) == always(CAT)
    assert classifier(weights="cifar10", min_probability=0)(CAT) == always(CAT)
    explanation = sure.explain(CAT)
    assert (explanation.predictions, explanation.label) == ([], always(CAT)[0].label)
    assert pickle.loads(pickle.dumps(sure))(CAT) == []


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan"), "0.5", True, None])
def test_a_wrong_least_probability_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="min_probability must be from 0 to 1"):
        classifier(weights="cifar10", min_probability=wrong)


def test_a_copy_takes_the_place_of_no_photo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "photos" / name / "0.png")
    mine = tmp_path / "mine.jpg"
    Image.new("RGB", (32, 32)).save(mine)
    before = mine.read_bytes()
    command = ["evaluate", str(tmp_path / "photos"), "--weights", "cifar10", "--calibrate", "--output", str(mine)]
    assert main(command) == 1
    assert "mine.jpg" in capsys.readouterr().err
    assert mine.read_bytes() == before


def test_a_copy_is_not_called_like_another_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data/cat").mkdir(parents=True)
    (tmp_path / "data/cat/1.jpg").write_bytes(CAT.read_bytes())
    command = ["evaluate", str(tmp_path / "data"), "--weights", "cifar10", "--calibrate", "-o"]
    for name in ("copy.onnx", "copy.XML", "copy.ncnn.param"):
        assert main([*command, str(tmp_path / name)]) == 1
        assert f"{name} would be read as another format" in capsys.readouterr().err
    for name in ("cifar10_v2", "shufflenet_v2_x0_5/cifar10_v2"):
        assert main([*command, name]) == 1
        assert f"the path '{name}' would be read as a name of weights; give another" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["data"]


def test_evaluate_calibrates_a_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On photos of which the network gets some wrong: noise and the sample, labelled as it comes."""
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    for index in range(200):
        folder = tmp_path / "photos" / resolve(None, "cifar10").labels[index % 10]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4, generator=generator), (32, 32), mode="bicubic")
        values = pixels.clamp(0, 1).mul(255).byte()[0].permute(1, 2, 0).flatten().tolist()
        image = Image.frombytes("RGB", (32, 32), bytes(values))
        if index % 10 == 3:
            image = open_photo(CAT).crop((index % 40, 0, 300, 300)).resize((32, 32))
        image.save(folder / f"{index}.png")
    output = tmp_path / "calibrated.pth"
    photos = str(tmp_path / "photos")
    assert main(["evaluate", photos, "--weights", "cifar10", "--calibrate", "-o", str(output), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["calibration"]
    found = resolve(None, str(output))
    assert found.temperature == told["temperature"] != 1
    assert told["after"]["negative_log_likelihood"] < told["before"]["negative_log_likelihood"]
    assert found.labels == resolve(None, "cifar10").labels
    assert found.preprocess == resolve(None, "cifar10").preprocess
    assert main(["evaluate", photos, "--weights", str(output), "--calibrate", "-o", str(output), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["calibration"]
    assert again["temperature"] == pytest.approx(told["temperature"], rel=1e-9)  # of the logits, not of the last fit
    assert again["before"] == again["after"]
    assert main(["evaluate", photos, "--weights", "cifar10", "--calibrate"]) == 1
    assert "go together" in capsys.readouterr().err
