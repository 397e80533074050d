"""What changes the weights in each step: the optimizer, and the moving average that is validated and kept."""

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


def sgd(model: nn.Module, lr: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """Nesterov SGD on the trainable parameters, with weight decay on the weights but not on norms and biases."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trainable if parameter.dim() > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of parameters and BatchNorm statistics; integer counters are copied.

    Args:
        decay: of the average, a step; the first steps average over fewer (``(1 + steps) / (10 + steps)``). 0 copies.
    """

    def update(averages: Any, values: Any, _: Any) -> None:
        steps = int(average.n_averaged)  # the argument is the same on the device: reading it would wait for that
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, values, 1 - min(decay, (1 + steps) / (10 + steps)))
        else:
            torch._foreach_copy_(averages, values)

    average = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    return average
