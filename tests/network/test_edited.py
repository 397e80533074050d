"""Edited networks: ``deploy`` carries an edit over exactly, or refuses it by the name of the layer."""

import copy
import functools
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.networks import TINY, images, randomise
from torch import Tensor, nn
from torch.nn.utils import fusion, parametrizations, parametrize, prune, spectral_norm, weight_norm
from torchvision.ops import SqueezeExcitation
from torchvision.ops.misc import FrozenBatchNorm2d

from shufflenetv2.network.deploy import deploy
from shufflenetv2.network.model import ShuffleNetV2

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning:torch"),  # the older weight_norm
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch.ao.quantization
    pytest.mark.filterwarnings("ignore::UserWarning"),  # torch.ao.quantization again, of its own parts
]

Edit = Callable[[nn.Module], Any]  # changes the network, or returns another one

BRANCH = "stage3.2.branch2"  # 6 channels
TOLERANCE = 1e-9  # of the largest logit, in float64: rounding gives some 1e-14


def theirs() -> nn.Module:
    units, (stage2, stage3, stage4) = list(TINY.stage_units), TINY.stage_channels
    widths = [TINY.stem_channels, stage2, stage3, stage4, TINY.head_channels]
    return torchvision.models.ShuffleNetV2(units, widths, num_classes=5)


def ours() -> nn.Module:
    return ShuffleNetV2(TINY, num_classes=5)


BASES = {"torchvision": theirs, "ours": ours}


@functools.cache
def base(name: str) -> nn.Module:
    return randomise(BASES[name]()).double()


def put(path: str, module: nn.Module | None) -> Edit:
    parent, _, last = path.rpartition(".")

    def edit(model: nn.Module) -> None:
        model.get_submodule(parent)._modules[last] = None if module is None else copy.deepcopy(module).eval()

    return edit


def at(path: str, change: Callable[..., Any], *arguments: Any, **options: Any) -> Edit:
    """``change(module, ...)`` of the module at ``path``."""

    def edit(model: nn.Module) -> None:
        change(model.get_submodule(path), *arguments, **options)

    return edit


def every(kind: Any, change: Callable[..., Any]) -> Edit:
    def edit(model: nn.Module) -> None:
        for module in [*model.modules()]:
            if isinstance(module, kind):
                change(module)

    return edit


def all_of(*edits: Edit) -> Edit:
    def edit(model: nn.Module) -> None:
        for each in edits:
            each(model)

    return edit


def setting(**values: Any) -> Callable[[nn.Module], None]:
    def change(module: nn.Module) -> None:
        for key, value in values.items():
            setattr(module, key, value)

    return change


def biased(module: nn.Module) -> None:
    assert isinstance(module, nn.Conv2d)
    module.bias = nn.Parameter(torch.linspace(-1, 1, module.out_channels, dtype=torch.float64))


def weight_as_buffer(module: nn.Module) -> None:
    weight = module.weight.data
    del module.weight
    module.register_buffer("weight", weight)


def fused(module: nn.Module) -> None:
    """Without its normalisations, which are folded into the convolutions."""
    members: list[nn.Module] = []
    for each in module.children():
        if isinstance(each, nn.BatchNorm2d):
            members[-1] = fusion.fuse_conv_bn_eval(members[-1], each)
        else:
            members.append(each)
    module._modules = {str(index): each for index, each in enumerate(members)}


def one_relu_for_all(model: nn.Module) -> None:
    relu = nn.ReLU(inplace=True)
    for name, module in [*model.named_modules()]:
        if isinstance(module, nn.ReLU):
            parent, _, last = name.rpartition(".")
            model.get_submodule(parent)._modules[last] = relu


def renamed_units(model: nn.Module) -> None:
    units = [*model.stage3.children()]
    model.stage3 = nn.Sequential()
    for name, unit in zip("3a02", units, strict=True):
        model.stage3.add_module(name, unit)


