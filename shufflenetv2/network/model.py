"""The network of "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design".

Ma, Zhang, Zheng, Sun; ECCV 2018; https://arxiv.org/abs/1807.11164. It computes what torchvision's ShuffleNetV2
computes, bit for bit, under the same state-dict keys (design credit: torchvision, BSD-3-Clause).
"""

from dataclasses import dataclass, replace

import torch
import torch.fx
from torch import Tensor, nn
from torch.jit import is_scripting  # type: ignore[attr-defined]

from ..description import FIRST_KEY
from ..package import logger
from .origin import WithOrigin


@dataclass(frozen=True)
class Spec:
    """Channels and depths of one network (paper, Table 5), and its stem.

    The paper's stem quarters height and width before stage 2. For photos of some 32 pixels a small stem keeps them all:
    ``stem_stride=1, stem_pool=False``, without a tensor more or less.

    Raises:
        ValueError: the channels of a stage are odd, a count is below 1, or the stride is neither 1 nor 2.

    Example:
        >>> narrow = shufflenetv2.Spec(stage_channels=(24, 48, 96), head_channels=512)
        >>> shufflenetv2.ShuffleNetV2(narrow, num_classes=10)(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 10])
    """

    stage_channels: tuple[int, int, int]  # stages 2, 3, 4; each even
    head_channels: int  # conv5
    stem_channels: int = 24  # conv1
    stage_units: tuple[int, int, int] = (4, 8, 4)
    stem_stride: int = 2  # of conv1
    stem_pool: bool = True  # whether a max-pool of stride 2 follows

    def __post_init__(self) -> None:
        for stage, channels in enumerate(self.stage_channels, start=2):
            if channels < 2 or channels % 2:
                raise ValueError(
                    f"stage {stage} of a ShuffleNetV2 is split into two equal halves, so its channels must be an even "
                    f"number of at least 2, got {channels}"
                )
        if min(self.head_channels, self.stem_channels, *self.stage_units) < 1:
            raise ValueError(f"channels and units must be at least 1, got {self}")
        if self.stem_stride not in (1, 2):
            raise ValueError(f"the stride of the stem is 1 or 2, got {self.stem_stride!r}")

    @property
    def strides(self) -> tuple[int, int, int, int]:
        """By how much the outputs of stages 2, 3, 4 and conv5 are smaller than the images: 8, 16, 32 and 32."""
        stem = self.stem_stride * (2 if self.stem_pool else 1)
        return 2 * stem, 4 * stem, 8 * stem, 8 * stem


SPECS = {
    "shufflenet_v2_x0_5": Spec(stage_channels=(48, 96, 192), head_channels=1024),
    "shufflenet_v2_x1_0": Spec(stage_channels=(116, 232, 464), head_channels=1024),
    "shufflenet_v2_x1_5": Spec(stage_channels=(176, 352, 704), head_channels=1024),
    "shufflenet_v2_x2_0": Spec(stage_channels=(244, 488, 976), head_channels=2048),
}
"""The paper's four networks, by the names of their entry points."""


def spec_of(arch: str, small_stem: bool = False) -> Spec:
    """The spec of one of ``SPECS``, with the paper's stem or the small one."""
    return replace(SPECS[arch], stem_stride=1, stem_pool=False) if small_stem else SPECS[arch]


# A leaf for torch.fx: a symbolic trace has no memory layout to ask for.
@torch.fx.wrap
def interleave(left: Tensor, right: Tensor) -> Tensor:
    """Concatenation followed by a two-group channel shuffle: ``left[0], right[0], left[1], right[1], ...``.

    Args:
        left, right: ``(N, C, H, W)``, any dtype.

    Returns:
        ``(N, 2 * C, H, W)`` in the memory layout of ``right``. Section 3 of the paper merges concat and shuffle;
        shuffling in the layout at hand spares the channels-last network a conversion at every unit.
    """
    if right.is_contiguous():
        return torch.stack((left, right), dim=2).flatten(1, 2)  # (N, C, 2, H, W) -> (N, 2C, H, W)
    pairs = torch.stack((left.permute(0, 2, 3, 1), right.permute(0, 2, 3, 1)), dim=-1)  # (N, H, W, C, 2)
    return pairs.flatten(-2).permute(0, 3, 1, 2)


# A leaf for torch.fx, as above.
@torch.fx.wrap
def gather_gradient(features: Tensor) -> Tensor:
    """``features`` as they are; if they lie channels-last, their gradient will be copied into that layout.

    What comes back through an interleave is every second number of a tensor, and through the mean one number repeated.
    ReLU and BatchNorm walk such memory so slowly that one copy before them saves a tenth of a training step.
    """
    if not is_scripting() and not torch.compiler.is_compiling():
        _gather_when_it_comes(features)
    return features


def _gather_when_it_comes(features: Tensor) -> None:
    if features.requires_grad and not features.is_contiguous():
        features.register_hook(_gathered)  # type: ignore[no-untyped-call]


def _gathered(gradient: Tensor) -> Tensor:
    return gradient.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # torch.func.vmap knows no channels_last


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False
    )
    return [convolution, nn.BatchNorm2d(out_channels)]


