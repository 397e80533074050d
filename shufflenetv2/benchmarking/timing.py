"""What ``benchmark`` compares, each in a process of its own: make a network in a runtime, then time it when asked."""

import copy
import datetime
import functools
import os
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..builder import resolve
from ..description import STANDARD
from ..inference.stream import answered
from ..network.deploy import deploy
from ..network.formats.table import FORMATS, Plan, Shape
from ..network.model import SPECS, ShuffleNetV2
from ..photos.transform import PhotoTransform
from .runtimes import GEMM_SIZE, IMAGE_SIZE, Task

WARM_UP = 3
SECONDS_A_ROUND = 0.3
TRAINING_SIZE = 96
REFERENCE_BATCH = 32
REFERENCE_WORKERS = 2
INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimddp",
    "i8mm",
    "bf16",
)

Step = Callable[[], object]


def serve(connection: Connection, task: Task) -> None:
    """Say "ready" once warm, then answer each message by the milliseconds of the steps of one round."""
    warnings.simplefilter("ignore")  # deprecations of the runtimes, not the user's to act on
    if task.threads:
        torch.set_num_threads(task.threads)
    step = STEPS[task.candidate.runtime](task)
    whole_folder = bool(task.photos)  # long enough to be warm by itself
    for _ in range(1 if whole_folder else WARM_UP):
        step()
    connection.send("ready")
    while connection.recv() is not None:
        connection.send(one_round(step, warm=not whole_folder))


def one_round(step: Step, warm: bool) -> list[float]:
    if warm:
        step()  # the other processes have had the caches meanwhile
    milliseconds: list[float] = []
    while sum(milliseconds) < 1000 * SECONDS_A_ROUND:
        start = time.perf_counter()
        step()
        milliseconds.append(1000 * (time.perf_counter() - start))
    return milliseconds


def network(task: Task) -> nn.Module:
    """The candidate's network with random weights, in eval mode; values make no difference to the time."""
    name, layout = task.candidate.network, task.candidate.layout
    model: nn.Module
    if name == "torchvision":
        import torchvision.models

        model = getattr(torchvision.models, task.arch)(weights=None).eval()
    else:
        plain = ShuffleNetV2(SPECS[task.arch]).eval()
        model = deploy(plain) if name == "deploy" else plain
    return model.to(memory_format=torch.channels_last) if layout == "channels-last" else model


def images_of(task: Task, size: int = IMAGE_SIZE) -> Tensor:
    images = torch.randn(task.batch, 3, size, size)
    return images.contiguous(memory_format=torch.channels_last) if task.candidate.layout == "channels-last" else images


def inference(function: Callable[[Tensor], object], images: Tensor) -> Step:
    @torch.inference_mode()
    def step() -> object:
        return function(images)

    return step


def eager(task: Task) -> Step:
    if task.candidate.network == "gemm":
        left, right = torch.randn(2, GEMM_SIZE, GEMM_SIZE)
        return inference(lambda matrix: torch.mm(matrix, right), left)
    return inference(network(task), images_of(task))


def torchscript(task: Task) -> Step:
    return inference(torch.jit.freeze(torch.jit.script(network(task))), images_of(task))


def compiled(task: Task) -> Step:
    torch._inductor.config.freezing = True
    return inference(torch.compile(network(task)), images_of(task))


def onnxruntime(task: Task) -> Step:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(task.onnx_file, options, providers=["CPUExecutionProvider"])
    images = images_of(task).numpy()
    return lambda: session.run(None, {"images": images})


def openvino(task: Task) -> Step:
    import openvino

    core = openvino.Core()
    model = core.read_model(task.onnx_file)
    images = images_of(task).numpy()
    model.reshape(list(images.shape))
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    # f32: on some processors it would compute in bfloat16 otherwise
    request = core.compile_model(model, "CPU", {**settings, "INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    return lambda: request.infer([images], share_inputs=True)


def write_onnx(task: Task, path: Path) -> None:
    FORMATS["onnx"].write(network(task), Plan(Shape(2, 3, IMAGE_SIZE, dynamic=True)), {}, path)


def cuda(task: Task) -> Step:
    model, images = copy.deepcopy(network(task)).cuda(), images_of(task).cuda()

    @torch.inference_mode()
    def step() -> None:
        model(images)
        torch.cuda.synchronize()

    return step


def training(task: Task) -> Step:
    model = network(task).train()
    images, labels = images_of(task, TRAINING_SIZE), torch.randint(1000, (task.batch,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(images), labels))
        optimizer.step()

    return step


def folder(task: Task) -> Step:
    """All photos of a folder to their five likeliest classes: as ``classify`` does it, or as torchvision's users do."""
    model = network(task)

    @torch.inference_mode()
    def likeliest(images: Tensor) -> list[list[int]]:
        indices: list[list[int]] = model(images).softmax(1).topk(5).indices.tolist()
        return indices

    if task.candidate.network == "deploy":
        transform = PhotoTransform(STANDARD)
        return lambda: sum(1 for _ in answered(likeliest, transform, task.photos, task.batch))
    batches = torch.utils.data.DataLoader(
        ReferencePhotos(task.photos, task.arch), REFERENCE_BATCH, num_workers=REFERENCE_WORKERS
    )
    return lambda: sum(len(likeliest(images)) for images in batches)


class ReferencePhotos(torch.utils.data.Dataset[Tensor]):
    def __init__(self, paths: Sequence[Path], arch: str) -> None:
        import torchvision.models

        self.paths = paths
        self.transform = torchvision.models.get_model_weights(arch).IMAGENET1K_V1.transforms()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        from PIL import Image

        image: Tensor = self.transform(Image.open(self.paths[index]).convert("RGB"))
        return image


def exported_file(task: Task) -> Step:
    exported = resolve(None, task.candidate.network).exported
    assert exported is not None
    inside = exported.inside
    size = inside.size or max(inside.description.preprocess.crop, inside.smallest)
    return inference(exported, torch.randn(task.batch, inside.description.in_channels, size, size))


STEPS: dict[str, Callable[[Task], Step]] = {
    "eager": eager,
    "torchscript": torchscript,
    "compile": compiled,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "cuda": cuda,
    "training": training,
    "folder": folder,
    "file": exported_file,
}


@functools.cache
def flops(arch: str) -> int:
    """Floating-point operations for one image: two for each multiply-add."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:  # shapes alone, nothing is computed
        ShuffleNetV2(SPECS[arch]).eval()(torch.empty(1, 3, IMAGE_SIZE, IMAGE_SIZE))
    return int(counter.get_total_flops())


def machine(threads: int | None) -> dict[str, Any]:
    """Where and with what was measured."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "cpu": cpu_name(),
        "instructions": instruction_sets(),
        "cores": os.cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def instruction_sets() -> str | None:
    """Those of this processor that decide what int8 and bfloat16 gain, as Linux calls them."""
    information = Path("/proc/cpuinfo")
    flags = set(information.read_text().split()) if information.is_file() else set()
    return ", ".join(name for name in INSTRUCTIONS if name in flags) or None


def cpu_name() -> str:
    information = Path("/proc/cpuinfo")  # Linux
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