class Twice(nn.Module):
    def forward(self, tensor: Tensor) -> Tensor:
        return tensor * 2


class DoubledLinear(nn.Linear):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) * 2


class Lora(nn.Module):
    def __init__(self, wrapped: nn.Module, down: nn.Module, up: nn.Module) -> None:
        super().__init__()
        self.wrapped, self.down, self.up = wrapped, down, up

    def forward(self, features: Tensor) -> Tensor:
        return self.wrapped(features) + self.up(self.down(features))


class InFloat32(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features.float()).double()


def quantised_head() -> nn.Module:
    head = nn.Sequential(nn.Linear(16, 5))
    return InFloat32(torch.ao.quantization.quantize_dynamic(head, {nn.Linear}, torch.qint8))


def lora_head(model: nn.Module) -> None:
    model.fc = Lora(model.fc, nn.Linear(16, 2, dtype=torch.float64), nn.Linear(2, 5, dtype=torch.float64))


def subclass(**members: Any) -> Edit:
    """The class of the network replaced by one derived from it."""

    def edit(model: nn.Module) -> None:
        model.__class__ = type("Mine", (type(model),), members)

    return edit


def normalisation(**options: Any) -> nn.Module:
    norm = nn.BatchNorm2d(6, **options, dtype=torch.float64)
    if norm.running_mean is not None:
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.5, 1.5)
    return norm


def convolution(*arguments: Any, **options: Any) -> nn.Module:
    return nn.Conv2d(*arguments, **options, dtype=torch.float64)


