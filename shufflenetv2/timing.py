"""What ``benchmark`` compares, each in a process of its own: make a network in a runtime, then time it when asked."""

import copy
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .description import STANDARD
from .network.deploy import deploy
from .network.formats.table import FORMATS, Shape
from .network.model import SPECS, ShuffleNetV2
from .photos.folders import BATCH_SIZE, read_ahead
from .photos.transform import PhotoTransform

WARM_UP = 3
SECONDS_A_ROUND = 0.3
ROUNDS = 8
FOLDER_ROUNDS = 3
IMAGE_SIZE = 224
TRAINING_SIZE = 96
TRAINING_BATCH = 64
GEMM_SIZE = 2048
REFERENCE_BATCH = 32
REFERENCE_WORKERS = 2

Step = Callable[[], object]


@dataclass(frozen=True)
class Candidate:
    """One bar of the comparison; ``layout`` is that of its weights and images."""

    runtime: str
    network: str  # torchvision, plain, deploy; gemm: one matrix product, for the roofline
    layout: str  # nchw, channels-last


@dataclass(frozen=True)
class Task:
    """All a process needs to know."""

    candidate: Candidate
    arch: str
    batch: int
    threads: int | None = None
    photos: tuple[Path, ...] = ()  # of the folder runtime
    onnx_file: Path | None = None  # of the runtimes that read one


def serve(connection: Connection, task: Task) -> None:
    """Say "ready" once warm, then answer each message by the milliseconds of the steps of one round."""
    warnings.simplefilter("ignore")  # deprecations of the runtimes, not the user's to act on
    if task.threads:
        torch.set_num_threads(task.threads)
    step = RUNTIMES[task.candidate.runtime].make_step(task)
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
    import onnxruntime  # type: ignore[import-untyped]  # it has no stubs

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
    FORMATS["onnx"].write(network(task), Shape(2, 3, IMAGE_SIZE, dynamic=True), {}, path)


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
    loader: Callable[[], Any]
    if task.candidate.network == "deploy":
        transform = PhotoTransform(STANDARD)

        def loader() -> Any:
            return (batch.images for batch in read_ahead(task.photos, transform, task.batch))
    else:
        batches = torch.utils.data.DataLoader(
            ReferencePhotos(task.photos, task.arch), REFERENCE_BATCH, num_workers=REFERENCE_WORKERS
        )

        def loader() -> Any:
            return batches

    @torch.inference_mode()
    def step() -> None:
        for images in loader():
            model(images).softmax(1).topk(5)

    return step


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


@dataclass(frozen=True)
class Runtime:
    """A row of the comparison: in what the networks are timed."""

    name: str  # as tables and figures call it
    networks: tuple[tuple[str, str], ...]  # what is compared: network and layout
    make_step: Callable[[Task], Step]
    needs: tuple[str, ...] = ()  # packages beyond torch and torchvision, as pip takes them
    reads_onnx: bool = False
    default: bool = False  # part of a run that asks for none by name
    listed: bool = True  # --runtimes takes it, and tables show it: inference on the CPU, bounded by its matrix product
    batch: int | None = None  # its own; None: those of --batch
    rounds: int = ROUNDS


_NCHW, _LAST = "nchw", "channels-last"
_BOTH = (("torchvision", _NCHW), ("torchvision", _LAST), ("plain", _NCHW), ("plain", _LAST), ("deploy", _NCHW))
_COMPILED = (("torchvision", _LAST), ("plain", _LAST), ("deploy", _NCHW))
_FILES = (("torchvision", _NCHW), ("plain", _NCHW), ("deploy", _NCHW))  # a file of ONNX knows one layout
_WRITING = FORMATS["onnx"].to_write

REFERENCE = "torchvision>=0.25"  # what everything is compared with
RUNTIMES = {
    "eager": Runtime("PyTorch", (*_BOTH, ("gemm", _NCHW)), eager, default=True),
    "torchscript": Runtime("TorchScript", _BOTH, torchscript, default=True),
    "compile": Runtime("torch.compile", _COMPILED, compiled),
    "onnxruntime": Runtime(
        "ONNX Runtime", _FILES, onnxruntime, (*_WRITING, *FORMATS["onnx"].to_open), reads_onnx=True, default=True
    ),
    "openvino": Runtime("OpenVINO", _FILES, openvino, (*_WRITING, "openvino>=2025.3"), reads_onnx=True, default=True),
    "cuda": Runtime("CUDA", _BOTH, cuda, listed=False),
    "training": Runtime("training", _BOTH[:4], training, listed=False, batch=TRAINING_BATCH),
    "folder": Runtime("folder", _FILES[::2], folder, listed=False, batch=BATCH_SIZE, rounds=FOLDER_ROUNDS),
}
