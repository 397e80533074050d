"""Damaged photos: the sample photos in every format, changed at random, each by its number and a seed."""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from .processes import ROOT

CAT, COFFEE = ROOT / "images/cat.jpg", ROOT / "images/coffee.jpg"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def thumbnail(path: Path = CAT, size: tuple[int, int] = (48, 36)) -> Image.Image:
    with Image.open(path) as photograph:
        return photograph.resize(size)


def mutate(data: bytes, chance: random.Random) -> bytes:
    mutant = bytearray(data)
    kind = chance.randrange(10)
    if kind == 0:
        del mutant[chance.randrange(len(mutant)) :]
    elif kind == 1:
        start = chance.randrange(len(mutant))
        mutant[start:start] = mutant[chance.randrange(len(mutant)) :][: chance.randrange(64)]
    elif kind == 2:
        start = chance.randrange(len(mutant))
        del mutant[start : start + chance.randrange(1, 32)]
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        # Half of the damage in the first bytes, where sizes, tables and chunk types are.
        position = chance.randrange(min(len(mutant), 200) if chance.random() < 0.5 else len(mutant)) if mutant else 0
        if mutant:
            mutant[position] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256), mutant[position] ^ 1))
    return bytes(mutant)


def with_right_checksums(data: bytes) -> bytes:
    """PNG decoders stop at the first wrong checksum; mend them, so that mutants get further."""
    parts, position = [data[:8]], 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        body = data[position + 4 : position + 8 + length]
        parts.append(data[position : position + 4] + body + struct.pack(">I", zlib.crc32(body)))
        position += 12 + length
    return b"".join(parts)


def samples(format: str) -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = []
    for image in (thumbnail(CAT), thumbnail(COFFEE)):
        alpha = image.copy()
        alpha.putalpha(image.convert("L"))
        another: dict[str, object] = {"append_images": [alpha]}
        variants: dict[str, list[tuple[Image.Image, dict[str, object]]]] = {
            "JPEG": [(image, {"exif": exif}), (image, {"progressive": True}), (image.convert("CMYK"), {})],
            "PNG": [(image, {"exif": exif}), (alpha, {}), (image.convert("P"), {"transparency": 3})],
            "WEBP": [(image, {"exif": exif}), (alpha, {"lossless": True}), (image, {"save_all": True, **another})],
            "GIF": [(image, {}), (image, {"save_all": True, **another})],
            "BMP": [(image, {}), (image.convert("P"), {})],
            "TIFF": [
                (image, {}), (image, {"compression": "tiff_lzw", "tiffinfo": {274: 6}}),
                (alpha, {"compression": "jpeg"}), (image, {"compression": "jpeg"}),
                (image.convert("P"), {"compression": "packbits"}),
                (image.convert("CMYK"), {"compression": "tiff_adobe_deflate", "tiffinfo": {278: 5}}),
            ],
            "AVIF": [(image, {"exif": exif}), (alpha, {"subsampling": "4:4:4"}), (image.convert("L"), {})],
        }  # fmt: skip
        found += [encode(variant, format, **options) for variant, options in variants[format]]
    return found


def mutants(format: str, seed: int | str, numbers: range) -> Iterator[tuple[int, bytes]]:
    """Those mutants of a format that have these numbers."""
    originals = samples(format)
    for number in numbers:
        chance = random.Random(f"{seed} {format} {number}")
        mutant = mutate(originals[number % len(originals)], chance)
        yield number, with_right_checksums(mutant) if format == "PNG" and number % 4 else mutant