ACTIVATIONS = {
    **{type(each).__name__: each for each in (nn.ReLU6(), nn.Hardswish(), nn.SiLU(), nn.Identity())},
    "LeakyReLU": nn.LeakyReLU(0.1),
    "falling LeakyReLU": nn.LeakyReLU(-0.1),
}
CARRIED: dict[str, Edit] = {
    "nothing": lambda model: None,
    "bias of a 1x1 convolution": at(f"{BRANCH}.0", biased),
    "bias of a depthwise convolution": at(f"{BRANCH}.3", biased),
    "every bias": every(nn.Conv2d, biased),
    "any eps": every(nn.BatchNorm2d, setting(eps=0.1)),
    "norm without affine part": put(f"{BRANCH}.4", normalisation(affine=False)),
    "norm frozen": put(f"{BRANCH}.4", FrozenBatchNorm2d(6).double()),
    "norm synchronised": nn.SyncBatchNorm.convert_sync_batchnorm,
    "norm gone": put(f"{BRANCH}.1", nn.Identity()),
    "norms folded": every(nn.Sequential, fused),
    "pruned": every((nn.Conv2d, nn.Linear), lambda each: prune.l1_unstructured(each, "weight", 0.3)),
    "pruned twice": at(f"{BRANCH}.0", lambda each: [prune.random_unstructured(each, "weight", 0.2) for _ in "12"]),
    "pruned for good": at(f"{BRANCH}.0", lambda each: prune.remove(prune.l1_unstructured(each, "weight", 3), "weight")),
    "weight norm": every((nn.Conv2d, nn.Linear), parametrizations.weight_norm),
    "spectral norm": all_of(
        at(f"{BRANCH}.0", parametrizations.spectral_norm), at("fc", parametrizations.spectral_norm)
    ),
    "older weight norm": every((nn.Conv2d, nn.Linear), weight_norm),
    "older spectral norm": every((nn.Conv2d, nn.Linear), spectral_norm),
    "own parametrisation": at(f"{BRANCH}.0", parametrize.register_parametrization, "weight", Twice()),
    "parametrised norm": at(f"{BRANCH}.1", parametrize.register_parametrization, "bias", Twice()),
    **{f"unit with {name}": put(f"{BRANCH}.2", each) for name, each in ACTIVATIONS.items()},
    **{f"stem with {name}": put("conv1.2", each) for name, each in ACTIVATIONS.items()},
    **{f"conv5 with {name}": put("conv5.2", each) for name, each in ACTIVATIONS.items()},
    "one ReLU for all": one_relu_for_all,
    "head without bias": put("fc", nn.Linear(16, 7, bias=False, dtype=torch.float64)),
    "head with dropout": put("fc", nn.Sequential(nn.Dropout(), nn.Linear(16, 7, dtype=torch.float64))),
    "head with its own forward": put("fc", DoubledLinear(16, 7, dtype=torch.float64)),
    "head with LoRA": lora_head,
    "head gone": put("fc", nn.Identity()),
    "head scripted": lambda model: put("fc", torch.jit.script(nn.Linear(16, 7, dtype=torch.float64)))(model),
    "head quantised": lambda model: put("fc", quantised_head())(model),
    "head with a hook": at("fc", nn.Module.register_forward_hook, lambda module, args, output: output * 2),
    "head replaced on the instance": at("fc", lambda fc: setattr(fc, "forward", lambda x: F.linear(x, fc.weight * 2))),
    "small stem": all_of(at("conv1.0", setting(stride=(1, 1))), put("maxpool", nn.Identity())),
    "no max-pool": put("maxpool", nn.Identity()),
    "max-pool spelled otherwise": put("maxpool", nn.MaxPool2d((3, 3), (2, 2), (1, 1))),
    "another stem": put("conv1.0", convolution(3, 4, 5, 2, 2)),
    "grey images": put("conv1.0", convolution(1, 4, 3, 2, 1, bias=False)),
    "six channels": put("conv1.0", convolution(6, 4, 3, 2, 1, bias=False)),
    "dilated": at(f"{BRANCH}.3", setting(dilation=(2, 2), padding=(2, 2))),
    "5x5": put(f"{BRANCH}.3", convolution(6, 6, 5, padding=2, groups=6)),
    "no downsampling in a stage": all_of(
        *(at(f"stage3.0.{name}", setting(stride=(1, 1))) for name in ("branch1.0", "branch2.3"))
    ),
    "fewer units": lambda model: model.stage3.pop(3) and None,
    "more units": lambda model: model.stage3.append(copy.deepcopy(model.stage3[1])) and None,
    "one unit twice": lambda model: put("stage3.3", None)(model) or setattr(model.stage3, "3", model.stage3[1]),
    "shared weights": lambda model: setattr(model.stage3[2].branch2[0], "weight", model.stage3[1].branch2[0].weight),
    "units under other names": renamed_units,
    "narrowed inside": all_of(
        put(f"{BRANCH}.0", convolution(6, 3, 1)),
        put(f"{BRANCH}.1", nn.Identity()),
        put(f"{BRANCH}.3", convolution(3, 3, 3, padding=1, groups=3)),
        put(f"{BRANCH}.4", nn.Identity()),
        put(f"{BRANCH}.5", convolution(3, 6, 1)),
    ),
    "one number for two": all_of(
        at(f"{BRANCH}.0", setting(padding=0, stride=1)),
        at(f"{BRANCH}.3", setting(padding=1, kernel_size=3, stride=1)),
        at("maxpool", setting(stride=2, kernel_size=(3, 3))),
    ),
    "channels-last": lambda model: model.to(memory_format=torch.channels_last),
    "asking for no gradient": lambda model: model.requires_grad_(False),
    "weights as buffers": all_of(every(nn.Conv2d, weight_as_buffer), put("conv1.1", FrozenBatchNorm2d(4).double())),
    "a parameter more": lambda model: model.register_parameter("temperature", nn.Parameter(torch.ones(1))),
    "a module more, of torch's": lambda model: model.add_module("spare", nn.Linear(2, 2)),
    "a state dict hook": lambda model: model.register_state_dict_post_hook(lambda *arguments: None),
    "a subclass that changes nothing": subclass(name="mine"),
}


def forward_hook(path: str, kind: str = "register_forward_hook") -> Edit:
    return at(path, lambda module: getattr(module, kind)(lambda *arguments: None))


