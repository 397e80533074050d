"""``export``: a model for other runtimes, with its categories and preprocessing inside, compared after writing."""

import argparse
import importlib.util
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__
from ..builder import Weights, build, resolve
from ..errors import ExportError
from ..network.deploy_form import DeployedShuffleNetV2
from ..network.formats.padding import pad_channels
from .options import SMALLEST_EXPORTED_SIZE, add_plain, add_weights, exported_size, positive

SAMPLE_PHOTO = Path(__file__).resolve().parent.parent.parent / "images" / "cat.jpg"  # in a checkout, not in a wheel
# Of the largest logit. Runtimes add float32 numbers in other orders: through some 50 layers about 1e-6 is seen.
TOLERANCE = 1e-4

Runtime = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Shape:
    """The input ``(batch, channels, size, size)``: an example where ``dynamic``, else the only shape allowed."""

    batch: int
    channels: int
    size: int
    dynamic: bool

    def example(self) -> Tensor:
        return torch.zeros(self.batch, self.channels, self.size, self.size)

    def constraints(self) -> tuple[dict[int, torch.export.Dim]] | None:
        if not self.dynamic:
            return None
        height, width = (torch.export.Dim(name, min=SMALLEST_EXPORTED_SIZE) for name in ("height", "width"))
        return ({0: torch.export.Dim("batch"), 2: height, 3: width},)


def write_onnx(model: nn.Module, shape: Shape, metadata: dict[str, str], path: Path) -> None:
    import onnx

    torch.onnx.export(
        pad_channels(model) if isinstance(model, DeployedShuffleNetV2) else model,
        (shape.example(),),
        path,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=shape.constraints(),
        external_data=False,
        verbose=False,
    )
    exported = onnx.load(path)
    onnx.helper.set_model_props(exported, metadata)
    onnx.save(exported, path)


def read_onnx(path: Path) -> tuple[Runtime, dict[str, str]]:
    import onnxruntime  # type: ignore[import-untyped]  # it has no stubs

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), metadata


def write_torch_export(model: nn.Module, shape: Shape, metadata: dict[str, str], path: Path) -> None:
    program = torch.export.export(model, (shape.example(),), dynamic_shapes=shape.constraints())
    torch.export.save(program, path, extra_files=dict(metadata))


def read_torch_export(path: Path) -> tuple[Runtime, dict[str, str]]:
    metadata: dict[str, Any] = dict.fromkeys(METADATA, "")
    program = torch.export.load(path, extra_files=metadata)
    return program.module(), metadata


def write_torchscript(model: nn.Module, shape: Shape, metadata: dict[str, str], path: Path) -> None:
    if not shape.dynamic:
        raise ValueError("a TorchScript file takes any input shape; leave --fixed-batch out")
    torch.jit.save(torch.jit.script(model), path, _extra_files=dict(metadata))


def read_torchscript(path: Path) -> tuple[Runtime, dict[str, str]]:
    metadata: dict[str, Any] = dict.fromkeys(METADATA, "")
    script: Runtime = torch.jit.load(path, _extra_files=metadata)  # type: ignore[no-untyped-call]
    return script, {key: value.decode() if isinstance(value, bytes) else value for key, value in metadata.items()}


@dataclass(frozen=True)
class Format:
    suffix: str
    needs: tuple[str, ...]  # packages beyond torch
    write: Callable[[nn.Module, Shape, dict[str, str], Path], None]
    read: Callable[[Path], tuple[Runtime, dict[str, str]]]


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), write_onnx, read_onnx),
    "torch-export": Format(".pt2", (), write_torch_export, read_torch_export),
    "torchscript": Format(".pt", (), write_torchscript, read_torchscript),
}

