"""The values that every room speaks in: how photos are prepared, what accuracy was measured, which classes there are.

They stand in ``weights.json`` and inside the files that `train` writes, and are validated alike in both: this is JSON
from outside.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeVar

from .errors import ManifestError

MAX_SIDE = 2048  # pixels, for resize and crop: a file's own description must not ask for a huge image
MAX_LABEL = 200  # characters
MAX_CHANNELS = 1024
COLDEST, HOTTEST = 0.01, 100.0  # temperatures: beyond, probabilities are all 0 and 1, or all alike
MAX_CLASSES = 1_000_000  # 4 GB of classifier; more is a slip of the keyboard
FIRST_KEY = "conv1.0.weight"  # of a state dict: by it this network's are known
BATCH_SIZE = 16  # photos at once: the fastest on CPUs, since larger batches leave the cache and wait for fresh pages

_T = TypeVar("_T")


@dataclass(frozen=True)
class Preprocess:
    """How a photo becomes the input of one weights file.

    The shorter side is resized to ``resize`` pixels, the centre ``crop`` x ``crop`` is kept, and RGB values scaled to
    [0, 1] are normalised with ``mean`` and ``std``.
    """

    resize: int
    crop: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


# ImageNet's usual way, for weights and photos of which nothing else is known.
STANDARD = Preprocess(256, 224, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Metrics:
    """Accuracy in percent on a named data set, and who measured it."""

    dataset: str
    acc1: float
    acc5: float
    measured_by: str


class Category(NamedTuple):
    """One class: its label and, for ImageNet, its WordNet id (else ``None``)."""

    label: str
    wordnet_id: str | None = None


@dataclass(frozen=True)
class Description:
    """What a checkpoint says of itself."""

    arch: str
    in_channels: int
    categories: tuple[str, ...]
    preprocess: Preprocess
    metrics: Metrics | None = None
    small_stem: bool = False  # conv1 of stride 1 and no max-pool, for photos of some 32 pixels
    temperature: float = 1.0  # logits are divided by it before they become probabilities


@dataclass(frozen=True)
class WeightsInfo:
    """What is known of weights, wherever they come from."""

    arch: str
    name: str  # by which `weights=` finds them again, in any process: an entry's name or an absolute path
    title: str  # for people: ARCH/NAME or the path as it was given
    num_classes: int  # 0: no classifier, the network ends in the pooled features
    in_channels: int
    small_stem: bool | None  # None: a file that does not say, whose tensors fit either stem
    classes: tuple[Category, ...] = field(repr=False)  # in the order of the logits; empty if nobody knows
    preprocess: Preprocess
    metrics: Metrics | None
    temperature: float
    # Whether they say labels and preprocessing themselves; else those of the default weights are taken.
    described: bool = field(default=True, kw_only=True)


_JSON_NAMES = {"acc1": "acc@1", "acc5": "acc@5"}


def to_json(value: Any) -> dict[str, Any]:
    """A dataclass as the plain types that the ``parse`` functions read back."""

    def plain(fields: list[tuple[str, Any]]) -> dict[str, Any]:
        return {
            _JSON_NAMES.get(name, name): list(field) if isinstance(field, tuple) else field for name, field in fields
        }

    return asdict(value, dict_factory=plain)


def parse_json(text: str, where: str) -> Any:
    """``text`` read as JSON, in which no key stands twice and every number is one.

    Raises:
        ManifestError: it is no such JSON.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise ManifestError(f"{where}: the key {key!r} stands twice in one object; keep one")
        return dict(pairs)

    def no_constant(text: str) -> None:
        raise ManifestError(f"{where}: {text} is not a number")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
    except ManifestError:
        raise
    except (ValueError, RecursionError) as error:  # also a number of more than 4300 digits
        raise ManifestError(f"{where} is not JSON: {error}") from error


def take(raw: Mapping[str, Any], key: str, kind: type[_T], where: str) -> _T:
    """``raw[key]``, which must be there and of the type ``kind`` (an int serves as a float, a bool never as an int)."""
    if key not in raw:
        raise ManifestError(f"{where}: the field {key!r} is missing; add it (a {kind.__name__})")
    value = raw[key]
    if kind is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not kind:
        raise ManifestError(
            f"{where}: the field {key!r} must be a {kind.__name__}, got {value!r:.80} (a {type(value).__name__})"
        )
    return value


