"""Photos become exactly what torchvision's presets make of them."""

import copy
import io
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms._presets import ImageClassification
from torchvision.transforms.functional import pil_to_tensor

from shufflenetv2.description import Preprocess
from shufflenetv2.errors import ImageError
from shufflenetv2.photos.decode import open_photo
from shufflenetv2.photos.transform import PhotoTransform
from shufflenetv2.weights.manifest import load_manifest

ROOT = Path(__file__).resolve().parent.parent.parent
CAT, COFFEE = ROOT / "images/cat.jpg", ROOT / "images/coffee.jpg"
PRESETS = {entry.preprocess: entry for entry in load_manifest()}
STANDARD = load_manifest()[0].preprocess


def torchvision_preset(preprocess: Preprocess) -> ImageClassification:
    return ImageClassification(
        crop_size=preprocess.crop, resize_size=preprocess.resize, mean=preprocess.mean, std=preprocess.std
    )


def generated(width: int, height: int, seed: int, mode: str = "RGB") -> Image.Image:
    """Smooth structure plus noise, so that both resampling and rounding matter."""
    generator = torch.Generator().manual_seed(seed)
    channels = len(Image.new(mode, (1, 1)).getbands())
    coarse = torch.rand(1, channels, 5, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic") * 220
    noisy = smooth + torch.rand(1, channels, height, width, generator=generator) * 35
    pixels = noisy.clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).contiguous()
    return Image.frombytes(mode, (width, height), bytes(pixels.flatten().tolist()))


