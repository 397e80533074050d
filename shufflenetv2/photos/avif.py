"""How large the pictures in an AVIF file are, by what its decoder believes: the headers within the compressed data.

The container states a size, too, but decoders allocate by the headers of AV1 and scale afterwards: a file of 4 kB that
says 64x64 outside may hold 16384x16384 inside. (ISO/IEC 14496-12 for the boxes, AV1 Bitstream Specification 5.5.)
"""

from collections.abc import Iterator

from .tiff import ExcessError, check_exif

MAX_ITEMS = 1_000  # pictures, grid cells and metadata; a grid of a hundred megapixels has a few dozen
MAX_UNITS = 1_000  # of an item; a still picture has three
_SEQUENCE_HEADER = 1


def check_avif(data: bytes) -> tuple[int, int] | None:
    """The largest size in the file; ``None`` if none is found, which is the decoder's business."""
    check_exif(data)
    if data[8:12] == b"avis":
        raise ExcessError("is an animation, of which AVIF has no first frame to look at alone")
    sizes = [size for item in _items(data) for size in _sizes(item)]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, beginning and end of what lies in each box between ``start`` and ``end``."""
    while start + 8 <= end:
        size, kind, inner = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8], start + 8
        if size == 1:
            size, inner = int.from_bytes(data[inner : inner + 8], "big"), inner + 8
        size = size or end - start  # 0: all that is left
        if size < inner - start:
            return
        yield kind, inner, min(start + size, end)
        start += size


def _items(data: bytes) -> Iterator[bytes]:
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            inner = {name: (first, last) for name, first, last in _boxes(data, start + 4, end)}
            if b"iloc" in inner:
                yield from _located(data, *inner[b"iloc"], inner.get(b"idat", (0, 0))[0])


def _located(data: bytes, place: int, end: int, idat: int) -> Iterator[bytes]:
    """The bytes of each item of an ``iloc`` box; those of the second kind are counted from ``idat``."""

    def take(length: int) -> int:
        nonlocal place
        place += length
        return int.from_bytes(data[place - length : place], "big")

    version, sizes = take(4) >> 24, take(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide = 4 if version == 2 else 2
    count, left = take(wide), 2 * len(data)
    for _ in range(min(count, MAX_ITEMS)):
        take(wide)
        kind = take(2) & 15 if version else 0
        take(2)
        base = take(base_size) + (idat if kind == 1 else 0)
        parts = []
        for _ in range(take(2)):
            take(index_size if version else 0)
            start, length = base + take(offset_size), take(length_size)
            parts.append(data[start : start + length] if length else data[start:])
            left -= len(parts[-1])
            if left < 0 or place > end:
                raise ExcessError("has items that overlap")
        yield b"".join(parts)
    if count > MAX_ITEMS:
        raise ExcessError(f"has more than {MAX_ITEMS:,} items")


def _sizes(item: bytes) -> Iterator[tuple[int, int]]:
    """Of the sequence headers among the units of AV1 data; metadata ends after its first unit, as it seems."""
    place = 0
    for _ in range(MAX_UNITS + 1):
        if place >= len(item):
            return
        kind, extended, sized = item[place] >> 3 & 15, item[place] & 4, item[place] & 2
        place += 2 if extended else 1
        size = len(item) - place
        if sized:
            size = shift = 0
            while place < len(item) and shift < 56:  # LEB128
                byte = item[place]
                size |= (byte & 0x7F) << shift
                place, shift = place + 1, shift + 7
                if byte < 0x80:
                    break
        if kind == _SEQUENCE_HEADER:
            yield _sequence(item[place : place + min(size, 512)])
        place += size
    raise ExcessError(f"has more than {MAX_UNITS:,} units in an item")


def _sequence(header: bytes) -> tuple[int, int]:
    """The most that its frames may measure."""
    bits = "".join(f"{byte:08b}" for byte in header)
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place] or "0", 2)

    take(4)  # profile; whether it is a still picture
    delay = initial_delay = 0
    if take(1):  # the reduced header of one
        take(5)
    else:
        if take(1):  # timing
            take(64)
            if take(1):
                zeros = len(bits[place:]) - len(bits[place:].lstrip("0"))
                take(2 * zeros + 1 if zeros < 32 else 32)  # where decoders give up
            if take(1):  # decoder model
                delay = take(5) + 1
                take(42)
        initial_delay = take(1)
        for _ in range(take(5) + 1):  # operating points
            take(12)
            if take(5) > 7:
                take(1)
            if delay and take(1):
                take(2 * delay + 1)
            if initial_delay and take(1):
                take(4)
    width_bits, height_bits = take(4) + 1, take(4) + 1
    return take(width_bits) + 1, take(height_bits) + 1