def demand(condition: bool, where: str, key: str, wanted: str, got: object) -> None:
    """Raise ``ManifestError`` unless ``condition`` holds of the field ``key``."""
    if not condition:
        raise ManifestError(f"{where}: the field {key!r} must be {wanted}, got {got!r:.120}")


def take_count(raw: Mapping[str, Any], key: str, where: str, most: int = 2**40) -> int:
    value = take(raw, key, int, where)
    demand(1 <= value <= most, where, key, f"from 1 to {most}", value)
    return value


def take_flag(raw: Mapping[str, Any], key: str, where: str) -> bool:
    """False where the field is not there: files from before it have none."""
    return take(raw, key, bool, where) if key in raw else False


def take_temperature(raw: Mapping[str, Any], where: str) -> float:
    """1, which changes nothing, where the field is not there: nobody has fitted one."""
    if "temperature" not in raw:
        return 1.0
    value = take(raw, "temperature", float, where)
    demand(COLDEST <= value <= HOTTEST, where, "temperature", f"from {COLDEST} to {HOTTEST}", value)
    return value


def check_label(text: str, where: str) -> str:
    """A label that is safe to print: not empty, at most 200 characters, no control characters."""
    if not text.strip() or len(text) > MAX_LABEL or not text.isprintable():
        raise ManifestError(f"{where}: a label must be 1 to {MAX_LABEL} printable characters, got {text!r:.80}")
    return text


def parse_preprocess(raw: Mapping[str, Any], where: str) -> Preprocess:
    """Validate a ``preprocess`` object of the manifest or of a checkpoint."""
    where = f"{where}, preprocess"
    resize, crop = (take_count(raw, key, where, MAX_SIDE) for key in ("resize", "crop"))
    demand(crop <= resize, where, "crop", f"at most resize, {resize}", crop)
    interpolation = take(raw, "interpolation", str, where)
    demand(interpolation == "bilinear", where, "interpolation", "'bilinear'", interpolation)
    mean, std = (_per_channel(raw, key, where, positive=key == "std") for key in ("mean", "std"))
    return Preprocess(resize, crop, interpolation, mean, std)


def _per_channel(raw: Mapping[str, Any], key: str, where: str, positive: bool) -> tuple[float, ...]:
    values = take(raw, key, list, where)
    fits = len(values) == 3 and all(type(value) in (int, float) and abs(value) <= 1000 for value in values)
    demand(fits, where, key, "three finite numbers, from -1000 to 1000", values)
    demand(not positive or min(values) > 0, where, key, "three numbers above 0", values)
    return tuple(map(float, values))


def parse_metrics(raw: Mapping[str, Any], where: str) -> Metrics:
    """Validate a ``metrics`` object of the manifest or of a checkpoint."""
    where = f"{where}, metrics"
    top1, top5 = (take(raw, key, float, where) for key in ("acc@1", "acc@5"))
    demand(0 <= top1 <= top5 <= 100, where, "acc@1", "at least 0 and at most acc@5, both percentages", (top1, top5))
    dataset, measured_by = (check_label(take(raw, key, str, where), where) for key in ("dataset", "measured_by"))
    return Metrics(dataset, top1, top5, measured_by)


def parse_description(raw: Mapping[str, Any], archs: Mapping[str, object], where: str) -> Description:
    """Validate, as strictly as the manifest, what a checkpoint of one of ``archs`` says of itself.

    Raises:
        ManifestError: naming the field.
    """
    arch, categories = take(raw, "arch", str, where), take(raw, "categories", list, where)
    demand(arch in archs, where, "arch", f"one of {', '.join(archs)}", arch)
    labels = bool(categories) and all(isinstance(each, str) for each in categories)
    demand(labels, where, "categories", "a list of labels", categories)
    return Description(
        arch=arch,
        in_channels=take_count(raw, "in_channels", where, MAX_CHANNELS),
        categories=tuple(check_label(each, where) for each in categories),
        preprocess=parse_preprocess(take(raw, "preprocess", dict, where), where),
        metrics=None if raw.get("metrics") is None else parse_metrics(take(raw, "metrics", dict, where), where),
        small_stem=take_flag(raw, "small_stem", where),
        temperature=take_temperature(raw, where),
    )
