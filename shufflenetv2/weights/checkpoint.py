"""Bytes become checked tensors, and only then a model.

A checkpoint is either a plain state dict under torchvision's keys, or the self-describing file that ``train`` writes:
``{"format": "shufflenetv2", "schema_version": 1, "arch", "in_channels", "categories", "preprocess", "metrics",
"state_dict"}``, all of plain types. Both load with ``weights_only=True``; nothing here ever loads without it.
"""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, ManifestError
from ..network.model import SPECS, ShuffleNetV2
from .manifest import Metrics, Preprocess, label, parse_metrics, parse_preprocess, take

FORMAT = "shufflenetv2"
SCHEMA_VERSION = 1
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_PIECE = 32_000  # elements
_COUNTER = "num_batches_tracked"  # absent in files written before PyTorch 0.4.1


@dataclass(frozen=True)
class Description:
    """What a self-describing checkpoint says of itself."""

    arch: str
    in_channels: int
    categories: tuple[str, ...]
    preprocess: Preprocess
    metrics: Metrics | None = None


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by state-dict key, and their description where the file has one. ``where`` names the file in messages."""

    state_dict: dict[str, Tensor]
    description: Description | None
    where: str


def describe(description: Description) -> dict[str, Any]:
    """The plain types that ``parse_description`` reads back."""
    preprocess, metrics = description.preprocess, description.metrics
    return {
        "arch": description.arch,
        "in_channels": description.in_channels,
        "categories": list(description.categories),
        "preprocess": {
            "resize": preprocess.resize,
            "crop": preprocess.crop,
            "interpolation": preprocess.interpolation,
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
        },
        "metrics": metrics
        and {
            "dataset": metrics.dataset,
            "acc@1": metrics.acc1,
            "acc@5": metrics.acc5,
            "measured_by": metrics.measured_by,
        },
    }


def parse_description(raw: Mapping[str, Any], where: str) -> Description:
    """Validate, as strictly as the manifest, what a checkpoint says of itself.

    Raises:
        CheckpointError: naming the field.
    """
    try:
        arch, in_channels = take(raw, "arch", str, where), take(raw, "in_channels", int, where)
        categories = take(raw, "categories", list, where)
        if arch not in SPECS:
            raise ManifestError(f"{where}: the field 'arch' must be one of {', '.join(SPECS)}, got {arch!r:.80}")
        if not 1 <= in_channels <= 1024:
            raise ManifestError(f"{where}: the field 'in_channels' must be from 1 to 1024, got {in_channels}")
        if not categories or not all(isinstance(each, str) for each in categories):
            raise ManifestError(f"{where}: the field 'categories' must be a list of labels, got {categories!r:.80}")
        return Description(
            arch=arch,
            in_channels=in_channels,
            categories=tuple(label(each, where) for each in categories),
            preprocess=parse_preprocess(take(raw, "preprocess", dict, where), where),
            metrics=None if raw.get("metrics") is None else parse_metrics(take(raw, "metrics", dict, where), where),
        )
    except ManifestError as error:
        raise CheckpointError(str(error)) from error


def write_checkpoint(path: str | os.PathLike[str], state_dict: Mapping[str, Tensor], description: Description) -> None:
    """Write a self-describing checkpoint; the file appears whole or not at all."""
    content = {"format": FORMAT, "schema_version": SCHEMA_VERSION, **describe(description)}
    content["state_dict"] = {key: tensor.detach().cpu().contiguous() for key, tensor in state_dict.items()}
    write_atomically(path, content)


def write_atomically(path: str | os.PathLike[str], content: object) -> None:
    """``torch.save`` into a temporary file beside ``path``, flush it to the disk, then replace ``path``."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_plain(data: bytes, where: str) -> Any:
    """``torch.load(..., weights_only=True)`` from memory, on the CPU, whatever file format torch has used.

    Raises:
        CheckpointError: the bytes are no checkpoint, are damaged, or hold more than tensors and plain types.
    """
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load fails with a dozen unrelated types on damaged files
        raise CheckpointError(
            f"{where} cannot be loaded as a checkpoint ({type(error).__name__}: {_reason(error)}). It must be written "
            "by torch.save(model.state_dict(), ...) and hold tensors and plain types only"
        ) from error


