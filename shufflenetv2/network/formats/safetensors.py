"""A folder: config.json, model.safetensors and README.md, as timm and the Hugging Face Hub lay them out.

The tensors are the plain network's under their own keys, so that the folder is a checkpoint like any other. The
configuration holds their file's sha256: it alone has the labels, and belongs to no other network's tensors.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import CheckpointError
from ..model import SPECS, ShuffleNetV2, spec_of
from .described import digest, parse_metadata
from .table import Network, Plan

TENSORS = "model.safetensors"
FOREIGN = (  # what to do with tensors that another program wrote; Hugging Face's have the same name
    f"of another program's {TENSORS} make a checkpoint: torch.save(safetensors.torch.load_file(path), new_path)"
)

CARD = """\
---
library_name: shufflenetv2
pipeline_tag: image-classification
tags:
- image-classification
- shufflenet
- pytorch
license: other
{datasets}---

# {arch}

ShuffleNet V2 (Ma, Zhang, Zheng, Sun, ECCV 2018, https://arxiv.org/abs/1807.11164), the weights `{weights}`:
{count} classes, images of {crop}x{crop}.{accuracy}

```python
from shufflenetv2 import classifier

classify = classifier(weights="path/to/this/folder")
print(classify("photo.jpg")[0])
```

`config.json` says how photos are prepared and which classes there are. The tensors have the names of torchvision's
`{arch}`. The licence of the weights is that of those they were made from.
"""


def write(model: nn.Module, plan: Plan, metadata: dict[str, str], path: Path) -> None:
    from safetensors.torch import save

    dtype = getattr(torch, plan.precision)
    tensors = {
        key: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
        for key, tensor in model.state_dict().items()
    }
    said = {key: json.loads(value) for key, value in metadata.items()}
    data = save(tensors, metadata={"format": "pt"})
    (path / TENSORS).write_bytes(data)
    said["files"] = {TENSORS: digest(data)}
    text = json.dumps(config(said, model, plan), ensure_ascii=False, indent=1)
    (path / "config.json").write_text(text, encoding="utf-8")
    metrics, preprocess = said["metrics"], said["preprocess"]
    card = CARD.format(
        arch=said["arch"],
        weights=said["weights"],
        count=len(said["categories"]),
        crop=preprocess["crop"],
        datasets=f"datasets:\n- {json.dumps(metrics['dataset'])}\nmetrics:\n- accuracy\n" if metrics else "",
        accuracy=f" Top-1 {metrics['acc@1']} % on {metrics['dataset']}." if metrics else "",
    )
    (path / "README.md").write_text(card, encoding="utf-8")


def config(said: dict[str, Any], model: nn.Module, plan: Plan) -> dict[str, Any]:
    """timm's keys, and this package's own under its name."""
    preprocess = said["preprocess"]
    return {
        "architecture": said["arch"],
        "num_classes": len(said["categories"]),
        "num_features": model.spec.head_channels if isinstance(model, ShuffleNetV2) else None,
        "pretrained_cfg": {
            "input_size": [said["in_channels"], preprocess["crop"], preprocess["crop"]],
            "interpolation": preprocess["interpolation"],
            "crop_pct": preprocess["crop"] / preprocess["resize"],
            "crop_mode": "center",
            "mean": preprocess["mean"],
            "std": preprocess["std"],
            "num_classes": len(said["categories"]),
            "first_conv": "conv1.0",
            "classifier": "fc",
            "label_names": said["categories"],
        },
        "torch_dtype": plan.precision,
        "shufflenetv2": said,
    }


def open(path: Path) -> tuple[Network, dict[str, str]]:
    from safetensors.torch import load

    said, data = said_in(path / "config.json"), (path / TENSORS).read_bytes()
    files = said.pop("files", {})  # absent in those that were written before it was, and where it was deleted
    if files and files != {TENSORS: digest(data)}:
        raise CheckpointError(
            f"{path / 'config.json'} and {path / TENSORS} are of different exports, so its labels may be another "
            'network\'s; export the folder anew. Who changed the tensors on purpose deletes the key "files" in '
            'config.json\'s "shufflenetv2"'
        )
    metadata = {key: json.dumps(value, ensure_ascii=False) for key, value in said.items()}
    inside = parse_metadata(metadata, SPECS, str(path / "config.json")).description
    spec = spec_of(inside.arch, inside.small_stem)
    with torch.device("meta"):
        model = ShuffleNetV2(spec, len(inside.categories), inside.in_channels)
    tensors = load(data)
    ready = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
    model.load_state_dict(ready, strict=True, assign=True)
    return model.eval(), metadata


def said_in(file: Path) -> dict[str, Any]:
    """What the configuration says of the network, in this package's own terms."""
    config = json.loads(file.read_text(encoding="utf-8-sig"))  # editors of Windows put a mark at its beginning
    said = config.get("shufflenetv2") if isinstance(config, dict) else None
    if not isinstance(said, dict):
        raise CheckpointError(
            f"{file} was not written by `shufflenetv2 export`: it has no object 'shufflenetv2'; {FOREIGN}"
        )
    return said
