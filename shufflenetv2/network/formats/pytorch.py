"""PyTorch's own two formats: torch.export's programs (.pt2), and TorchScript (.pt), which it has deprecated."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from .table import METADATA, Network, Shape


def write_program(model: nn.Module, shape: Shape, metadata: dict[str, str], path: Path) -> None:
    program = torch.export.export(model, (shape.example(),), dynamic_shapes=shape.constraints())
    torch.export.save(program, path, extra_files=dict(metadata))


def open_program(path: Path) -> tuple[Network, dict[str, str]]:
    metadata: dict[str, Any] = dict.fromkeys(METADATA, "")
    program = torch.export.load(path, extra_files=metadata)
    return program.module(), metadata


def write_script(model: nn.Module, shape: Shape, metadata: dict[str, str], path: Path) -> None:
    if not shape.dynamic:
        raise ValueError("a TorchScript file takes any input shape; leave --fixed-batch out")
    torch.jit.save(torch.jit.script(model), path, _extra_files=dict(metadata))


def open_script(path: Path) -> tuple[Network, dict[str, str]]:
    metadata: dict[str, Any] = dict.fromkeys(METADATA, "")
    script: Network = torch.jit.load(path, _extra_files=metadata)  # type: ignore[no-untyped-call]
    return script, {key: value.decode() if isinstance(value, bytes) else value for key, value in metadata.items()}
