"""Bytes become checked tensors, and only then a model.

A checkpoint is either a plain state dict under torchvision's keys, or the self-describing file that ``train`` writes:
``{"format": "shufflenetv2", "schema_version": 1, "arch", "in_channels", "categories", "preprocess", "metrics",
"state_dict"}``, all of plain types. Both load with ``weights_only=True``; nothing here ever loads without it.
"""

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..description import FIRST_KEY, Description, parse_description, to_json
from ..errors import CheckpointError, ManifestError
from ..files import expanded, read_regular, write_whole
from ..package import logger

FORMAT = "shufflenetv2"
RUN_FORMAT = "shufflenetv2-training"  # the state of a training run, `last.pth`
SCHEMA_VERSION = 1
MAX_BYTES = 1_000_000_000  # of a file of the user's own; the widest network in float64 has 60 MB
EXPANDED_BYTES = 2**26  # that a tensor may claim beyond what the file holds of it; the largest of x2.0 has 8 MB
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_PIECE = 32_000  # elements
_COUNTER = "num_batches_tracked"  # absent in files written before PyTorch 0.4.1


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by state-dict key, and their description where the file has one. ``where`` names the file in messages."""

    state_dict: dict[str, Tensor]
    description: Description | None
    where: str
    sha256: str = ""  # of the file, where it is a user's own

    @property
    def num_classes(self) -> int:
        """Rows of the classifier; 0 if the checkpoint has none."""
        weight = self.state_dict.get("fc.weight")
        return weight.shape[0] if isinstance(weight, Tensor) and weight.dim() == 2 else 0

    @property
    def in_channels(self) -> int:
        """Channels of the images that the first convolution reads."""
        return self._kernel(FIRST_KEY).shape[1]

    @property
    def widths(self) -> tuple[int, int]:
        """Channels of stage 4 and of conv5, by which the four architectures differ."""
        weight = self._kernel("conv5.0.weight")
        return weight.shape[1], weight.shape[0]

    def _kernel(self, key: str) -> Tensor:
        weight = self.state_dict.get(key)
        if not isinstance(weight, Tensor) or weight.dim() != 4:
            raise CheckpointError(f"{self.where} has no convolution under {key!r}: not a ShuffleNetV2")
        return weight


def write_checkpoint(path: str | os.PathLike[str], state_dict: Mapping[str, Tensor], description: Description) -> None:
    """Write a self-describing checkpoint; the file appears whole or not at all."""
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state_dict.items()}
    head = {"format": FORMAT, "schema_version": SCHEMA_VERSION}
    save_whole(path, {**head, **to_json(description), "state_dict": tensors})


def save_whole(path: str | os.PathLike[str], content: object) -> None:
    """``torch.save`` to a file that appears whole or not at all, with the system's own error where it cannot."""
    torch.save(content, buffer := io.BytesIO())
    write_whole(path, buffer.getvalue())


def read_checkpoint(path: str | os.PathLike[str], archs: Mapping[str, object]) -> Checkpoint:
    """Read a user's own file, which no hash vouches for.

    Raises:
        CheckpointError: it cannot be read, or is no checkpoint of this network.
    """
    where = os.fspath(path)
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        raise CheckpointError(
            f"{where} is refused: torch {torch.__version__} cannot load an unverified file safely "
            "(CVE-2025-32434); upgrade to torch 2.6 or later"
        )
    try:
        data = read_regular(expanded(path), MAX_BYTES)
    except (OSError, ValueError) as error:  # a NUL in the path
        from .foreign import unreadable  # a network that is loaded by its name needs nothing of it

        raise CheckpointError(unreadable(where, error)) from error
    if len(data) > MAX_BYTES:
        raise CheckpointError(f"{where} is larger than {MAX_BYTES:,} bytes: no checkpoint of this network is")
    logger.info("%s is not in the manifest: its bytes were not verified", where)
    return replace(parse_checkpoint(data, where, archs), sha256=hashlib.sha256(data).hexdigest())


def load_plain(data: bytes, where: str, *, verified: bool = False) -> Any:
    """``torch.load(..., weights_only=True)`` from memory, on the CPU, whatever file format torch has used.

    Raises:
        CheckpointError: the bytes are no checkpoint, are damaged, or hold more than tensors and plain types.
    """
    if not verified:
        from .foreign import check_container

        check_container(data, where)
    try:
        # mmap: a process may have made it torch's default, and it is for paths alone.
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True, mmap=False)
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


