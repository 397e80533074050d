"""Reading a folder ahead keeps order, bits and memory; a folder that is no data set is refused."""

import io
import shutil
import threading
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from shufflenetv2.description import Category
from shufflenetv2.errors import DatasetError, ImageError
from shufflenetv2.photos.ahead import read_ahead
from shufflenetv2.photos.folders import LabelledPhotos, hold_out, read_labelled
from shufflenetv2.photos.listing import find_photos
from shufflenetv2.photos.transform import PhotoTransform
from shufflenetv2.weights.manifest import load_manifest, read_categories

ROOT = Path(__file__).resolve().parent.parent.parent
TRANSFORM = PhotoTransform(load_manifest()[0].preprocess)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 crops of the sample photos, in nested folders; one of them is broken."""
    target = tmp_path_factory.mktemp("photos")
    source = ROOT / "images/coffee.jpg"
    with Image.open(source) as photograph:
        for index in range(23):
            place = target / f"{index % 3}" / f"{index:02}.jpg"
            place.parent.mkdir(exist_ok=True)
            photograph.crop((index, 0, 200 + 11 * index, 150 + 7 * index)).save(place)
    (target / "1/04.jpg").write_bytes(b"broken")
    return target


def test_no_class_is_held_out_whole() -> None:
    photos = LabelledPhotos((Path("a"), Path("b"), Path("c")), (0, 0, 1), ("many", "one"))
    with pytest.raises(DatasetError, match="of the 1 photos of class 'one' leaves 0 for training and 1"):
        hold_out(photos, 0.6, 0)


@pytest.mark.parametrize(("workers", "threads"), [(None, 7), (3, 3)])
def test_one_thread_a_core_reads(
    workers: int | None, threads: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, most: int, *arguments: Any, **options: Any) -> None:
            started.append(most)
            super().__init__(most, *arguments, **options)

    monkeypatch.setattr("shufflenetv2.photos.ahead.ThreadPoolExecutor", Pool)
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    assert len(list(read_ahead([folder / "0/00.jpg"], TRANSFORM, workers=workers))) == 1
    assert started == [threads]


def put(root: Path, *folders: str) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / folder / "0.png")
    return root


@pytest.mark.parametrize(
    "names",
    [("training", "validation"), ("Train", "Test"), ("val", "test"), ("training_set", "test_set"), ("trainset", "dev")],
)
def test_the_parts_of_a_data_set_are_no_classes(names: tuple[str, str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name / "cat").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "cat" / "0.png")
    with pytest.raises(DatasetError, match="look like the parts of a data set"):
        read_labelled(tmp_path)
    for name in names:  # photos at once: these are classes, whatever their names
        shutil.rmtree(tmp_path / name / "cat")
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    assert read_labelled(tmp_path).categories == tuple(sorted(names))


def test_a_class_that_holds_the_classes_beside_it_is_none(tmp_path: Path) -> None:
    put(tmp_path, "cat", "frog", "owl", "more/cat", "more/owl")
    with pytest.raises(DatasetError, match=r"holds 'more', in which there are folders .*, 'cat', 'owl': it looks like"):
        read_labelled(tmp_path)
    known = read_labelled(tmp_path, [Category(name) for name in ("cat", "frog", "more", "owl")])
    assert known.labels == (0, 1, 2, 2, 3)  # who gives the classes has said what they are


def test_folders_within_classes_are_photos_of_these(tmp_path: Path) -> None:
    put(tmp_path, "cat/2025", "cat/2026", "owl/2025", "owl/2026", "fox/den", "fox/cat", "fox/.owl", "cat/cat", "hen")
    told: list[str] = []
    assert read_labelled(tmp_path, told=told.append).labels == (0, 0, 0, 1, 1, 2, 3, 3)
    assert told == [f"left out of {tmp_path}: 1 hidden"]
    shutil.rmtree(tmp_path / "cat/cat")
    read_labelled(tmp_path, told=told.append)
    assert told[1].startswith("'cat', 'owl' are classes, and hold folders of the same names, '2025', '2026'; if those")


def test_one_folder_is_not_two_classes(tmp_path: Path) -> None:
    put(tmp_path, "cat", "owl")
    (tmp_path / "katze").symlink_to("cat")
    for classes in (None, [Category("cat", "katze"), Category("owl")]):
        with pytest.raises(DatasetError, match=r"has folders 'cat' and 'katze' that are one by a link: .* remove one"):
            read_labelled(tmp_path, classes)


def test_find_photos_is_sorted_recursive_and_keeps_explicit_files(folder: Path) -> None:
    found = list(find_photos([folder]))
    assert found == sorted(folder.rglob("*.jpg"))
    assert list(find_photos([folder / "2", "elsewhere.xyz"]))[-1] == Path("elsewhere.xyz")
    with pytest.raises(DatasetError, match="holds no photo"):
        find_photos([Path(__file__).parent])


@pytest.mark.parametrize("batch_size", [1, 4, 16, 100])
def test_batches_are_in_order_and_bit_identical_to_one_at_a_time(folder: Path, batch_size: int) -> None:
    paths = list(find_photos([folder]))
    seen: list[Path] = []
    images: list[Tensor] = []
    for batch in read_ahead(paths, TRANSFORM, batch_size, workers=3):
        assert len(batch) <= batch_size
        seen += [path for path, _ in batch]
        bad = [path for path, ready in batch if isinstance(ready, ImageError)]
        assert bad == [path for path, _ in batch if path.name == "04.jpg"]
        images += [ready[0] for _, ready in batch if isinstance(ready, Tensor)]
    assert seen == paths
    good = [path for path in paths if path.name != "04.jpg"]
    assert len(images) == len(good) == 22
    for image, path in zip(images, good, strict=True):
        assert torch.equal(image, TRANSFORM(path)[0])


def test_no_more_than_three_batches_are_in_flight() -> None:
    lock, started, taken = threading.Lock(), 0, 0

    class Counting(PhotoTransform):
        def __call__(self, photos: object) -> Tensor:
            nonlocal started
            with lock:
                started += 1
                assert started - taken <= 3 * 4
            return torch.zeros(1, 3, 2, 2)

    for batch in read_ahead([Path(str(index)) for index in range(100)], Counting(TRANSFORM.preprocess), 4, workers=8):
        time.sleep(0.002)
        with lock:
            taken += len(batch)
    assert started == taken == 100


def test_an_error_that_is_no_image_error_is_not_swallowed() -> None:
    class Broken(PhotoTransform):
        def __call__(self, photos: object) -> Tensor:
            raise RuntimeError("a defect of ours")

    with pytest.raises(RuntimeError, match="a defect of ours"):
        list(read_ahead([Path("x")], Broken(TRANSFORM.preprocess)))


def test_bytes_of_every_format_are_found_by_suffix(tmp_path: Path) -> None:
    for suffix, name in [("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("gif", "GIF"), ("bmp", "BMP")]:
        buffer = io.BytesIO()
        Image.new("RGB", (40, 30), "red").save(buffer, name)
        (tmp_path / f"x.{suffix}").write_bytes(buffer.getvalue())
    assert len(list(find_photos([tmp_path]))) == 5
    [batch] = read_ahead(find_photos([tmp_path]), TRANSFORM)
    assert [ready.shape for _, ready in batch if isinstance(ready, Tensor)] == [(1, 3, 224, 224)] * 5


def test_imagenet_folders_by_wordnet_id_or_label(tmp_path: Path) -> None:
    classes = read_categories("imagenet1k.txt")
    for name in ("n02123045", "tiger cat"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cat.jpg").symlink_to(ROOT / "images/cat.jpg")
    photos = read_labelled(tmp_path, classes)
    assert [classes[label].label for label in photos.labels] == ["tabby", "tiger cat"]
    assert [classes[label].wordnet_id for label in photos.labels] == ["n02123045", "n02123159"]
    with pytest.raises(DatasetError, match=r"several classes share the label 'tiger cat'.*WordNet id"):
        read_labelled(tmp_path, [*classes, Category("tiger cat", "n99999999")])


def test_an_accent_is_the_same_in_every_form_of_unicode(tmp_path: Path) -> None:
    """macOS writes some as a character of its own."""
    one, two = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    for part, name in (("train", two), ("val", one)):
        for each in (name, "tea"):
            (tmp_path / part / each).mkdir(parents=True)
            (tmp_path / part / each / "cat.jpg").symlink_to(ROOT / "images/cat.jpg")
    train = read_labelled(tmp_path / "train")
    assert train.categories == (one, "tea")
    val = read_labelled(tmp_path / "val", [Category(name, None) for name in train.categories])
    assert val.labels == train.labels == (0, 1)
    (tmp_path / "val" / two).mkdir()
    with pytest.raises(DatasetError, match=r"has two folders 'café', in two forms of Unicode; join them"):
        read_labelled(tmp_path / "val", [Category(one, None)])


def test_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no folder"):
        read_labelled(tmp_path)
    (tmp_path / "ant").mkdir()
    with pytest.raises(DatasetError, match=r"ant holds no photo"):
        read_labelled(tmp_path, [Category("ant", None)])
    with pytest.raises(DatasetError, match="missing cannot be read"):
        read_labelled(tmp_path / "missing")
    assert not issubclass(DatasetError, ImageError)  # which is about one photo
    with pytest.raises(DatasetError, match=r"folders that are no class: 'ant'; the classes are 'yak'$"):
        read_labelled(tmp_path, [Category("yak", None)])


def test_a_class_of_which_nothing_would_be_left_cannot_be_held_out() -> None:
    photos = LabelledPhotos((Path("1.jpg"), Path("2.jpg")), (0, 0), ("ant",))
    with pytest.raises(
        DatasetError, match=r"holding out 0\.1 of the 2 photos of class 'ant' leaves 2 for training and 0"
    ):
        hold_out(photos, 0.1, seed=0)