def replaced(path: str) -> Edit:
    def edit(model: nn.Module) -> None:
        module = model.get_submodule(path)
        before = module.forward
        module.forward = lambda tensor: before(tensor) * 2

    return edit


def overridden(*methods: str) -> Edit:
    """A subclass in which the first of ``methods`` that the network has gives twice as much."""

    def edit(model: nn.Module) -> None:
        method = next(each for each in methods if hasattr(type(model), each))
        before = getattr(type(model), method)

        def doubled(self: nn.Module, tensor: Tensor) -> Any:
            output = before(self, tensor)
            return tuple(2 * each for each in output) if isinstance(output, tuple) else 2 * output

        subclass(**{method: doubled})(model)

    return edit


def swapped(model: nn.Module) -> None:
    branch = model.get_submodule(BRANCH)
    branch[1], branch[2] = branch[2], branch[1]


def swapped_stages(model: nn.Module) -> None:
    model.stage2, model.stage3 = model.stage3, model.stage2


def computed_weight(module: nn.Module) -> None:
    weight = module.weight
    del module.weight
    module.weight = weight * 2


REFUSED: dict[str, tuple[Edit, str]] = {
    "forward on the class": (overridden("forward"), "the network: Mine has a forward of its own"),
    "forward of the features": (overridden("forward_features", "_forward_impl"), "the network: .* of its own"),
    "__call__ on the class": (overridden("__call__"), "the network: .* of its own"),
    "forward without gradients": (
        subclass(forward=torch.no_grad()(torchvision.models.ShuffleNetV2.forward)),
        "the network: .* of its own",
    ),
    "forward on the instance": (replaced(""), "the network: .* of its own"),
    "forward of a unit": (replaced("stage2.1"), r"stage2\.1: .* of its own"),
    "forward of a convolution": (replaced(f"{BRANCH}.0"), r"stage3\.2\.branch2\.0: Conv2d has a forward of its own"),
    "hook on the network": (forward_hook(""), "the network: it has a hook"),
    "hook on a stage": (forward_hook("stage2", "register_forward_pre_hook"), "stage2: it has a hook"),
    "hook on a unit": (forward_hook("stage2.1", "register_full_backward_hook"), r"stage2\.1: it has a hook"),
    "hook on a layer": (forward_hook("stage2.1.branch2.0"), r"stage2\.1\.branch2\.0: it has a hook"),
    "squeeze-and-excitation": (
        put(f"{BRANCH}.8", SqueezeExcitation(6, 2).double()),
        r"stage3\.2\.branch2\.8: expected nothing more there, got SqueezeExcitation",
    ),
    **{
        type(each).__name__: (put(f"{BRANCH}.2", each), rf"stage3\.2\.branch2\.2: .*{type(each).__name__}")
        for each in (nn.Dropout2d(), nn.Tanh(), nn.PReLU(6), nn.AvgPool2d(3, 1, 1), nn.Softmax(1), nn.GELU())
    },
    "LoRA around a convolution": (
        put(f"{BRANCH}.0", Lora(convolution(6, 6, 1), convolution(6, 2, 1), convolution(2, 6, 1))),
        r"stage3\.2\.branch2\.0: Lora has a forward of its own",
    ),
    "another order": (swapped, r"stage3\.2\.branch2\.2: expected a Conv2d there, got BatchNorm2d"),
    "stages swapped": (swapped_stages, r"stage2\.0\.branch1\.0: it reads 8 channels, and .* gives 4"),
    "ceil_mode": (put("maxpool", nn.MaxPool2d(3, 2, 1, ceil_mode=True)), "maxpool: expected MaxPool2d"),
    "average pool": (put("maxpool", nn.AvgPool2d(3, 2, 1)), "maxpool: expected MaxPool2d"),
    "larger pool": (put("maxpool", nn.MaxPool2d(5, 2, 2)), "maxpool: expected MaxPool2d"),
    "padding mode": (at(f"{BRANCH}.3", setting(padding_mode="reflect")), r"branch2\.3: .* padding_mode='reflect'"),
    "groups in a 1x1": (put(f"{BRANCH}.0", convolution(6, 6, 1, groups=2)), r"branch2\.0: .* no groups"),
    "stride in a 1x1": (at("conv5.0", setting(stride=(2, 2))), r"conv5\.0: .* stride 1"),
    "full convolution in a depthwise's place": (
        put(f"{BRANCH}.3", convolution(6, 6, 3, padding=1)),
        r"stage3\.2\.branch2\.3: .*depthwise",
    ),
    "GroupNorm": (put(f"{BRANCH}.1", nn.GroupNorm(2, 6).double()), r"branch2\.1: .*GroupNorm"),
    "InstanceNorm": (put(f"{BRANCH}.1", nn.InstanceNorm2d(6).double()), r"branch2\.1: .*InstanceNorm2d"),
    "norm without statistics": (
        put(f"{BRANCH}.1", normalisation(track_running_stats=False)),
        r"branch2\.1: it keeps no running statistics",
    ),
    "norm without variance": (at(f"{BRANCH}.1", setting(running_var=None)), "it keeps no running statistics"),
    "narrower than the other half": (
        all_of(put(f"{BRANCH}.5", convolution(6, 5, 1)), put(f"{BRANCH}.6", nn.Identity())),
        r"stage3\.2\.branch2: it gives 5 channels, and the other half has 6",
    ),
    "norm of other channels": (put(f"{BRANCH}.1", nn.BatchNorm2d(5)), r"branch2\.1: it normalises 5 channels"),
    "weight of another shape": (
        at("conv5.0", setting(weight=nn.Parameter(torch.randn(16, 20, 3, 3).double()))),
        r"conv5\.0: it says that its weight is \(16, 20, 1, 1\), and it is \(16, 20, 3, 3\)",
    ),
    "bias of another length": (
        at(f"{BRANCH}.0", setting(bias=nn.Parameter(torch.ones(5).double()))),
        r"stage3\.2\.branch2\.0: its attributes do not fit together \(.*size",
    ),
    "no weight": (at("conv5.0", setting(weight=None)), r"conv5\.0: its attributes do not fit together"),
    "no groups at all": (at(f"{BRANCH}.3", setting(groups=0)), r"branch2\.3: its attributes do not fit together"),
    "no eps": (at("conv1.1", setting(eps=None)), r"conv1\.0: its attributes do not fit together"),
    "lazy head": (put("fc", nn.LazyLinear(5)), "has a lazy module that saw no image yet"),
    "padding in a 1x1": (
        at(f"{BRANCH}.5", setting(padding=1)),
        r"branch2\.5: .*no padding.*, got one with .* padding=\(1, 1\)",
    ),
    "stage gone": (put("stage3", nn.Identity()), "stage3: expected a Sequential, got Identity"),
    "stage empty": (put("stage3", nn.Sequential()), "stage3: it has no units"),
    "unit gone": (put("stage3.1", nn.Identity()), r"stage3\.1\.branch2: expected a Sequential, got nothing"),
    "unit None": (put("stage3.1", None), "stage3: one of its members is None"),
    "branch empty": (put("stage3.1.branch2", nn.Sequential()), r"stage3\.1\.branch2: expected a Conv2d .* nothing"),
    "downsampling in a unit": (at("stage3.1.branch2.3", setting(stride=(2, 2))), "the network: it fails itself"),
    "stage scripted": (lambda model: setattr(model, "stage2", torch.jit.script(model.stage2)), "stage2: "),
    "stage traced": (lambda model: setattr(model, "stage2", torch.fx.symbolic_trace(model.stage2).eval()), "stage2: "),
    "unit compiled": (at("stage2.1", nn.Module.compile), r"stage2\.1: it is compiled"),
    "compiled in place": (nn.Module.compile, "the network: it is compiled"),
    "compiled": (lambda model: torch.compile(model), "OptimizedModule"),
    "scripted": (torch.jit.script, "RecursiveScriptModule"),
    "traced": (torch.fx.symbolic_trace, "GraphModule"),
    "wrapped": (nn.DataParallel, r"DataParallel without conv1, .*model\.module"),
    "no head": (lambda model: setattr(model, "fc", None), "without fc"),
    "on meta": (lambda model: model.to("meta"), "on the meta device"),
    "head on meta": (at("fc", nn.Module.to, "meta"), "on the meta device"),
    "training mode": (nn.Module.train, r"model\.eval\(\)"),
    "one module in training mode": (at(f"{BRANCH}.2", nn.Module.train), r"stage3\.2\.branch2\.2 is in training mode"),
    "NaN": (at("conv5.0", lambda each: each.weight.data.fill_(float("nan"))), "NaN or infinity"),
    "no variance": (at("conv5.1", lambda each: setting(eps=0.0)(each) or each.running_var.zero_()), "NaN or infinity"),
    "overflow on folding": (
        all_of(
            nn.Module.float, at("conv5.1", lambda each: [each.weight.data.fill_(3e38), each.running_var.fill_(1e-4)])
        ),
        r"the network: folded weights are not finite in torch\.float32",
    ),
    "computed weight": (at(f"{BRANCH}.0", computed_weight), "the network: it cannot be copied"),
    "computed weight of the head": (at("fc", computed_weight), "fc: it cannot be copied"),
    "a lock": (lambda model: setattr(model, "lock", threading.Lock()), r"it cannot be copied .*lock"),
}