# What goes into the file beside the network, each as JSON.
METADATA: dict[str, Callable[[Weights], object]] = {
    "arch": lambda source: source.arch,
    "weights": lambda source: Path(source.reference[1]).name,
    "categories": lambda source: source.labels,
    "preprocess": lambda source: asdict(source.preprocess),
    "producer": lambda source: f"shufflenetv2 {__version__}, torch {torch.__version__}",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: the architecture's name")
    add_weights(parser)
    add_plain(parser)
    parser.add_argument(
        "--size", type=exported_size, default=224, help="height and width of the example (default: 224)"
    )
    parser.add_argument(
        "--fixed-batch",
        type=positive,
        metavar="N",
        help="allow no other input than N images of --size, for runtimes that ask for it (default: any batch and size)",
    )


def run(arguments: argparse.Namespace) -> int:
    form = FORMATS[arguments.format]
    require(form.needs)
    source = resolve(arguments.arch, arguments.weights)
    output = arguments.output or Path(source.arch + form.suffix)
    # Two images as an example: torch.export takes a dimension of one for a constant.
    fixed = arguments.fixed_batch
    shape = Shape(fixed or 2, source.in_channels, arguments.size, dynamic=fixed is None)
    model = build(source.arch, source, deploy=not arguments.plain)
    for line in export(model, source, form, shape, output):
        print(line)
    return 0


def require(packages: tuple[str, ...]) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(f"this format needs {', '.join(missing)}; type: pip install {' '.join(missing)}")


@torch.inference_mode()
def export(model: nn.Module, source: Weights, form: Format, shape: Shape, output: Path) -> Iterator[str]:
    """Write ``model`` to ``output``, which appears only once the file was read back and computed the same.

    Yields:
        What was compared and how much it differed, then what was written.

    Raises:
        ExportError: it could not be written, or the outputs differ by more than ``TOLERANCE``.
        OSError: the file cannot be written.
    """
    metadata = {key: json.dumps(value(source), ensure_ascii=False) for key, value in METADATA.items()}
    temporary = output.with_name(f".{output.stem}.{os.getpid()}.partial{form.suffix}")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"there is no directory {output.parent} to write {output.name} into")
    try:
        with quiet():
            try:
                form.write(model, shape, metadata, temporary)
            except RuntimeError as error:  # also what torch.export and torch.onnx raise
                reason = str(error).strip().partition("\n")[0].rstrip(".")
                advice = "; with --fixed-batch N it need not allow every batch and size" if shape.dynamic else ""
                raise ExportError(f"{output}: torch {torch.__version__} cannot write this: {reason}{advice}") from error
            runtime, found = form.read(temporary)
        if {key: found.get(key) for key in metadata} != metadata:
            raise ExportError(f"{output}: the categories and preprocessing came back altered; nothing was written")
        for name, images in trials(source, shape):
            expected, got = model(images), runtime(images)
            difference, largest = float((got - expected).abs().max()), float(expected.abs().max())
            if got.shape != expected.shape or not difference <= TOLERANCE * largest:
                raise ExportError(
                    f"{output}: on {name} the file gives {tuple(got.shape)}, up to {difference:.3g} away from the "
                    f"model's {tuple(expected.shape)}, where {TOLERANCE * largest:.3g} is allowed; nothing was written"
                )
            yield f"{name}: largest difference {difference:.2g}, largest logit {largest:.3g}"
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
    yield f"{output}: {output.stat().st_size / 1e6:.1f} MB"


def trials(source: Weights, shape: Shape) -> Iterator[tuple[str, Tensor]]:
    """Inputs to compare on: random ones in every shape that is promised, and a photo."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(shape.batch, shape.size, shape.size)]
    if shape.dynamic:
        shapes += [(1, shape.size, shape.size), (3, shape.size + 13, shape.size + 32)]
    for batch, height, width in shapes:
        images = torch.randn(batch, shape.channels, height, width, generator=generator)
        yield f"random input {tuple(images.shape)}", images
    if SAMPLE_PHOTO.is_file() and shape.channels in (1, 3):
        from ..photos.transform import PhotoTransform

        photo = PhotoTransform(source.preprocess, shape.channels)(SAMPLE_PHOTO)
        if shape.dynamic or photo.shape[-1] == shape.size:
            yield f"the photo {SAMPLE_PHOTO.name}", photo.expand(shape.batch, -1, -1, -1).contiguous()
            return
    print("no sample photo of this size or these channels at hand: compared on random input alone", file=sys.stderr)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' own chatter: deprecations, and versions of packages they could also have used."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
