"""Learning rate, image size, parameter groups and the moving average of the weights: how the weights change.

Everything that changes during training is a function of ``progress``, the part of all steps that lies behind, from 0
to 1. So a run that is resumed with another number of epochs continues at the same epoch of the new schedule.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..devices import Group
from ..network.model import ShuffleNetV2


def rate_factor(progress: float, warmup: float, decay: str) -> float:
    """What the peak learning rate is multiplied with: up to 1 in a straight line, then down to 0.

    Args:
        progress: from 0 to 1.
        warmup: the part of the schedule that goes up.
        decay: ``"linear"`` or ``"cosine"``.
    """
    if progress < warmup:
        return progress / warmup
    remaining = (1 - progress) / (1 - warmup)
    return remaining if decay == "linear" else (1 - math.cos(math.pi * remaining)) / 2


def size_at(progress: float, sizes: Sequence[tuple[int, float]]) -> int:
    """The image size at ``progress``: each of ``sizes`` is a size and the part of the schedule that it is used for."""
    end = 0.0
    for size, share in sizes:
        end += share
        if progress < end - 1e-9:
            return size
    return sizes[-1][0]


def freeze_backbone(model: ShuffleNetV2) -> None:
    """Leave the classifier alone trainable."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("fc.")


def train_mode(model: ShuffleNetV2, frozen: bool) -> None:
    """Training mode; a frozen backbone keeps its BatchNorm statistics too."""
    model.train(not frozen)
    model.fc.train()


def sgd(model: nn.Module, lr: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """Nesterov SGD on the trainable parameters, with weight decay on the weights but not on norms and biases."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trainable if parameter.dim() > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]], lr=lr, momentum=momentum, nesterov=momentum > 0
    )


class MovingAverage:
    """Exponential moving average of everything in a state dict (parameters and BatchNorm statistics).

    Args:
        decay: of the average, a step; the first steps average over fewer (``(1 + steps) / (10 + steps)``). 0 copies.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        live = model.state_dict()
        self.state_dict = {key: value.detach().clone() for key, value in live.items()}
        floating = [key for key, value in live.items() if value.is_floating_point()]
        # The optimizer changes the model's tensors in place, so that these references stay valid.
        self._values = [live[key] for key in floating]
        self._averages = [self.state_dict[key] for key in floating]
        self._counters = [(self.state_dict[key], value) for key, value in live.items() if key not in floating]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's present state."""
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.decay else 1.0
        torch._foreach_lerp_(self._averages, self._values, weight)
        for average, value in self._counters:
            average.copy_(value)

    def share(self, group: Group) -> None:
        """Give every process the first one's average: BatchNorm statistics differ from process to process."""
        for average in self.state_dict.values():
            group.copy_from_leader(average)

    def load(self, state_dict: Mapping[str, Tensor], steps: int) -> None:
        """Continue from what ``state_dict`` and ``steps`` were."""
        self.steps = steps
        for key, value in state_dict.items():
            self.state_dict[key].copy_(value)
