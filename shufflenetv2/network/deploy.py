"""``deploy``: fill the deploy form with the layers of a plain network, in the order in which their channels arrive.

``dissect`` reads the layers, folds each BatchNorm and refuses by name what it does not understand. Here the weights are
permuted, the bias of a depthwise convolution moves through the 1x1 convolution behind it, and what was built is
compared with the network it was built from.

Credit for deployment as a function from model to new model: RepVGG (github.com/DingXiaoH/RepVGG, MIT).
"""

from typing import Any

import torch
from torch import Tensor, nn

from .deploy_form import DeployedShuffleNetV2, DeployedStage, Pointwise, keep_freed_memory, routing
from .dissect import Layer, checked_copy, copied, pooled, read, refreshed, refuse, sequence

TOLERANCE = 1e-9  # of the largest feature, in float64: rounding gives some 1e-14, an edit far more
_UNIT = "pointwise+ depthwise pointwise+"  # branch2 of every unit; + has an activation behind it


def deploy(model: nn.Module) -> DeployedShuffleNetV2:
    """Build the deploy form of a network; ``model`` itself is left as it is.

    Args:
        model: a ShuffleNet V2 in eval mode, this package's (of any revision) or torchvision's, of any widths and
            depths. Its convolutions may have a bias or be pruned or parametrised; its BatchNorms may be frozen,
            synchronised or without affine part; ReLU6, Hardswish, SiLU, LeakyReLU or Identity may stand in for a ReLU,
            Identity for the max-pool; the classifier ``fc`` may be any module.

    Returns:
        A new module, in eval mode, of the same dtype and on the same device, that shares no memory with ``model`` and
        gives the same outputs up to rounding (folding is done in float64). See also ``keep_freed_memory``, which this
        calls.

    Raises:
        TypeError: ``model`` is no ShuffleNet V2, or is wrapped, traced, scripted or compiled.
        ValueError: it is in training mode, or was edited in a way that the deploy form cannot reproduce; the message
            names the layer.

    Example:
        >>> model = shufflenetv2.shufflenet_v2_x0_5(weights="cifar10")
        >>> fast = shufflenetv2.deploy(model)
        >>> images = torch.rand(2, 3, 112, 112)
        >>> torch.allclose(fast(images), model(images), atol=1e-4)
        True
    """
    with torch.inference_mode(False), torch.no_grad():
        body = checked_copy(model)
        deployed = _converted(body)
        _compare(body, deployed)
        stem = model.get_submodule("conv1")
        like = next(each for each in (*stem.parameters(), *stem.buffers()) if each.is_floating_point())
        deployed.to(like.device, like.dtype)
        if not all(bool(each.isfinite().all()) for each in deployed.parameters()):
            refuse("the network", f"folded weights are not finite in {like.dtype}", "check its values, or use float32")
        return _with_classifier(deployed, model)


def deploy_own(model: nn.Module) -> DeployedShuffleNetV2:
    """``deploy`` without the checks of a stranger's network: for those that this package has just built and filled."""
    with torch.inference_mode(False), torch.no_grad():
        return _with_classifier(_converted(model), model)


def _converted(body: nn.Module) -> DeployedShuffleNetV2:
    """The deploy form in the dtype and on the device of ``body``; its ``fc`` is the identity."""
    keep_freed_memory()
    [stem] = read(body, "conv1", "convolution+")
    channels, order, stages = len(stem.weight), list(range(len(stem.weight))), []
    for name in ("stage2", "stage3", "stage4"):
        stage, order = _stage(body, name, channels, order)
        channels = len(order)
        stages.append(stage)
    [head] = read(body, "conv5", "pointwise+", channels)
    conv1 = _filled(stem, stem.weight, stem.bias)
    conv5 = _filled(head, head.weight[:, order], head.bias)
    activation = nn.Identity() if head.activation is None else head.activation
    return DeployedShuffleNetV2(conv1, pooled(body, stem.activation), stages, conv5, activation).eval()


