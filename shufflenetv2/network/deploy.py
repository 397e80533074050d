"""``deploy``: fill the deploy form with the weights of a plain network.

Each BatchNorm is folded into the convolution before it, and the weights of a layer are permuted to the order in which
its input channels arrive (``routing``). The bias of a depthwise convolution moves through the 1x1 convolution that
follows it into that one's bias.

Credit for deployment as a function from model to new model: RepVGG (github.com/DingXiaoH/RepVGG, MIT).
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .deploy_form import DeployedShuffleNetV2, DeployedStage, keep_freed_memory, routing
from .model import DownsamplingUnit, ShuffleNetV2, Unit


def deploy(model: ShuffleNetV2) -> DeployedShuffleNetV2:
    """Build the deploy form of a network; ``model`` itself is left as it is.

    Args:
        model: in eval mode, of any spec, ``num_classes`` and ``in_channels``.

    Returns:
        A new module, in eval mode, of the same dtype and on the same device, that shares no memory with ``model`` and
        gives the same outputs up to rounding (folding is done in float64). See also ``keep_freed_memory``, which this
        calls.

    Raises:
        TypeError: ``model`` is not a plain ``ShuffleNetV2``.
        ValueError: ``model`` is in training mode, where BatchNorm depends on the batch and cannot be folded.
    """
    if not isinstance(model, ShuffleNetV2):
        raise TypeError(f"deploy takes a ShuffleNetV2, got {type(model).__name__}")
    if any(module.training for module in model.modules()):
        raise ValueError(
            "deploy takes a model in eval mode: in training mode BatchNorm uses the statistics of each batch, which "
            "cannot be folded. Call model.eval() first."
        )
    keep_freed_memory()
    with torch.device("meta"):  # neither memory nor random numbers for weights that are about to be replaced
        deployed = DeployedShuffleNetV2(model.spec, model.num_classes, model.in_channels)

    fold(model.conv1, deployed.conv1, order=None)
    order = None
    for plain, stage in (
        (model.stage2, deployed.stage2),
        (model.stage3, deployed.stage3),
        (model.stage4, deployed.stage4),
    ):
        order = fold_stage(plain, stage, order)
    fold(model.conv5, deployed.conv5, order)
    for name, parameter in model.fc.named_parameters():
        setattr(deployed.fc, name, frozen(parameter.detach().clone()))
    return deployed.eval()


def fold_stage(plain: nn.Sequential, stage: DeployedStage, order: list[int] | None) -> list[int]:
    """Fill a stage whose input channels come in ``order`` (None: the plain network's); return its output's order."""
    downsampling, *basic_units = plain
    assert isinstance(downsampling, DownsamplingUnit)
    fold(downsampling.branch1, stage.branch1, order)
    fold(downsampling.branch2, stage.branch2, order)
    *unit_orders, output_order = routing(stage.branch_channels, len(basic_units)).orders
    for unit, target, unit_order in zip(basic_units, stage.units, unit_orders, strict=True):
        assert isinstance(unit, Unit)
        fold(unit.branch2, target, unit_order)
    return output_order


def fold(plain: nn.Sequential, target: nn.Module, order: list[int] | None) -> None:
    """Fill the convolutions of ``target`` with those of ``plain``, each taking in the BatchNorm that follows it.

    The input's channels come in ``order``. A depthwise convolution keeps the order of its input and hands its bias on;
    any other one reads that order and gives the plain network's.
    """
    convolutions = [layer for layer in plain if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in plain if isinstance(layer, nn.BatchNorm2d)]
    targets = [layer for layer in target.modules() if isinstance(layer, nn.Conv2d)]
    handed_on = None
    for convolution, norm, folded in zip(convolutions, norms, targets, strict=True):
        fused_weight, fused_bias = fuse_conv_bn_weights(
            exact(convolution.weight),
            None,
            exact(norm.running_mean),
            exact(norm.running_var),
            norm.eps,
            exact(norm.weight),
            exact(norm.bias),
        )
        weight, bias = fused_weight.detach(), fused_bias.detach()
        if folded.bias is None:  # depthwise
            weight, handed_on = (weight, bias) if order is None else (weight[order], bias[order])
        else:
            weight = weight if order is None else weight[:, order]
            bias = bias if handed_on is None else bias + weight.flatten(1) @ handed_on
            order = handed_on = None
        original = convolution.weight
        folded.weight = frozen(weight.to(original.device, original.dtype, memory_format=torch.channels_last))
        if folded.bias is not None:
            folded.bias = frozen(bias.to(original.device, original.dtype))


def exact(tensor: Tensor | None) -> Tensor:
    assert tensor is not None  # BatchNorm has an affine part and running statistics here
    return tensor.detach().to("cpu", torch.float64)  # on the CPU, since not every device has float64


def frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