def edited(name: str, edit: Edit) -> nn.Module:
    torch.manual_seed(0)
    model = copy.deepcopy(base(name))
    changed = edit(model)
    return changed if isinstance(changed, nn.Module) else model


def assert_right(deployed: nn.Module, model: nn.Module, photos: Tensor) -> Tensor:
    with torch.no_grad():
        expected, got = model(photos), deployed(photos)
    assert got.shape == expected.shape
    assert float((got - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())
    return expected


@pytest.mark.parametrize("edit", CARRIED.values(), ids=CARRIED)
@pytest.mark.parametrize("name", BASES)
@pytest.mark.slow
def test_carried_over(name, edit):
    model = edited(name, edit).eval()
    deployed = deploy(model)
    for size in ((3, 65, 97), (2, 64, 64)):
        logits = assert_right(deployed, model, images(*size, in_channels=deployed.in_channels))
        assert logits.std(0).max() > 1e-3 * logits.abs().max()  # else the comparison would show nothing


@pytest.mark.parametrize("name", BASES)
def test_an_edit_shows(name):
    """What the cases above compare would notice that one of them was passed over."""
    before = edited(name, CARRIED["nothing"])(images(3, 65, 97))
    for case in ("bias of a depthwise convolution", "any eps", "unit with ReLU6", "one unit twice", "dilated"):
        after = edited(name, CARRIED[case])(images(3, 65, 97))
        assert (after - before).abs().max() > 1e-3 * before.abs().max(), case


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.slow] if "compiled" in name else [])  # torch.compile's import
        for name, case in REFUSED.items()
    ],
)
@pytest.mark.parametrize("name", BASES)
def test_refused(name, edit, told):
    model = edited(name, edit)
    with pytest.raises((ValueError, TypeError), match=told) as caught:
        deploy(model)
    assert str(caught.value).startswith("deploy ")


