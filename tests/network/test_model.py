"""The network is torchvision's, bit for bit."""

import copy
from typing import Any, ClassVar

import pytest
import torch
import torchvision.models
from support.skips import needs_dynamic_sizes
from torch import Tensor, nn

from shufflenetv2.network.model import SPECS, ShuffleNetV2, Spec, interleave

# The smallest odd size runs always, for every width and dtype; the others, and all threads, in the whole suite.
SIZES = [
    (33, 47),
    *(pytest.param(size, marks=pytest.mark.slow) for size in [(224, 224), (192, 192), (97, 131), (64, 64), (32, 32)]),
]
SMALL = Spec(stage_channels=(10, 30, 62), head_channels=40, stem_channels=7, stage_units=(1, 2, 1))

pytestmark = pytest.mark.usefixtures("one_thread")


def pair(arch: str, dtype: torch.dtype = torch.float32) -> tuple[ShuffleNetV2, nn.Module]:
    """Our network and torchvision's, built from the same seed."""
    torch.manual_seed(0)
    ours = ShuffleNetV2(SPECS[arch])
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, arch)()
    return ours.to(dtype), theirs.to(dtype)


def randomise_statistics(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)


def run(model: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the gradients with respect to the images and every parameter."""
    images = images.clone().requires_grad_()
    logits = model(images)
    gradients = torch.autograd.grad(logits.square().sum(), [images, *model.parameters()])
    return logits, list(gradients)


@pytest.mark.parametrize("arch", SPECS)
def test_same_seed_gives_torchvisions_state_dict(arch: str) -> None:
    ours, theirs = (model.state_dict() for model in pair(arch))
    assert list(ours) == list(theirs)
    for key, tensor in ours.items():
        assert torch.equal(tensor, theirs[key]), key


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("arch", SPECS)
def test_outputs_and_gradients_equal_torchvisions(arch: str, dtype: torch.dtype, size: tuple[int, int]) -> None:
    models = pair(arch, dtype)
    for model in models:
        randomise_statistics(model)
    for batch in (1, 3):
        images = torch.randn(batch, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(2))
        for training in (True, False):
            for model in models:
                model.train(training)
            if training and batch == 1 and size == (32, 32):  # one value per channel: BatchNorm refuses
                for model in models:
                    with pytest.raises(ValueError, match="more than 1 value per channel"):
                        model(images)
                continue
            (our_logits, our_gradients), (their_logits, their_gradients) = (run(model, images) for model in models)
            assert torch.equal(our_logits, their_logits)
            for index, (mine, other) in enumerate(zip(our_gradients, their_gradients, strict=True)):
                assert torch.equal(mine, other), f"gradient {index}, training={training}, batch={batch}"
    ours, theirs = (model.state_dict() for model in models)
    for key, tensor in ours.items():  # the running statistics after training steps
        assert torch.equal(tensor, theirs[key]), key


@pytest.mark.slow
def test_several_threads_change_nothing() -> None:
    torch.set_num_threads(2)
    try:
        test_outputs_and_gradients_equal_torchvisions("shufflenet_v2_x1_0", torch.float32, (224, 224))
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("channels_last", [False, True])
def test_interleave_is_concat_and_shuffle_and_keeps_the_layout(channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.arange(2 * 10 * 3 * 4.0).view(2, 10, 3, 4).to(memory_format=layout)
    left, right = images[:, :5], images[:, 5:].clone(memory_format=layout)
    shuffled = interleave(left, right)
    assert torch.equal(shuffled, torch.stack((left, right), 2).reshape(2, 10, 3, 4))
    assert shuffled.is_contiguous(memory_format=layout)


def test_channels_last_stays_channels_last_and_agrees() -> None:
    model = pair("shufflenet_v2_x1_0", torch.float64)[0].eval()
    images = torch.randn(2, 3, 97, 131, dtype=torch.float64)
    features = model.forward_features(images.to(memory_format=torch.channels_last))
    for ours, plain in zip(features, model.forward_features(images), strict=True):
        assert ours.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


class Noted(torch.autograd.Function):
    """The identity, which notes whether its gradient lies channels-last."""

    layouts: ClassVar[list[bool]] = []

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        Noted.layouts.append(gradient.is_contiguous(memory_format=torch.channels_last))
        return gradient


def test_channels_last_gradients_agree_and_are_gathered() -> None:
    """What comes back to a branch is every second number of a tensor, and to conv5 one number repeated."""
    model = pair("shufflenet_v2_x1_0", torch.float64)[0].train()
    images = torch.randn(3, 3, 97, 131, dtype=torch.float64)
    _, plain = run(model, images)
    Noted.layouts.clear()
    for name, module in model.named_modules():
        if name.endswith(("branch1", "branch2")) or name == "conv5":
            module.register_forward_hook(lambda module, inputs, output: Noted.apply(output))
    _, gathered = run(model, images.to(memory_format=torch.channels_last))
    assert Noted.layouts == [True] * (16 + 3 + 1)
    for ours, expected in zip(gathered, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_gradients_through_torch_func(evaluated: tuple[ShuffleNetV2, Tensor, Tensor]) -> None:
    model, images, _ = evaluated
    weights = {"fc.weight": model.fc.weight.detach(), "conv1.0.weight": model.conv1[0].weight.detach()}

    def total(weights: dict[str, Tensor], image: Tensor) -> Tensor:
        logits: Tensor = torch.func.functional_call(model, weights, (image[None],))
        return logits.square().sum()

    inputs = images.to(memory_format=torch.channels_last)
    per_image = torch.func.vmap(torch.func.grad(total), (None, 0))(weights, inputs)
    for index, image in enumerate(inputs):
        single = torch.autograd.grad(model(image[None]).square().sum(), [model.fc.weight, model.conv1[0].weight])
        for expected, name in zip(single, weights, strict=True):
            torch.testing.assert_close(per_image[name][index], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("arch", SPECS)
def test_forward_features_strides_and_channels(arch: str) -> None:
    model = ShuffleNetV2(SPECS[arch]).eval()
    shapes = [tuple(each.shape) for each in model.forward_features(torch.randn(1, 3, 97, 131))]
    channels = (*SPECS[arch].stage_channels, SPECS[arch].head_channels)
    sizes = [(-(-97 // stride), -(-131 // stride)) for stride in (8, 16, 32, 32)]
    assert shapes == [(1, count, *size) for count, size in zip(channels, sizes, strict=True)]


def test_no_classes_gives_the_pooled_features() -> None:
    torch.manual_seed(0)
    headless = ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], num_classes=0).eval()
    torch.manual_seed(0)
    whole = ShuffleNetV2(SPECS["shufflenet_v2_x0_5"]).eval()
    images = torch.randn(2, 3, 64, 64)
    pooled = headless(images)
    assert pooled.shape == (2, 1024)
    assert torch.equal(whole.fc(pooled), whole(images))


def test_custom_widths() -> None:
    assert ShuffleNetV2(SMALL, num_classes=3, in_channels=2)(torch.randn(2, 2, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize("channels", [(47, 96, 192), (48, 95, 192), (48, 96, 191), (0, 96, 192)])
def test_odd_stage_widths_are_refused(channels: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="even number"):
        Spec(stage_channels=channels, head_channels=1024)


@pytest.mark.parametrize("arguments", [{"num_classes": -1}, {"in_channels": 0}])
def test_impossible_ends_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], **arguments)


@pytest.fixture(scope="module")
def evaluated() -> tuple[ShuffleNetV2, Tensor, Tensor]:
    model = pair("shufflenet_v2_x0_5")[0].eval()
    images = torch.randn(2, 3, 97, 131)
    with torch.no_grad():
        return model, images, model(images)


def test_deep_copy_is_independent(evaluated: tuple[ShuffleNetV2, Tensor, Tensor]) -> None:
    model, images, logits = evaluated
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied.fc.weight.zero_()
        assert torch.equal(model(images), logits)
        assert not torch.equal(copied(images), logits)


@pytest.mark.slow
def test_scripts_and_traces(evaluated: tuple[ShuffleNetV2, Tensor, Tensor]) -> None:
    model, images, logits = evaluated
    with torch.no_grad():
        assert torch.equal(torch.jit.script(model)(images), logits)
        assert torch.equal(torch.jit.trace(model, images)(images), logits)


def test_symbolic_trace_serves_both_layouts(evaluated: tuple[ShuffleNetV2, Tensor, Tensor]) -> None:
    model, images, logits = evaluated
    graph = torch.fx.symbolic_trace(model)
    with torch.no_grad():
        assert torch.equal(graph(images), logits)
        torch.testing.assert_close(graph(images.to(memory_format=torch.channels_last)), logits, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@needs_dynamic_sizes
def test_exports_with_dynamic_batch_and_size(evaluated: tuple[ShuffleNetV2, Tensor, Tensor]) -> None:
    model, images, _ = evaluated
    dimensions = {0: torch.export.Dim("batch"), 2: torch.export.Dim("h", min=33), 3: torch.export.Dim("w", min=33)}
    exported = torch.export.export(model, (images,), dynamic_shapes=(dimensions,)).module()
    for shape in [(1, 3, 33, 33), (5, 3, 64, 200)]:
        other = torch.randn(shape)
        with torch.no_grad():
            assert torch.equal(exported(other), model(other))


@pytest.mark.slow
def test_compiles_without_graph_breaks(evaluated: tuple[ShuffleNetV2, Tensor, Tensor]) -> None:
    model, images, logits = evaluated
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True)(images), logits, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_training_compiles_without_graph_breaks() -> None:
    model = ShuffleNetV2(SMALL).double().train()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64).to(memory_format=torch.channels_last)
    _, expected = run(model, images)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for ours, eager in zip(run(compiled, images)[1], expected, strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-9, atol=1e-9)


def test_runs_under_autocast(evaluated: tuple[ShuffleNetV2, Tensor, Tensor]) -> None:
    model, images, logits = evaluated
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = model(images)
    assert half.dtype is torch.bfloat16
    # bfloat16 keeps 8 bits; the logits of a random network are small, so compare against their spread.
    assert (half.float() - logits).abs().max() < 0.05 * (logits.max() - logits.min())