_ADVICE = ("Weights only load failed", "(1)", "(2)", "Please file an issue", "Check the documentation")


def _reason(error: Exception) -> str:
    """What torch says is wrong, without its advice to load the file unsafely; printable, for it may quote the file."""
    lines = (line.strip().removeprefix("WeightsUnpickler error: ") for line in str(error).splitlines())
    reasons = [line.partition(". Please")[0] for line in lines if line and not line.startswith(_ADVICE)]
    return "".join(each if each.isprintable() else "?" for each in (reasons or ["no reason given"])[0])[:200]


def parse_checkpoint(data: bytes, where: str) -> Checkpoint:
    """Read the bytes of a checkpoint file and say what it is; ``load`` checks its tensors.

    Raises:
        CheckpointError: it is no checkpoint of this network, with the remedy where there is one.
    """
    content = load_plain(data, where)
    if not isinstance(content, dict):
        raise CheckpointError(f"{where} holds a {type(content).__name__}, expected a state dict")
    description = None
    if content.get("format") == FORMAT:
        version = content.get("schema_version")
        if version != SCHEMA_VERSION:
            raise CheckpointError(
                f"{where} has schema_version {version!r:.40}, this code reads {SCHEMA_VERSION}; upgrade the package"
            )
        description = parse_description(content, where)
        content = content.get("state_dict")
        if not isinstance(content, dict):
            raise CheckpointError(f"{where} has no state dict under 'state_dict'; write it with write_checkpoint")
    _explain_foreign(content, where)
    checkpoint = Checkpoint(dict(content), description, where)
    if description:
        says = (len(description.categories), description.in_channels)
        has = (num_classes(checkpoint), in_channels(checkpoint))
        if says != has:
            raise CheckpointError(
                f"{where} describes {says[0]} categories and {says[1]} channels, but its tensors are for {has[0]} and "
                f"{has[1]}; write it with write_checkpoint"
            )
    return checkpoint


def _explain_foreign(content: dict[Any, Any], where: str) -> None:
    """Name the usual near misses as what they are, with the remedy."""
    keys = [key for key in content if isinstance(key, str)]
    if len(keys) != len(content):
        raise CheckpointError(f"{where} has keys that are not names; expected a state dict under torchvision's keys")
    if not keys:
        raise CheckpointError(f"{where} holds an empty state dict; expected one under torchvision's keys")
    inner = [key for key in keys if isinstance(content[key], Mapping)]
    if inner:
        raise CheckpointError(
            f"{where} is a wrapped checkpoint with the keys {sorted(keys)[:8]}; save the state dict alone: "
            f"torch.save(torch.load(path, weights_only=True)[{inner[0]!r}], new_path)"
        )
    prefix = next((each for each in ("module.", "_orig_mod.", "model.") if keys[0].startswith(each)), None)
    if prefix:
        raise CheckpointError(
            f"{where} has keys that begin with {prefix!r} (saved from a wrapped model); save model.module.state_dict() "
            f"or strip it: {{key.removeprefix({prefix!r}): value for key, value in state_dict.items()}}"
        )
    if "conv1.0.bias" in keys or not any(key.endswith("running_mean") for key in keys):
        raise CheckpointError(
            f"{where} has no BatchNorm statistics: it looks like the folded deploy form. Give the plain network's "
            "state dict and ask for deploy=True; folding happens on loading"
        )


def num_classes(checkpoint: Checkpoint) -> int:
    """Rows of the classifier; 0 if the checkpoint has none."""
    weight = checkpoint.state_dict.get("fc.weight")
    return weight.shape[0] if isinstance(weight, Tensor) and weight.dim() == 2 else 0


def in_channels(checkpoint: Checkpoint) -> int:
    """Channels of the images the first convolution reads."""
    weight = checkpoint.state_dict.get("conv1.0.weight")
    if not isinstance(weight, Tensor) or weight.dim() != 4:
        raise CheckpointError(f"{checkpoint.where} has no convolution under 'conv1.0.weight': not a ShuffleNetV2")
    return weight.shape[1]