@pytest.mark.parametrize("other", [None, "shufflenet_v2_x1_0", nn.Linear(2, 2), torchvision.models.resnet18()])
def test_refuses_what_is_no_shufflenet(other):
    with pytest.raises(TypeError, match=r"deploy takes a ShuffleNetV2 .* without "):
        deploy(other.eval() if isinstance(other, nn.Module) else other)


def test_torchvisions_quantised_networks():
    plain = randomise(torchvision.models.quantization.shufflenet_v2_x0_5()).double()
    assert_right(deploy(plain), plain, images(2, 65, 97))
    plain.float().fuse_model(is_qat=False)
    plain.eval()
    with pytest.raises(ValueError, match=r"conv1\.0: expected a Conv2d there, got ConvReLU2d"):
        deploy(plain)


@pytest.mark.parametrize("name", BASES)
def test_a_patched_function_is_noticed(name, monkeypatch):
    """It is no module's, so that only the comparison of the outputs sees it."""
    import torchvision.models.shufflenetv2 as their_module

    import shufflenetv2.network.model as our_module

    monkeypatch.setattr(their_module, "channel_shuffle", lambda features, groups: features)
    monkeypatch.setattr(our_module, "interleave", lambda left, right: torch.cat((left, right), 1))
    with pytest.raises(ValueError, match="the network: features differ by"):
        deploy(base(name))


