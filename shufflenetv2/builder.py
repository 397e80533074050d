"""A source of weights becomes the model that was asked for: checked, adapted at both ends, folded for deployment."""

import logging

import torch
from torch import nn

from .network.model import SPECS, ShuffleNetV2
from .sources import Source
from .weights import checkpoint as checkpoints

_logger = logging.getLogger("shufflenetv2")


def build(
    arch: str,
    source: Source | None,
    *,
    progress: bool = True,
    num_classes: int | None = None,
    in_channels: int | None = None,
    deploy: bool = False,
) -> nn.Module:
    """Build ``arch``, load ``source`` into it where there is one, and adapt both ends to what was asked for.

    ``in_channels=None`` takes the channels of the weights, or 3. See ``shufflenet_v2_x1_0`` for the rest.
    """
    if source is None:
        channels = 3 if in_channels is None else in_channels
        model = ShuffleNetV2(SPECS[arch], 1000 if num_classes is None else num_classes, channels)
    else:
        checkpoint = source.read(progress)
        with torch.device("meta"):
            model = ShuffleNetV2(SPECS[arch], source.num_classes, source.in_channels)
        checkpoints.load(model, checkpoint)
        _adapt_input(model, model.in_channels if in_channels is None else in_channels)
        _adapt_head(model, source.num_classes if num_classes is None else num_classes)
        model.eval()
    if deploy:
        from .network.deploy import deploy as fold  # the plain model need not wait for it

        return fold(model.eval())
    return model


def _adapt_input(model: ShuffleNetV2, in_channels: int) -> None:
    """Grey input sums the kernel over RGB; other counts repeat it and keep the response's magnitude."""
    if in_channels == model.in_channels:
        return
    if in_channels < 1:
        raise ValueError(f"in_channels must be at least 1, got {in_channels}")
    weight = model.state_dict()["conv1.0.weight"]
    if in_channels == 1:
        weight = weight.sum(1, keepdim=True)
    else:
        copies = -(-in_channels // model.in_channels)
        weight = weight.repeat(1, copies, 1, 1)[:, :in_channels] * (model.in_channels / in_channels)
    with torch.device("meta"):
        convolution = nn.Conv2d(in_channels, model.spec.stem_channels, 3, stride=2, padding=1, bias=False)
    convolution.weight = nn.Parameter(weight)
    model.conv1[0] = convolution
    _logger.info("the first convolution was adapted from %d to %d channels", model.in_channels, in_channels)
    model.in_channels = in_channels


def _adapt_head(model: ShuffleNetV2, num_classes: int) -> None:
    if num_classes == model.num_classes:
        return
    if num_classes < 0:
        raise ValueError(f"num_classes must be at least 0, got {num_classes}")
    model.fc = nn.Linear(model.spec.head_channels, num_classes) if num_classes else nn.Identity()
    _logger.info("the classifier of %d classes was replaced by a new one of %d", model.num_classes, num_classes)
    model.num_classes = num_classes
