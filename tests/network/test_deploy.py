"""The deploy form: the plain network's function in float64, in every form a module can take."""

import copy
import io
import os
import platform

import pytest
import torch
from support.networks import TINY, images, randomise, relative_error
from support.processes import run_python
from support.skips import needs_dynamic_sizes
from torch import nn

from shufflenetv2.network import deploy_form as layers
from shufflenetv2.network.deploy import deploy
from shufflenetv2.network.deploy_form import routing
from shufflenetv2.network.formats.onnx import pad_channels
from shufflenetv2.network.model import SPECS, ShuffleNetV2, Spec, interleave

ODD = Spec(stage_channels=(10, 22, 38), head_channels=37, stem_channels=7, stage_units=(2, 9, 1))
NARROW = Spec(stage_channels=(2, 6, 4), head_channels=5, stem_channels=1, stage_units=(5, 6, 3))

pytestmark = pytest.mark.usefixtures("one_thread")


def randomised(
    spec: Spec, num_classes: int = 11, in_channels: int = 3, dtype: torch.dtype = torch.float64
) -> ShuffleNetV2:
    return randomise(ShuffleNetV2(spec, num_classes, in_channels).to(dtype))


SMALL_SPECS = [pytest.param(spec, id=name) for name, spec in (("odd", ODD), ("narrow", NARROW), ("tiny", TINY))]
PAPER_SPECS = [pytest.param(spec, id=name, marks=pytest.mark.slow) for name, spec in SPECS.items()]


@pytest.mark.parametrize("size", [(224, 224), (97, 131), (33, 64)], ids=str)
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("spec", SMALL_SPECS + PAPER_SPECS)
@torch.inference_mode()
def test_same_function_in_float64(spec, batch, size):
    model = randomised(spec)
    photos = images(batch, *size)
    # Two summation orders of float64 differ by some 1e-15 a layer.
    assert relative_error(deploy(model)(photos), model(photos)) < 1e-12


@pytest.mark.parametrize("num_classes", [0, 1, 1000])
@pytest.mark.parametrize("in_channels", [1, 2, 3, 5])
@torch.inference_mode()
def test_any_classes_and_input_channels(num_classes, in_channels):
    model = randomised(TINY, num_classes, in_channels)
    photos = images(2, 64, 64, in_channels)
    deployed = deploy(model)
    assert (deployed.num_classes, deployed.in_channels) == (num_classes, in_channels)
    assert relative_error(deployed(photos), model(photos)) < 1e-12


@torch.inference_mode()
def test_both_memory_layouts_of_the_input():
    deployed = deploy(randomised(TINY))
    photos = images(2, 97, 131)
    features = []
    deployed.stage3.register_forward_hook(lambda module, args, output: features.append(output))
    logits = [deployed(photos), deployed(photos.contiguous(memory_format=torch.channels_last))]
    assert relative_error(*logits) < 1e-12
    assert all(feature.is_contiguous(memory_format=torch.channels_last) for feature in features)


@pytest.mark.parametrize("limit", [0, 2**18], ids=["convolutions", "products"])
@pytest.mark.parametrize("size", [(64, 64), (97, 131), (33, 64)], ids=str)
def test_eager_and_recorded_forms_agree(size, limit, monkeypatch):
    """Gradients of the images keep the convolutions and the max-pool of PyTorch; without them the fast forms run."""
    monkeypatch.setattr(layers, "PRODUCT_LIMIT", limit)
    deployed = deploy(randomised(TINY))
    photos = images(2, *size)
    fast = deployed(photos)
    assert not fast.requires_grad
    general = deployed(photos.clone().requires_grad_())
    assert general.requires_grad
    assert relative_error(fast, general.detach()) < 1e-12


def test_gradients_of_the_images():
    model = randomised(TINY)
    gradients = []
    for network in (model, deploy(model)):
        photos = images(2, 64, 64).requires_grad_()
        network(photos)[:, 3].sum().backward()
        gradients.append(photos.grad)
    assert relative_error(gradients[1], gradients[0]) < 1e-12