def conv_norm_relu(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
    return [*conv_norm(in_channels, out_channels, kernel_size, stride), nn.ReLU(inplace=True)]


class Unit(nn.Module):
    """The basic unit of Figure 3(c): half of the channels pass through, the other half is convolved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        branch_channels = channels // 2
        self.branch2 = nn.Sequential(
            *conv_norm_relu(branch_channels, branch_channels, 1),
            *conv_norm(branch_channels, branch_channels, 3, groups=branch_channels),
            *conv_norm_relu(branch_channels, branch_channels, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        passed, convolved = features.chunk(2, dim=1)
        return interleave(passed, gather_gradient(self.branch2(convolved)))


class DownsamplingUnit(nn.Module):
    """The unit of Figure 3(d): both branches see every channel; height and width are halved."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        branch_channels = out_channels // 2
        self.branch1 = nn.Sequential(
            *conv_norm(in_channels, in_channels, 3, stride=2, groups=in_channels),
            *conv_norm_relu(in_channels, branch_channels, 1),
        )
        self.branch2 = nn.Sequential(
            *conv_norm_relu(in_channels, branch_channels, 1),
            *conv_norm(branch_channels, branch_channels, 3, stride=2, groups=branch_channels),
            *conv_norm_relu(branch_channels, branch_channels, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return interleave(gather_gradient(self.branch1(features)), gather_gradient(self.branch2(features)))


def stage(in_channels: int, out_channels: int, units: int) -> nn.Sequential:
    return nn.Sequential(DownsamplingUnit(in_channels, out_channels), *(Unit(out_channels) for _ in range(units - 1)))


class ShuffleNetV2(WithOrigin):
    """ShuffleNet V2 for images ``(N, in_channels, H, W)``, H and W from 32 up (training one image: from 33 up).

    With the small stem H and W are from 8 up (training one image: from 9 up).

    Args:
        spec: channels, depths and stem; ``SPECS`` holds the paper's four.
        num_classes: length of the logits; 0 leaves the classifier out, so that the pooled features come back.
        in_channels: channels of the images.

    The state-dict keys, and the random numbers drawn at construction, are torchvision's.

    Raises:
        ValueError: a count is out of range.

    Example:
        >>> model = shufflenetv2.ShuffleNetV2(shufflenetv2.SPECS["shufflenet_v2_x1_0"]).eval()
        >>> [tuple(each.shape) for each in model.forward_features(torch.rand(1, 3, 224, 224))]
        [(1, 116, 28, 28), (1, 232, 14, 14), (1, 464, 7, 7), (1, 1024, 7, 7)]
    """

    def __init__(self, spec: Spec, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        if num_classes < 0 or in_channels < 1:
            raise ValueError(
                f"num_classes must be at least 0 and in_channels at least 1, got {num_classes} and {in_channels}"
            )
        self.spec = spec
        self.num_classes = num_classes
        self.in_channels = in_channels

        stage2, stage3, stage4 = spec.stage_channels
        units2, units3, units4 = spec.stage_units
        self.conv1 = nn.Sequential(*conv_norm_relu(in_channels, spec.stem_channels, 3, stride=spec.stem_stride))
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1) if spec.stem_pool else nn.Identity()
        self.stage2 = stage(spec.stem_channels, stage2, units2)
        self.stage3 = stage(stage2, stage3, units3)
        self.stage4 = stage(stage3, stage4, units4)
        self.conv5 = nn.Sequential(*conv_norm_relu(stage4, spec.head_channels, 1))
        self.fc = nn.Linear(spec.head_channels, num_classes) if num_classes else nn.Identity()

    def forward_features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The feature maps a detector or segmenter builds on.

        Args:
            images: ``(N, in_channels, H, W)``, normalised as the weights ask.

        Returns:
            The outputs of stages 2, 3 and 4 and of conv5: ``(N, C, H / stride, W / stride)``, rounded up, of strides
            8, 16, 32 and 32 (``spec.strides``: with the small stem 2, 4, 8 and 8).
        """
        stage2 = self.stage2(self.maxpool(self.conv1(images)))
        stage3 = self.stage3(stage2)
        stage4 = self.stage4(stage3)
        return stage2, stage3, stage4, gather_gradient(self.conv5(stage4))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, num_classes)``; with ``num_classes=0`` the pooled features ``(N, head_channels)``."""
        features = self.forward_features(images)[3]
        logits: Tensor = self.fc(features.mean([2, 3]))
        return logits


def adapt_input(model: ShuffleNetV2, in_channels: int) -> None:
    """Grey input sums the kernel over RGB; other counts repeat it and keep the response's magnitude."""
    if in_channels == model.in_channels:
        return
    weight = model.get_parameter(FIRST_KEY).detach()
    if in_channels == 1:
        weight = weight.sum(1, keepdim=True)
    else:
        copies = -(-in_channels // model.in_channels)
        weight = weight.repeat(1, copies, 1, 1)[:, :in_channels] * (model.in_channels / in_channels)
    with torch.device("meta"):
        spec = model.spec
        convolution = nn.Conv2d(in_channels, spec.stem_channels, 3, spec.stem_stride, padding=1, bias=False)
    convolution.weight = nn.Parameter(weight)
    model.conv1[0] = convolution
    logger.info("the first convolution was adapted from %d to %d channels", model.in_channels, in_channels)
    model.in_channels = in_channels


def adapt_head(model: ShuffleNetV2, num_classes: int) -> None:
    """Another number of classes gets a new, random classifier; 0 none."""
    if num_classes == model.num_classes:
        return
    model.fc = nn.Linear(model.spec.head_channels, num_classes) if num_classes else nn.Identity()
    logger.info("the classifier of %d classes was replaced by a new one of %d", model.num_classes, num_classes)
    model.num_classes = num_classes
