"""Measure what docs/benchmark.json holds, which README.md, docs/measurements.md and images/speed.png show."""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from support.networks import randomise
from tqdm import tqdm

from shufflenetv2.description import STANDARD, Description
from shufflenetv2.network.model import SPECS, ShuffleNetV2
from shufflenetv2.package import sample_photos
from shufflenetv2.weights.checkpoint import write_checkpoint

from .tables import BENCHMARK

ARCH = "shufflenet_v2_x1_0"
PHOTOS = 1000
COMMANDS = [
    "benchmark",
    "benchmark --runtimes compile",
    *(
        f"benchmark --archs shufflenet_v2_{width} --runtimes eager onnxruntime openvino"
        for width in ("x0_5", "x1_5", "x2_0")
    ),
    "benchmark --training",
    "benchmark --folder PHOTOS",
]


def make_photos(directory: Path, count: int = PHOTOS) -> None:
    """JPEG files of about 500x375, the usual size of ImageNet's: parts of the sample photos, encoded anew."""
    generator = random.Random(0)
    samples = [Image.open(path).convert("RGB") for path in sample_photos()]
    for number in tqdm(range(count), desc="photos"):
        photo = samples[number % len(samples)]
        width = generator.randint(photo.width // 2, photo.width)
        height = min(photo.height, width * 3 // 4)
        left, top = generator.randint(0, photo.width - width), generator.randint(0, photo.height - height)
        part = photo.crop((left, top, left + width, top + height))
        size = (500 + generator.randint(-20, 20), 375 + generator.randint(-20, 20))
        part.resize(size, Image.Resampling.BICUBIC).save(directory / f"{number:04}.jpg", quality=90)


def random_checkpoint(path: Path) -> None:
    """Of width x1.0; values make no difference to the time."""
    network = randomise(ShuffleNetV2(SPECS[ARCH]))  # else all logits are alike, which no file in fewer bits keeps
    write_checkpoint(path, network.state_dict(), Description(ARCH, 3, tuple(map(str, range(1000))), STANDARD))


def measure(gpu: bool = False) -> None:
    """Run every command, and write what they measured; ``gpu``: on a GPU, its own."""
    if gpu:
        from .gpu import measure_gpu

        measure_gpu()
        return
    runs = []
    with tempfile.TemporaryDirectory() as directory:
        make_photos(Path(directory))
        for command in COMMANDS:
            print(f"{command} ...", file=sys.stderr)
            arguments = command.replace("PHOTOS", directory).split()
            finished = subprocess.run(
                [sys.executable, "-m", "shufflenetv2", *arguments, "--json"], check=True, stdout=subprocess.PIPE
            )
            runs.append({"command": f"python -m shufflenetv2 {command} --json", **json.loads(finished.stdout)})
    BENCHMARK.write_text(json.dumps({"runs": runs}, indent=1) + "\n")
