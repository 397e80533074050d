"""What an exported file says of itself: written as JSON under ``KEYS``, validated when it is opened, and then checked.

A file is a program for a runtime of its own. Some versions of runtimes compute wrong answers without a word (ONNX
Runtime before 1.25 with int8 on processors with AMX), so that a file carries a few inputs and what must come of them.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from ...description import Category, Description, demand, parse_description, parse_json, take, take_count, to_json
from ...errors import CheckpointError, ManifestError
from .table import PRECISIONS, Network

SCHEMA_VERSION = 1
GRID = 8  # squares a side of the inputs that are stored
PROBES = 4
CANDIDATES = 64  # random inputs, of which those are stored whose label stands out most
# By how much of itself a margin may be less, or the file's be less than it. Float formats differ by some 1e-6, int8 by
# half or twice as much: these are no photos.
SLACK = {"float32": 0.01, "bfloat16": 0.25, "float16": 0.25, "int8": 0.9}
# By how much of the largest logit, too: what rounding the last layer alone may do where no label stands out.
NOISE = {"float32": 1e-6, "bfloat16": 2**-8, "float16": 2**-11, "int8": 2**-6}
INPUT = {"layout": "NCHW", "colours": "RGB", "dtype": "float32", "range": "[0, 1], then as preprocess says"}
KEYS = (
    "schema_version", "arch", "small_stem", "in_channels", "categories", "wordnet_ids", "preprocess", "metrics",
    "temperature", "weights", "sha256", "precision", "input", "probes", "producer",
)  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """An input of coloured squares, and what must come of it: the label, and how far its logit is above the others."""

    squares: str  # base64 of uint8 (C, GRID, GRID)
    label: int
    margin: float


@dataclass(frozen=True)
class Inside:
    """What a file says of itself, beside what a checkpoint says."""

    description: Description
    classes: tuple[Category, ...]
    weights: str  # the name of those it was made from
    sha256: str  # of their file
    precision: str
    batch: int | None  # None: any
    size: int | None  # height and width, in pixels; None: any from ``smallest`` up
    smallest: int
    probes: tuple[Probe, ...]
    producer: str

    def to_metadata(self) -> dict[str, str]:
        """Plain JSON under each of ``KEYS``."""
        said = to_json(self.description)
        values = {
            "schema_version": SCHEMA_VERSION,
            "metrics": None,
            **said,
            "wordnet_ids": [each.wordnet_id for each in self.classes],
            "weights": self.weights,
            "sha256": self.sha256,
            "precision": self.precision,
            "input": INPUT | {"batch": self.batch, "size": self.size, "smallest": self.smallest},
            "probes": [asdict(probe) for probe in self.probes],
            "producer": self.producer,
        }
        return {key: json.dumps(values[key], ensure_ascii=False) for key in KEYS}


def parse_metadata(found: Mapping[str, str | None], archs: Mapping[str, object], where: str) -> Inside:
    """Validate, as strictly as the manifest, what a file says of itself.

    Raises:
        CheckpointError: naming the field; a file of a newer schema; one that says nothing.
    """
    if not found.get("schema_version"):
        told = f"{where} does not describe itself: `shufflenetv2 export` did not write it, or not whole"
        if where.lower().endswith(".pt"):
            told += "; of your own script make a checkpoint: torch.save(torch.jit.load(path).state_dict(), new_path)"
        raise CheckpointError(told)
    try:
        raw = {key: parse_json(found[key] or "", f"{where}, {key}") for key in KEYS if key in found}
        version = take(raw, "schema_version", int, where)
        if version != SCHEMA_VERSION:
            raise CheckpointError(
                f"{where} has schema_version {version}, this code reads {SCHEMA_VERSION}; "
                + ("upgrade the package" if version > SCHEMA_VERSION else "export it anew")
            )
        size = take(raw, "input", dict, where)
        demand({**size, **INPUT} == size, where, "input", f"{INPUT}", size)
        precision = take(raw, "precision", str, where)
        demand(precision in PRECISIONS, where, "precision", f"one of {', '.join(PRECISIONS)}", precision)
        description = parse_description(raw, archs, where)
        return Inside(
            description=description,
            classes=_parse_classes(take(raw, "wordnet_ids", list, where), description, where),
            weights=take(raw, "weights", str, where),
            sha256=take(raw, "sha256", str, where),
            precision=precision,
            batch=None if size.get("batch") is None else take_count(size, "batch", where),
            size=None if size.get("size") is None else take_count(size, "size", where),
            smallest=take_count(size, "smallest", where),
            probes=tuple(_parse_probe(each, description, where) for each in take(raw, "probes", list, where)),
            producer=take(raw, "producer", str, where),
        )
    except ManifestError as error:
        raise CheckpointError(str(error)) from error


def _parse_classes(ids: list[Any], description: Description, where: str) -> tuple[Category, ...]:
    fits = len(ids) == len(description.categories) and all(each is None or _is_wordnet_id(each) for each in ids)
    demand(fits, where, "wordnet_ids", "null, or an id as n02123045, a category", ids)
    return tuple(map(Category, description.categories, ids))


def _is_wordnet_id(text: object) -> bool:
    return isinstance(text, str) and bool(re.fullmatch(r"n[0-9]{8}", text))


def _parse_probe(raw: Any, description: Description, where: str) -> Probe:
    where = f"{where}, probes"
    demand(isinstance(raw, dict), where, "probes", "a list of objects", raw)
    squares, label = take(raw, "squares", str, where), take(raw, "label", int, where)
    margin = take(raw, "margin", float, where)
    demand(0 <= label < len(description.categories), where, "label", "the index of a category", label)
    demand(margin >= 0, where, "margin", "at least 0", margin)
    try:
        length = len(base64.b64decode(squares, validate=True))
    except ValueError:
        length = -1
    demand(length == description.in_channels * GRID**2, where, "squares", "base64 of one square a channel", squares)
    return Probe(squares, label, margin)


class ExportedNetwork(nn.Module):
    """A file opened in its runtime, as a module: images in, logits out, on the CPU.

    Where the file takes batches of one size, others are split, and the last piece is filled up.

    Attributes:
        inside: what the file says of itself.
        where: names it in messages.
        runtime: in which it runs.
    """

    def __init__(self, network: Network, inside: Inside, where: str, runtime: str) -> None:
        super().__init__()
        self.network, self.inside, self.where, self.runtime = network, inside, where, runtime

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, classes)``, float32, of ``images`` ``(N, C, H, W)``.

        Raises:
            ValueError: the file takes images of another size or with other channels, or a batch of them.
        """
        channels = self.inside.description.in_channels
        if images.dim() != 4 or images.shape[1] != channels:
            alone = "; one image alone is images[None]" if images.dim() == 3 else ""
            raise ValueError(f"{self.where} takes images (N, {channels}, H, W), got {tuple(images.shape)}{alone}")
        height, width = images.shape[2:]
        if self.inside.size not in (None, height) or self.inside.size not in (None, width):
            size = self.inside.size
            raise ValueError(f"{self.where} takes images of {size}x{size} alone, got {height}x{width}")
        images = images.detach().float().cpu().contiguous()
        if self.inside.batch in (None, len(images)):
            return self.network(images)
        filled = torch.cat((images, images.new_zeros(-len(images) % self.inside.batch, *images.shape[1:])))
        return torch.cat([self.network(each) for each in torch.split(filled, self.inside.batch)])[: len(images)]


