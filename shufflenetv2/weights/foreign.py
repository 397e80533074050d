"""Files that are nearly a checkpoint of this network: taken where that is unambiguous, else named, with the remedy."""

import io
import os
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..description import FIRST_KEY, MAX_CHANNELS, MAX_CLASSES
from ..errors import CheckpointError
from ..files import GIT_LFS, WEB_PAGE, expanded
from ..package import guess, logger
from .manifest import load_manifest

_WRAPPERS = re.compile(r"(module\.|_orig_mod\.)+")  # DataParallel, torch.compile, AveragedModel: the network in a shell

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)  # one letter is a disk of Windows; Path drops a slash

# Keys by which other networks and other states are known, what they are, and what to do.
_KNOWN = [
    (
        r"(layer1\.0\.conv5|stage2\.0\.residual\.0)\.weight",  # kuangliu's, weiaicunzai's
        "is a ShuffleNet V2 for CIFAR whose units are built otherwise; this package reads torchvision's layout",
    ),
    (r"layer[1-4]\.\d+\.conv1\.weight", "is a ResNet's; this package reads ShuffleNet V2 alone"),
    (
        r"first_conv\.0\.weight",
        "is megvii's own ShuffleNet, whose units are built otherwise; use torchvision's weights",
    ),
    (r"(features|blocks)\.\d+.*", "is another network's; this package reads ShuffleNet V2 alone"),
    (
        r".*(_packed_params|zero_point)(\..*)?",
        "is quantised; give the floating-point state dict",
    ),
    (
        r".*(parametrizations\..*|weight_(g|v|orig|mask))",
        "holds weights that are pruned or parametrised; save it after torch.nn.utils.prune.remove, or "
        "parametrize.remove_parametrizations, or remove_weight_norm",
    ),
]
# Bytes by which files are known that are no checkpoint at all, as they come from a browser, git or another library.
_BEGINNINGS = (
    (b"<?xml", "is XML; of what `export` wrote for OpenVINO the name ends in .xml, with the .bin beside it"),
    (b"<", WEB_PAGE),
    GIT_LFS,
    (b"\x93NUMPY", "is a numpy array; expected a state dict"),
    (b"\x89HDF", "is an HDF5 file, as Keras writes them; expected a state dict of torch"),
    (b"\x1f\x8b", "is compressed by gzip; unpack it (gunzip, or tar xzf), and give the checkpoint within"),
)
_FOLDED = (
    "has no BatchNorm statistics: it looks like the folded deploy form. Give the plain network's state dict and ask "
    "for deploy=True; folding happens on loading"
)


def check_address(where: str) -> None:
    """Refuse an address, as photos may have one."""
    if scheme := _ADDRESS.match(where):  # the rest may hold a password
        raise CheckpointError(
            f"weights are files, and {scheme[1]}://... is an address; download it first (curl -LO ADDRESS), and give "
            "the path of the file"
        )


def unreadable(where: str, error: Exception) -> str:
    """What is wrong with a path that could not be read."""
    check_address(where)
    if os.path.isdir(expanded(where)):
        what = "is a directory, expected a regular file; it holds no file best.pth, as a run of `train` does"
        return f"{where} cannot be read: {what}"
    names = {name for entry in load_manifest() for name in (entry.unversioned, entry.arch, str(entry))}
    if isinstance(error, FileNotFoundError) and (near := guess(where, names)):
        return f"{where} cannot be read: there is no such file{near} That is a name of weights, which is a string"
    return f"{where} cannot be read: {getattr(error, 'strerror', None) or error}"


def check_container(data: bytes, where: str) -> None:
    """Refuse, by their outline alone, files of another format and those that would unpack to more than they hold.

    Raises:
        CheckpointError: naming the format, with the remedy.
    """
    start = data[:64].lstrip()
    if not start:
        raise CheckpointError(f"{where} is empty; expected what torch.save(model.state_dict(), ...) writes")
    if data[4:8] == b"ET12":
        raise CheckpointError(f"{where} is a program of ExecuTorch; of what `export` wrote the name ends in .pte")
    for beginning, meaning in _BEGINNINGS:
        if start.startswith(beginning):
            raise CheckpointError(f"{where} {meaning}")
    if data[257:262] == b"ustar":
        raise CheckpointError(f"{where} is a tar archive; unpack it (tar xf), and give the checkpoint within")
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data):
        raise CheckpointError(
            f"{where} is a safetensors file; make a checkpoint of it: "
            "torch.save(safetensors.torch.load_file(path), new_path)"
        )
    if not data.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # torch says what is wrong with it
    names = {os.path.basename(file.filename) for file in files}
    if "constants.pkl" in names:
        raise CheckpointError(
            f"{where} is a TorchScript file; if `shufflenetv2 export` wrote it, call it NAME.pt; else make a "
            "checkpoint of it: torch.save(torch.jit.load(path).state_dict(), new_path)"
        )
    if "archive_format" in names:
        raise CheckpointError(f"{where} is a torch.export file; give the checkpoint that it was exported from")
    if "data.pkl" not in names:  # what torch.save writes has one
        within = ", ".join(sorted(ascii(file.filename) for file in files)[:4]) or "nothing"
        raise CheckpointError(f"{where} is a zip archive of {within}; unpack it, and give the checkpoint within")
    stored = all(file.compress_type == zipfile.ZIP_STORED for file in files)
    if not stored or sum(file.file_size for file in files) > len(data):
        raise CheckpointError(f"{where} is compressed, which torch.save never does; save it anew")


