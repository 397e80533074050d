"""Both ends of a network fitted to other images and other classes than its weights were trained for."""

import torch
from torch import nn

from ..description import FIRST_KEY
from ..package import logger
from .model import ShuffleNetV2


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
