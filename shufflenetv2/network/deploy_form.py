"""The deploy form: the same function as ``ShuffleNetV2`` in eval mode, without BatchNorm and without moving channels.

A unit of the plain network passes half of its channels through and shuffles. Both only decide which later layer reads a
channel, and that is known when the model is built (``routing``). Here every output of a stage is split once into the
pieces its readers want, a reader concatenates its pieces in whatever order they come, and ``deploy`` permutes its
weights to that order. A channel moves once in a stage instead of at every unit.

The ReLU of the stem follows the max-pool, where it has a quarter of the elements; the two commute. Weights are kept
channels-last, so that the first convolution converts the images and everything after it stays in that layout.
docs/performance.md has the measurements behind the choices made here.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..package import logger
from .origin import WithOrigin

# A larger batch goes through the network in pieces of about this many pixels, on the CPU: beyond it, the largest
# activation exceeds the 32 MB up to which glibc's allocator can be brought to keep memory (``keep_freed_memory``). With
# a small stem it has four times the pixels, so that the pieces have a quarter.
PIXELS_AT_ONCE = 16 * 224 * 224
# Numbers in the input of a 1x1 convolution up to which a plain matrix product is the faster form of it on the CPU. They
# are one MB, the usual size of a core's own cache; beyond, oneDNN's convolution gains from going through it in blocks.
PRODUCT_LIMIT = 2**18


def keep_freed_memory() -> None:
    """Have glibc's allocator, where that is the one in use, keep up to 62 MB of freed memory for the next forward pass.

    It returns freed blocks to the system and gets them anew, page by page, for every activation. Those page
    faults took up to a quarter of a forward pass. But it raises the size from which it does so to that of
    the largest block, up to 32 MB, that it has seen freed so (mallopt(3), M_MMAP_THRESHOLD). One is freed here, unused.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8, device="cpu")


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


def compiled_now() -> bool:
    """Whether torch.compile, not torch.export, records the network."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return False
    else:  # noqa: RET505
        return torch.compiler.is_compiling() and not torch.compiler.is_exporting()


def runs_now_on_cpu(features: Tensor) -> bool:
    """Whether the CPU computes here and now: nothing records a graph (script, trace, export, compile) or gradients."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return False
    else:  # noqa: RET505
        return features.is_cpu and not features.requires_grad and not recorded()


