"""``weights.json``, read and validated: which weights there are, what their bytes are, how to feed them.

The sha256 of every weights file is trusted from here, so nothing (no variable, no argument) replaces this file.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from ..description import (
    Category,
    Metrics,
    Preprocess,
    check_label,
    demand,
    parse_json,
    parse_metrics,
    parse_preprocess,
    take,
    take_count,
    take_flag,
    take_temperature,
)
from ..errors import ManifestError
from ..files import shown
from ..package import CATEGORIES, guess, logger, manifest_path

SCHEMA_VERSION = 1
DEFAULT_ARCH = "shufflenet_v2_x1_0"  # where several architectures have what was named

# How torchvision calls weights: ResNet50_Weights.DEFAULT, VGG16_Weights.IMAGENET1K_FEATURES; not best_Weights.pth.
ENUM = re.compile(r"(\w+)_Weights\.(DEFAULT|[A-Z\d]+_[A-Z\d_]+)")
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,198}(?<!\.)")  # Windows drops a dot at the end
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_WEIGHTS_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*_v[0-9]+")


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
    small_stem: bool = False
    temperature: float = 1.0

    def __str__(self) -> str:
        return f"{self.arch}/{self.name}"

    def difference(self, data: bytes) -> str | None:
        """``None`` if ``data`` has this size and sha256, else what was expected and got.

        torch checks no CRC when it loads a file: a flipped bit gives other values, silently. This is the only guard.
        """
        if len(data) != self.size:
            return f"expected {self.size} bytes, got {'more' if len(data) > self.size else len(data)}"
        sha256 = hashlib.sha256(data).hexdigest()
        return None if sha256 == self.sha256 else f"expected sha256 {self.sha256}, got {sha256}"

    @property
    def unversioned(self) -> str:
        return self.name.rpartition("_v")[0]

    @property
    def version(self) -> int:
        return int(self.name.rpartition("_v")[2])


def _file_name(raw: Mapping[str, Any], key: str, where: str) -> str:
    value = take(raw, key, str, where)
    safe = _FILE_NAME.fullmatch(value) and not _WINDOWS_DEVICE.fullmatch(value)
    demand(bool(safe), where, key, "a bare file name of letters, digits, '.', '_' and '-'", value)
    return value


def _parse_urls(raw: Mapping[str, Any], where: str) -> tuple[str, ...]:
    urls = take(raw, "urls", list, where)
    secure = all(isinstance(url, str) and _is_https(url) for url in urls)
    demand(bool(urls) and secure, where, "urls", "a list of https addresses", urls)
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
    where = f"{where} ({shown(f'{arch}/{name}')})"
    demand(bool(_WEIGHTS_NAME.fullmatch(name)), where, "name", "lower case and end in a version, as in 'x_v1'", name)
    demand(arch.isidentifier(), where, "arch", "the name of an entry point", arch)
    demand(("urls" in raw) != ("path" in raw), where, "urls", "given, or 'path', but not both", sorted(raw))
    sha256 = take(raw, "sha256", str, where)
    demand(bool(re.fullmatch(r"[0-9a-f]{64}", sha256)), where, "sha256", "64 lower-case hexadecimal digits", sha256)
    return Entry(
        name=name,
        arch=arch,
        default=take(raw, "default", bool, where),
        num_classes=take_count(raw, "num_classes", where),
        file=_file_name(raw, "file", where),
        urls=_parse_urls(raw, where) if "urls" in raw else (),
        path=_file_name(raw, "path", where) if "path" in raw else None,
        sha256=sha256,
        size=take_count(raw, "size", where),
        num_params=take_count(raw, "num_params", where),
        macs=take_count(raw, "macs", where),
        categories=_file_name(raw, "categories", where),
        preprocess=parse_preprocess(take(raw, "preprocess", dict, where), where),
        metrics=parse_metrics(take(raw, "metrics", dict, where), where),
        license=take(raw, "license", str, where),
        source=take(raw, "source", str, where),
        recipe=take(raw, "recipe", str, where),
        small_stem=take_flag(raw, "small_stem", where),
        temperature=take_temperature(raw, where),
    )


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
    raw = parse_json(text, "weights.json")
    if not isinstance(raw, dict):
        raise ManifestError(f"weights.json must hold an object, got a {type(raw).__name__}")
    version = take(raw, "schema_version", int, "weights.json")
    if version != SCHEMA_VERSION:
        raise ManifestError(f"weights.json has schema_version {version}, not {SCHEMA_VERSION}; upgrade the package")
    listed = enumerate(take(raw, "entries", list, "weights.json"))
    entries = tuple(_parse_entry(each, f"weights.json, entry {index}") for index, each in listed)
    _check_across(entries)
    return entries


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
def read_categories(file: str, count: int | None = None) -> tuple[Category, ...]:
    """The classes of a file in ``categories/``, in the order of the logits; a line is ``[WordNet id <tab>] label``.

    Raises:
        ManifestError: it cannot be read, a label is not fit to print, or there are not ``count`` of them.
    """
    path = CATEGORIES / file
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} cannot be read ({error}); it ships with the package: install it again") from error
    if count not in (None, len(lines)):
        raise ManifestError(f"{path} has {len(lines)} labels, and its weights {count} classes; install it again")
    fields = (line.rpartition("\t") for line in lines)
    return tuple(Category(check_label(text, file), wordnet_id or None) for wordnet_id, _, text in fields)


def matching(spelling: str) -> list[Entry]:
    """The entries that ``spelling`` means, in any case: every part of the package takes the same ones.

    That is an architecture (all its weights), ``default``, a name with its version or without it (the newest), either
    of these behind ``ARCH/``, torchvision's ``ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1``, or a file's name.
    """
    entries = load_manifest()
    wanted = ENUM.sub(r"\1/\2", spelling).lower()
    arch, slash, name = wanted.rpartition("/")
    here = [entry for entry in entries if entry.arch == arch] if slash else list(entries)
    if name == "default":
        return [entry for entry in here if entry.default]
    found = [entry for entry in here if name in (entry.name, entry.file.lower())]
    if not slash:
        found += [entry for entry in entries if entry.arch == wanted]
    return found or [entry for entry in here if entry.unversioned == name and entry == _newest(entry, here)]


def _newest(entry: Entry, entries: Iterable[Entry]) -> Entry:
    others = (each for each in entries if (each.arch, each.unversioned) == (entry.arch, entry.unversioned))
    return max(others, key=lambda each: each.version)


def find_entry(arch: str | None, spelling: str) -> Entry:
    """The one entry that ``spelling`` means, for ``arch`` or, if that is ``None``, for any architecture.

    Raises:
        ValueError: there is none, or there are several; the message lists what there is.
    """
    means = matching(spelling)
    found = [entry for entry in means if arch in (None, entry.arch)]
    several = len({entry.arch for entry in found}) > 1
    usual = [entry for entry in found if entry.arch == DEFAULT_ARCH] if several else found
    if usual:
        entry = max(usual, key=lambda each: each.default)  # an architecture means all its weights
        if entry.unversioned == spelling.lower().rpartition("/")[2]:
            logger.info("weights %r without a version: taking the newest, %s", spelling, entry.name)
        return entry
    if found:
        raise ValueError(f"several architectures have weights {spelling!r}: {_listed(found)}; say which arch")
    known = _listed(entry for entry in load_manifest() if arch in (None, entry.arch)) or "none"
    if means:
        raise ValueError(f"the weights {spelling!r} are {_listed(means)}, not for {arch}; there are: {known}")
    names = {name for entry in load_manifest() for name in (entry.name, entry.unversioned, entry.arch, str(entry))}
    own = f"./{spelling}" if os.path.exists(spelling) else "./mine.pth"
    raise ValueError(
        f"there are no weights {spelling!r:.80} for {arch or 'any architecture'}{guess(spelling, names)}; there are: "
        f"{known}. A checkpoint of your own is given as a path ({own})"
    )


def _listed(entries: Iterable[Entry]) -> str:
    return ", ".join(map(str, entries))


def default_entry(arch: str) -> Entry | None:
    """The default weights of ``arch``; ``None`` if it has no weights."""
    return next((entry for entry in load_manifest() if entry.arch == arch and entry.default), None)