REPLACEMENTS = [
    *ACTIVATIONS.values(),
    nn.ReLU(),
    nn.Tanh(),
    nn.Dropout(),
    nn.Flatten(),
    nn.Sequential(),
    normalisation(),
    normalisation(affine=False),
    nn.BatchNorm2d(8).double(),
    nn.BatchNorm1d(6).double(),
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(3, 1, 1),
    nn.AvgPool2d(3, 1, 1),
    convolution(6, 6, 1),
    convolution(6, 6, 3, padding=1, groups=6),
    convolution(6, 6, 3, padding="same", dilation=2, groups=6),
    convolution(4, 4, 3, 2, 1, groups=4),
    convolution(12, 12, 1),
    nn.Linear(16, 5, dtype=torch.float64),
    Twice(),
    None,
]


def anywhere(index: int, module: nn.Module | None) -> Edit:
    def edit(model: nn.Module) -> None:
        names = [name for name, _ in model.named_modules() if name]
        put(names[index % len(names)], module)(model)

    return edit


def doubled_member(index: int) -> Edit:
    """A member of a Sequential is put where its neighbour is, so that it runs twice."""

    def edit(model: nn.Module) -> None:
        lists = [module for module in model.modules() if isinstance(module, nn.Sequential) and len(module) > 1]
        chosen = lists[index % len(lists)]
        chosen[index % len(chosen)] = chosen[(index + 1) % len(chosen)]

    return edit


EDITS = st.one_of(
    st.sampled_from([*CARRIED.values()]),
    st.sampled_from([edit for name, (edit, _) in REFUSED.items() if "compiled" not in name]),
    st.builds(anywhere, st.integers(0, 200), st.sampled_from(REPLACEMENTS)),
    st.builds(doubled_member, st.integers(0, 200)),
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from([*BASES]), edits=st.lists(EDITS, min_size=1, max_size=3))
@pytest.mark.slow
def test_any_edits_are_right_or_refused(name, edits):
    def edit(model):
        for each in edits:
            try:
                changed = each(model)
            except Exception:  # it does not fit what an earlier one left
                continue
            model = changed if isinstance(changed, nn.Module) else model
        return model

    model = edited(name, edit)
    refusal = ""
    try:
        deployed = deploy(model)
    except (ValueError, TypeError) as error:
        refusal = str(error)
    if refusal:
        assert re.match(r"deploy (takes|cannot reproduce (the network|conv1|maxpool|stage|conv5|fc|spare))", refusal)
        return
    dtype = next(deployed.conv1.parameters()).dtype
    photos = images(3, 65, 97, deployed.in_channels).to(dtype)
    try:
        with torch.no_grad():
            expected = model(photos)
    except Exception as error:  # its head; the rest was tried
        with pytest.raises(type(error)):
            deployed(photos)
        return
    if expected.isfinite().all():
        scale = 1e-4 if dtype is torch.float32 else TOLERANCE
        torch.testing.assert_close(deployed(photos), expected, rtol=0, atol=scale * float(expected.abs().max()))
