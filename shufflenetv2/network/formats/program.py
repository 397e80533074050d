"""torch.export's programs (.pt2)."""

from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import torch.fx
from torch import nn

from .described import KEYS
from .half import in_precision
from .table import Network, Plan


def write(model: nn.Module, plan: Plan, metadata: dict[str, str], path: Path) -> None:
    shape = plan.shape
    program = torch.export.export(
        in_precision(model, plan.precision), (shape.example(),), dynamic_shapes=shape.constraints()
    )
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # the paths of this machine's files
    torch.export.save(program, buffer := BytesIO(), extra_files=dict(metadata))
    path.write_bytes(buffer.getvalue())  # torch's own writer ends the whole process where the disk is full


def open(path: Path) -> tuple[Network, dict[str, str]]:
    metadata: dict[str, Any] = dict.fromkeys(KEYS, "")
    module = torch.export.load(path, extra_files=metadata).module()
    return lambda images: module(images), metadata  # not the module itself, which has no other mode to be put into
