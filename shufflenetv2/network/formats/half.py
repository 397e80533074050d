"""A network that computes in half precision behind float32 images and logits."""

import copy

import torch
from torch import Tensor, nn


class Half(nn.Module):
    """``model`` in another dtype: float32 images in, float32 logits out."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).to(dtype)
        self.like: Tensor
        self.register_buffer("like", torch.empty(0, dtype=dtype), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.to(self.like.dtype))
        return logits.float()


def in_precision(model: nn.Module, precision: str) -> nn.Module:
    """``model`` itself for float32, else a copy that computes in ``precision``."""
    return model if precision == "float32" else Half(model, getattr(torch, precision)).eval()
