"""What holds on the CPU holds on a GPU. Each test runs on the CPU too, so that it is known to work itself.

Those on a GPU have the marker ``cuda``; without one they are skipped, visibly.
"""

import copy
import pickle
import threading
from collections.abc import Iterator

import pytest
import torch
from support.colours import assert_equal, load, make_colours, train
from support.networks import randomise, relative_error
from support.processes import ROOT, run_python
from torch import Tensor

from shufflenetv2.__main__ import main
from shufflenetv2.devices import memory_told
from shufflenetv2.entrypoints import classifier, shufflenet_v2_x0_5
from shufflenetv2.errors import DeviceError
from shufflenetv2.network.deploy import deploy
from shufflenetv2.network.model import SPECS, ShuffleNetV2
from shufflenetv2.package import sample_photos

CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")],
)
pytestmark = pytest.mark.parametrize("device", ["cpu", CUDA])


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Without TF32, whatever the machine's default."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module", params=SPECS)
def network(request: pytest.FixtureRequest) -> ShuffleNetV2:
    """One a width, in float64 on the CPU."""
    return randomise(ShuffleNetV2(SPECS[request.param], 11).double())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 64, 64), (3, 49, 67)])
@torch.inference_mode()
def test_plain_and_deploy_form_agree_with_the_cpu(
    network: ShuffleNetV2,
    device: str,
    dtype: torch.dtype,
    tolerance: float,
    layout: torch.memory_format,
    batch: int,
    height: int,
    width: int,
) -> None:
    images = torch.randn(batch, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = network(images)
    for model in (copy.deepcopy(network), deploy(network)):
        moved = model.to(device, dtype).to(memory_format=layout)
        got = moved(images.to(device, dtype).contiguous(memory_format=layout))
        assert got.device.type == device
        assert relative_error(got.double().cpu(), expected) < tolerance


@pytest.mark.slow
@torch.inference_mode()
def test_a_batch_of_300(device: str) -> None:
    network = randomise(ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], 11))
    images = torch.randn(300, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = network(images)
    for model in (copy.deepcopy(network), deploy(network)):
        assert relative_error(model.to(device)(images.to(device)).cpu(), expected) < 1e-5


def test_gradients_agree_with_the_cpu(device: str) -> None:
    network = randomise(ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], 5).double()).train()
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradients = []
    for place in ("cpu", device):
        model = copy.deepcopy(network).to(place).to(memory_format=torch.channels_last)
        logits = model(images.to(place).contiguous(memory_format=torch.channels_last))
        torch.nn.functional.cross_entropy(logits, torch.arange(4, device=place)).backward()
        gradients.append([parameter.grad.cpu() for parameter in model.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) == len([*network.parameters()])
    for expected, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.inference_mode()
def test_half_precision_gives_the_same_first_label(device: str, dtype: torch.dtype) -> None:
    classify = classifier(weights="cifar10", device="cpu")
    photos = classify.transform(sample_photos())
    crops = torch.cat([photos, photos.flip(-1), photos.roll(9, -1), photos.roll(9, -2)])
    logits = classify.model(crops)
    model = shufflenet_v2_x0_5(weights="cifar10", deploy=True).to(device, dtype)
    got = model(crops.to(device, dtype)).float().cpu()
    close = logits.topk(2).values.diff().abs().flatten() < 0.05 * (logits.max() - logits.min())
    assert bool(((got.argmax(1) == logits.argmax(1)) | close).all())
    assert not bool(close.all())


def test_a_classifier_is_pickled_and_rebuilt_where_it_was(device: str) -> None:
    classify = classifier(weights="cifar10", device=device, top=2)
    rebuilt = pickle.loads(pickle.dumps(classify))
    assert rebuilt.device.type == device
    assert next(rebuilt.model.parameters()).device.type == device
    assert rebuilt(sample_photos()) == classify(sample_photos())


def test_threads_share_a_classifier(device: str) -> None:
    classify = classifier(weights="cifar10", device=device)
    photos = sample_photos()
    alone = [classify(photo) for photo in photos]
    together: list[object] = [None] * 8

    def work(index: int) -> None:
        together[index] = [classify(photo) for photo in photos]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [alone] * 8


@pytest.mark.slow
def test_training_with_amp_is_resumed(device: str, tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the CPU to the last bit; a GPU adds some gradients in an order of its own."""
    data = make_colours(tmp_path / "data", 8)
    options = ["--device", device, "--amp", "--epochs"]
    assert train(data, tmp_path / "whole", *options, "2") == 0
    assert train(data, tmp_path / "cut", *options, "1") == 0
    assert train(data, tmp_path / "again", *options, "1") == 0
    for name in ("cut", "again"):
        assert train(data, tmp_path / name, *options, "2", "--resume") == 0
    capsys.readouterr()
    first, second = (load(tmp_path / name / "best.pth") for name in ("cut", "again"))
    if device == "cpu":
        assert_equal(first, second)
    for key, tensor in first["state_dict"].items():  # type: ignore[attr-defined]
        torch.testing.assert_close(second["state_dict"][key], tensor, rtol=0.05, atol=0.05)  # type: ignore[index]
    found = []
    for place in ("cpu", device):
        assert main(["evaluate", str(data), "--weights", str(tmp_path / "cut/best.pth"), "--device", place]) == 0
        found.append(capsys.readouterr().out.splitlines()[:3])
    assert found[0] == found[1]


@pytest.mark.slow
def test_hub_load_under_a_default_device(device: str) -> None:
    program = f"""
import torch
with torch.device({device!r}):
    model = torch.hub.load({str(ROOT)!r}, "shufflenet_v2_x0_5", weights="cifar10", source="local")
    deployed = torch.hub.load({str(ROOT)!r}, "shufflenet_v2_x0_5", weights="cifar10", deploy=True, source="local")
    images = torch.rand(2, 3, 64, 64)
with torch.inference_mode():
    print(images.device.type, model(images).shape, deployed(images).device.type)
"""
    assert run_python(program).stdout == f"{device} torch.Size([2, 10]) {device}\n"


def test_no_memory_left_says_which_batch_to_try(device: str) -> None:
    """The error is torch's own; only the cause is arranged, since no test should fill a machine's memory."""

    def fills(images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nand more")

    told = rf"{device} has no memory left for 16 .* try 8 at once"
    with pytest.raises(DeviceError, match=told) as caught, memory_told(torch.device(device), 16):
        fills(torch.zeros(1))
    assert "Tried to allocate 20.00 GiB" in str(caught.value)
    assert "\n" not in str(caught.value)