def digest(data: bytes) -> str:
    """By which the parts of a file know each other."""
    return hashlib.sha256(data).hexdigest()


def probe_images(squares: Tensor, size: int) -> Tensor:
    """``uint8 (N, C, GRID, GRID)`` as images ``float32 (N, C, size, size)``, from about -2 to 2."""
    places = torch.arange(size) * GRID // size
    return ((squares.float() / 255 - 0.5) / 0.25)[:, :, places][:, :, :, places].contiguous()


def choose_probes(model: Network, in_channels: int, size: int) -> tuple[Probe, ...]:
    """Inputs that ``model`` is surest of, of as many labels as are clear, or as there are where one alone is."""
    generator = torch.Generator().manual_seed(0)
    # A quarter each of 1, 4, 16 and 64 colours: to a network trained on small photos the finest look all alike.
    squares = torch.cat([
        torch.randint(256, (CANDIDATES // 4, in_channels, side, side), generator=generator, dtype=torch.uint8)
        .repeat_interleave(GRID // side, 2).repeat_interleave(GRID // side, 3) for side in (1, 2, 4, GRID)
    ])  # fmt: skip
    labels, margins = margins_of(torch.cat([model(probe_images(each, size)) for each in torch.split(squares, PROBES)]))
    order = margins.argsort(descending=True).tolist()
    clear = [index for index in order if margins[index] >= margins.max() / 2]
    several = clear if len({labels[index] for index in clear}) > 1 else order
    firsts = {labels[index]: index for index in reversed(several)}  # the surest of each label
    chosen = sorted(order, key=lambda index: firsts.get(labels[index]) != index)[:PROBES]
    return tuple(
        Probe(base64.b64encode(bytes(squares[index].flatten().tolist())).decode(), labels[index], float(margins[index]))
        for index in chosen
    )


def margins_of(logits: Tensor) -> tuple[list[int], Tensor]:
    """Of each row the likeliest label, and by how much it leads; where there is one class alone, its logit."""
    if logits.shape[1] == 1:
        return [0] * len(logits), logits[:, 0].abs()
    best = logits.topk(2)
    return best.indices[:, 0].tolist(), best.values[:, 0] - best.values[:, 1]


def check(network: ExportedNetwork) -> None:
    """Compute the inputs that the file carries.

    Raises:
        CheckpointError: another label, or another margin by far: the runtime computes wrongly, or the file is damaged.
    """
    inside = network.inside
    if not inside.probes:
        return
    channels = inside.description.in_channels
    squares = [
        torch.frombuffer(bytearray(base64.b64decode(probe.squares)), dtype=torch.uint8) for probe in inside.probes
    ]
    size = inside.size or max(inside.description.preprocess.crop, inside.smallest)
    logits = network(probe_images(torch.stack(squares).view(-1, channels, GRID, GRID), size))
    fits = logits.shape == (len(squares), len(inside.description.categories))
    for found in _wrong(inside, logits) if fits else [f"logits of shape {tuple(logits.shape)}"]:
        raise CheckpointError(
            f"{network.where}: {network.runtime} gives other answers than when the file was written: on an input "
            f"that it carries, {found}. Try another version of the runtime, or export it anew"
        )


def _wrong(inside: Inside, logits: Tensor) -> Iterator[str]:
    slack, noise = SLACK[inside.precision], 1e-6 + NOISE[inside.precision] * float(logits.abs().max())
    for probe, row, label, margin in zip(inside.probes, logits, *margins_of(logits), strict=True):
        lead = float(margin if label == probe.label else row[probe.label] - row[label])
        if not (1 - slack) * probe.margin - noise <= lead <= probe.margin / (1 - slack) + noise < inf:
            yield f"class {label} leads by {float(margin):.3g} where class {probe.label} led by {probe.margin:.3g}"