def arch_of(checkpoint: Checkpoint) -> str | None:
    """The architecture the checkpoint says, or else shows by the widths of its stages; ``None`` for a custom one."""
    if checkpoint.description:
        return checkpoint.description.arch
    head = checkpoint.state_dict.get("conv5.0.weight")
    if not isinstance(head, Tensor) or head.dim() != 4:
        return None
    widths = (head.shape[1], head.shape[0])
    matches = [arch for arch, spec in SPECS.items() if (spec.stage_channels[2], spec.head_channels) == widths]
    return matches[0] if matches else None


def load(model: ShuffleNetV2, checkpoint: Checkpoint) -> None:
    """Put the checkpoint's tensors into ``model``, which may be on the meta device.

    Everything is checked before the model is touched. Floating tensors are cast to the default dtype and moved to the
    default device; missing BatchNorm counters (all or none) are zero.

    Raises:
        CheckpointError: naming the first tensor that does not fit.
    """
    expected, given = model.state_dict(), checkpoint.state_dict
    counters = [key for key in expected if key.endswith(_COUNTER)]
    without_counters = not any(key in given for key in counters)
    for key in expected:
        if key not in given and not (without_counters and key.endswith(_COUNTER)):
            raise CheckpointError(f"{checkpoint.where} lacks the tensor {key!r}, which this network has")
    for key in given:
        if key not in expected:
            raise CheckpointError(f"{checkpoint.where} has a tensor {key!r}, which this network does not have")
    for key, tensor in given.items():
        _check_kind(key, tensor, expected[key], checkpoint.where)

    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    # Detached: a file may hold Parameters, which load_state_dict would refuse as buffers, half way through.
    plain = {key: tensor.detach().contiguous() for key, tensor in given.items()}
    cast = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in plain.items()}
    _check_values(cast, checkpoint.where)
    ready = {key: tensor.to(device) for key, tensor in cast.items()}
    if without_counters:
        ready |= {key: torch.zeros((), dtype=torch.int64, device=device) for key in counters}
    model.load_state_dict(ready, strict=True, assign=True)


def _check_kind(key: str, tensor: object, expected: Tensor, where: str) -> None:
    if not isinstance(tensor, Tensor):
        raise CheckpointError(f"{where}: {key!r} must be a tensor, got a {type(tensor).__name__}")
    if tensor.is_nested or tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        raise CheckpointError(f"{where}: {key!r} must be a dense tensor with data, got {_kind(tensor)}")
    wanted = FLOATING if expected.is_floating_point() else (torch.int64,)
    if tensor.dtype not in wanted:
        names = ", ".join(str(each) for each in wanted)
        raise CheckpointError(f"{where}: {key!r} must have one of the dtypes {names}, got {tensor.dtype}")
    if tensor.shape != expected.shape:
        raise CheckpointError(f"{where}: {key!r} must have shape {list(expected.shape)}, got {list(tensor.shape)}")


def _check_values(tensors: Mapping[str, Tensor], where: str) -> None:
    """After the cast: a finite float64 can be infinite as a float32."""
    floating = {key: tensor for key, tensor in tensors.items() if tensor.is_floating_point()}
    # Where a sum is finite, so are its terms. Small tensors are summed together, large ones in pieces that torch does
    # not parallelise: starting its thread pool takes longer than all of the checks.
    small = torch.cat([tensor.flatten() for tensor in floating.values() if tensor.numel() < _PIECE])
    large = [tensor.flatten() for tensor in floating.values() if tensor.numel() >= _PIECE]
    sums = [piece.sum() for tensor in (small, *large) for piece in torch.split(tensor, _PIECE)]
    if not bool(torch.stack(sums).isfinite().all()):
        for key, tensor in floating.items():  # find it; or a sum was too large, and nothing is wrong
            if not bool(tensor.isfinite().all()):
                raise CheckpointError(
                    f"{where}: {key!r} holds values that are not finite in {tensor.dtype} (NaN or infinity)"
                )
    variances = {key: tensor for key, tensor in floating.items() if key.endswith("running_var")}
    if float(torch.cat([*variances.values()]).min()) < 0:
        key, least = min(((key, float(tensor.min())) for key, tensor in variances.items()), key=lambda item: item[1])
        raise CheckpointError(f"{where}: {key!r} holds a negative variance, {least}")


def _kind(tensor: Tensor) -> str:
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.is_meta:
        return "a tensor on the meta device"
    return "a quantized tensor" if tensor.is_quantized else f"the layout {tensor.layout}"
