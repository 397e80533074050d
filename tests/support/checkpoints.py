"""Checkpoints as torchvision's network makes them."""

import io
from typing import Any

import torch
import torchvision.models

ARCHS = ("shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0")


def reference_model(arch: str, seed: int = 0) -> torch.nn.Module:
    """torchvision's network, in eval mode, with BatchNorm statistics that are not the initial ones."""
    torch.manual_seed(seed)
    model: torch.nn.Module = getattr(torchvision.models, arch)().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)  # with the initial ones the output hardly depends on the image
    return model


def checkpoint_bytes(state_dict: dict[str, Any], legacy: bool = False, counters: bool = True) -> bytes:
    """The file torch.save makes, in either of torch's formats, with or without ``num_batches_tracked``."""
    if not counters:
        state_dict = {key: value for key, value in state_dict.items() if not key.endswith("num_batches_tracked")}
    buffer = io.BytesIO()
    torch.save(state_dict, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()
