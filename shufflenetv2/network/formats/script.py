"""TorchScript (.pt), which PyTorch has deprecated."""

from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .described import KEYS
from .half import in_precision
from .table import Network, Plan


def write(model: nn.Module, plan: Plan, metadata: dict[str, str], path: Path) -> None:
    if not plan.shape.dynamic:
        raise ValueError("a TorchScript file takes any input shape; leave --fixed-batch out")
    script = torch.jit.script(in_precision(model, plan.precision))
    torch.jit.save(script, buffer := BytesIO(), _extra_files=dict(metadata))
    path.write_bytes(buffer.getvalue())  # torch's own writer ends the whole process where the disk is full


def open(path: Path) -> tuple[Network, dict[str, str]]:
    metadata: dict[str, Any] = dict.fromkeys(KEYS, "")
    script = torch.jit.load(path, map_location="cpu", _extra_files=metadata)  # type: ignore[no-untyped-call]
    return lambda images: script(images), {
        key: value.decode() if isinstance(value, bytes) else value for key, value in metadata.items()
    }