def pieces(images: Tensor, stem_stride: int) -> int:
    """In how many pieces a batch goes through the network."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return 1
    else:  # noqa: RET505
        pixels = images.numel() // images.size(1) * 4 // stem_stride**2
        return math.ceil(pixels / PIXELS_AT_ONCE) if runs_now_on_cpu(images) else 1


def is_small(features: Tensor, limit: int = PRODUCT_LIMIT) -> bool:
    """Whether a 1x1 convolution of these is done as a matrix product."""
    on_cpu = features.is_cpu if torch.jit.is_scripting() else runs_now_on_cpu(features)  # type: ignore[attr-defined]
    return on_cpu and features.numel() <= limit


class Pointwise(nn.Conv2d):
    """A 1x1 convolution; on small inputs the matrix product it is, which takes half the time of PyTorch's own."""

    def __init__(self, in_channels: int, out_channels: int, device: torch.device) -> None:
        super().__init__(in_channels, out_channels, 1, device=device)

    def forward(self, features: Tensor) -> Tensor:
        if is_small(features):
            pixels = features.permute(0, 2, 3, 1)  # (N, H, W, C), contiguous
            features = F.linear(pixels, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        else:
            features = F.conv2d(features, self.weight, self.bias)
        return features


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
    """The maximum of every even row and its two neighbours."""
    even, odd = features[:, :, ::2], features[:, :, 1::2]
    if even.size(2) == odd.size(2):
        maxima = torch.maximum(even, odd)
    else:
        maxima = torch.cat((torch.maximum(even[:, :, :-1], odd), even[:, :, -1:]), dim=2)
    maxima[:, :, 1:].clamp_min_(odd[:, :, : maxima.size(2) - 1])
    return maxima


def concatenated(pieces: list[Tensor]) -> Tensor:
    """``torch.cat`` along the channels.

    torch.compile would lay out a concatenation of slices as NCHW and convert it back for the next convolution; it is
    told here that the channels are the innermost dimension.
    """
    if compiled_now():
        return torch.cat([piece.permute(0, 2, 3, 1) for piece in pieces], dim=3).permute(0, 3, 1, 2)
    return torch.cat(pieces, dim=1)


class DeployedStage(nn.Module):
    """A downsampling unit and its basic units, each branch reading its channels in the order of ``routing``.

    Args:
        branch1, branch2: of the downsampling unit.
        units: the convolved halves of the basic units.
        plan: who reads what; the output's channel k is channel ``plan.orders[-1][k]`` of the plain network's.
    """

    def __init__(
        self, branch1: nn.Sequential, branch2: nn.Sequential, units: list[nn.Sequential], plan: Routing
    ) -> None:
        super().__init__()
        self.branch1 = branch1
        self.branch2 = branch2
        self.units = nn.ModuleList(units)
        self.sizes = [route.sizes for route in plan.routes]
        self.readers = [route.readers for route in plan.routes]
        self.register_buffer("places", torch.tensor(plan.orders[-1], device="cpu").argsort(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        inboxes: list[list[Tensor]] = [[] for _ in range(len(self.units) + 1)]
        deliver(self.branch1(features), self.sizes[0], self.readers[0], inboxes)
        deliver(self.branch2(features), self.sizes[1], self.readers[1], inboxes)
        for index, unit in enumerate(self.units):
            output = unit(concatenated(inboxes[index]))
            deliver(output, self.sizes[index + 2], self.readers[index + 2], inboxes)
        return concatenated(inboxes[-1])


class DeployedShuffleNetV2(WithOrigin):
    """What ``deploy`` returns: images ``(N, in_channels, H, W)``, of either memory layout, to the plain logits.

    Made for inference: its parameters ask for no gradient, and ``train()`` changes nothing, since no layer has another
    training behaviour. To train, train the plain network and deploy it again. As in the plain network, a ReLU works in
    place: a hook that keeps what a convolution gave has to clone it.
    """

    def __init__(
        self, conv1: nn.Conv2d, pool: nn.Module, stages: list[DeployedStage], conv5: nn.Conv2d, activation: nn.Module
    ) -> None:
        super().__init__()
        self.in_channels = conv1.in_channels
        self.num_classes = 0
        self.conv1 = conv1
        self.pool = pool  # max-pool and activation, in whichever order
        self.stage2, self.stage3, self.stage4 = stages
        self.conv5 = conv5
        self.activation = activation
        self.fc: nn.Module = nn.Identity()

    def train(self, mode: bool = True) -> "DeployedShuffleNetV2":
        if mode:
            what = "the deploy form is for inference: train() changes nothing, and no parameter asks for a gradient"
            logger.warning("%s; to train, load the plain network (deploy=False), then deploy it", what)
        return super().train(mode)

    def forward_features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The feature maps of stages 2, 3, 4 and conv5, as the plain network's ``forward_features`` gives them."""
        stage2 = self.stage2(self.pool(self.conv1(images)))
        stage3 = self.stage3(stage2)
        stage4 = self.stage4(stage3)
        return (
            stage2.index_select(1, self.stage2.places),
            stage3.index_select(1, self.stage3.places),
            stage4.index_select(1, self.stage4.places),
            self.activation(self.conv5(stage4)),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, num_classes)``."""
        if images.dim() != 4:
            raise ValueError(f"images must be (N, C, H, W), got {list(images.shape)}; one image alone is images[None]")
        count = pieces(images, self.conv1.stride[0])
        if count > 1:  # the classifier, which may be any module, sees the whole batch
            return self.fc(torch.cat([self.pooled(piece) for piece in images.chunk(count)]))  # type: ignore[no-any-return]
        return self.fc(self.pooled(images))  # type: ignore[no-any-return]

    def pooled(self, images: Tensor) -> Tensor:
        features = self.stage4(self.stage3(self.stage2(self.pool(self.conv1(images)))))
        return self.activation(self.conv5(features)).mean([2, 3])  # type: ignore[no-any-return]
