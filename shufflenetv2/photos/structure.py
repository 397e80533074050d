"""How much work an image file asks for, counted from its outline before anything is decoded.

The number of pixels bounds neither time nor memory: a JPEG of 200 kB whose last scan is repeated 200 times decodes for
seconds, one of 3 MB made of empty segments takes a hundred megabytes, and a WebP decoder allocates its canvas before
it can be asked for its size. Each of the three formats whose files can do this has a function here.
"""

import re

MAX_SCANS = 64  # of a JPEG; progressive files have about ten
MAX_SEGMENTS = 10_000  # of a JPEG; 32 MB of full ones are 500
MAX_CHUNKS = 100_000  # of a PNG; libpng's default of 8 kB each makes 4,000 of 32 MB

# Within compressed data 0xFF is followed by 0x00 or by a restart marker, 0xD0 to 0xD7.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_END_OF_IMAGE, _START_OF_SCAN, _START_OF_IMAGE, _FIRST_WITH_LENGTH = 0xD9, 0xDA, 0xD8, 0xC0


def excess(data: bytes) -> str | None:
    """What is too much about the file, or ``None``. Damage is the decoder's business: it ends the count here."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    return _png(data) if data.startswith(b"\x89PNG\r\n\x1a\n") else None


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from the first chunk of a WebP file; ``None`` if it is none or has neither."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def _jpeg(data: bytes) -> str | None:
    scans = segments = 0
    position = 2
    while match := _JPEG_MARKER.search(data, position):
        marker, position = match[1][0], match.end()
        if marker == _END_OF_IMAGE:
            return None
        scans += marker == _START_OF_SCAN
        segments += 1
        if scans > MAX_SCANS or segments > MAX_SEGMENTS:
            return f"more than {MAX_SCANS} scans" if scans > MAX_SCANS else f"more than {MAX_SEGMENTS:,} segments"
        # The lower markers are reserved: decoders skip them, and not by a length.
        if marker >= _FIRST_WITH_LENGTH and marker != _START_OF_IMAGE:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
    return None


def _png(data: bytes) -> str | None:
    position = 8
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data):
            return None
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return f"more than {MAX_CHUNKS:,} chunks"
