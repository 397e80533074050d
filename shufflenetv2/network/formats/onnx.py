"""ONNX, written by torch.onnx and opened in ONNX Runtime.

ONNX Runtime computes in blocks of channels: it keeps images in blocks of 8 or 16, and leaves that layout where a count
does not fit: around the max-pool (24 channels) and the depthwise convolution of the first unit (58 in x1.0, 122 in
x2.0), which are the layers with the largest images. Channels that are zero and that nobody reads cost less than going
back and forth, so the file of a deploy form has them.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..deploy_form import DeployedShuffleNetV2
from .table import Network, Plan

BLOCK = 16
ENOUGH = 0.97  # of the labels, which int8 should keep


def write(model: nn.Module, plan: Plan, metadata: dict[str, str], path: Path) -> None:
    import onnx

    torch.onnx.export(
        pad_channels(model) if isinstance(model, DeployedShuffleNetV2) else model,
        (plan.shape.example(),),
        path,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=plan.shape.constraints(),
        external_data=False,
        verbose=False,
    )
    exported = onnx.load(path)
    if plan.precision == "float16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        exported = convert_float_to_float16(exported, keep_io_types=True)
    if plan.precision == "int8":
        exported = quantised(exported, model, plan.batches(), path)
    for node in exported.graph.node:  # the paths of this machine's files, and more than some networks' weights
        del node.metadata_props[:]
    del exported.graph.value_info[:]
    onnx.helper.set_model_props(exported, metadata)
    onnx.save(exported, path)


def quantised(exported: Any, model: nn.Module, batches: list[Tensor], path: Path) -> Any:
    """An int8 file of the float32 one: U8S8, per channel, min-max; the first convolution, slower in int8, in float.

    Processors without VNNI add two products in 16 bits, which overflow: there a range of 7 bits gives better answers.
    So the usual range is kept if nearly all labels stay, else whichever keeps more of them, as this processor computes.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = iter(batches)

        def get_next(self) -> dict[str, object] | None:
            images = next(self.images, None)
            return None if images is None else {"images": images.numpy()}

    first = next(node.name for node in exported.graph.node if node.op_type == "Conv")
    labels = torch.cat([model(images).argmax(1) for images in batches])
    candidates: list[tuple[int, Any]] = []
    for reduce_range in (False, True):
        quantize_static(
            copy.deepcopy(exported),  # which it moves to a folder of its own and leaves without
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[first],
        )
        network, _ = open(path)
        got = torch.cat([network(images).argmax(1) for images in batches])
        candidates.append((int(torch.sum(got == labels)), onnx.load(path)))
        if candidates[-1][0] >= ENOUGH * len(labels):
            break
    return max(candidates, key=lambda each: each[0])[1]


def open(path: Path) -> tuple[Network, dict[str, str]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), metadata


def pad_channels(model: DeployedShuffleNetV2) -> DeployedShuffleNetV2:
    """A copy of ``model``, the same function, whose stem and first unit compute on whole blocks of channels."""
    padded = copy.deepcopy(model)
    spread1, narrow1 = convolutions(padded.stage2.branch1)
    expand, spread2, narrow2 = convolutions(padded.stage2.branch2)
    pad_outputs(padded.conv1)
    pad_depthwise(spread1)
    pad_inputs(narrow1)
    pad_inputs(expand)
    pad_outputs(expand)
    pad_depthwise(spread2)
    pad_inputs(narrow2)
    return padded


def convolutions(branch: nn.Sequential) -> list[nn.Conv2d]:
    return [layer for layer in branch if isinstance(layer, nn.Conv2d)]


def pad_outputs(layer: nn.Conv2d) -> None:
    layer.weight = with_zeros(layer.weight, 0)
    if layer.bias is not None:
        layer.bias = with_zeros(layer.bias, 0)
    layer.out_channels = len(layer.weight)


def pad_inputs(layer: nn.Conv2d) -> None:
    layer.weight = with_zeros(layer.weight, 1)
    layer.in_channels = layer.weight.size(1)


def pad_depthwise(layer: nn.Conv2d) -> None:
    pad_outputs(layer)
    layer.in_channels = layer.groups = layer.out_channels


def with_zeros(tensor: Tensor, dim: int) -> nn.Parameter:
    """``tensor``, with zeros at the end of ``dim`` up to a whole number of blocks."""
    shape = list(tensor.shape)
    shape[dim] = -shape[dim] % BLOCK
    return nn.Parameter(torch.cat((tensor.detach(), tensor.new_zeros(shape)), dim), requires_grad=False)