def _with_classifier(deployed: DeployedShuffleNetV2, model: nn.Module) -> DeployedShuffleNetV2:
    head = refreshed(model.get_submodule("fc"))
    deployed.fc = copied("fc", head)
    for parameter in deployed.fc.parameters():  # not of the module at once: TorchScript's know no requires_grad_
        parameter.requires_grad_(False)
    deployed.num_classes = getattr(head, "out_features", 0)
    deployed._origin = getattr(model, "_origin", None)  # torchvision's have none
    return deployed


def _compare(body: nn.Module, deployed: DeployedShuffleNetV2) -> None:
    """Both give the same pooled features, in float64 on the CPU, on a small random input of odd size."""
    shape = (2, deployed.conv1.in_channels, 33, 47)
    images = torch.randn(shape, dtype=torch.float64, device="cpu", generator=torch.Generator().manual_seed(0))
    try:
        expected = body(images)
    except Exception as error:  # an edited network may raise anything
        refuse("the network", f"it fails itself on images {shape}: {error}")
    got = deployed(images)
    if not expected.isfinite().all():
        raise ValueError("deploy takes a model with finite values; this one gives NaN or infinity on a random image")
    difference = float((got - expected).abs().max()) if got.shape == expected.shape else float("inf")
    if not difference <= TOLERANCE * float(expected.abs().max()):
        refuse("the network", f"features differ by {difference:.2g}, so somewhere it computes something else")


def _stage(model: nn.Module, name: str, channels: int, order: list[int]) -> tuple[DeployedStage, list[int]]:
    """The stage whose input channels come in ``order``, and the order in which its output's go."""
    units = [unit for unit, _ in sequence(model, name)]
    if not units:
        refuse(name, "it has no units")
    first = read(model, f"{units[0]}.branch1", "depthwise pointwise+", channels)
    width = len(first[-1].weight)
    branches = [read(model, f"{units[0]}.branch2", _UNIT, channels)]
    branches += [read(model, f"{unit}.branch2", _UNIT, width) for unit in units[1:]]
    for unit, layers in zip(units, branches, strict=True):
        if len(layers[-1].weight) != width:
            refuse(f"{unit}.branch2", f"it gives {len(layers[-1].weight)} channels, and the other half has {width}")
    plan = routing(width, len(units) - 1)
    built = [_branch(layers, given) for layers, given in zip(branches, [order, *plan.orders[:-1]], strict=True)]
    return DeployedStage(_branch(first, order), built[0], built[1:], plan), plan.orders[-1]


def _branch(layers: list[Layer], order: list[int]) -> nn.Sequential:
    """One branch whose input channels come in ``order``; its output's are in the plain network's.

    A depthwise convolution keeps the order of its input and hands its bias on to the 1x1 convolution behind it.
    """
    modules: list[nn.Module] = []
    handed_on: Tensor | None = None
    arriving: list[int] | None = order
    for layer in layers:
        if layer.depthwise:
            permuted = slice(None) if arriving is None else arriving
            modules.append(_filled(layer, layer.weight[permuted], None))
            handed_on = layer.bias[permuted]
            continue
        weight = layer.weight if arriving is None else layer.weight[:, arriving]
        bias = layer.bias if handed_on is None else layer.bias + weight.flatten(1) @ handed_on
        modules.append(_filled(layer, weight, bias))
        if layer.activation is not None:
            modules.append(layer.activation)
        handed_on = arriving = None
    return nn.Sequential(*modules)


def _filled(layer: Layer, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    of = layer.original
    meta = torch.device("meta")  # neither memory nor random numbers for weights that are about to be replaced
    if layer.kind == "pointwise":
        convolution: nn.Conv2d = Pointwise(of.in_channels, of.out_channels, meta)
    else:
        keys = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        geometry: Any = {key: getattr(of, key) for key in keys}
        convolution = nn.Conv2d(**geometry, bias=bias is not None, device=meta)
    convolution.weight = _frozen(weight.contiguous(memory_format=torch.channels_last), of.weight)
    if bias is not None:
        convolution.bias = _frozen(bias, of.weight)
    return convolution


def _frozen(tensor: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.to(like.device, like.dtype), requires_grad=False)
