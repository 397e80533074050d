"""What a user of ``torch.hub`` calls: four functions over one builder, and the photo side of each weights file.

``build`` turns a name into a model: SPECS -> network -> manifest entry or checkpoint path -> verified bytes -> checked
tensors -> the model asked for.
"""

import logging
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from . import __version__
from . import checkpoint as checkpoints
from .checkpoint import Checkpoint
from .download import fetch
from .errors import CheckpointError
from .manifest import Entry, Preprocess, load_manifest, read_categories
from .model import SPECS, ShuffleNetV2

if TYPE_CHECKING:
    from .photos import PhotoTransform
    from .prediction import Classifier

DEFAULT_ARCH = "shufflenet_v2_x1_0"
REPOSITORY = f"org/repo:v{__version__}"  # in the documentation's examples, which pin the release they describe

_logger = logging.getLogger("shufflenetv2")

Weights = str | os.PathLike[str] | None  # torchvision's enum members are taken too, by their name


@dataclass(frozen=True)
class Source:
    """Where weights come from and all that belongs to them: a manifest entry, or a checked file of the user's own."""

    arch: str
    origin: Entry | Checkpoint

    @property
    def num_classes(self) -> int:
        return self.origin.num_classes if isinstance(self.origin, Entry) else checkpoints.num_classes(self.origin)

    @property
    def in_channels(self) -> int:
        return 3 if isinstance(self.origin, Entry) else checkpoints.in_channels(self.origin)

    @property
    def reference(self) -> tuple[str, str]:
        """Arguments from which ``resolve`` finds the same source again, in any process."""
        return self.arch, self.origin.name if isinstance(self.origin, Entry) else os.path.abspath(self.origin.where)

    @cached_property
    def entry(self) -> Entry | None:
        """The manifest entry these weights are fed like; ``None`` for a checkpoint that describes itself."""
        if isinstance(self.origin, Entry):
            return self.origin
        if self.origin.description:
            return None
        default = _default_entry(self.arch)
        if self.num_classes not in (0, default.num_classes):
            raise CheckpointError(
                f"{self.origin.where} has {self.num_classes} classes and does not say which, nor how its photos were "
                "preprocessed; write it with shufflenetv2.checkpoint.write_checkpoint, or with `shufflenetv2 train`"
            )
        _logger.warning("%s does not describe itself: treated like %s", self.origin.where, default)
        return default

    @property
    def preprocess(self) -> Preprocess:
        if isinstance(self.origin, Checkpoint) and self.origin.description:
            return self.origin.description.preprocess
        entry = self.entry
        assert entry is not None
        return entry.preprocess

    @property
    def categories(self) -> list[str]:
        if isinstance(self.origin, Checkpoint) and self.origin.description:
            return list(self.origin.description.categories)
        entry = self.entry
        assert entry is not None
        return [category.label for category in read_categories(entry.categories)]

    def read(self, progress: bool) -> Checkpoint:
        """The tensors, from verified bytes where the manifest vouches for them."""
        if isinstance(self.origin, Checkpoint):
            return self.origin
        return checkpoints.parse_checkpoint(fetch(self.origin, progress), f"{self.origin.file} ({self.origin})")


def _default_entry(arch: str) -> Entry:
    return next(entry for entry in load_manifest() if entry.arch == arch and entry.default)


def _check_arch(arch: str | None) -> None:
    if arch is not None and arch not in SPECS:
        raise ValueError(f"there is no architecture {arch!r}; there are {', '.join(SPECS)}")


def _is_path(weights: object) -> bool:
    """A PathLike, or a string with a separator or a suffix; a plain name is never looked up on the disk."""
    if isinstance(weights, os.PathLike):
        return True
    return isinstance(weights, str) and ("/" in weights or os.sep in weights or Path(weights).suffix != "")


def _find_entry(arch: str | None, weights: object) -> Entry:
    name = getattr(weights, "name", weights)
    if not isinstance(name, str):
        raise TypeError(
            f"weights must be a name, a path or None, got {weights!r:.80} (a {type(weights).__name__}); "
            "pretrained=True takes the default weights"
        )
    name = name.lower()
    entries = [entry for entry in load_manifest() if arch in (None, entry.arch)]
    if name == "default":
        return _default_entry(arch or DEFAULT_ARCH)
    matches = [entry for entry in entries if entry.name == name]
    if not matches:
        versions = [entry for entry in entries if entry.name.rpartition("_v")[0] == name]
        newest = max((int(entry.name.rpartition("_v")[2]) for entry in versions), default=0)
        matches = [entry for entry in versions if entry.name == f"{name}_v{newest}"]
        if matches:
            _logger.info("weights %r without a version: taking the newest, %s", name, matches[0].name)
    if not matches:
        known = ", ".join(str(entry) if arch is None else entry.name for entry in entries)
        raise ValueError(
            f"there are no weights {name!r:.80} for {arch or 'any architecture'}; there are: {known}. "
            "A checkpoint of your own is given as a path, with a separator or a suffix (./mine.pth)"
        )
    if len(matches) == 1:
        return matches[0]
    for entry in matches:
        if entry.arch == DEFAULT_ARCH:
            return entry
    raise ValueError(f"several architectures have weights {name!r}: {', '.join(map(str, matches))}; say which arch")


