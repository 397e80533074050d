"""Photos decoded by a graphics card: whatever it is not for is exact, and told as ever.

torchvision's own decoder on the CPU stands in for the card's where there is none.
"""

import io
import pickle
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from shufflenetv2.description import STANDARD
from shufflenetv2.entrypoints import classifier
from shufflenetv2.errors import DeviceError, ImageError
from shufflenetv2.package import sample_photos
from shufflenetv2.photos import card
from shufflenetv2.photos.transform import PhotoTransform

pytest.importorskip("torchvision")
pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")  # torchvision, from 0.29 on
EXACT = PhotoTransform(STANDARD)
CAT = sample_photos()[0]
CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")],
)


@pytest.fixture(params=["cpu", CUDA])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> PhotoTransform:
    if request.param == "cpu":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(card, "decoded", partial(card.decoded, device="cpu"))
    return PhotoTransform(STANDARD, fast_decode="cuda")


def jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def test_jpegs_are_nearly_what_the_exact_way_gives(fast: PhotoTransform) -> None:
    photos = [*sample_photos(), CAT.read_bytes(), jpeg(Image.open(CAT).convert("L")), str(CAT)]
    for photo in photos:
        (images, size), (expected, known) = fast.sized(photo), EXACT.sized(photo)
        assert size == known
        assert images.shape == expected.shape
        difference = (images.cpu() - expected).abs()
        assert 0 < difference.mean() < 0.02
        assert difference.max() < 0.5


def test_what_the_card_is_not_for_is_exact(fast: PhotoTransform, tmp_path: Path) -> None:
    image = Image.open(CAT)
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(tmp_path / "cat.png")
    (tmp_path / "turned.jpg").write_bytes(jpeg(image, exif=turned))
    (tmp_path / "cmyk.jpg").write_bytes(jpeg(image.convert("CMYK")))
    for photo in (*tmp_path.iterdir(), image, torch.zeros(3, 300, 400, dtype=torch.uint8)):
        assert torch.equal(fast(photo), EXACT(photo)), photo


def test_errors_are_the_same(fast: PhotoTransform, tmp_path: Path) -> None:
    for index in range(100):  # damage anywhere in the header
        damaged = bytearray(CAT.read_bytes()[: 20 + 5 * index] + b"\xff\xd9")
        damaged[2 + index] ^= 0x55
        (tmp_path / f"damaged{index}.jpg").write_bytes(damaged)
    (tmp_path / "cut.jpg").write_bytes(CAT.read_bytes()[:9000])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no photo")
    told = Counter[str]()
    for photo in (*tmp_path.iterdir(), tmp_path / "gone.jpg", b"abc", bytes(3)):
        outcomes = []
        for transform in (fast, EXACT):
            try:
                outcomes.append(str(transform(photo).shape))
            except ImageError as error:
                outcomes.append(str(error).replace(str(tmp_path), ""))
        assert outcomes[0] == outcomes[1]
        told[outcomes[0][:100]] += 1
    assert len(told) > 70  # most are refused, by name
    with pytest.raises(ImageError, match="more than the 1,000 allowed"):
        PhotoTransform(STANDARD, fast_decode="cuda", max_pixels=1000)(CAT)


def test_what_the_card_refuses_is_decoded_exactly(fast: PhotoTransform) -> None:
    broken = bytearray(CAT.read_bytes())
    broken[3:600] = bytes(597)  # no tables are left, but the file begins and ends as it should
    named = [("a", ImageError("gone")), ("b", (card.Encoded(bytes(broken), "broken.jpg"), (451, 300))),
             ("c", fast.pixels(CAT)), ("d", EXACT.pixels(CAT))]  # fmt: skip
    (_, first), (_, second), (_, third), (_, fourth) = fast.decoded(named)
    assert first is named[0][1]
    assert isinstance(second, ImageError)
    assert str(second).startswith("broken.jpg cannot be decoded")
    assert third[1] == fourth[1] == (451, 300)
    assert torch.equal(third[0].cpu(), fourth[0])


def test_a_stream_and_a_call_give_the_same(fast: PhotoTransform) -> None:
    device = "cuda" if torch.cuda.device_count() else "cpu"
    classify = classifier(weights="cifar10", device=device, fast_decode="cuda")
    photos = sample_photos()
    alone = [classify(photo)[0].label for photo in photos]
    if device == "cuda":
        assert [result.predictions[0].label for result in classify.stream(photos, batch_size=2)] == alone
    assert alone == [classifier(weights="cifar10", device="cpu")(photo)[0].label for photo in photos]
    assert pickle.loads(pickle.dumps(classify)).transform.fast_decode == "cuda"


def test_it_is_refused_where_there_is_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r'fast_decode="cuda" \(--gpu-decode\) needs a graphics card'):
        classifier(weights="cifar10", fast_decode="cuda")
    with pytest.raises(TypeError, match="fast_decode is True or False, or \"cuda\", got 'gpu'"):
        PhotoTransform(STANDARD, fast_decode="gpu")
