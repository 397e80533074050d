"""``docs/demo.png``: the demo's page after a photo was uploaded (needs Chromium).

It shows how long the answer took, so no two pictures are alike: it is compared by what it was made from, the demo's own
code, the photo and the weights.
"""

import hashlib
import tempfile
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from support.demo import answer_to, browse, serve_demo
from support.stand_in import serve_stand_in

from shufflenetv2.package import CHECKOUT
from shufflenetv2.weights.manifest import load_manifest

PHOTO = CHECKOUT / "images/cat.jpg"


def origin(path: Path) -> str:
    """The sha256 of what the picture is to be made from."""
    del path
    code = ("shufflenetv2/commands/demo.py", "shufflenetv2/service.py")
    parts = (*((CHECKOUT / each).read_bytes() for each in code), PHOTO.read_bytes())
    bundled = [entry.sha256 for entry in load_manifest() if entry.path]
    return hashlib.sha256(b"".join(parts) + repr(bundled).encode()).hexdigest()


def draw(path: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        serve_stand_in(Path(directory, "stand-in")) as stand_in,
        serve_demo(stand_in, Path(directory)) as demo,
        browse(demo.address, Path(directory, "profile")) as page,
    ):
        answer_to(page, PHOTO)
        page.screenshot(path=path)
    with Image.open(path) as image:
        information = PngInfo()
        information.add_text("Origin", origin(path))
        image.save(path, pnginfo=information)
