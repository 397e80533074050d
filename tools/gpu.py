"""Measure docs/benchmark-gpu.json: this repository beside torchvision on a GPU, in one process, taking turns.

It needs no network and no package beyond torch and torchvision, ends within eight minutes, and says what it could not
run. On a machine without a GPU it runs on the CPU as far as it goes, to show that it works; that is not written.
"""

import copy
import functools
import itertools
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision.models
from support.networks import randomise
from torch import Tensor, nn

from shufflenetv2.benchmarking.timing import ReferencePhotos, Step, machine, one_round
from shufflenetv2.builder import resolve
from shufflenetv2.inference.classifier import Classifier
from shufflenetv2.inference.graphs import record_graph
from shufflenetv2.network.deploy import deploy
from shufflenetv2.network.model import SPECS, ShuffleNetV2
from shufflenetv2.package import CHECKOUT

from .measure import ARCH, make_photos, random_checkpoint

RESULTS = CHECKOUT / "docs" / "benchmark-gpu.json"
SIZE = 224
BATCHES = (1, 16, 256, 1024)
ROUNDS = 3
BUDGET = 8 * 60.0  # seconds, compiling included
LEFT = 180.0  # of them for all that is not compiling
WAVES = ((1, 256), (16, 1024))  # batches; the second if there is time
PHOTOS = 400
PHOTO_BATCH = 64


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


@functools.cache
def on_cpu(name: str) -> nn.Module:
    plain = randomise(ShuffleNetV2(SPECS[ARCH]))
    if name != "torchvision":
        return deploy(plain) if name == "deploy" else plain
    model: nn.Module = getattr(torchvision.models, ARCH)(weights=None).eval()
    model.load_state_dict(plain.state_dict())
    return model


def network(way: Way, device: torch.device) -> nn.Module:
    model = copy.deepcopy(on_cpu(way.network)).to(device, getattr(torch, way.dtype))
    return model.to(memory_format=layout_of(way))


def layout_of(way: Way) -> torch.memory_format:
    return torch.channels_last if way.layout == "channels-last" else torch.contiguous_format


def images_of(way: Way, batch: int, device: torch.device) -> Tensor:
    images = torch.randn(batch, 3, SIZE, SIZE, device=device, dtype=getattr(torch, way.dtype))
    return images.contiguous(memory_format=layout_of(way))


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return torch.compile(model, mode="max-autotune")


def compile_one(batch: int, way: Way) -> None:
    """Leave in the compiler's cache on disk what ``step_of`` is to find there."""
    warnings.simplefilter("ignore")
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.inference_mode():
        compiled(network(way, device))(images_of(way, batch, device))


def compile_ahead(orders: list[tuple[int, Way]], seconds: float) -> dict[tuple[int, Way], float]:
    """The seconds that each compilation took. They run side by side; what takes longer than all may is ended."""
    context = multiprocessing.get_context("spawn")
    running = {order: context.Process(target=compile_one, args=order) for order in orders}
    begin, done = time.monotonic(), {}
    for process in running.values():
        process.start()
    while running and time.monotonic() < begin + seconds:
        time.sleep(0.2)
        for order in [order for order, process in running.items() if not process.is_alive()]:
            if running.pop(order).exitcode == 0:
                done[order] = time.monotonic() - begin
    for process in running.values():
        process.kill()
        process.join()
    return done


def step_of(way: Way, batch: int, device: torch.device) -> Step:
    """One forward pass, to its end."""
    model: Callable[[Tensor], Tensor] = network(way, device)
    images = images_of(way, batch, device)
    with torch.inference_mode():
        expected = model(images)
        if way.run == "compile":
            model = compiled(network(way, device))
        elif way.run == "graph":
            model = record_graph(model, images)
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
    ready: dict[tuple[int, Way], float] = {}
    for wave in WAVES:
        if (left := deadline - time.monotonic()) > LEFT + 60:
            orders = [(batch, way) for batch in wave if batch in batches for way in WAYS if way.run == "compile"]
            ready |= compile_ahead(orders, left - LEFT)
    told = [{"batch": batch, **vars(way), "seconds": round(took)} for (batch, way), took in ready.items()]
    yield {"ceilings": ceilings(device), "counted": counted(), "compiled_side_by_side": told}
    for batch in batches:
        steps: dict[Way, Step] = {}
        for way in WAYS:
            row = {"batch": batch, **vars(way)}
            if way.run == "compile" and (batch, way) not in ready:
                yield {**row, "left_out": "there was no time to compile it, or it failed"}
                continue
            try:
                steps[way] = step_of(way, batch, device)
            except Exception as error:  # whatever a compiler, a driver or a full memory says
                yield {**row, "left_out": str(error).strip().partition("\n")[0][:200] or type(error).__name__}
        times: dict[Way, list[float]] = {way: [] for way in steps}
        for _, way in itertools.product(range(ROUNDS), steps):
            if time.monotonic() < deadline or not times[way]:
                times[way] += one_round(steps[way], warm=True)
        for way, milliseconds in times.items():
            middle = statistics.median(milliseconds)
            yield {"batch": batch, **vars(way), "ms": middle, "images_a_second": 1000 * batch / middle}
        steps.clear()
        torch._dynamo.reset()


