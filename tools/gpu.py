"""Measure docs/benchmark-gpu.json: this repository beside torchvision on a GPU, in one process, taking turns.

It needs no network and no package beyond torch and torchvision, ends within eight minutes, and says what it could not
run. On a machine without a GPU it runs on the CPU as far as it goes, to show that it works; that is not written.
"""

import itertools
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision.models
from torch import Tensor, nn

from shufflenetv2.benchmarking.timing import Step, machine, one_round
from shufflenetv2.inference.graphs import record_graph
from shufflenetv2.network.deploy import deploy
from shufflenetv2.network.model import SPECS, ShuffleNetV2
from shufflenetv2.package import CHECKOUT

RESULTS = CHECKOUT / "docs" / "benchmark-gpu.json"
ARCH = "shufflenet_v2_x1_0"
SIZE = 224
BATCHES = (1, 16, 256, 1024)
ROUNDS = 6
BUDGET = 8 * 60.0  # seconds, compiling included
COMPILING = 90.0  # what one compilation may need: none is begun with less time left


@dataclass(frozen=True)
class Way:
    """One row: a network, in a layout and dtype, run in some way."""

    network: str  # torchvision, plain, deploy
    layout: str  # nchw, channels-last
    dtype: str
    run: str = "eager"  # eager, compile, graph


WAYS = [
    *(Way("torchvision", layout, dtype) for layout in ("nchw", "channels-last") for dtype in ("float32", "float16")),
    *(Way("deploy", "channels-last", dtype, run) for dtype in ("float32", "float16") for run in ("eager", "graph")),
    Way("torchvision", "channels-last", "float16", "compile"),
    Way("deploy", "channels-last", "float16", "compile"),
]


def network(way: Way, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    if way.network == "torchvision":
        model: nn.Module = getattr(torchvision.models, ARCH)(weights=None).eval()
    else:
        plain = ShuffleNetV2(SPECS[ARCH]).eval()
        model = deploy(plain) if way.network == "deploy" else plain
    return model.to(device, getattr(torch, way.dtype)).to(memory_format=layout_of(way))


def layout_of(way: Way) -> torch.memory_format:
    return torch.channels_last if way.layout == "channels-last" else torch.contiguous_format


def step_of(way: Way, batch: int, device: torch.device) -> Step:
    """One forward pass, to its end."""
    model: Callable[[Tensor], Tensor] = network(way, device)
    images = torch.randn(batch, 3, SIZE, SIZE, device=device, dtype=getattr(torch, way.dtype))
    images = images.contiguous(memory_format=layout_of(way))
    if way.run == "compile":
        model = torch.compile(model, mode="max-autotune")
    with torch.inference_mode():
        if way.run == "graph":
            model = record_graph(model, images)
        expected = network(way, device)(images)
        got = model(images)
    difference = float((got.float() - expected.float()).abs().max() / expected.float().abs().max())
    if not difference < 0.05:
        raise RuntimeError(f"it computes something else: {difference:.2g} of the largest logit")

    @torch.inference_mode()
    def step() -> None:
        model(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def ceilings(device: torch.device) -> dict[str, float]:
    """What the device reaches: bytes a second of a copy, operations a second of a matrix product in float16."""
    side = 8192 if device.type == "cuda" else 1024
    left, right = torch.randn(2, side, side, device=device).half().unbind()
    source = torch.empty(2**28 if device.type == "cuda" else 2**24, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def best(function: Step) -> float:
        def step() -> None:
            function()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return min(min(one_round(step, warm=True)) for _ in range(3)) / 1000

    return {
        "tera_operations_a_second": 2 * side**3 / best(lambda: left @ right) / 1e12,
        "gigabytes_a_second": 2 * len(source) / best(lambda: target.copy_(source)) / 1e9,
    }


def counted(dtype: torch.dtype = torch.float16) -> dict[str, float]:
    """Operations, and the fewest bytes, for one image of the deploy form: each layer reads its input and weights once
    and writes its output once; gathers and activations, which a kernel could do on the way, are left out."""
    model, width = deploy(ShuffleNetV2(SPECS[ARCH]).eval()), dtype.itemsize
    operations = moved = 0

    def layer(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal operations, moved
        [images] = inputs
        weight = module.weight
        assert isinstance(weight, Tensor)
        operations += 2 * output.numel() // output.shape[1] * weight.numel()
        moved += width * (images.numel() + output.numel())

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(layer)
    with torch.inference_mode():
        model(torch.zeros(1, 3, SIZE, SIZE))
    weights = width * sum(parameter.numel() for parameter in model.parameters())
    return {"operations_an_image": operations, "bytes_an_image": moved, "bytes_of_weights": weights}


def measured(device: torch.device, batches: tuple[int, ...], deadline: float) -> Iterator[dict[str, Any]]:
    """A row for each way and batch; for what could not be run, why."""
    roof, count = ceilings(device), counted()
    yield {"ceilings": roof, "counted": count}
    for batch in batches:
        steps: dict[Way, Step] = {}
        for way in WAYS:
            row = {"batch": batch, **vars(way)}
            left = deadline - time.monotonic()
            if left < (COMPILING if way.run == "compile" else 15):
                yield {**row, "left_out": f"no time: {left:.0f} s were left"}
                continue
            try:
                steps[way] = step_of(way, batch, device)
            except Exception as error:  # whatever a compiler, a driver or a full memory says
                yield {**row, "left_out": str(error).strip().partition("\n")[0][:200]}
        times: dict[Way, list[float]] = {way: [] for way in steps}
        for _, way in itertools.product(range(ROUNDS), steps):
            if time.monotonic() < deadline or not times[way]:
                times[way] += one_round(steps[way], warm=True)
        for way, milliseconds in times.items():
            middle = statistics.median(milliseconds)
            floor = 1000 * max(
                batch * count["operations_an_image"] / roof["tera_operations_a_second"] / 1e12,
                (batch * count["bytes_an_image"] + count["bytes_of_weights"]) / roof["gigabytes_a_second"] / 1e9,
            )
            row = {"batch": batch, **vars(way), "ms": middle, "images_a_second": 1000 * batch / middle}
            yield {**row, "share_of_floor": floor / middle if way.dtype == "float16" else None}
        steps.clear()
        torch._dynamo.reset()


def measure_gpu(output: Path = RESULTS) -> None:
    """Measure, print, and write ``output`` if a GPU was measured."""
    warnings.simplefilter("ignore")  # the compiler's advice
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    batches = BATCHES if device.type == "cuda" else BATCHES[:1]
    rows = []
    for row in measured(device, batches, time.monotonic() + BUDGET):
        rows.append({key: value for key, value in row.items() if value is not None})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    if device.type == "cpu":
        print("there is no GPU: this was a trial on the CPU, and nothing was written", file=sys.stderr)
        return
    report = {"command": "python -m tools measure --gpu", "machine": machine(None), "rows": rows}
    output.write_text(json.dumps(report, indent=1) + "\n")
