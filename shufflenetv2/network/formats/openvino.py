"""OpenVINO (.xml with .bin), by way of torch.export; int8 by NNCF.

The .xml holds the sha256 of its .bin: it alone has the labels, and reads the numbers of any network of this shape.
"""

from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from .described import KEYS, digest
from .table import FORMATS, Network, Plan

HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "f32"}
SUM = ["shufflenetv2", "bin"]  # where the sha256 stands; absent in files that were written before it was
SHAPES_AT_ONCE = 4  # a program is compiled for each shape of input that comes: faster than one for all shapes


def write(model: nn.Module, plan: Plan, metadata: dict[str, str], path: Path) -> None:
    import openvino

    program = torch.export.export(model, (plan.shape.example(),), dynamic_shapes=plan.shape.constraints())
    converted = openvino.convert_model(program)
    converted.inputs[0].get_tensor().set_names({"images"})
    converted.outputs[0].get_tensor().set_names({"logits"})
    if plan.precision == "int8":
        converted = quantised(converted, plan.batches())
    for key, value in metadata.items():
        converted.set_rt_info(value, ["shufflenetv2", key])
    written = path.with_suffix(".xml")  # OpenVINO writes no other, such as .XML, and reads it
    _, weights = FORMATS["openvino"].files(written)
    for _ in range(2):  # the same bytes twice; the second .xml tells of them
        try:
            openvino.save_model(converted, written, compress_to_fp16=plan.precision in ("bfloat16", "float16"))
        except RuntimeError as error:  # a full disk is "iostream error"
            raise OSError(f"OpenVINO could not write the file ({error}); has the disk room?") from error
        converted.set_rt_info(digest(weights.read_bytes()), SUM)
    written.replace(path)


def quantised(converted: Any, batches: list[Tensor]) -> Any:
    import nncf

    images = [each.numpy() for each in batches]
    return nncf.quantize(converted, nncf.Dataset(images), subset_size=len(images))


def open(path: Path) -> tuple[Network, dict[str, str]]:
    import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # else who writes the .bin anew in place changes a network that is open
    model = core.read_model(path)
    _, weights = FORMATS["openvino"].files(path)
    if model.has_rt_info(SUM) and model.get_rt_info(SUM).value != digest(weights.read_bytes()):
        raise CheckpointError(
            f"{path} and {weights.name} are of different exports, so that its labels may be another network's; put the "
            "two of one export beside each other, or export it anew"
        )
    metadata = {
        key: str(model.get_rt_info(["shufflenetv2", key]).value)
        for key in KEYS
        if model.has_rt_info(["shufflenetv2", key])
    }
    precision = metadata.get("precision", "").strip('"')
    # Said, since on some processors it would compute float32 in bfloat16.
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": HINTS.get(precision, "f32"),
    }

    @lru_cache(SHAPES_AT_ONCE)
    def request(shape: tuple[int, ...]) -> Any:
        fixed = model.clone()
        fixed.reshape(list(shape))
        return core.compile_model(fixed, "CPU", settings).create_infer_request()

    # A request has one place for its input and one for its answer, which the next thread would write over. Several
    # requests would not be faster: for LATENCY they are computed one after the other.
    alone = Lock()

    def network(images: Tensor) -> Tensor:
        with alone:
            [logits] = request(tuple(images.shape)).infer([images.numpy()], share_inputs=True).values()
            return torch.from_numpy(logits.copy())

    return network, metadata
