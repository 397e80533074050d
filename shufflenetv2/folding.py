"""The deploy form: the same function as ``ShuffleNetV2`` in eval mode, without BatchNorm and without moving channels.

Two rewritings, both exact up to rounding:

* Each BatchNorm is folded into the convolution before it.
* A unit passes half of its channels through and shuffles. Both only decide which later layer reads a channel, and that
  is known when the model is built. So every output of a stage is split once into the pieces its readers want, a reader
  concatenates its pieces in whatever order they come, and its weights are permuted to that order. A channel moves once
  in a stage instead of at every unit.

The ReLU of the stem follows the max-pool, where it has a quarter of the elements; the two commute. The bias of a
depthwise convolution moves through the 1x1 convolution that follows it into that one's bias. Weights are kept
channels-last, so that the first convolution converts the images and everything after it stays in that layout.

Credit for deployment as a function from model to new model: RepVGG (github.com/DingXiaoH/RepVGG, MIT).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .model import DownsamplingUnit, ShuffleNetV2, Spec, Unit

# A larger batch goes through the network in pieces of about this many pixels, on the CPU. The allocator gives large
# blocks back to the system and gets them anew, page by page, which costs half as much again as the computation.
PIXELS_AT_ONCE = 16 * 224 * 224


@dataclass(frozen=True)
class Route:
    """Where the output of one branch of a stage goes, in ascending order of its channels."""

    sizes: list[int]  # channels of each piece; they add up to the output's channels
    readers: list[int]  # the unit that reads the piece: 0 is the stage's first basic unit, the last is the stage's end


@dataclass(frozen=True)
class Routing:
    """The static plan of one stage."""

    routes: list[Route]  # of branch1 and branch2 of the downsampling unit, then of each basic unit
    orders: list[list[int]]  # for each reader: its input channel k holds channel orders[reader][k] of the plain network


def routing(branch_channels: int, basic_units: int) -> Routing:
    """Follow every channel of a stage from the branch that makes it to the layer that reads it."""
    branch1, branch2 = ([(source, channel) for channel in range(branch_channels)] for source in (0, 1))
    features = interleaved(branch1, branch2)  # (source, channel of that source), in the plain network's order
    reads = []
    for unit in range(basic_units):
        passed, convolved = features[:branch_channels], features[branch_channels:]
        reads.append(convolved)
        features = interleaved(passed, [(unit + 2, channel) for channel in range(branch_channels)])
    reads.append(features)

    # Interleaving keeps each source's channels in ascending order and a half is a range of them, so what a reader wants
    # of a source is one contiguous piece, and later readers want lower channels.
    routes = []
    for source in range(basic_units + 2):
        wanted = [sum(origin == source for origin, _ in read) for read in reads]
        readers = [reader for reader in reversed(range(len(reads))) if wanted[reader]]
        routes.append(Route([wanted[reader] for reader in readers], readers))
    # Pieces arrive in the order in which their sources are computed: sorted by (source, channel).
    orders = [sorted(range(len(read)), key=read.__getitem__) for read in reads]
    return Routing(routes, orders)


def interleaved(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [channel for pair in zip(left, right, strict=True) for channel in pair]


def deliver(output: Tensor, sizes: list[int], readers: list[int], inboxes: list[list[Tensor]]) -> None:
    """Hand each piece of ``output`` (views, split along the channels) to the reader that wants it."""
    for piece, reader in zip(output.split_with_sizes(sizes, dim=1), readers):  # noqa: B905 -- TorchScript's zip has no strict
        inboxes[reader].append(piece)


# torch.jit's functions are public, but not listed for type checkers. TorchScript leaves a branch uncompiled only where
# an else separates it from `if torch.jit.is_scripting()`.
def recorded() -> bool:
    return torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined, no-untyped-call]


def runs_now_on_cpu(features: Tensor) -> bool:
    """Whether the CPU computes here and now: nothing records a graph (script, trace, export, compile) or gradients."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return False
    else:  # noqa: RET505
        return features.is_cpu and not features.requires_grad and not recorded()


