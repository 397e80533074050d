"""ncnn (.ncnn.param with .ncnn.bin), by way of pnnx. It takes one image at a time, and knows no metadata.

What the file says of itself is in a JSON file beside it, with the sha256 of the two.
"""

import json
import subprocess
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor, nn

from .described import digest
from .table import FORMATS, Network, Plan


def write(model: nn.Module, plan: Plan, metadata: dict[str, str], path: Path) -> None:
    import pnnx

    example = plan.shape.example()
    if len(example) != 1:
        raise ValueError("ncnn takes one image at a time; leave --fixed-batch out")
    traced = path.with_name("traced.pt")
    torch.jit.save(torch.jit.trace(model, example), buffer := BytesIO())  # type: ignore[no-untyped-call]
    traced.write_bytes(buffer.getvalue())  # torch's own writer ends the whole process where the disk is full
    shape = ",".join(map(str, example.shape))
    param, weights, said = FORMATS["ncnn"].files(path)
    command = [
        pnnx.EXEC_PATH,
        traced.name,
        f"inputshape=[{shape}]f32",
        f"fp16={int(plan.precision == 'float16')}",
        f"ncnnparam={param.name}",
        f"ncnnbin={weights.name}",
    ]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    if done.returncode or not weights.is_file():
        raise RuntimeError(f"pnnx ended with {done.returncode}: {' '.join(done.stderr.split())[-200:]}")
    sums = {part.suffix: digest(part.read_bytes()) for part in (param, weights)}
    said.write_text(json.dumps({**metadata, "files": sums}, ensure_ascii=False, indent=1), encoding="utf-8")


def open(path: Path) -> tuple[Network, dict[str, str]]:
    import ncnn

    param, weights, said = FORMATS["ncnn"].files(path)
    metadata = json.loads(said.read_text(encoding="utf-8-sig"))  # editors of Windows put a mark at its beginning
    if metadata.pop("files", None) != {part.suffix: digest(part.read_bytes()) for part in (param, weights)}:
        raise ValueError(f"{param.name} and {weights.name} are not the files that {said.name} was written for")
    net = ncnn.Net()
    net.opt.num_threads = torch.get_num_threads()
    # Else ncnn keeps the classifier's weights in half precision where the processor converts it: 4e-4 of a logit.
    net.opt.use_fp16_storage = metadata.get("precision", "").strip('"') == "float16"
    if net.load_param(str(param)) or net.load_model(str(weights)):
        raise ValueError("ncnn does not read it")

    def network(images: Tensor) -> Tensor:
        return torch.stack([logits_of(image) for image in images])

    def logits_of(image: Tensor) -> Tensor:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(image.numpy()).clone())
        status, logits = extractor.extract("out0")
        if status:
            raise RuntimeError(f"ncnn ended with {status}")
        return torch.tensor(logits.numpy())

    return network, metadata
