"""Networks whose output depends on every layer, and how two outputs are compared."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from shufflenetv2.network.model import Spec

TINY = Spec(stage_channels=(8, 12, 20), head_channels=16, stem_channels=4, stage_units=(3, 4, 2))

Network = TypeVar("Network", bound=nn.Module)


def randomise(model: Network) -> Network:
    """``model`` in eval mode, with Kaiming weights and BatchNorms that do something, so that a mistake shows."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 1.5),
            ):
                assert tensor is not None
                tensor.data.uniform_(low, high, generator=generator)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
    return model.eval()


def images(batch: int, height: int, width: int, in_channels: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(batch, in_channels, height, width, generator=torch.Generator().manual_seed(1), dtype=dtype)


def relative_error(got: Tensor, expected: Tensor) -> float:
    assert got.shape == expected.shape
    assert expected.std() > 0.01  # a constant output would make any comparison pass
    return float((got - expected).abs().max() / expected.abs().max())