def with_floor(row: dict[str, Any], roof: dict[str, float], count: dict[str, float]) -> dict[str, Any]:
    """In float16, the share of the time that the card needs at least."""
    if row.get("dtype") != "float16" or "ms" not in row:
        return row
    moved = row["batch"] * count["bytes_an_image"] + count["bytes_of_weights"]
    operations = row["batch"] * count["operations_an_image"]
    floor = max(operations / roof["tera_operations_a_second"] / 1e12, moved / roof["gigabytes_a_second"] / 1e9)
    return {**row, "share_of_floor": 1000 * floor / row["ms"]}


def photos(device: torch.device) -> Iterator[dict[str, Any]]:
    """Photos a second of a folder: torchvision's loop, and the stream with each decoder; first labels that differ."""
    with tempfile.TemporaryDirectory() as name:
        place, checkpoint = Path(name) / "photos", Path(name) / "x1_0.pth"
        place.mkdir()
        make_photos(place, PHOTOS)
        paths = sorted(place.iterdir())
        random_checkpoint(checkpoint)
        model = network(Way("torchvision", "nchw", "float32"), device)
        loader = torch.utils.data.DataLoader(
            ReferencePhotos(paths, ARCH),
            PHOTO_BATCH,
            num_workers=multiprocessing.cpu_count(),
            pin_memory=True,
            persistent_workers=True,
        )

        @torch.inference_mode()
        def reference() -> int:
            return sum(len(model(images.to(device)).softmax(1).topk(5).indices.tolist()) for images in loader)

        yield {"photos": "torchvision, DataLoader", "photos_a_second": rate(reference)}
        labels = {}
        for decoder in (False, "cuda"):
            name = f"stream, decoded by {'the CPU' if decoder is False else 'the card'}"
            try:
                for precision in ("float32", "float16"):
                    classify = Classifier(
                        resolve(None, str(checkpoint)), device=device, precision=precision, fast_decode=decoder
                    )
                    yield {"photos": name, "dtype": precision, "photos_a_second": rate(streamed(classify, paths))}
                bundled = Classifier(resolve(None, "cifar10"), device=device, fast_decode=decoder)
                labels[decoder] = [each.predictions[0].label for each in bundled.stream(paths, batch_size=PHOTO_BATCH)]
            except Exception as error:  # whatever a driver says
                yield {"photos": name, "left_out": str(error).strip().partition("\n")[0][:200]}
        if len(labels) == 2:
            changed = sum(ours != cards for ours, cards in zip(*labels.values(), strict=True))
            yield {"photos": "first labels that the card's decoder changes", "changed": changed, "of": len(paths)}


def streamed(classify: Classifier, paths: list[Path]) -> Callable[[], int]:
    return lambda: sum(1 for _ in classify.stream(paths, batch_size=PHOTO_BATCH))


def rate(run: Callable[[], int], times: int = 2) -> float:
    """Photos a second, after a first run; ``run`` says how many they were."""
    run()
    begin = time.perf_counter()
    count = sum(run() for _ in range(times))
    return count / (time.perf_counter() - begin)


def measure_gpu(output: Path = RESULTS, budget: float = BUDGET) -> None:
    """Measure, print, and write ``output`` if a GPU was measured."""
    warnings.simplefilter("ignore")  # the compiler's advice
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    batches = BATCHES if device.type == "cuda" else BATCHES[:1]
    rows: list[dict[str, Any]] = []
    for row in itertools.chain(measured(device, batches, time.monotonic() + budget), photos(device)):
        rows.append(with_floor(row, rows[0]["ceilings"], rows[0]["counted"]) if rows else row)
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        report = {"command": "python -m tools measure --gpu", "machine": machine(None), "rows": rows}
        if device.type == "cuda":
            output.write_text(json.dumps(report, indent=1) + "\n")
    if device.type == "cpu":
        print("there is no GPU: this was a trial on the CPU, and nothing was written", file=sys.stderr)