@torch.inference_mode()
def test_large_batches_go_through_in_pieces(monkeypatch):
    deployed = deploy(randomised(TINY))
    batches = []
    deployed.conv1.register_forward_pre_hook(lambda module, args: batches.append(len(args[0])))
    photos = images(7, 64, 64)
    whole = deployed(photos)
    monkeypatch.setattr(layers, "PIXELS_AT_ONCE", 3 * 64 * 64)
    assert relative_error(deployed(photos), whole) < 1e-12
    assert batches == [7, 3, 3, 1]
    assert deployed(photos[:0]).shape == (0, 11)


@pytest.mark.parametrize("height", [1, 2, 7, 8])
@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_max_pool_equals_pytorchs(height, width):
    features = images(2, height, width, 5).contiguous(memory_format=torch.channels_last)
    expected = nn.functional.max_pool2d(features, 3, 2, 1)
    assert torch.equal(layers.MaxPool()(features.clone()), expected)


@torch.inference_mode()
def test_float32_of_the_paper_networks():
    model = randomised(SPECS["shufflenet_v2_x1_0"], dtype=torch.float32)
    photos = images(2, 224, 224, dtype=torch.float32)
    assert relative_error(deploy(model)(photos), model(photos)) < 1e-4  # float32 rounding through some 50 layers


@pytest.mark.parametrize("spec", SMALL_SPECS)
@torch.inference_mode()
def test_padded_channels_change_nothing(spec):
    deployed = deploy(randomised(spec))
    padded = pad_channels(deployed)
    assert padded.conv1.out_channels == 16
    assert padded.stage2.branch2[2].groups == 16  # depthwise
    for size in ((64, 64), (97, 131)):
        photos = images(2, *size)
        assert relative_error(padded(photos), deployed(photos)) < 1e-12
    assert deployed.conv1.out_channels == spec.stem_channels


def test_keeps_the_dtype():
    deployed = deploy(randomised(TINY, dtype=torch.bfloat16))
    assert {parameter.dtype for parameter in deployed.parameters()} == {torch.bfloat16}


def test_leaves_the_original_and_the_random_state_alone():
    model = randomised(TINY)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    deployed = deploy(model)
    assert torch.equal(torch.get_rng_state(), random_state)
    for parameter in deployed.parameters():
        parameter.zero_()
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@torch.inference_mode()
def test_training_mode_changes_nothing():
    deployed = deploy(randomised(TINY))
    assert not deployed.training
    photos = images(2, 64, 64)
    expected = deployed(photos)
    assert torch.equal(deployed.train()(photos), expected)


def test_asks_for_no_gradient():
    assert not deploy(randomised(TINY))(images(1, 64, 64)).requires_grad


def test_refuses_training_mode():
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        deploy(randomised(TINY).train())
    partly = randomised(TINY)
    partly.conv1[1].train()
    with pytest.raises(ValueError, match="training mode"):
        deploy(partly)


def test_refuses_other_modules():
    with pytest.raises(TypeError, match="is the deploy form already"):
        deploy(deploy(randomised(TINY)))  # type: ignore[arg-type]


@torch.inference_mode()
def test_state_dict_round_trip():
    deployed = deploy(randomised(TINY))
    file = io.BytesIO()
    torch.save(deployed.state_dict(), file)
    file.seek(0)
    other = deploy(ShuffleNetV2(TINY, num_classes=11).double().eval())
    other.load_state_dict(torch.load(file, weights_only=True))
    photos = images(2, 64, 64)
    assert relative_error(other(photos), deployed(photos)) < 1e-12
    assert not set(deployed.state_dict()) & (set(ShuffleNetV2(TINY).state_dict()) - {"fc.weight", "fc.bias"})


@torch.inference_mode()
def test_deepcopy():
    deployed = deploy(randomised(TINY))
    photos = images(2, 64, 64)
    assert torch.equal(copy.deepcopy(deployed)(photos), deployed(photos))


@torch.inference_mode()
@pytest.mark.parametrize("spec", SMALL_SPECS)
def test_scripts(spec):
    deployed = deploy(randomised(spec))
    scripted = torch.jit.script(deployed)
    for size in ((64, 64), (97, 131)):
        photos = images(2, *size)
        assert relative_error(scripted(photos), deployed(photos)) < 1e-12


