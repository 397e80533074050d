"""Zero channels for runtimes that compute in blocks of channels, as ONNX Runtime does.

Such a runtime keeps images in blocks of 8 or 16 channels, and leaves that layout where a count does not fit: around the
max-pool (24 channels) and the depthwise convolution of the first unit (58 in x1.0, 122 in x2.0), which are the layers
with the largest images. Channels that are zero and that nobody reads cost less than going back and forth.
"""

import copy

import torch
from torch import Tensor, nn

from ..deploy import frozen
from ..deploy_form import DeployedShuffleNetV2

BLOCK = 16


def pad_channels(model: DeployedShuffleNetV2) -> DeployedShuffleNetV2:
    """A copy of ``model``, the same function, whose stem and first unit compute on whole blocks of channels."""
    padded = copy.deepcopy(model)
    spread1, narrow1, _ = padded.stage2.branch1
    expand, _, spread2, narrow2, _ = padded.stage2.branch2
    pad_outputs(padded.conv1)
    pad_depthwise(spread1)
    pad_inputs(narrow1)
    pad_inputs(expand)
    pad_outputs(expand)
    pad_depthwise(spread2)
    pad_inputs(narrow2)
    return padded


def pad_outputs(layer: nn.Module) -> None:
    assert isinstance(layer, nn.Conv2d)
    layer.weight = with_zeros(layer.weight, 0)
    if layer.bias is not None:
        layer.bias = with_zeros(layer.bias, 0)
    layer.out_channels = len(layer.weight)


def pad_inputs(layer: nn.Module) -> None:
    assert isinstance(layer, nn.Conv2d)
    layer.weight = with_zeros(layer.weight, 1)
    layer.in_channels = layer.weight.size(1)


def pad_depthwise(layer: nn.Module) -> None:
    assert isinstance(layer, nn.Conv2d)
    pad_outputs(layer)
    layer.in_channels = layer.groups = layer.out_channels


def with_zeros(tensor: Tensor, dim: int) -> nn.Parameter:
    """``tensor``, with zeros at the end of ``dim`` up to a whole number of blocks."""
    shape = list(tensor.shape)
    shape[dim] = -shape[dim] % BLOCK
    return frozen(torch.cat((tensor.detach(), tensor.new_zeros(shape)), dim))
