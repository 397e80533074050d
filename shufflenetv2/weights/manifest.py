"""``weights.json``, read and validated: which weights there are, what their bytes are, how to feed them.

The sha256 of every weights file is trusted from here, so nothing (no variable, no argument) replaces this file. Reading
it is pure: nothing is fetched, and only standard-library modules are imported.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from ..errors import ManifestError

PACKAGE = Path(__file__).resolve().parent.parent
SCHEMA_VERSION = 1
MAX_SIDE = 2048  # pixels, for resize and crop: a checkpoint's own description must not ask for a huge image
MAX_LABEL = 200  # characters

_T = TypeVar("_T")
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,198}(?<!\.)")  # Windows drops a dot at the end
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_WEIGHTS_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*_v[0-9]+")


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


@dataclass(frozen=True)
class Metrics:
    """Accuracy in percent on a named data set, and who measured it."""

    dataset: str
    acc1: float
    acc5: float
    measured_by: str


@dataclass(frozen=True)
class Entry:
    """One weights file. ``(arch, name)`` is unique; exactly one of ``urls`` and ``path`` is given."""

    name: str
    arch: str
    default: bool
    num_classes: int
    file: str  # name in the cache
    urls: tuple[str, ...]  # https, tried in order
    path: str | None  # a file in shufflenetv2/bundled/
    sha256: str
    size: int  # bytes
    num_params: int
    macs: int  # multiply-adds for one crop x crop image
    categories: str  # a file in shufflenetv2/categories/
    preprocess: Preprocess
    metrics: Metrics
    license: str
    source: str
    recipe: str

    def __str__(self) -> str:
        return f"{self.arch}/{self.name}"


class Category(NamedTuple):
    """One class: its label and, for ImageNet, its WordNet id (else ``None``)."""

    label: str
    wordnet_id: str | None


def take(raw: Mapping[str, Any], key: str, kind: type[_T], where: str) -> _T:
    """``raw[key]``, which must be there and of the type ``kind`` (an int serves as a float, a bool never as an int)."""
    if key not in raw:
        raise ManifestError(f"{where}: the field {key!r} is missing; add it (a {kind.__name__})")
    value = raw[key]
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ManifestError(
            f"{where}: the field {key!r} must be a {kind.__name__}, got {value!r:.80} (a {type(value).__name__})"
        )
    return value


def _require(condition: bool, where: str, key: str, wanted: str, got: object) -> None:
    if not condition:
        raise ManifestError(f"{where}: the field {key!r} must be {wanted}, got {got!r:.120}")


def _count(raw: Mapping[str, Any], key: str, where: str, most: int = 2**40) -> int:
    value = take(raw, key, int, where)
    _require(1 <= value <= most, where, key, f"from 1 to {most}", value)
    return value


def _file_name(raw: Mapping[str, Any], key: str, where: str) -> str:
    value = take(raw, key, str, where)
    safe = _FILE_NAME.fullmatch(value) and not _WINDOWS_DEVICE.fullmatch(value)
    _require(bool(safe), where, key, "a bare file name of letters, digits, '.', '_' and '-'", value)
    return value


def _per_channel(raw: Mapping[str, Any], key: str, where: str, positive: bool) -> tuple[float, ...]:
    values = take(raw, key, list, where)
    numbers = [float(value) for value in values if type(value) in (int, float)]
    fits = len(numbers) == len(values) == 3 and all(abs(number) <= 1000 for number in numbers)
    _require(fits, where, key, "three finite numbers", values)
    _require(not positive or min(numbers) > 0, where, key, "three numbers above 0", values)
    return tuple(numbers)


def parse_preprocess(raw: Mapping[str, Any], where: str) -> Preprocess:
    """Validate a ``preprocess`` object of the manifest or of a checkpoint."""
    where = f"{where}, preprocess"
    resize, crop = (_count(raw, key, where, MAX_SIDE) for key in ("resize", "crop"))
    _require(crop <= resize, where, "crop", f"at most resize, {resize}", crop)
    interpolation = take(raw, "interpolation", str, where)
    _require(interpolation == "bilinear", where, "interpolation", "'bilinear'", interpolation)
    mean, std = (_per_channel(raw, key, where, positive=key == "std") for key in ("mean", "std"))
    return Preprocess(resize, crop, interpolation, mean, std)


def parse_metrics(raw: Mapping[str, Any], where: str) -> Metrics:
    """Validate a ``metrics`` object of the manifest or of a checkpoint."""
    where = f"{where}, metrics"
    top1, top5 = (take(raw, key, float, where) for key in ("acc@1", "acc@5"))
    _require(0 <= top1 <= top5 <= 100, where, "acc@1", "at least 0 and at most acc@5, both percentages", (top1, top5))
    dataset, measured_by = (label(take(raw, key, str, where), where) for key in ("dataset", "measured_by"))
    return Metrics(dataset, top1, top5, measured_by)


def label(text: str, where: str) -> str:
    """A label that is safe to print: not empty, at most 200 characters, no control characters."""
    if not text.strip() or len(text) > MAX_LABEL or not text.isprintable():
        raise ManifestError(f"{where}: a label must be 1 to {MAX_LABEL} printable characters, got {text!r:.80}")
    return text


def _parse_urls(raw: Mapping[str, Any], where: str) -> tuple[str, ...]:
    urls = take(raw, "urls", list, where)
    secure = all(isinstance(url, str) and _is_https(url) for url in urls)
    _require(bool(urls) and secure, where, "urls", "a list of https addresses", urls)
    return tuple(urls)


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # unbalanced brackets
        return False
    return parts.scheme == "https" and bool(parts.hostname) and url.isprintable() and " " not in url


def _parse_entry(raw: object, where: str) -> Entry:
    if not isinstance(raw, dict):
        raise ManifestError(f"{where}: must be an object, got a {type(raw).__name__}")
    name, arch = take(raw, "name", str, where), take(raw, "arch", str, where)
    where = f"{where} ({arch}/{name})"
    _require(bool(_WEIGHTS_NAME.fullmatch(name)), where, "name", "lower case and end in a version, as in 'x_v1'", name)
    _require(arch.isidentifier(), where, "arch", "the name of an entry point", arch)
    _require(("urls" in raw) != ("path" in raw), where, "urls", "given, or 'path', but not both", sorted(raw))
    sha256 = take(raw, "sha256", str, where)
    _require(bool(re.fullmatch(r"[0-9a-f]{64}", sha256)), where, "sha256", "64 lower-case hexadecimal digits", sha256)
    return Entry(
        name=name,
        arch=arch,
        default=take(raw, "default", bool, where),
        num_classes=_count(raw, "num_classes", where),
        file=_file_name(raw, "file", where),
        urls=_parse_urls(raw, where) if "urls" in raw else (),
        path=_file_name(raw, "path", where) if "path" in raw else None,
        sha256=sha256,
        size=_count(raw, "size", where),
        num_params=_count(raw, "num_params", where),
        macs=_count(raw, "macs", where),
        categories=_file_name(raw, "categories", where),
        preprocess=parse_preprocess(take(raw, "preprocess", dict, where), where),
        metrics=parse_metrics(take(raw, "metrics", dict, where), where),
        license=take(raw, "license", str, where),
        source=take(raw, "source", str, where),
        recipe=take(raw, "recipe", str, where),
    )


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ManifestError(f"weights.json: the key {key!r} stands twice in one object; keep one")
    return dict(pairs)


def _no_constant(text: str) -> None:
    raise ManifestError(f"weights.json: {text} is not a number")


def _check_across(entries: tuple[Entry, ...]) -> None:
    for field in ("arch/name", "file"):
        keys = [entry.file.lower() if field == "file" else str(entry) for entry in entries]
        for key in keys:
            if keys.count(key) > 1:
                raise ManifestError(f"weights.json: two entries have the {field} {key!r}; each must be unique")
    for arch in {entry.arch for entry in entries}:
        defaults = [entry.name for entry in entries if entry.arch == arch and entry.default]
        if len(defaults) != 1:
            raise ManifestError(f"weights.json: {arch} must have exactly one default entry, got {defaults}")


def parse_manifest(text: str) -> tuple[Entry, ...]:
    """Validate the text of a ``weights.json``; unknown fields are ignored.

    Raises:
        ManifestError: naming the entry and the field.
    """
    try:
        raw = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except ManifestError:
        raise
    except (ValueError, RecursionError) as error:  # also a number of more than 4300 digits
        raise ManifestError(f"weights.json is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ManifestError(f"weights.json must hold an object, got a {type(raw).__name__}")
    version = take(raw, "schema_version", int, "weights.json")
    if version != SCHEMA_VERSION:
        raise ManifestError(
            f"weights.json has schema_version {version}, this code reads {SCHEMA_VERSION}; upgrade the package"
        )
    raw_entries = take(raw, "entries", list, "weights.json")
    entries = tuple(_parse_entry(each, f"weights.json, entry {index}") for index, each in enumerate(raw_entries))
    _check_across(entries)
    return entries


def manifest_path() -> Path:
    """Inside the package in a wheel; beside it in a checkout, which ``hubconf.py`` gives away."""
    inside = PACKAGE / "weights.json"
    beside = PACKAGE.parent / "weights.json"
    if inside.is_file():
        return inside
    if beside.is_file() and (PACKAGE.parent / "hubconf.py").is_file():
        return beside
    raise ManifestError(f"weights.json is missing: expected {inside}, or {beside} beside hubconf.py; install again")


@cache
def load_manifest() -> tuple[Entry, ...]:
    """All entries of this copy's ``weights.json``."""
    path = manifest_path()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} cannot be read: {error}") from error
    return parse_manifest(text)


@cache
def read_categories(file: str) -> tuple[Category, ...]:
    """The classes of a file in ``categories/``, in the order of the logits; a line is ``[WordNet id <tab>] label``."""
    lines = (PACKAGE / "categories" / file).read_text(encoding="utf-8").splitlines()
    fields = [line.rpartition("\t") for line in lines]
    return tuple(Category(label(text, file), wordnet_id or None) for wordnet_id, _, text in fields)