@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (64, 56), (32, 32), (128, 16), (512, 448)])
def test_resizing_the_kept_part_alone_changes_no_bit(resize: int, crop: int) -> None:
    preprocess = replace(STANDARD, resize=resize, crop=crop)
    ours, theirs = PhotoTransform(preprocess), torchvision_preset(preprocess)
    draw = random.Random(resize)
    sizes = [(draw.randint(80, 1200), draw.randint(80, 1200)) for _ in range(25)]  # no sides above MAX_ASPECT
    for width, height in [*sizes, (4000, 3000), (3001, 4001), (1, 16)]:
        pixels = draw.randbytes(width * height // 16 + 1) * 48
        image = Image.frombytes("RGB", (width, height), pixels[: 3 * width * height])
        assert torch.equal(ours(image), theirs(image)[None]), (width, height)


@pytest.mark.slow
def test_fast_decoding_makes_large_photos_smaller_and_leaves_others_alone(tmp_path: Path) -> None:
    fast, exact = PhotoTransform(STANDARD, fast_decode=True), PhotoTransform(STANDARD)
    for width, height, equal in [(1023, 1500, True), (1024, 1500, False), (4096, 1030, False), (500, 375, True)]:
        generated(width, height, seed=width).save(tmp_path / "photo.jpg", quality=95)
        images, size = fast.sized(tmp_path / "photo.jpg")
        assert size == (width, height)
        assert torch.equal(images, exact(tmp_path / "photo.jpg")) is equal
        assert (images - exact(tmp_path / "photo.jpg")).abs().mean() < 0.1
        with Image.open(tmp_path / "photo.jpg") as photograph:
            assert torch.equal(exact(tmp_path / "photo.jpg"), torchvision_preset(STANDARD)(photograph)[None])
    generated(2048, 2048, seed=1).save(tmp_path / "photo.png")
    assert torch.equal(fast(tmp_path / "photo.png"), exact(tmp_path / "photo.png"))  # JPEG alone has such a decoder
    assert pickle.loads(pickle.dumps(fast)).fast_decode


SIDES = [1, 2, 17, 31, 100, 223, 224, 225, 232, 255, 256, 257, 333, 500]
SIZES = [(width, height) for width in SIDES for height in SIDES if max(width, height) <= 16 * min(width, height)]


@pytest.mark.parametrize("preprocess", PRESETS, ids=lambda each: f"{each.resize}-{each.crop}")
@pytest.mark.slow
def test_generated_images_of_odd_sizes_equal_the_preset(preprocess: Preprocess) -> None:
    assert len(SIZES) > 100  # times the presets: more than 200 images
    ours, theirs = PhotoTransform(preprocess), torchvision_preset(preprocess)
    for seed, size in enumerate(SIZES):
        image = generated(*size, seed)
        assert torch.equal(ours(image), theirs(image)[None]), size


SEEN = {  # Pillow's modes, the formats that keep them, and what a person sees of it in torchvision's terms
    "RGB": ("PNG", "JPEG", "TIFF", "WEBP", "BMP"),
    "L": ("PNG", "JPEG", "TIFF", "BMP", "GIF"),
    "CMYK": ("JPEG", "TIFF"),
    "P": ("PNG", "GIF", "BMP", "TIFF"),
    "1": ("PNG", "BMP", "TIFF"),
    "RGBA": ("PNG", "WEBP", "TIFF"),
    "LA": ("PNG",),
}


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(draw=st.data())
def test_any_size_mode_and_orientation_equals_the_preset(draw: st.DataObject) -> None:
    shorter, orientation = draw.draw(st.integers(1, 150)), draw.draw(st.integers(0, 9))
    longer = draw.draw(st.integers(shorter, min(16 * shorter, 300)))
    width, height = draw.draw(st.permutations([shorter, longer]))
    mode = draw.draw(st.sampled_from([*SEEN]))
    file_format = draw.draw(st.sampled_from(SEEN[mode]))
    resize = draw.draw(st.integers(1, 160))
    preprocess = replace(STANDARD, resize=resize, crop=draw.draw(st.integers(1, resize)))
    image = generated(width, height, shorter, {"1": "L", "P": "RGB"}.get(mode, mode)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    tagged = {"exif": exif} if file_format in ("PNG", "JPEG", "WEBP", "TIFF") else {}
    image.save(buffer, file_format, **tagged)

    seen = Image.open(buffer)
    seen.load()
    if tagged and 2 <= orientation <= 8:
        seen = ImageOps.exif_transpose(seen)
    if "A" in mode:
        white = Image.new("RGBA", seen.size, "white")
        seen = Image.alpha_composite(white, seen.convert("RGBA"))
    expected = torchvision_preset(preprocess)(seen.convert("RGB"))
    got = PhotoTransform(preprocess)(buffer.getvalue())
    if "A" in mode:  # the two ways to lay a picture on white round differently
        assert (got - expected).abs().max() < 3 / 255 / min(preprocess.std)
    else:
        assert torch.equal(got, expected[None])


@pytest.mark.parametrize("preprocess", PRESETS, ids=lambda each: f"{each.resize}-{each.crop}")
@pytest.mark.parametrize("file", [CAT, COFFEE], ids=lambda each: each.name)
def test_photographs_equal_the_preset(file: Path, preprocess: Preprocess) -> None:
    ours, theirs = PhotoTransform(preprocess), torchvision_preset(preprocess)
    with Image.open(file) as photograph:
        assert torch.equal(ours(file), theirs(photograph)[None])
        for seed in range(20):  # crops of every shape, encoded again in every format
            width, height = 60 + 13 * seed, 240 - 9 * seed
            crop = photograph.crop((seed, 2 * seed, seed + width, 2 * seed + height))
            buffer = io.BytesIO()
            crop.save(buffer, ["JPEG", "PNG", "WEBP", "BMP"][seed % 4])
            reopened = Image.open(buffer)
            assert torch.equal(ours(buffer.getvalue()), theirs(reopened)[None]), seed


@pytest.mark.parametrize("preprocess", PRESETS, ids=lambda each: f"{each.resize}-{each.crop}")
def test_uint8_tensors_equal_the_presets_tensor_path(preprocess: Preprocess) -> None:
    ours, theirs = PhotoTransform(preprocess), torchvision_preset(preprocess)
    for seed, size in enumerate(SIZES[::4]):
        tensor = pil_to_tensor(generated(*size, seed))
        assert torch.equal(ours(tensor), theirs(tensor)[None]), size
    batch = torch.stack([pil_to_tensor(generated(300, 260, seed)) for seed in range(3)])
    assert torch.equal(ours(batch), theirs(batch))


def test_every_kind_of_photo_and_lists_of_them() -> None:
    transform = PhotoTransform(STANDARD)
    expected = transform(CAT)
    assert expected.dtype is torch.float32
    assert expected.shape == (1, 3, 224, 224)
    assert expected.is_contiguous()
    with Image.open(CAT) as image:
        photos = [CAT, str(CAT), CAT.read_bytes(), image]
        for photo in photos:
            assert torch.equal(transform(photo), expected)
        assert torch.equal(transform(photos), expected.expand(4, -1, -1, -1))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16", "YCbCr"])
def test_other_modes_equal_the_preset_of_the_rgb_image(mode: str) -> None:
    if mode == "I;16":
        image = Image.new(mode, (300, 260))
        image.putdata([value % 65536 for value in range(0, 300 * 260 * 7, 7)])
    else:
        image = Image.open(COFFEE).convert(mode)
    rgb = open_photo(image)
    assert rgb.mode == "RGB"
    assert torch.equal(PhotoTransform(STANDARD)(image), torchvision_preset(STANDARD)(rgb)[None])


def test_a_grey_tensor_is_the_same_in_three_channels() -> None:
    grey = torch.randint(256, (2, 1, 90, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(PhotoTransform(STANDARD)(grey), PhotoTransform(STANDARD)(grey.repeat(1, 3, 1, 1)))
    assert torch.equal(PhotoTransform(STANDARD)(grey[1]), PhotoTransform(STANDARD)(grey)[1:])


def test_grey_input_uses_the_mean_statistics() -> None:
    images = PhotoTransform(STANDARD, in_channels=1)(CAT)
    with Image.open(CAT) as photograph:
        preset = ImageClassification(crop_size=224, mean=(sum(STANDARD.mean) / 3,), std=(sum(STANDARD.std) / 3,))
        assert torch.equal(images, preset(photograph.convert("L"))[None])
        grey_tensor = PhotoTransform(STANDARD, in_channels=1)(pil_to_tensor(photograph))
    assert (grey_tensor - images).abs().max() < 0.05  # Pillow and torchvision round luma differently: 2 levels at most


@pytest.mark.parametrize(
    ("photo", "kind", "message"),
    [
        ("missing.jpg", ImageError, "missing.jpg cannot be opened"),
        ("http://example.org/cat.jpg", ImageError, "only https:// is taken"),
        (b"", ImageError, "is empty"),
        (b"hello, this is text", ImageError, "no image of a known format"),
        (torch.zeros(3, 8, 8), ImageError, "uint8"),
        (torch.zeros(2, 8, 8, dtype=torch.uint8), ImageError, "shape"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8).to_sparse(), ImageError, "must be dense"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8, device="meta"), ImageError, "meta device"),
        (torch.zeros(8, dtype=torch.uint8).numpy(), ImageError, "fromarray"),
        (7, TypeError, "a photo is a path"),
        ([], ValueError, "empty"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_photo_is_refused(photo: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        PhotoTransform(STANDARD)(photo)  # type: ignore[arg-type]  # the point of the test


@pytest.mark.slow
def test_neither_torchvision_nor_numpy_is_imported() -> None:
    program = (
        "import sys, torch; before = set(sys.modules)\n"
        "from shufflenetv2.photos.transform import PhotoTransform\n"
        "from shufflenetv2.weights.manifest import load_manifest\n"
        "PhotoTransform(load_manifest()[0].preprocess)(sys.argv[1])\n"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} & {'torchvision', 'numpy'}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(CAT)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


# What else a photo may be.


def test_file_objects_arrays_and_generators() -> None:
    numpy = pytest.importorskip("numpy")
    transform = PhotoTransform(STANDARD)
    expected = transform(CAT)

    class Slow(io.RawIOBase):
        """Gives a little at a time, as sockets do."""

        def __init__(self, data: bytes) -> None:
            self.rest = data

        def read(self, size: int = -1) -> bytes:
            part, self.rest = self.rest[: min(size, 1000)], self.rest[min(size, 1000) :]
            return part

    with Image.open(CAT) as image:
        array = numpy.asarray(image.convert("RGB"))
    with open(CAT, "rb") as file:
        for photo in (file, io.BytesIO(CAT.read_bytes()), Slow(CAT.read_bytes()), array, bytearray(CAT.read_bytes())):
            assert torch.equal(transform(photo), expected), type(photo)
    assert torch.equal(transform(array[:, ::-1]), transform(Image.fromarray(array[:, ::-1])))
    assert torch.equal(transform(CAT for _ in range(3)), expected.expand(3, -1, -1, -1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda numpy: numpy.zeros((4, 5, 3), "float32"), r"holds float32, expected uint8 .*astype\('uint8'\)"),
        (
            lambda numpy: numpy.zeros((4, 5), "uint8"),
            r"has shape \(4, 5\), expected \(H, W, 3\), in RGB; for grey give",
        ),
        (lambda numpy: numpy.zeros((3, 4, 5), "uint8"), r"has shape \(3, 4, 5\), expected \(H, W, 3\)"),
        (lambda numpy: numpy.zeros((2, 4, 5, 3), "uint8"), r"for a batch list\(array\)"),
        (lambda numpy: numpy.zeros((0, 5, 3), "uint8"), "holds no picture"),
        (lambda numpy: io.StringIO("text"), r"open it in binary mode, 'rb'"),
        (lambda numpy: io.BytesIO(), r"<BytesIO> is empty, expected an image; was it read before\? \.seek\(0\)"),
        (lambda numpy: io.BytesIO(b"hello, this is text"), "<BytesIO> is no image of a known format"),
    ],
    ids=range(8),
)
def test_arrays_and_file_objects_that_are_no_photos(make: Callable[[object], object], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        PhotoTransform(STANDARD)(make(pytest.importorskip("numpy")))


def test_a_file_object_is_read_no_further_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHUFFLENETV2_MAX_BYTES", "1000")
    file = io.BytesIO(CAT.read_bytes())
    with pytest.raises(ImageError, match="larger than the 1,000 bytes allowed"):
        open_photo(file)
    assert file.tell() == 1001


def test_a_list_is_flat() -> None:
    transform = PhotoTransform(STANDARD)
    batch = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    for nested, kind in ((batch, r"a batch of shape \[2, 3, 8, 8\]"), ([CAT], "a list"), (7, "a int"), ((), "a tuple")):
        with pytest.raises(TypeError, match=rf"^photos\[2\] is {kind}; each element of a list is one photo: a path, "):
            transform([CAT, batch[0], nested])
    for none in (7, None, {CAT: 1}, {CAT}):
        with pytest.raises(
            TypeError, match=r"^a photo is a path, an https:// address, bytes, .*, or a list of them; got "
        ):
            transform(none)


def test_the_error_of_a_list_says_which_element() -> None:
    with pytest.raises(ImageError, match=r"^photos\[1\]: missing\.jpg cannot be opened: No such file"):
        PhotoTransform(STANDARD)(iter([CAT, "missing.jpg", "gone.jpg"]))
    with pytest.raises(ImageError, match=r"^photos\[0\]: a photo tensor must hold uint8"):
        PhotoTransform(STANDARD)([torch.zeros(3, 8, 8)])


def test_home_directories_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat.jpg").write_bytes(CAT.read_bytes())
    assert open_photo("~/cat.jpg").size == open_photo(Path("~/cat.jpg")).size == open_photo(CAT).size
    (tmp_path / "~odd.jpg").write_bytes(COFFEE.read_bytes())
    assert open_photo("~odd.jpg").size == open_photo(COFFEE).size


def test_settings_of_a_transform_are_checked_and_kept() -> None:
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=r"^max_pixels must be from 1 to [\d,]+, got "):
            PhotoTransform(STANDARD, max_pixels=wrong)
    for kind in (1.5, True, "many"):
        with pytest.raises(TypeError, match=r"^max_pixels is a whole number, got "):
            PhotoTransform(STANDARD, max_pixels=kind)  # type: ignore[arg-type]  # the point of the test
    transform = PhotoTransform(STANDARD, max_pixels=1000, upright=False)
    for each in (transform, pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform)):
        assert (each.max_pixels, each.upright) == (1000, False)
        for photo in (CAT, torch.zeros(3, 40, 30, dtype=torch.uint8), Image.new("RGB", (40, 30))):
            with pytest.raises(
                ImageError, match=r"more than the 1,000 allowed; .* or max_pixels=, or --max-pixels, to"
            ):
                each(photo)


def test_a_photo_that_was_turned_already_is_left_as_it_lies() -> None:
    lying = generated(60, 40, 1)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    lying.save(buffer, "PNG", exif=exif)
    with Image.open(buffer) as opened:
        turned = opened.transpose(Image.Transpose.ROTATE_270)  # upright now, but the tag is still there
    assert open_photo(turned).size == (60, 40)  # turned twice
    assert open_photo(turned, upright=False).tobytes() == turned.tobytes() == open_photo(buffer.getvalue()).tobytes()
    upright = PhotoTransform(STANDARD, upright=False)(turned)
    assert torch.equal(upright, PhotoTransform(STANDARD)(buffer.getvalue()))
