"""Weights computed in a runtime: by a PyTorch model, or by a file that is in the cache, or is written there."""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.hub
from torch import nn

from . import __version__
from .builder import Weights, build
from .errors import CacheError, CheckpointError, DeviceError, ShuffleNetError
from .exporting import Order, shape_for, write
from .files import read_regular, sweep, write_whole
from .network.formats.described import ExportedNetwork, digest
from .network.formats.opening import open_exported
from .network.formats.table import FORMATS, HALF, SERVED
from .package import PACKAGE, installed_version, logger

Device = TypeVar("Device", bound=str | torch.device | None)


def in_runtime(
    weights: Weights, runtime: str, *, precision: str = "float32", plain: bool = False, progress: bool = True
) -> Weights:
    """``weights`` to be computed in ``runtime``: by a file for it, written into the cache the first time.

    Args:
        weights: of the manifest, a checkpoint, or an exported file, which has a runtime of its own.
        runtime: ``"torch"``, or one of ``SERVED``.
        precision: ``"float32"`` or one of ``HALF``; an exported file has one of its own.
        plain: the network as it was trained, not its deploy form.
        progress: show a download's progress on stderr.

    Raises:
        ValueError: there is no such runtime or precision, or the file is for another one.
        ImportError: it is not installed; the message has the pip line.
        ExportError: the file could not be made, or computes something else.
        CacheError: nothing can be written into the cache.
    """
    _check(weights, runtime, precision, plain)
    if weights.exported is not None or runtime == "torch":
        return weights
    order = Order(weights, SERVED[runtime], shape_for(FORMATS[SERVED[runtime]], weights), precision, plain)
    path = cached_path(order)
    network = None
    if all(part.exists() for part in order.form.files(path)):
        try:
            _check_seal(order, path)
            network, _ = open_exported(order.format, str(path))
        except CheckpointError as error:
            logger.warning("%s; writing it anew", error)
    if network is None:
        with _writable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path.parent)
            logger.info("writing %s", path)
            for line in write(order, path, progress):
                logger.info("%s", line)
            write_whole(_seal(path), _sha256(order, path).encode())
        network, _ = open_exported(order.format, str(path))
    assert isinstance(network, ExportedNetwork)
    return replace(weights, exported=network, local=True)


def _seal(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _sha256(order: Order, path: Path) -> str:
    return digest(b"".join(read_regular(part, 2**40) for part in order.form.files(path)))


def _check_seal(order: Order, path: Path) -> None:
    """Runtimes check no CRC, and a flipped bit gives other answers: like the weights, their file is hashed each time.

    Raises:
        CheckpointError: it is not what was written.
    """
    try:
        kept = _seal(path).read_bytes() == _sha256(order, path).encode()
    except OSError:
        kept = False
    if not kept:
        raise CheckpointError(f"{path} is not the file that was written there, by its sha256")


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        if path.parts[0].startswith("~"):  # as `weights/store.py` has it
            raise FileNotFoundError(errno.ENOENT, "no home directory is known")
        yield
    except ShuffleNetError:  # of fetching the weights, for one
        raise
    except OSError as error:
        raise CacheError(
            f"{path} could not be written: {error.strerror or error}. Set TORCH_HOME to a directory that is writable "
            "and has room, or leave the runtime out"
        ) from error


def _check(weights: Weights, runtime: str, precision: str, plain: bool) -> None:
    if runtime not in ("torch", *SERVED):
        raise ValueError(f"there is no runtime {runtime!r:.80}; there are torch, {', '.join(SERVED)}")
    if precision not in ("float32", *HALF):
        raise ValueError(f"there is no precision {precision!r:.80} here; there are float32, {', '.join(HALF)}")
    if weights.exported is not None:
        own = weights.exported.inside.precision
        if precision not in ("float32", own):
            raise ValueError(f"{weights.title} computes in {own}, not in {precision}; leave precision out")
        if plain:
            raise ValueError(f"{weights.title} computes the form that it was exported in; leave out plain")
        if runtime not in ("torch", weights.exported.runtime):
            raise ValueError(f"{weights.title} runs in {weights.exported.runtime}, not in {runtime}; leave runtime out")
    elif runtime != "torch":
        able = [each for each in FORMATS[SERVED[runtime]].precisions if each in ("float32", *HALF)]
        if precision not in able:
            raise ValueError(f"{runtime} computes in {', '.join(able)} here, not in {precision}")


def cached_path(order: Order) -> Path:
    """Where the cache has the file: its name holds a digest of all that decides its bytes."""
    weights, form = order.weights, order.form
    code = sorted([*(PACKAGE / "network").rglob("*.py"), PACKAGE / "exporting.py"])
    needs = [each.partition(">")[0] for each in (*form.to_write, *form.to_open)]
    decides = {
        "weights": (weights.sha256, weights.arch, weights.small_stem, weights.classes, asdict(weights.preprocess)),
        "metrics": weights.metrics and asdict(weights.metrics),
        "shape": asdict(order.shape),
        "precision": order.precision,
        "plain": order.plain,
        "code": (__version__, digest(b"".join(file.read_bytes() for file in code)), torch.__version__),
        "packages": {name: installed_version(name) for name in needs},
    }
    key = digest(json.dumps(decides, sort_keys=True).encode())[:16]
    name = f"{weights.arch}-{Path(weights.name).stem}-{key}{form.suffix}"
    return Path(torch.hub.get_dir()) / "shufflenetv2-exported" / name


def device_for(weights: Weights, runtime: str, device: Device) -> Device | str:
    """``device``, or the CPU, on which files compute.

    Raises:
        DeviceError: another one was asked for.
    """
    if weights.exported is None and runtime == "torch":
        return device
    if device is not None and str(device).partition(":")[0] != "cpu":
        runtime = weights.exported.runtime if weights.exported else runtime
        raise DeviceError(f"{weights.title} computes in {runtime} on the CPU, not on {device}; leave the device out")
    return "cpu"


def network_of(
    weights: Weights,
    *,
    runtime: str = "torch",
    precision: str = "float32",
    deploy: bool = True,
    progress: bool = True,
) -> nn.Module:
    """The network that computes photos' logits: a PyTorch model of this precision, or a file in its runtime."""
    weights = in_runtime(weights, runtime, precision=precision, plain=not deploy, progress=progress)
    if weights.exported:
        return weights.exported
    return build(weights.arch, weights, progress=progress, deploy=deploy).to(getattr(torch, precision))


def unchanged(model: nn.Module, weights: Weights, **settings: Any) -> bool:
    """Whether ``model`` is still what ``network_of`` makes of ``weights``: no layer and no number is another since."""
    if isinstance(model, ExportedNetwork):
        return True
    try:
        made = network_of(weights, progress=False, **settings)
    except ShuffleNetError:  # the file has gone: it cannot be said
        return False
    expected = made.state_dict()
    return repr(model) == repr(made) and all(
        name in expected and each.dtype is expected[name].dtype and torch.equal(each, expected[name].to(each.device))
        for name, each in model.state_dict().items()
    )
