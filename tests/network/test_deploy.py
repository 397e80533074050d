"""The deploy form: the plain network's function in float64, in every form a module can take."""

import copy
import io
import os
import platform
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.networks import TINY, images, randomise, relative_error
from support.processes import ROOT, run_python
from support.repository import copy_repository
from support.skips import needs_dynamic_sizes
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from shufflenetv2.network import deploy_form as layers
from shufflenetv2.network.deploy import deploy, deploy_own
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


@pytest.mark.parametrize("form", [lambda model: model, torch.jit.script], ids=["eager", "script"])
def test_one_image_alone_is_refused(form):
    deployed = form(deploy(randomised(TINY)))
    with pytest.raises((ValueError, torch.jit.Error), match=r"\(N, C, H, W\), got \[3, 64, 64\]; one image alone is"):
        deployed(images(1, 64, 64)[0])


@pytest.mark.parametrize("limit", [0, 2**18], ids=["convolutions", "products"])
@pytest.mark.parametrize("size", [(64, 64), (97, 131), (33, 64)], ids=str)
def test_eager_and_recorded_forms_agree(size, limit, monkeypatch):
    """Gradients of the images keep the convolutions and the max-pool of PyTorch; without them the fast forms run."""
    monkeypatch.setattr(layers.is_small, "__defaults__", (limit,))
    deployed = deploy(randomised(TINY))
    photos = images(2, *size)
    with Operators() as operators:
        fast = deployed(photos)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in deployed.modules())
    assert (operators.names["convolution"] == convolutions) == (limit == 0)
    assert not fast.requires_grad
    general = deployed(photos.clone().requires_grad_())
    assert general.requires_grad
    assert relative_error(fast, general.detach()) < 1e-12


class Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("gradient", [False, True])
def test_the_fast_forms_run_where_they_may(gradient):
    """As matrix products, each 1x1 convolution of a small input takes half the time; with gradients they take more."""
    deployed = deploy(randomised(TINY))
    pointwise = sum(isinstance(module, layers.Pointwise) for module in deployed.modules())
    convolutions = sum(isinstance(module, nn.Conv2d) for module in deployed.modules())
    photos = images(2, 64, 64).requires_grad_(gradient)
    with Operators() as ran:
        deployed(photos)
    assert ran.names["addmm"] == 1 + (0 if gradient else pointwise)  # one is the classifier
    assert ran.names["convolution"] == convolutions - (0 if gradient else pointwise)
    assert ran.names["maximum"] == (0 if gradient else 2)
    assert ran.names["max_pool2d_with_indices"] == (1 if gradient else 0)


def test_gradients_of_the_images():
    model = randomised(TINY)
    gradients = []
    for network in (model, deploy(model)):
        photos = images(2, 64, 64).requires_grad_()
        network(photos)[:, 3].sum().backward()
        gradients.append(photos.grad)
    assert relative_error(gradients[1], gradients[0]) < 1e-12


def test_functional_transforms():
    model = randomised(TINY).requires_grad_(False)
    deployed = deploy(model)
    photos, tangents = images(2, 65, 97), images(2, 65, 97).flip(0)
    mapped = torch.vmap(lambda photo: deployed(photo[None])[0])(photos)
    assert relative_error(mapped, model(photos)) < 1e-12
    (_, got), (_, expected) = (torch.func.jvp(each, (photos,), (tangents,)) for each in (deployed, model))
    assert relative_error(got, expected) < 1e-12
    got, expected = (torch.func.grad(lambda x, each=each: each(x)[:, 3].sum())(photos) for each in (deployed, model))
    assert relative_error(got, expected) < 1e-12


@torch.inference_mode()
def test_hooks_keep_what_they_saw():
    """But for a ReLU, which works in place here as it does in the plain network."""
    deployed = deploy(randomised(TINY))
    kept = {}
    for name, module in deployed.named_modules():
        module.register_forward_hook(
            lambda module, args, output, name=name: kept.update({name: (output, output.clone())})
        )
    deployed(images(2, 65, 97))
    overwritten = {name for name, (output, before) in kept.items() if not torch.equal(output, before)}
    before_relu = {"conv5"}
    for name, module in deployed.named_modules():
        members = [*module.named_children()] if isinstance(module, nn.Sequential) else []
        before_relu |= {f"{name}.{key}" for (key, _), (_, after) in pairwise(members) if isinstance(after, nn.ReLU)}
    assert len(kept) == len([*deployed.modules()]) - 3  # the lists of units are never called
    assert "conv1" not in overwritten  # the max-pool reads it
    assert overwritten <= before_relu


@pytest.mark.parametrize("spec", [*SMALL_SPECS, *(pytest.param(spec, id=name) for name, spec in SPECS.items())])
@pytest.mark.parametrize("size", [(33, 47), (65, 97)], ids=str)
@torch.inference_mode()
@pytest.mark.slow
def test_forward_features_are_the_plain_networks(spec, size, monkeypatch):
    model = randomised(spec)
    deployed = deploy(model)
    photos = images(3, *size)
    expected = model.forward_features(photos)
    for pixels in (layers.PIXELS_AT_ONCE, 33 * 47):  # the latter would send each photo by itself
        monkeypatch.setattr(layers, "PIXELS_AT_ONCE", pixels)
        for got, plain in zip(deployed.forward_features(photos), expected, strict=True):
            assert relative_error(got, plain) < 1e-12
        assert relative_error(deployed(photos), model(photos)) < 1e-12


