"""A data set that is learnt in seconds, and runs on it."""

import os
from pathlib import Path

import torch
from PIL import Image

from shufflenetv2.__main__ import main

COLOURS = {"blue": (40, 60, 220), "green": (50, 200, 60), "red": (220, 50, 40)}
# Small enough for seconds; every random choice there is takes part.
SCRATCH = ["--weights", "none", "--arch", "shufflenet_v2_x0_5", "--sizes", "64:0.5", "72:0.5", "--photo-size", "32"]
SCRATCH += ["--batch-size", "12", "--workers", "0", "--lr", "0.05", "--ema", "0.9", "--held-out", "0.25"]
# Equal to the last bit is promised for equal numbers of threads; for tensors this small, one is also fastest.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def make_colours(root: Path, photos: int = 16) -> Path:
    """So many 32x32 photos of each of three noisy colours."""
    generator = torch.Generator().manual_seed(3)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for index in range(photos):
            noise = torch.randn(32, 32, 3, generator=generator) * 30
            pixels = (torch.tensor(colour) + noise).clamp(0, 255).byte()
            Image.frombytes("RGB", (32, 32), bytes(pixels.flatten().tolist())).save(root / name / f"{index}.png")
    return root


def train(data: Path, output: Path, *arguments: str) -> int:
    """The command's exit status."""
    return main(["train", str(data), "--output", str(output), *SCRATCH, *arguments])


def load(path: Path) -> dict[str, object]:
    state: dict[str, object] = torch.load(path, weights_only=True)
    return state


def assert_equal(left: object, right: object, where: str = "") -> None:
    """Equal to the last bit, all the way down, but for the time it took."""
    assert type(left) is type(right), where
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where  # type: ignore[arg-type]
    elif isinstance(left, dict):
        assert list(left) == list(right), where  # type: ignore[call-overload]
        for key in left:
            if key not in ("seconds", "waiting"):
                assert_equal(left[key], right[key], f"{where}/{key}")  # type: ignore[index]
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), where  # type: ignore[arg-type]
        for index, (one, other) in enumerate(zip(left, right, strict=True)):  # type: ignore[call-overload]
            assert_equal(one, other, f"{where}/{index}")
    else:
        assert left == right, where
