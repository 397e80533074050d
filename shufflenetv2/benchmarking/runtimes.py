"""What ``benchmark`` compares, one row each. `benchmark --help` reads it, and need not wait for torch."""

from dataclasses import dataclass
from pathlib import Path

from ..description import BATCH_SIZE
from ..network.formats.table import FORMATS

ROUNDS = 8
FOLDER_ROUNDS = 3
TRAINING_BATCH = 64
IMAGE_SIZE = 224
GEMM_SIZE = 2048


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


@dataclass(frozen=True)
class Runtime:
    """A row of the comparison: in what the networks are timed."""

    name: str  # as tables and figures call it
    networks: tuple[tuple[str, str], ...]  # what is compared: network and layout
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
    "eager": Runtime("PyTorch", (*_BOTH, ("gemm", _NCHW)), default=True),
    "torchscript": Runtime("TorchScript", _BOTH, default=True),
    "compile": Runtime("torch.compile", _COMPILED),
    "onnxruntime": Runtime(
        "ONNX Runtime", _FILES, (*_WRITING, *FORMATS["onnx"].to_open), reads_onnx=True, default=True
    ),
    "openvino": Runtime("OpenVINO", _FILES, (*_WRITING, "openvino>=2025.3"), reads_onnx=True, default=True),
    "cuda": Runtime("CUDA", _BOTH, listed=False),
    "training": Runtime("training", _BOTH[:4], listed=False, batch=TRAINING_BATCH),
    "folder": Runtime("folder", _FILES[::2], listed=False, batch=BATCH_SIZE, rounds=FOLDER_ROUNDS),
}
