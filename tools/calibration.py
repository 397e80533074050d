"""The temperature of weights in the manifest, and how often they answer about photos of none of their classes."""

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from shufflenetv2.builder import resolve
from shufflenetv2.evaluation.judging import Answers, collect, fit_temperature
from shufflenetv2.inference.classifier import Classifier
from shufflenetv2.inference.explain import picture
from shufflenetv2.package import sample_photos
from shufflenetv2.photos.folders import LabelledPhotos, hold_out, read_labelled
from shufflenetv2.weights.manifest import find_entry

from .bundle import edited, rewrite
from .tables import CALIBRATION

LEVELS = (0.5, 0.9)
SIDE = 96  # pixels of the foreign photos: more than CIFAR-10's, as a user's photos have more


def calibrate(weights: str, train: Path, test: Path, held_out: float, seed: int, by: str, seen: bool = False) -> None:
    """Fit on the photos that ``train --held-out`` left out of training, write into weights.json, and try on others.

    Args:
        weights: of the manifest.
        train: the folder they were trained on.
        test: photos on which nothing is fitted; what the temperature changes is told of these.
        held_out, seed: as they were given to ``train``.
        by: the date and the machine.
        seen: the weights were trained on all of ``train``; what comes of it is told, and not written into weights.json.
    """
    entry = find_entry(None, weights)
    classifier = Classifier(resolve(entry.arch, entry.name))
    _, held = hold_out(read_labelled(train, classifier.weights.classes), held_out, seed)
    fitted = _ask(classifier, held)
    temperature = round(fit_temperature(fitted.logits, fitted.labels), 4)
    tried = _ask(classifier, read_labelled(test, classifier.weights.classes))
    if not seen:
        _, text = edited(entry.arch, entry.name, {"temperature": temperature}, {}, entry.default)
        rewrite(text, entry.arch, entry.name)
    _note(
        "calibration",
        {
            "weights": str(entry),
            "temperature": temperature,
            "fitted_on": len(fitted.paths),
            "tried_on": len(tried.paths),
            "before": _judged(tried, 1.0),
            "after": _judged(tried, temperature),
            "seen": seen,
            "by": by,
        },
    )


def _ask(classifier: Classifier, photos: LabelledPhotos) -> Answers:
    return collect(classifier, photos, batch_size=64)


def _judged(answers: Answers, temperature: float) -> dict[str, float]:
    return replace(answers, source=replace(answers.source, temperature=temperature)).calibration


def foreign(weights: str, count: int, by: str) -> None:
    """How often ``weights`` answer, at each of ``LEVELS``, about ``count`` photos of each kind of nothing they know."""
    entry = find_entry(None, weights)
    classifier = Classifier(resolve(entry.arch, entry.name), top=1)
    kinds = {}
    for kind in KINDS:
        surest = torch.tensor([said[0].probability for said in classifier(make(kind, count))])
        kinds[kind] = {"photos": count, **{str(level): int((surest >= level).sum()) for level in LEVELS}}
    _note("foreign", {"weights": str(entry), "temperature": entry.temperature, "kinds": kinds, "by": by})


def make(kind: str, count: int) -> Iterator[Image.Image]:
    """``count`` photos of a kind, the same ones each time."""
    generator = random.Random(f"{kind} of nothing")
    for _ in range(count):
        yield KINDS[kind](generator)


def texture(generator: random.Random) -> Image.Image:
    """Waves of a few directions and wavelengths, in two colours: cloth, water, sand, wood."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    value = torch.zeros(SIDE, SIDE)
    for _ in range(generator.randint(2, 6)):
        angle, length = generator.uniform(0, math.pi), math.exp(generator.uniform(1, 3.5))
        phase, bend = generator.uniform(0, 2 * math.pi), generator.uniform(0, 2)
        along = x * math.cos(angle) + y * math.sin(angle)
        value += torch.sin(2 * math.pi * along / length + phase + bend * torch.sin((y - x) / 17))
    share = (value - value.min()) / (value.max() - value.min())
    first, second = ([generator.randint(0, 255) for _ in range(3)] for _ in range(2))
    levels = torch.tensor(first)[:, None, None] + share * (torch.tensor(second) - torch.tensor(first))[:, None, None]
    return picture(levels.clamp(0, 255).byte())


def text(generator: random.Random) -> Image.Image:
    """Lines of letters on paper."""
    paper, ink = generator.randint(190, 255), generator.randint(0, 80)
    image = Image.new("RGB", (SIDE, SIDE), (paper, paper, generator.randint(170, paper)))
    draw, size = ImageDraw.Draw(image), generator.randint(8, 26)
    for top in range(generator.randint(-size, 2), SIDE, size + 3):
        line = "".join(generator.choice("etaoin shrdlu cmfwyp vbgkjqxz  ") for _ in range(30))
        draw.text((generator.randint(-6, 4), top), line, (ink, ink, ink), ImageFont.load_default(size))
    return image


def coffee(generator: random.Random) -> Image.Image:
    """A part of the photo of a coffee cup, at least half of its width."""
    [path] = [each for each in sample_photos() if each.stem == "coffee"]
    with Image.open(path) as file:
        photo = file.convert("RGB")
    side = generator.randint(photo.height // 2, photo.height)
    left, top = generator.randint(0, photo.width - side), generator.randint(0, photo.height - side)
    return photo.crop((left, top, left + side, top + side))


def noise(generator: random.Random) -> Image.Image:
    """Random colours, from single pixels to clouds."""
    torch_generator = torch.Generator().manual_seed(generator.getrandbits(32))
    grain = generator.choice((SIDE, SIDE // 2, SIDE // 4, SIDE // 12, 4))
    values = torch.rand(1, 3, grain, grain, generator=torch_generator)
    values = torch.nn.functional.interpolate(values, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    return picture(values[0].mul(255).byte())


KINDS = {"textures": texture, "text": text, "the coffee cup": coffee, "noise": noise}


def _note(part: str, content: dict[str, Any]) -> None:
    known = json.loads(CALIBRATION.read_text(encoding="utf-8")) if CALIBRATION.exists() else {}
    CALIBRATION.write_text(json.dumps({**known, part: content}, indent=1) + "\n", encoding="utf-8")
