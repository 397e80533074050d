"""Half precision and the runner: float32 outside, whatever is computed in; a full memory is told with what to try."""

import pickle
from pathlib import Path

import pytest
import torch
from support.networks import TINY, randomise, relative_error
from torch import nn

from shufflenetv2.__main__ import main
from shufflenetv2.entrypoints import classifier
from shufflenetv2.errors import DeviceError
from shufflenetv2.inference.explain import _palette
from shufflenetv2.inference.runner import Runner
from shufflenetv2.network.deploy import deploy
from shufflenetv2.network.model import ShuffleNetV2
from shufflenetv2.package import sample_photos

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_images_come_in_the_dtype_of_the_network_and_logits_as_float32(dtype: torch.dtype) -> None:
    model = deploy(randomise(ShuffleNetV2(TINY, 7)))
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model(images)
    got = Runner(model.to(dtype), CPU)(images)
    assert got.dtype is torch.float32
    assert not got.requires_grad
    assert relative_error(got, expected) < 0.05  # bfloat16 keeps 8 bits
    if dtype is not torch.float64:
        assert not torch.equal(got, expected)


def test_a_network_that_was_exchanged_is_the_one_that_computes() -> None:
    classify = classifier(weights="cifar10", device="cpu")
    photo = sample_photos()[0]
    first = classify.probabilities(photo)
    classify.model = classifier(weights="cifar10", device="cpu", precision="bfloat16").model
    assert not torch.equal(classify.probabilities(photo), first)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("deploy", [True, False])
def test_a_classifier_in_half_precision(precision: str, deploy: bool) -> None:
    classify = classifier(weights="cifar10", device="cpu", precision=precision, deploy=deploy)
    exact = classifier(weights="cifar10", device="cpu", deploy=deploy)
    assert {each.dtype for each in classify.model.parameters()} == {getattr(torch, precision)}
    photos = sample_photos()
    assert classify.probabilities(photos).dtype is torch.float32
    assert torch.allclose(classify.probabilities(photos), exact.probabilities(photos), atol=0.05)
    assert relative_error(classify.features(photos), exact.features(photos)) < 0.05
    streamed = [*classify.stream(photos, features=True)]
    assert all(result.features is not None and result.features.dtype is torch.float32 for result in streamed)
    assert [result.predictions[0].label for result in streamed] == [each[0].label for each in classify(photos)]
    rebuilt = pickle.loads(pickle.dumps(classify))
    assert rebuilt.precision == precision
    assert rebuilt(photos) == classify(photos)


def test_another_precision_is_refused_before_anything_is_fetched() -> None:
    with pytest.raises(ValueError, match=r"no precision 'int8' here; there are float32, bfloat16, float16"):
        classifier(precision="int8")
    with pytest.raises(ValueError, match=r"^onnxruntime computes in float32, float16 here, not in bfloat16$"):
        classifier(runtime="onnxruntime", precision="bfloat16")


class Wrapped(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)  # type: ignore[no-any-return]


def test_a_network_in_half_precision_may_be_wrapped() -> None:
    classify = classifier(weights="cifar10", device="cpu", precision="bfloat16")
    photo = sample_photos()[0]
    expected = classify.probabilities(photo)
    classify.model = Wrapped(classify.model)
    assert torch.equal(classify.probabilities(photo), expected)


def test_images_that_no_transform_has_made_are_refused() -> None:
    classify = classifier(weights="cifar10", device="cpu")
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    for ask in (classify.predict, classify.logits):
        with pytest.raises(TypeError, match=r"preprocessed images hold float32, .* got torch\.uint8; a photo of uint8"):
            ask(pixels)
    assert classify.predict(classify.transform(pixels)) == classify(pixels)


def test_a_compiled_network_answers_and_stays_whole() -> None:
    classify = classifier(weights="cifar10", device="cpu")
    photo = sample_photos()[0]
    expected = classify(photo)[0].label
    classify.model = torch.compile(classify.model, backend="eager")  # type: ignore[assignment]
    assert classify(photo)[0].label == expected
    for ask in (classify.features, classify.explain):
        with pytest.raises(ValueError, match="fc, "):
            ask(photo)
    assert classify(photo)[0].label == expected
    assert len(dict(classify.model._orig_mod.named_children())) > 1  # type: ignore[union-attr,operator]


def test_the_default_device_does_not_matter() -> None:
    classify = classifier(weights="cifar10", device="cpu")
    photo = sample_photos()[0]
    expected, overlay = classify.probabilities(photo), classify.explain(photo).overlay()
    _palette.cache_clear()
    with torch.device("meta"):  # no number lies there
        assert torch.equal(classify.probabilities(photo), expected)
        assert classify.features([photo]).device == CPU
        assert classify.explain(photo).overlay().tobytes() == overlay.tobytes()


def test_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    photo = str(sample_photos()[0])
    shown = []
    for precision in ("float32", "bfloat16"):
        assert main(["classify", photo, "--weights", "cifar10", "--device", "cpu", "--precision", precision]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] != shown[1]
    assert shown[0].splitlines()[1].split()[1] == shown[1].splitlines()[1].split()[1]


def test_no_memory_left_is_told_with_the_batch_to_try() -> None:
    class Full(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    classify = classifier(weights="cifar10", device="cpu")
    classify.model = Full()
    with pytest.raises(DeviceError, match=r"no memory left for 2 images at once .*; try 1 at once"):
        classify(sample_photos())
    with pytest.raises(DeviceError, match=r"no memory left for 1 image at once .*smaller images"):
        classify(sample_photos()[0])


def test_logits_are_float32_whatever_is_computed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What evaluate's report, comparison and calibration read."""
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "photo.jpg").write_bytes(sample_photos()[0].read_bytes())
    call = ["evaluate", str(tmp_path), "--weights", "cifar10", "--device", "cpu", "--precision", "bfloat16"]
    assert main([*call, "--against", "cifar10"]) == 0
    assert "1 of 2" in capsys.readouterr().out
