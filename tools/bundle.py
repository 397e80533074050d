"""From a checkpoint to an entry of ``weights.json``, and from a measurement to its accuracy."""

import hashlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from shufflenetv2.builder import Weights, build, from_entry, resolve
from shufflenetv2.description import to_json
from shufflenetv2.files import write_whole
from shufflenetv2.package import BUNDLED, CATEGORIES, manifest_path
from shufflenetv2.weights.checkpoint import write_checkpoint
from shufflenetv2.weights.manifest import Entry, find_entry, load_manifest, parse_manifest, read_categories

NOT_MEASURED = {"dataset": "not measured", "acc@1": 0.0, "acc@5": 0.0, "measured_by": "nobody"}


def bundle(file: Path, name: str, *, urls: list[str], default: bool = False, **said: str | None) -> None:
    """Add ``file`` to the manifest, or replace the entry of its architecture and ``name``.

    Args:
        file: any checkpoint that the package reads.
        name: of the entry, with its version.
        urls: where ``file`` is published as it is; without, the package gets it in half precision.
        default: whether it becomes the default of its architecture, as the first entry does anyway.
        said: its license, source and recipe.

    Raises:
        ShuffleNetError: the file cannot be used, or does not make a valid entry; nothing was written.
        ValueError: it is for other than three channels.
    """
    weights = resolve(None, str(file))
    if weights.in_channels != 3:
        raise ValueError(f"{file} is for {weights.in_channels} channels; weights.json lists weights for 3")
    data = file.read_bytes() if urls else in_half_precision(weights)
    sha256 = hashlib.sha256(data).hexdigest()
    width, unversioned = weights.arch.removeprefix("shufflenet_v2_"), name.rpartition("_v")[0]
    bundled = f"shufflenetv2_{width}-{unversioned}-{sha256[:10]}.pth"
    categories = categories_file(weights.labels, unversioned)
    model = build(weights.arch, weights, progress=False)
    crop = weights.preprocess.crop
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, 3, crop, crop))
    fields = {
        "num_classes": weights.num_classes,
        "file": urls[0].rpartition("/")[2] if urls else bundled,
        **({"urls": urls} if urls else {"path": bundled}),
        "sha256": sha256,
        "size": len(data),
        "num_params": sum(parameter.numel() for parameter in model.parameters()),
        "macs": counter.get_total_flops() // 2,
        "categories": categories.name,
        "preprocess": to_json(weights.preprocess),
        **({"small_stem": True} if weights.small_stem else {}),
        **({"temperature": weights.temperature} if weights.temperature != 1 else {}),
        "metrics": to_json(weights.metrics) if weights.metrics else NOT_MEASURED,
    }
    old, text = edited(weights.arch, name, fields, said, default)
    parse_manifest(text)  # before anything is written
    if old.get("path") and old["path"] != fields.get("path"):
        (BUNDLED / old["path"]).unlink(missing_ok=True)
    if not urls:
        write_whole(BUNDLED / bundled, data)
    if not categories.exists():
        write_whole(categories, "".join(f"{label}\n" for label in weights.labels).encode())
    entry = rewrite(text, weights.arch, name)
    print(f"{entry}: {entry.file}, {entry.size} bytes, sha256 {entry.sha256}")
    print("what remains: python -m tools update, and a line in CHANGELOG.md")


def in_half_precision(weights: Weights) -> bytes:
    tensors = weights.read(False).state_dict
    half = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "half.pth")
        write_checkpoint(path, half, replace(weights.description, metrics=None))
        build(weights.arch, resolve(weights.arch, str(path)))  # refuses what half precision made infinite
        return path.read_bytes()


def categories_file(labels: list[str], name: str) -> Path:
    """The file with these labels in this order, or the one to write them to."""
    for path in sorted(CATEGORIES.glob("*.txt")):
        if [category.label for category in read_categories(path.name)] == labels:
            return path
    path = CATEGORIES / f"{name}.txt"
    if path.exists():
        raise ValueError(f"{path} has other classes than the checkpoint; choose another name")
    return path


def record(weights: str, measured: Path, dataset: str, by: str) -> None:
    """Put what ``evaluate --json`` counted on ``dataset`` into the manifest."""
    entry, counts = find_entry(None, weights), json.loads(measured.read_text(encoding="utf-8"))
    percent = {f"acc@{top}": counts[f"top{top}"]["percent"] for top in (1, 5)}
    metrics = {"dataset": dataset, **percent, "measured_by": f"shufflenetv2 evaluate, {by}"}
    _, text = edited(entry.arch, entry.name, {"metrics": metrics}, {}, entry.default)
    rewrite(text, entry.arch, entry.name)


def edited(
    arch: str, name: str, fields: dict[str, Any], said: dict[str, str | None], default: bool
) -> tuple[dict[str, Any], str]:
    """The entry as it was, empty if it is new, and the manifest's text with ``fields`` in it."""
    manifest = json.loads(manifest_path().read_text(encoding="utf-8"))
    entries = manifest["entries"]
    entry: dict[str, Any] = next((each for each in entries if (each["arch"], each["name"]) == (arch, name)), {})
    old = dict(entry)
    if not entry:
        entry |= {"name": name, "arch": arch, "default": False}
        entries.append(entry)
    if "path" in fields or "urls" in fields:  # one or the other
        entry.pop("path", None)
        entry.pop("urls", None)
        entry.pop("temperature", None)  # of the file before
    entry.update(fields)
    for key, unsaid in (("license", "not stated"), ("source", "this repository"), ("recipe", "not stated")):
        entry[key] = said.get(key) or entry.get(key, unsaid)
    siblings = [each for each in entries if each["arch"] == arch]
    if default or not any(each["default"] for each in siblings):
        for each in siblings:
            each["default"] = each is entry
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    for value in (each["preprocess"][key] for each in entries for key in ("mean", "std")):
        broken = "[\n" + ",\n".join(f"          {number}" for number in value) + "\n        ]"
        text = text.replace(broken, json.dumps(value))  # three numbers read better on one line
    return old, text + "\n"


def rewrite(text: str, arch: str, name: str) -> Entry:
    """Make ``text`` the manifest, and load the entry as any user would if it is bundled."""
    parse_manifest(text)
    write_whole(manifest_path(), text.encode())
    load_manifest.cache_clear()
    read_categories.cache_clear()
    entry = next(each for each in load_manifest() if (each.arch, each.name) == (arch, name))
    if entry.path:
        build(arch, from_entry(entry))
    return entry