def read_own(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a user's own checkpoint, which no hash vouches for.

    Raises:
        CheckpointError: it cannot be read, or is no checkpoint of this network.
    """
    _refuse_old_torch(path)
    try:
        data = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise CheckpointError(f"{os.fspath(path)} cannot be read: {error.strerror or error}") from error
    _logger.info("%s is not in the manifest: its bytes were not verified", os.fspath(path))
    return checkpoints.parse_checkpoint(data, os.fspath(path))


def _refuse_old_torch(path: str | os.PathLike[str]) -> None:
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    if (major, minor) < (2, 6):
        raise CheckpointError(
            f"{os.fspath(path)} is refused: torch {torch.__version__} cannot load an unverified file safely "
            "(CVE-2025-32434); upgrade to torch 2.6 or later"
        )


def resolve(arch: str | None, weights: object) -> Source:
    """Find what ``weights`` names: an entry of the manifest, or a checkpoint file.

    Args:
        arch: restricts the search; ``None`` takes the architecture of what is found.
        weights: an entry's name in any case, with or without its version; ``"default"``; an object with a ``.name``; or
            a path.

    Raises:
        ValueError: there is no such architecture or entry; the message lists what there is.
        CheckpointError: the file cannot be used, or belongs to another architecture.
    """
    _check_arch(arch)
    if not _is_path(weights):
        entry = _find_entry(arch, weights)
        return Source(entry.arch, entry)
    assert isinstance(weights, (str, os.PathLike))
    checkpoint = read_own(weights)
    found = checkpoints.arch_of(checkpoint)
    if found is None:
        raise CheckpointError(f"{checkpoint.where} has none of the architectures {', '.join(SPECS)}")
    if arch is not None and found != arch:
        raise CheckpointError(f"{checkpoint.where} holds {found}, not {arch}; load it with {found}(weights=...)")
    return Source(found, checkpoint)


def _named_weights(arch: str, pretrained: object, weights: object) -> object:
    """One answer from two arguments that may both be given."""
    if not isinstance(pretrained, bool):
        raise TypeError(f"pretrained is True or False, got {pretrained!r:.80}; name weights with weights=...")
    if not pretrained:
        return weights
    if weights is not None and (_is_path(weights) or not _find_entry(arch, weights).default):
        raise ValueError(
            f"pretrained=True means the default weights, {_default_entry(arch).name}, but weights={weights!r:.80} was "
            "given too; leave one out"
        )
    return "default"


def build(
    arch: str,
    source: Source | None,
    *,
    progress: bool = True,
    num_classes: int | None = None,
    in_channels: int | None = None,
    deploy: bool = False,
) -> nn.Module:
    """Build ``arch``, load ``source`` into it where there is one, and adapt both ends to what was asked for.

    ``in_channels=None`` takes the channels of the weights, or 3. See ``shufflenet_v2_x1_0`` for the rest.
    """
    if source is None:
        model = ShuffleNetV2(SPECS[arch], 1000 if num_classes is None else num_classes, in_channels or 3)
    else:
        checkpoint = source.read(progress)
        with torch.device("meta"):
            model = ShuffleNetV2(SPECS[arch], source.num_classes, source.in_channels)
        checkpoints.load(model, checkpoint)
        _adapt_input(model, model.in_channels if in_channels is None else in_channels)
        _adapt_head(model, source.num_classes if num_classes is None else num_classes)
        model.eval()
    if deploy:
        from .folding import deploy as fold

        return fold(model.eval())
    return model


def _adapt_input(model: ShuffleNetV2, in_channels: int) -> None:
    """Grey input sums the kernel over RGB; other counts repeat it and keep the response's magnitude."""
    if in_channels == model.in_channels:
        return
    if in_channels < 1:
        raise ValueError(f"in_channels must be at least 1, got {in_channels}")
    weight = model.state_dict()["conv1.0.weight"]
    if in_channels == 1:
        weight = weight.sum(1, keepdim=True)
    else:
        copies = -(-in_channels // model.in_channels)
        weight = weight.repeat(1, copies, 1, 1)[:, :in_channels] * (model.in_channels / in_channels)
    with torch.device("meta"):
        convolution = nn.Conv2d(in_channels, model.spec.stem_channels, 3, stride=2, padding=1, bias=False)
    convolution.weight = nn.Parameter(weight)
    model.conv1[0] = convolution
    _logger.info("the first convolution was adapted from %d to %d channels", model.in_channels, in_channels)
    model.in_channels = in_channels


def _adapt_head(model: ShuffleNetV2, num_classes: int) -> None:
    if num_classes == model.num_classes:
        return
    if num_classes < 0:
        raise ValueError(f"num_classes must be at least 0, got {num_classes}")
    model.fc = nn.Linear(model.spec.head_channels, num_classes) if num_classes else nn.Identity()
    _logger.info("the classifier of %d classes was replaced by a new one of %d", model.num_classes, num_classes)
    model.num_classes = num_classes


class EntryPoint(Protocol):
    """The signature of the four entry points."""

    def __call__(
        self,
        pretrained: bool = False,
        progress: bool = True,
        *,
        weights: Weights = None,
        num_classes: int | None = None,
        in_channels: int = 3,
        deploy: bool = False,
    ) -> nn.Module: ...


# Filled from the manifest and assigned, not written as docstrings: these must survive `python -OO` for torch.hub.help.
_DOCUMENTATION = """\
ShuffleNet V2 {width}x: {params:.2f} M parameters, {macs:.1f} M multiply-adds for one {crop}x{crop} image.

Ma, Zhang, Zheng, Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", ECCV 2018,
https://arxiv.org/abs/1807.11164. The network is torchvision's, bit for bit, with the same state-dict keys.

Args:
    pretrained (bool): True loads the default weights, {default}.
    progress (bool): show the download's progress on stderr.
    weights (str, path or None): the name of weights (any case; without the version the newest), or the path of a
        checkpoint: a PathLike, or a string with a separator or a suffix. Named weights are checked, size and sha256,
        on every load, from the bytes that are loaded. There are:
{table}
    num_classes (int or None): length of the logits; None takes the weights' (without weights, 1000). Another number
        keeps the backbone and gives a new, random classifier; 0 returns the pooled features.
    in_channels (int): channels of the images. 1 sums the RGB kernels of the weights; others repeat and rescale them.
    deploy (bool): return the deploy form: the same function without BatchNorm and channel shuffle, about twice as
        fast, for inference only.

Returns:
    torch.nn.Module: maps float images (N, in_channels, H, W), scaled to [0, 1] and then normalised with mean {mean}
    and std {std}, H and W from 32 up, to logits (N, num_classes). In eval mode with weights or deploy=True (call
    .train() to fine-tune), else in train mode. model.forward_features(images) gives the feature maps of stages 2, 3,
    4 and conv5 (plain form only).

Raises:
    ValueError: unknown weights, or contradictory or out-of-range arguments.
    OSError: the weights could not be fetched; the message lists every attempt.
    RuntimeError: the bytes are not the ones listed, or a checkpoint does not fit. No model was changed.

Example:
    >>> import torch
    >>> model = torch.hub.load("{repo}", "{arch}", pretrained=True, trust_repo=True)
    >>> preprocess = torch.hub.load("{repo}", "preprocess", "{arch}", trust_repo=True)
    >>> categories = torch.hub.load("{repo}", "categories", "{arch}", trust_repo=True)
    >>> with torch.inference_mode():
    ...     probabilities = model(preprocess("images/cat.jpg")).softmax(1)
    >>> label, probability = categories[probabilities[0].argmax()], probabilities[0].max()
"""


def _document(arch: str) -> str:
    entries = [entry for entry in load_manifest() if entry.arch == arch]
    default = _default_entry(arch)
    table = "\n".join(
        f"        {entry.name}: top-1 {entry.metrics.acc1:.2f} %, top-5 {entry.metrics.acc5:.2f} % on "
        f"{entry.metrics.dataset}, {entry.num_classes} classes, {entry.size / 1e6:.1f} MB"
        for entry in entries
    )
    return _DOCUMENTATION.format(
        width=arch.rpartition("_x")[2].replace("_", "."),
        params=default.num_params / 1e6,
        macs=default.macs / 1e6,
        crop=default.preprocess.crop,
        default=default.name,
        table=table,
        mean=default.preprocess.mean,
        std=default.preprocess.std,
        arch=arch,
        repo=REPOSITORY,
    )


def _entry_point(arch: str) -> EntryPoint:
    def entry_point(
        pretrained: bool = False,
        progress: bool = True,
        *,
        weights: Weights = None,
        num_classes: int | None = None,
        in_channels: int = 3,
        deploy: bool = False,
    ) -> nn.Module:
        named = _named_weights(arch, pretrained, weights)
        source = None if named is None else resolve(arch, named)
        return build(arch, source, progress=progress, num_classes=num_classes, in_channels=in_channels, deploy=deploy)

    entry_point.__name__ = entry_point.__qualname__ = arch
    entry_point.__doc__ = _document(arch)
    return entry_point


shufflenet_v2_x0_5 = _entry_point("shufflenet_v2_x0_5")
shufflenet_v2_x1_0 = _entry_point("shufflenet_v2_x1_0")
shufflenet_v2_x1_5 = _entry_point("shufflenet_v2_x1_5")
shufflenet_v2_x2_0 = _entry_point("shufflenet_v2_x2_0")


def classifier(
    arch: str | None = None,
    weights: Any = "default",
    *,
    top: int = 5,
    device: str | torch.device | None = None,
    deploy: bool = True,
    progress: bool = True,
) -> "Classifier":
    from .prediction import Classifier

    return Classifier(resolve(arch, weights), top=top, device=device, deploy=deploy, progress=progress)


classifier.__doc__ = """\
Model, preprocessing and labels behind one call: a photo in, its most likely labels out. Needs Pillow.

Args:
    arch (str or None): one of {archs}; None takes the architecture of the weights, or {default}.
    weights (str or path): the name of weights, "default", or the path of a checkpoint that `train` wrote.
    top (int): how many labels, from 1 up; at most as many as there are classes are returned.
    device (str, torch.device or None): where to compute; None is CUDA if there is one, else the CPU.
    deploy (bool): use the deploy form, the same function about twice as fast.
    progress (bool): show the download's progress on stderr.

Returns:
    callable: given a photo (path, bytes, PIL image or uint8 tensor (3, H, W)) it returns a list of
    Prediction(label, probability, index), most likely first; given several (a list, or a uint8 tensor (N, 3, H, W)),
    a list of such lists.

Raises:
    ImportError: Pillow is missing; the message has the pip line.
    ValueError: unknown architecture or weights; on a call, a photo that cannot be used.
    OSError, RuntimeError: the weights could not be fetched or do not fit.

Example:
    >>> import torch
    >>> classify = torch.hub.load("{repo}", "classifier", trust_repo=True)
    >>> best = classify("images/cat.jpg")[0]
    >>> label, probability = best.label, best.probability
""".format(archs=", ".join(SPECS), default=DEFAULT_ARCH, repo=REPOSITORY)


def preprocess(arch: str | None = None, weights: Any = "default", *, in_channels: int = 3) -> "PhotoTransform":
    from .photos import PhotoTransform

    source = resolve(arch, weights)
    return PhotoTransform(source.preprocess, in_channels, source.reference)


preprocess.__doc__ = """\
The transform that turns photos into the input one weights file was trained for. Needs Pillow; fetches nothing.

Args:
    arch (str or None): one of {archs}; None takes the architecture of the weights, or {default}.
    weights (str or path): the name of weights, "default", or the path of a checkpoint that `train` wrote.
    in_channels (int): 3, or 1 for grey input, normalised with the means of mean and standard deviation (approximate:
        the zero padding of the first convolution is not equivalent).

Returns:
    callable: photos (a path, bytes, a PIL image, a uint8 tensor (3, H, W) or (N, 3, H, W), or a list of them) ->
    float32 tensor (N, in_channels, crop, crop), bit-equal to torchvision's preset for these weights. It can be pickled
    into DataLoader workers.

Raises:
    ImportError: Pillow is missing; the message has the pip line.
    ValueError: unknown architecture or weights; on a call, a photo that cannot be used.

Example:
    >>> import torch
    >>> preprocess = torch.hub.load("{repo}", "preprocess", "shufflenet_v2_x1_0", trust_repo=True)
    >>> preprocess("images/cat.jpg").shape
    torch.Size([1, 3, 224, 224])
""".format(archs=", ".join(SPECS), default=DEFAULT_ARCH, repo=REPOSITORY)


def categories(arch: str | None = None, weights: Any = "default") -> list[str]:
    return resolve(arch, weights).categories


categories.__doc__ = """\
The labels of one weights file, in the order of the logits. Fetches nothing.

Args:
    arch (str or None): one of {archs}; None takes the architecture of the weights, or {default}.
    weights (str or path): the name of weights, "default", or the path of a checkpoint that `train` wrote.

Returns:
    list of str: for the ImageNet weights 1000 labels, equal to torchvision's.

Raises:
    ValueError: unknown architecture or weights.

Example:
    >>> import torch
    >>> torch.hub.load("{repo}", "categories", trust_repo=True)[281]
    'tabby'
""".format(archs=", ".join(SPECS), default=DEFAULT_ARCH, repo=REPOSITORY)