def pieces(images: Tensor) -> int:
    """In how many pieces a batch goes through the network."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return 1
    else:  # noqa: RET505
        pixels = images.numel() // images.size(1)
        return math.ceil(pixels / PIXELS_AT_ONCE) if runs_now_on_cpu(images) else 1


class Pointwise(nn.Conv2d):
    """A 1x1 convolution. PyTorch's own costs twice as much as the matrix product it is, on the CPU at batch 1."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        if runs_now_on_cpu(features):
            pixels = features.permute(0, 2, 3, 1)  # (N, H, W, C), contiguous
            features = F.linear(pixels, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        else:
            features = F.conv2d(features, self.weight, self.bias)
        return features


def depthwise(channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)


class MaxPool(nn.MaxPool2d):
    """The stem's max-pool. PyTorch's own also computes the indices, which take twice the memory of the maxima."""

    def __init__(self) -> None:
        super().__init__(kernel_size=3, stride=2, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        if runs_now_on_cpu(features):
            features = halved(halved(features).transpose(2, 3)).transpose(2, 3)
        else:
            features = F.max_pool2d(features, self.kernel_size, self.stride, self.padding)
        return features


def halved(features: Tensor) -> Tensor:
    """The maximum of every even row and its two neighbours, left in the even rows; a view of them."""
    even, odd = features[:, :, ::2], features[:, :, 1::2]
    followed, preceded = even[:, :, : odd.size(2)], even[:, :, 1:]
    torch.maximum(followed, odd, out=followed)
    torch.maximum(preceded, odd[:, :, : preceded.size(2)], out=preceded)
    return even


class DeployedStage(nn.Module):
    """A downsampling unit and its basic units; the output's channels are in the order ``routing(...).orders[-1]``."""

    def __init__(self, in_channels: int, out_channels: int, units: int) -> None:
        super().__init__()
        width = out_channels // 2
        self.branch_channels = width
        self.branch1 = nn.Sequential(
            depthwise(in_channels, stride=2), Pointwise(in_channels, width), nn.ReLU(inplace=True)
        )
        self.branch2 = branch(in_channels, width, stride=2)
        self.units = nn.ModuleList(branch(width, width, stride=1) for _ in range(units - 1))

        routes = routing(width, units - 1).routes
        self.sizes = [route.sizes for route in routes]
        self.readers = [route.readers for route in routes]

    def forward(self, features: Tensor) -> Tensor:
        inboxes: list[list[Tensor]] = [[] for _ in range(len(self.units) + 1)]
        deliver(self.branch1(features), self.sizes[0], self.readers[0], inboxes)
        deliver(self.branch2(features), self.sizes[1], self.readers[1], inboxes)
        for index, unit in enumerate(self.units):
            output = unit(torch.cat(inboxes[index], dim=1))
            deliver(output, self.sizes[index + 2], self.readers[index + 2], inboxes)
        return torch.cat(inboxes[-1], dim=1)


def branch(in_channels: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        Pointwise(in_channels, width),
        nn.ReLU(inplace=True),
        depthwise(width, stride),
        Pointwise(width, width),
        nn.ReLU(inplace=True),
    )


class DeployedShuffleNetV2(nn.Module):
    """What ``deploy`` returns: images ``(N, in_channels, H, W)``, of either memory layout, to the plain logits.

    Made for inference: its parameters ask for no gradient, and ``train()`` changes nothing, since no layer has another
    training behaviour. To train, train the plain network and deploy it again.
    """

    def __init__(self, spec: Spec, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.spec = spec
        self.num_classes = num_classes
        self.in_channels = in_channels

        stage2, stage3, stage4 = spec.stage_channels
        units2, units3, units4 = spec.stage_units
        self.conv1 = nn.Conv2d(in_channels, spec.stem_channels, 3, stride=2, padding=1)
        self.maxpool = MaxPool()
        self.stage2 = DeployedStage(spec.stem_channels, stage2, units2)
        self.stage3 = DeployedStage(stage2, stage3, units3)
        self.stage4 = DeployedStage(stage3, stage4, units4)
        self.conv5 = Pointwise(stage4, spec.head_channels)
        self.fc = nn.Linear(spec.head_channels, num_classes) if num_classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        count = pieces(images)
        if count > 1:
            return torch.cat([self.logits(piece) for piece in images.chunk(count)])
        return self.logits(images)

    def logits(self, images: Tensor) -> Tensor:
        features = F.relu(self.maxpool(self.conv1(images)))
        features = self.stage4(self.stage3(self.stage2(features)))
        features = F.relu(self.conv5(features), inplace=True)
        logits: Tensor = self.fc(features.mean([2, 3]))
        return logits


def deploy(model: ShuffleNetV2) -> DeployedShuffleNetV2:
    """Build the deploy form of a network; ``model`` itself is left as it is.

    Args:
        model: in eval mode, of any spec, ``num_classes`` and ``in_channels``.

    Returns:
        A new module, in eval mode, of the same dtype and on the same device, that shares no memory with ``model`` and
        gives the same outputs up to rounding (folding is done in float64).

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