def parse_checkpoint(data: bytes, where: str, archs: Mapping[str, object], *, verified: bool = False) -> Checkpoint:
    """Read the bytes of a checkpoint file and say what it is; ``load`` checks its tensors.

    Args:
        data: the whole file.
        where: names it in messages.
        archs: what a description may give as its architecture.
        verified: whether the bytes are known by their sha256.

    Raises:
        CheckpointError: it is no checkpoint of this network, with the remedy where there is one.
    """
    content, description = load_plain(data, where, verified=verified), None
    if isinstance(content, dict) and content.get("format") == RUN_FORMAT:
        raise CheckpointError(f"{where} is the state of a training run, not a model; use best.pth beside it")
    if isinstance(content, dict) and content.get("format") == FORMAT:
        version = content.get("schema_version")
        if type(version) is not int or version != SCHEMA_VERSION:
            raise CheckpointError(
                f"{where} has schema_version {version!r:.40}, this code reads {SCHEMA_VERSION}; upgrade the package"
            )
        try:
            description = parse_description(content, archs, where)
        except ManifestError as error:
            raise CheckpointError(str(error)) from error
        content = content.get("state_dict")
    if not verified or not (isinstance(content, dict) and FIRST_KEY in content):
        from .foreign import network_in

        content = network_in(content, where)
    checkpoint = Checkpoint(content, description, where)
    if description:
        says = (len(description.categories), description.in_channels)
        has = (checkpoint.num_classes, checkpoint.in_channels)
        if says != has:
            raise CheckpointError(
                f"{where} describes {says[0]} categories and {says[1]} channels, but its tensors are for {has[0]} and "
                f"{has[1]}; write it anew"
            )
    return checkpoint


def load(model: nn.Module, checkpoint: Checkpoint) -> None:
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
    taken: set[int] = set()
    own = {key: _owned(tensor, expected[key].stride(), dtype, taken) for key, tensor in given.items()}
    _check_values(own, checkpoint.where)
    ready = {key: tensor.to(device) for key, tensor in own.items()}
    if without_counters:
        ready |= {key: torch.zeros((), dtype=torch.int64, device=device) for key in counters}
    model.load_state_dict(ready, strict=True, assign=True)


def _owned(tensor: Tensor, strides: tuple[int, ...], dtype: torch.dtype, taken: set[int]) -> Tensor:
    """The tensor with memory of its own, as a new network has it: other strides would compute in another order.

    Files written from channels-last training keep theirs. ``taken`` gathers the addresses of the memory given away.
    """
    # Detached: a file may hold Parameters, which load_state_dict would refuse as buffers, half way through.
    own = tensor.detach().to(dtype) if tensor.is_floating_point() else tensor.detach()
    memory = own.untyped_storage()
    if own.stride() != strides or memory.nbytes() != own.nbytes or memory.data_ptr() in taken:
        own = torch.empty_strided(own.shape, strides, dtype=own.dtype, device="cpu").copy_(own)
    taken.add(own.untyped_storage().data_ptr())
    return own


def _check_kind(key: str, tensor: object, expected: Tensor, where: str) -> None:
    if not isinstance(tensor, Tensor):
        raise CheckpointError(f"{where}: {key!r} must be a tensor, got a {type(tensor).__name__}")
    strided = tensor.layout is torch.strided and type(tensor) in (Tensor, nn.Parameter)
    if tensor.is_nested or not strided or tensor.is_quantized or tensor.is_meta:
        raise CheckpointError(f"{where}: {key!r} must be a dense tensor with data, got {_kind(tensor)}")
    if tensor.nbytes > max(tensor.untyped_storage().nbytes(), EXPANDED_BYTES):
        raise CheckpointError(f"{where}: {key!r} claims {tensor.nbytes:,} bytes and holds fewer (an expanded tensor)")
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
    if tensor.is_nested or tensor.is_quantized:
        return "a nested tensor" if tensor.is_nested else "a quantized tensor"
    kind = f"a {type(tensor).__name__} of the layout {tensor.layout}"  # torchao's have types of their own
    return "a tensor on the meta device" if tensor.is_meta else kind