class Backbone(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.network.forward_features(photos)


@pytest.mark.parametrize("record", ["script", "trace", "export"])
@torch.inference_mode()
def test_forward_features_can_be_recorded(record):
    model = randomised(TINY)
    backbone, photos = Backbone(deploy(model)), images(2, 65, 97)
    recorded = {
        "script": lambda: torch.jit.script(backbone),
        "trace": lambda: torch.jit.trace(backbone, photos),
        "export": lambda: torch.export.export(backbone, (photos,)).module(),
    }[record]()
    for got, plain in zip(recorded(photos), model.forward_features(photos), strict=True):
        assert relative_error(got, plain) < 1e-12


@torch.inference_mode()
def test_what_torch_compile_records_is_the_same_function(monkeypatch):
    """Eagerly, with the branches that are taken while torch.compile records; it compiles in a slow test below."""
    model, photos = randomised(TINY), images(2, 65, 97)
    deployed = deploy(model)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: False)
    assert layers.compiled_now()
    assert relative_error(deployed(photos), model(photos)) < 1e-12


class Relative(nn.Module):
    """A head that looks across the batch, and answers twice."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(features, 3), nn.Linear(features, 2)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.first(features - features.mean(0)), self.second(features)


@torch.inference_mode()
def test_the_classifier_sees_a_large_batch_as_one(monkeypatch):
    monkeypatch.setattr(layers, "PIXELS_AT_ONCE", 3 * 64 * 64)
    model = randomised(TINY).double()
    model.fc = Relative(model.spec.head_channels).double().eval()
    photos = images(7, 64, 64).double()
    for got, expected in zip(deploy(model)(photos), model(photos), strict=True):
        assert expected.std() > 1e-4
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


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
    deployed(photos[:4])
    assert batches[4:] == [2, 2]
    assert deployed(photos[:0]).shape == (0, 11)


@pytest.mark.parametrize("height", [1, 2, 7, 8])
@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_max_pool_equals_pytorchs_and_spares_its_input(height, width):
    features = images(2, height, width, 5).contiguous(memory_format=torch.channels_last)
    features[0, 1, 0, 0], features[0, 2], features[1, 3] = float("nan"), float("inf"), -float("inf")
    before = features.clone()
    expected = nn.functional.max_pool2d(features, 3, 2, 1)
    torch.testing.assert_close(layers.MaxPool()(features), expected, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(features, before, rtol=0, atol=0, equal_nan=True)


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.inference_mode()
def test_keeps_the_dtype(dtype):
    model = randomised(TINY, dtype=dtype)
    deployed = deploy(model)
    assert {parameter.dtype for parameter in deployed.parameters()} == {dtype}
    photos = images(2, 65, 97, dtype=dtype)
    bound = 10 * torch.finfo(dtype).eps  # folding rounds once where the plain network rounds at every layer
    assert relative_error(deployed(photos).double(), model.double()(photos.double())) < bound


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize(
    "surroundings",
    [
        lambda: torch.device("meta"),
        lambda: default_dtype(torch.float16),
        lambda: torch.autocast("cpu", torch.bfloat16),
        torch.inference_mode,
        torch.enable_grad,
    ],
    ids=["meta", "float16", "autocast", "inference", "gradients"],
)
@pytest.mark.parametrize("make", [deploy, deploy_own])
def test_surroundings_change_nothing(make, surroundings):
    model = randomised(TINY)
    with surroundings():
        deployed = make(model)
    assert {(each.dtype, each.device.type) for each in deployed.parameters()} == {(torch.float64, "cpu")}
    photos = images(2, 65, 97).requires_grad_()
    logits = deployed(photos)
    logits.sum().backward()  # refused by parameters made in inference mode
    assert relative_error(logits.detach(), model(photos).detach()) < 1e-12


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
def test_training_mode_changes_nothing(caplog):
    deployed = deploy(randomised(TINY))
    assert not deployed.training
    photos = images(2, 64, 64)
    expected = deployed(photos)
    assert torch.equal(deployed.eval()(photos), expected)
    assert caplog.text == ""
    assert torch.equal(deployed.train()(photos), expected)
    assert "the deploy form is for inference" in caplog.text
    assert "load the plain network (deploy=False)" in caplog.text


def test_asks_for_no_gradient():
    assert not deploy(randomised(TINY))(images(1, 64, 64)).requires_grad


OTHER_REVISION = """
import importlib, sys, torch
sys.path.insert(0, "tests")
from support.networks import images, randomise, relative_error
import shufflenetv2

hub = torch.hub.load(sys.argv[1], "shufflenet_v2_x0_5", source="local")
alias = type(hub).__module__.partition(".")[0]
assert alias.startswith("_shufflenetv2_")
hub_deploy = importlib.import_module(alias + ".network.deploy").deploy
installed = shufflenetv2.ShuffleNetV2(shufflenetv2.SPECS["shufflenet_v2_x0_5"])
torch.set_num_threads(1)
photos = images(2, 65, 97)
with torch.no_grad():
    for network, deploy in ((hub, shufflenetv2.deploy), (installed, hub_deploy)):
        network = randomise(network).double()
        assert relative_error(deploy(network)(photos), network(photos)) < 1e-12
        try:
            deploy((hub_deploy if deploy is shufflenetv2.deploy else shufflenetv2.deploy)(network))
        except TypeError as error:
            print(error)
"""


@pytest.mark.slow
def test_another_revision_of_this_package(tmp_path):
    """A network from the hub given to the installed package, and the other way round."""
    other = copy_repository(tmp_path / "other")
    with open(other / "shufflenetv2/network/model.py", "a") as file:
        file.write("# another revision\n")
    printed = run_python(OTHER_REVISION, str(other), cwd=ROOT, env={**os.environ, "TORCH_HOME": str(tmp_path)}).stdout
    assert printed.count("is the deploy form already") == 2


def test_refuses_the_deploy_form():
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
@pytest.mark.slow
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


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(branch_channels=st.integers(1, 60), basic_units=st.integers(0, 12))
@example(branch_channels=58, basic_units=3)
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