def network_in(content: object, where: str) -> dict[str, Any]:
    """The state dict in what a file holds, under torchvision's keys, of which the ends are what they can be."""
    if not (isinstance(content, dict) and FIRST_KEY in content):
        content = state_dict_in(content, where)
    check_ends(content := as_torchvision(content, where), where)
    return content


def state_dict_in(content: object, where: str) -> dict[str, Tensor]:
    """The one state dict in what a file held, under torchvision's keys; logged if something was taken off it.

    Raises:
        CheckpointError: there is none or more than one, or it is of something else.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{where} holds a {type(content).__name__}, expected a state dict")
    if not content:
        raise CheckpointError(f"{where} holds an empty state dict; expected one under torchvision's keys")
    inner = [key for key, value in content.items() if _is_state_dict(value)]
    if len(inner) > 1:
        raise CheckpointError(
            f"{where} holds several state dicts, {', '.join(map(repr, inner))}; {_save_alone(inner[0])}"
        )
    if not inner or _is_state_dict(content):
        return _without_prefix(content, where)
    logger.info("%s: the state dict was taken from under %r", where, inner[0])
    return _without_prefix(content[inner[0]], where, f"[{inner[0]!r}]")


def _is_state_dict(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(key, str) and key.endswith(FIRST_KEY) for key in value)


def _save_alone(key: str) -> str:
    return f"save one alone: torch.save(torch.load(path, weights_only=True)[{key!r}], new_path)"


def _without_prefix(content: Mapping[str, Any], where: str, at: str = "") -> dict[str, Tensor]:
    if not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{where} has keys that are not names; expected a state dict under torchvision's keys")
    if FIRST_KEY in content:
        return dict(content)
    prefix = next((key.removesuffix(FIRST_KEY) for key in content if key.endswith(FIRST_KEY)), None)
    if prefix is None:
        raise CheckpointError(f"{where} {_what_it_is(content)}")
    if not _WRAPPERS.fullmatch(prefix):
        raise CheckpointError(
            f"{where} has keys that begin with {prefix!r}, so the network is a part of another; save it alone: "
            f"torch.save({{key.removeprefix({prefix!r}): value for key, value in "
            f"torch.load(path, weights_only=True){at}.items() if key.startswith({prefix!r})}}, new_path)"
        )
    logger.info("%s: the prefix %r was taken off the keys", where, prefix)
    # AveragedModel counts its updates beside the network.
    return {key.removeprefix(prefix): value for key, value in content.items() if not key.endswith("n_averaged")}


def as_torchvision(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Where it is unambiguous: a linear layer behind dropout is ``fc``, and averaged counters are whole numbers."""
    tensors = dict(content)
    heads = [key.removesuffix("weight") for key in tensors if re.fullmatch(r"fc\.\w+\.weight", str(key))]
    if len(heads) == 1 and not {"fc.weight", "fc.bias"} & tensors.keys():
        tensors = {str(key).replace(heads[0], "fc."): tensor for key, tensor in tensors.items()}
        logger.warning("%s: the classifier was taken from under %r, and what lay before it left out", where, heads[0])
    for key, tensor in tensors.items():
        counts = isinstance(tensor, Tensor) and tensor.is_floating_point() and str(key).endswith("num_batches_tracked")
        if not counts or tensor.is_meta or tensor.is_nested:
            continue
        if tensor.numel() == 1 and float(tensor).is_integer():
            tensors[key] = tensor.to(torch.int64)
    return tensors


def check_ends(content: Mapping[Any, Any], where: str) -> None:
    """Refuse a state dict by its names, or whose first or last layer cannot be one of this network's.

    Raises:
        CheckpointError: with the remedy where there is one.
    """
    if meaning := _known(content):
        raise CheckpointError(f"{where} {meaning}")
    for key, dim, axis, most in ((FIRST_KEY, 4, 1, MAX_CHANNELS), ("fc.weight", 2, 0, MAX_CLASSES)):
        tensor = content.get(key)
        if tensor is None and key != FIRST_KEY:
            continue
        shape = list(tensor.shape) if isinstance(tensor, Tensor) and not tensor.is_nested else []
        if len(shape) != dim or not 1 <= shape[axis] <= most:
            what = "input channels" if key == FIRST_KEY else "classes"
            got = shape or type(tensor).__name__
            raise CheckpointError(
                f"{where}: {key!r} must be a tensor of {dim} dimensions with 1 to {most:,} {what}, got {got}"
            )


def _known(content: Mapping[Any, Any]) -> str | None:
    names = [key for key in content if isinstance(key, str)]
    return next((meaning for pattern, meaning in _KNOWN if any(re.fullmatch(pattern, name) for name in names)), None)


def _what_it_is(content: Mapping[str, Any]) -> str:
    if meaning := _known(content):
        return meaning
    inner = [key for key, value in content.items() if isinstance(value, Mapping)]
    if inner:
        likely = max(inner, key=lambda key: any(isinstance(each, Tensor) for each in content[key].values()))
        return f"is a wrapped checkpoint with the keys {sorted(content)[:8]}; {_save_alone(likely)}"
    if "conv1.weight" in content and "conv1.bias" in content:
        return _FOLDED
    return f"has no tensor {FIRST_KEY!r}, so it is no ShuffleNet V2; its first keys are {sorted(content)[:4]}"
