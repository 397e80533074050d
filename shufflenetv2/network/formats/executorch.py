"""ExecuTorch (.pte) with XNNPACK, for phones: the deploy form as one delegated piece, for a fixed batch and size.

XNNPACK takes the whole network where weights are contiguous (it refuses channels-last ones), pieces are cut by slices
(not by a split), and the mean keeps its dimensions. What the file says of itself are methods of its own.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..deploy_form import DeployedShuffleNetV2, DeployedStage
from .described import KEYS
from .table import Network, Plan


class Sliced(nn.Module):
    """The deploy form in the operators that XNNPACK takes."""

    def __init__(self, model: DeployedShuffleNetV2) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        if isinstance(self.model.pool, nn.Sequential):
            # The ReLU before the max-pool, where it is one with the convolution: alone, in int8, its input and output
            # have scales of their own, and XNNPACK then computes it wrongly. The deploy form has it behind.
            self.model.pool = nn.Sequential(*sorted(self.model.pool, key=lambda each: isinstance(each, nn.MaxPool2d)))
        for parameter in self.model.parameters():
            # Not contiguous(), which leaves the strides of channels-last where a dimension is 1: XNNPACK goes by them.
            parameter.data = torch.empty(parameter.shape, dtype=parameter.dtype).copy_(parameter.data)

    def forward(self, images: Tensor) -> Tensor:
        model = self.model
        features = model.pool(model.conv1(images))
        for stage in (model.stage2, model.stage3, model.stage4):
            features = run_stage(stage, features)
        features = model.activation(model.conv5(features))
        logits: Tensor = model.fc(features.mean([2, 3], keepdim=True).flatten(1))
        return logits


def run_stage(stage: DeployedStage, features: Tensor) -> Tensor:
    inboxes: list[list[Tensor]] = [[] for _ in range(len(stage.units) + 1)]
    slices(stage.branch1(features), 0, stage, inboxes)
    slices(stage.branch2(features), 1, stage, inboxes)
    for index, unit in enumerate(stage.units):
        slices(unit(torch.cat(inboxes[index], 1)), index + 2, stage, inboxes)
    return torch.cat(inboxes[-1], 1)


def slices(output: Tensor, source: int, stage: DeployedStage, inboxes: list[list[Tensor]]) -> None:
    start, sizes = 0, stage.sizes[source]
    for size, reader in zip(sizes, stage.readers[source], strict=True):
        inboxes[reader].append(output if len(sizes) == 1 else output[:, start : start + size])
        start += size


def write(model: nn.Module, plan: Plan, metadata: dict[str, str], path: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    example = (plan.shape.example(),)
    program = torch.export.export(Sliced(model) if isinstance(model, DeployedShuffleNetV2) else model, example)
    if plan.precision == "int8":
        program = torch.export.export(quantised(program, plan.batches()), example)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()], constant_methods=dict(metadata))
    path.write_bytes(lowered.to_executorch().buffer)


def quantised(program: Any, batches: list[Tensor]) -> Any:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(program.module(), quantizer)
    for images in batches:
        prepared(images)
    return convert_pt2e(prepared)


def open(path: Path) -> tuple[Network, dict[str, str]]:
    from executorch.runtime import Runtime

    data = path.read_bytes()
    program = Runtime.get().load_program(data)
    metadata = {key: str(program.load_method(key).execute([])[0]) for key in KEYS if key in program.method_names}
    forward = program.load_method("forward")

    def network(images: Tensor, _: bytes = data) -> Tensor:  # the program lies in these bytes as long as it runs
        logits: Tensor = forward.execute([images])[0].clone()
        return logits

    return network, metadata