@needs_dynamic_sizes
@torch.inference_mode()
def test_exports_with_dynamic_batch_and_size():
    deployed = deploy(randomised(TINY))
    dynamic = {
        0: torch.export.Dim("batch"),
        2: torch.export.Dim("height", min=33),
        3: torch.export.Dim("width", min=33),
    }
    program = torch.export.export(deployed, (images(2, 64, 64),), dynamic_shapes=(dynamic,))
    for shape in ((1, 33, 33), (5, 97, 131), (2, 224, 224)):
        photos = images(*shape)
        assert relative_error(program.module()(photos), deployed(photos)) < 1e-12


@pytest.mark.slow
@torch.inference_mode()
def test_compiles():
    deployed = deploy(randomised(TINY))
    compiled = torch.compile(deployed, fullgraph=True)
    for batch in (2, 3):
        photos = images(batch, 97, 131)
        assert relative_error(compiled(photos), deployed(photos)) < 1e-12


@pytest.mark.parametrize(("branch_channels", "basic_units"), [(58, 3), (5, 8), (1, 4), (7, 0)])
def test_routing_follows_the_shuffle(branch_channels, basic_units):
    """Channels carry their identity through chunk and interleave as numbers, as the plain network moves them."""
    identity = torch.arange((basic_units + 2) * branch_channels).view(basic_units + 2, 1, branch_channels, 1, 1)
    plan = routing(branch_channels, basic_units)
    inboxes: list[list[torch.Tensor]] = [[] for _ in plan.orders]

    features = interleave(identity[0], identity[1])
    reads = []
    for unit in range(basic_units):
        passed, convolved = features.chunk(2, dim=1)
        reads.append(convolved)
        features = interleave(passed, identity[unit + 2])
    reads.append(features)
    for output, route in zip(identity, plan.routes, strict=True):
        assert min(route.sizes) > 0
        for piece, reader in zip(output.split(route.sizes, dim=1), route.readers, strict=True):
            inboxes[reader].append(piece)
    for inbox, order, read in zip(inboxes, plan.orders, reads, strict=True):
        assert torch.equal(torch.cat(inbox, dim=1), read[:, order])


PAGE_FAULTS = """
import resource

def megabytes_of_page_faults(step):
    for repetition in range(10):
        if repetition == 5:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 5 * resource.getpagesize() / 1e6
"""
# Two activations of 19 MB, as the stem makes them at batch 16, from the C library itself: PyTorch's own small blocks
# between them now and then happen to hold the memory in place.
BLOCKS = """
import ctypes, sys, torch
from shufflenetv2.network.deploy_form import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
if sys.argv[1] == "prepared":
    keep_freed_memory()

def step():
    blocks = [libc.malloc(19_000_000) for _ in range(2)]
    for block in blocks:
        ctypes.memset(block, 1, 19_000_000)
    for block in reversed(blocks):
        libc.free(block)

print(megabytes_of_page_faults(step))
"""
FORWARD_PASSES = """
import torch
from shufflenetv2 import SPECS
from shufflenetv2 import ShuffleNetV2
from shufflenetv2 import deploy
model = torch.jit.trace(deploy(ShuffleNetV2(SPECS["shufflenet_v2_x0_5"]).eval()), torch.zeros(1, 3, 224, 224))
images = torch.zeros(16, 3, 224, 224)
with torch.inference_mode():
    print(megabytes_of_page_faults(lambda: model(images)))
"""


def page_faults(program: str, *arguments: str) -> float:
    """What ``program`` prints in a process of its own, whose allocator is as Python starts it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    environment["PYTHONWARNINGS"] = "ignore"  # torch.jit's deprecation
    return float(run_python(PAGE_FAULTS + program, *arguments, env=environment).stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators than glibc's keep memory by themselves")
def test_forward_passes_touch_no_fresh_memory():
    assert page_faults(BLOCKS, "unprepared") > 10  # this shows that the test measures something
    assert page_faults(BLOCKS, "prepared") < 5
    assert page_faults(FORWARD_PASSES) < 5
