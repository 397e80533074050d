"""The stream: any number of photos, in order, in bounded memory, and an end of its threads whatever ends it."""

import io
import itertools
import socket
import tarfile
import tempfile
import threading
import time
import weakref
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy
import pytest
import torch
from PIL import Image, ImageFile, ImageSequence
from support.photo_mutants import CAT, COFFEE

from shufflenetv2.builder import resolve
from shufflenetv2.errors import ImageError
from shufflenetv2.inference.classifier import Classifier
from shufflenetv2.inference.stream import Result, ranked


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(resolve(None, "cifar10"), top=3, device="cpu", progress=False)  # its weights are bundled


def pictures(count: int | None = None) -> Iterator[Image.Image]:
    numbers = itertools.count() if count is None else range(count)
    return (Image.new("RGB", (40, 32), (index % 256, 0, 0)) for index in numbers)


def reading_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("photos")]


def no_thread_is_left(seconds: float = 1) -> bool:
    end = time.monotonic() + seconds
    while reading_threads() and time.monotonic() < end:
        time.sleep(0.01)
    return not reading_threads()


def turned(path: Path, orientation: int, format: str = "TIFF") -> bytes:
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = orientation
        image.save(file := io.BytesIO(), format, exif=exif)
    return file.getvalue()


def refilled() -> Iterator[Any]:
    buffer = numpy.empty((300, 400, 3), numpy.uint8)
    for photo in (CAT, COFFEE) * 6:
        with Image.open(photo) as image:
            buffer[:] = numpy.asarray(image.convert("RGB").resize((400, 300)))
        yield buffer


def refilled_tensor() -> Iterator[Any]:
    buffer = torch.empty(3, 300, 400, dtype=torch.uint8)
    for array in refilled():
        buffer[:] = torch.from_numpy(array).permute(2, 0, 1)
        yield buffer


def closed() -> Iterator[Any]:
    for photo in (CAT, COFFEE) * 6:
        with Image.open(photo) as image:
            yield image


def pages() -> Iterator[Any]:
    with Image.open(CAT) as cat, Image.open(COFFEE) as coffee:
        frames = [each.convert("RGB").resize((400, 300)) for each in (cat, coffee) * 6]
    frames[0].save(file := io.BytesIO(), "TIFF", save_all=True, append_images=frames[1:])
    return iter(ImageSequence.Iterator(Image.open(file)))


def lying() -> Iterator[Any]:
    for photo in (CAT, COFFEE) * 6:
        with Image.open(io.BytesIO(turned(photo, 6))) as image:
            yield image


@pytest.mark.parametrize("make", [refilled, refilled_tensor, closed, pages, lying])
def test_a_generator_may_use_one_object_again(make: Callable[[], Iterator[Any]], classifier: Classifier) -> None:
    expected = [classifier(photo)[0] for photo in make()]  # one at a time
    assert expected[0].probability != pytest.approx(expected[1].probability, abs=0.01)
    for got in (classifier(make()), [result.predictions for result in classifier.stream(make(), workers=3)]):
        assert [each[0].label for each in got] == [each.label for each in expected]
        assert [each[0].probability for each in got] == pytest.approx([each.probability for each in expected], abs=1e-4)
    vectors = classifier.features(make())
    torch.testing.assert_close(vectors[0::2], vectors[:1].expand(6, -1), rtol=1e-4, atol=1e-5)


def test_files_that_a_generator_opened_are_decoded_by_the_threads(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    load = ImageFile.ImageFile.load

    def watched(image: Any) -> Any:
        if image.tile:
            threads.append(threading.current_thread().name)
        return load(image)

    def opened() -> Iterator[Image.Image]:
        for path in (CAT, COFFEE) * 4:
            with Image.open(path) as image:
                yield image

    monkeypatch.setattr(ImageFile.ImageFile, "load", watched)
    assert len(classifier(opened())) == 8
    assert len(threads) == 8
    assert all(each.startswith("photos") for each in threads)


def in_one_buffer(paths: list[Path]) -> Iterator[bytearray]:
    buffer = bytearray()
    for path in paths:
        buffer[:] = path.read_bytes()
        yield buffer


def in_one_file(paths: list[Path]) -> Iterator[io.BytesIO]:
    file = io.BytesIO()
    for path in paths:
        file.seek(0)
        file.truncate()
        file.write(path.read_bytes())
        file.seek(0)
        yield file


def under_one_name(paths: list[Path]) -> Iterator[Image.Image]:
    with tempfile.NamedTemporaryFile(suffix=".jpg") as frame:
        for path in paths:
            Path(frame.name).write_bytes(path.read_bytes())
            with Image.open(frame.name) as image:
                yield image


def from_an_archive(paths: list[Path]) -> Iterator[IO[bytes] | None]:
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for index, path in enumerate(paths):
                archive.add(path, f"{index}.jpg")
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            yield from map(archive.extractfile, archive)


@pytest.mark.parametrize("given", [in_one_buffer, in_one_file, under_one_name, from_an_archive])
def test_a_generator_may_use_its_memory_or_file_again(
    classifier: Classifier, given: Callable[[list[Path]], Iterator[Any]]
) -> None:
    paths = [CAT, COFFEE] * 10
    expected = [classifier(path)[0].probability for path in paths[:2]] * 10
    found = [result.predictions[0].probability for result in classifier.stream(given(paths), batch_size=4, workers=4)]
    assert found == pytest.approx(expected, abs=1e-4)
    assert abs(expected[0] - expected[1]) > 0.01


def test_the_members_of_an_archive_in_a_list(classifier: Classifier) -> None:
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name in ("good.jpg", "bad.jpg", "last.jpg"):
                archive.write(CAT, name)
            broken = archive.getinfo("bad.jpg").header_offset + 100
        file.seek(broken)
        file.write(b"broken")
        with zipfile.ZipFile(file) as archive:
            first, second, third = classifier([archive.open(name) for name in archive.namelist()], errors="return")
    assert first[0].label == third[0].label == "cat"
    assert "bad.jpg cannot be opened: BadZipFile: Bad CRC-32 for file 'bad.jpg'" in str(second)


def test_images_that_several_threads_were_given_are_decoded_by_one(classifier: Classifier) -> None:
    """The same image, and images with one file: a PIL image decodes itself when it is first used."""
    with Image.open(CAT) as image:
        image.resize((1600, 1066)).save(large := io.BytesIO(), "JPEG", quality=95)
    [expected] = classifier.probabilities(large.getvalue())
    for _ in range(3):
        same = Image.open(io.BytesIO(large.getvalue()))
        torch.testing.assert_close(classifier.probabilities([same] * 8), expected.expand(8, -1))
        with tempfile.TemporaryFile() as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                for index in range(8):
                    member = tarfile.TarInfo(f"{index}.jpg")
                    member.size = len(large.getvalue())
                    archive.addfile(member, io.BytesIO(large.getvalue()))
            file.seek(0)
            with tarfile.open(fileobj=file) as archive:
                opened = [Image.open(archive.extractfile(member) or io.BytesIO()) for member in archive]
                torch.testing.assert_close(classifier.probabilities(opened), expected.expand(8, -1))


def test_a_tag_that_was_taken_off_stays_off(classifier: Classifier) -> None:
    with Image.open(io.BytesIO(turned(CAT, 6, "JPEG"))) as image:
        assert image.getexif().pop(0x0112) == 6
        [listed], [generated] = classifier([image]), classifier(each for each in [image])
    assert [each.index for each in listed] == [each.index for each in generated]
    assert [each.probability for each in listed] == [each.probability for each in generated]


def test_equal_values_are_ranked_in_their_order() -> None:
    values = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0], [5.0, 1.0, 4.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    for top in (1, 2, 3, 5, 9):
        highest, places = ranked(values, top)
        order = [[1, 2, 4, 3, 0], [0, 2, 4, 3, 1], [0, 1, 2, 3, 4]]
        assert places.tolist() == [each[:top] for each in order]
        assert torch.equal(highest, values.gather(1, places))
    many = torch.randn(500, 1000, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    assert torch.equal(ranked(many, 5)[1][:, 0], many.argmax(1))


def test_every_kind_of_photo_is_one_result_in_order(classifier: Classifier) -> None:
    with Image.open(CAT) as image:
        image.load()
    tensor = torch.zeros(3, 50, 40, dtype=torch.uint8)
    photos = [CAT, str(COFFEE), CAT.read_bytes(), image, tensor, "missing.jpg", b"no image", COFFEE]
    results = list(classifier.stream(photos, batch_size=3, workers=2))
    assert [each.photo for each in results] == photos
    assert [each.error is None for each in results] == [True] * 5 + [False, False, True]
    for photo, result in zip(photos, results, strict=True):
        if result.error is None:
            assert [each.label for each in result.predictions] == [each.label for each in classifier(photo)]
        else:
            assert type(result.error) is ImageError
            assert (result.predictions, result.size) == ([], None)
    with Image.open(COFFEE) as other:
        assert [each.size for each in results[:5]] == [image.size, other.size, image.size, image.size, (40, 50)]


def test_a_batch_of_tensors_is_several_photos_and_a_path_is_none(classifier: Classifier) -> None:
    batch = torch.zeros(5, 3, 40, 40, dtype=torch.uint8)
    assert len(list(classifier.stream(batch))) == 5
    with pytest.raises(TypeError, match=r"^stream takes an iterable of photos; for one, call the classifier itself$"):
        classifier.stream(str(CAT))
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=r"^batch_size must be from 1 to [\d,]+, got"):
            classifier.stream([CAT], batch_size=wrong)
        with pytest.raises(ValueError, match=r"^workers must be from 1 to"):
            classifier.stream([CAT], workers=wrong)
    for kind in (2.0, True, "2"):
        with pytest.raises(TypeError, match=r"^batch_size is a whole number, got"):
            classifier.stream([CAT], batch_size=kind)  # type: ignore[arg-type]  # the point of the test
        with pytest.raises(TypeError, match=r"^workers is a whole number, got"):
            classifier.stream([CAT], workers=kind)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^photos\[1\] is a NoneType"):
        list(classifier.stream([CAT, None]))  # type: ignore[list-item]
    assert list(classifier.stream([])) == []


def test_size_is_that_of_the_upright_photo(classifier: Classifier, tmp_path: Path) -> None:
    exif = Image.Exif()
    for orientation, size in [(1, (60, 40)), (3, (60, 40)), (6, (40, 60)), (8, (40, 60))]:
        exif[0x0112] = orientation
        Image.new("RGB", (60, 40)).save(tmp_path / f"{orientation}.jpg", exif=exif)
        [result] = classifier.stream([tmp_path / f"{orientation}.jpg"])
        assert result.size == size


@pytest.mark.parametrize("deploy", [True, False])
def test_features_are_what_the_last_layer_reads(deploy: bool) -> None:
    classifier = Classifier(resolve(None, "cifar10"), device="cpu", deploy=deploy, progress=False)
    plain = list(classifier.stream([CAT, COFFEE, CAT]))
    results = list(classifier.stream([CAT, COFFEE, CAT], features=True))
    assert all(each.features is None for each in plain)
    layer = classifier.model.fc
    assert isinstance(layer, torch.nn.Linear)
    for result, other in zip(results, plain, strict=True):
        features = result.features
        assert features is not None
        assert features.dtype is torch.float32
        assert features.shape == (layer.in_features,)
        logits = layer(features)  # an ordinary tensor: one can train on it
        logits = logits / classifier.weights.temperature
        assert logits.softmax(0).max().item() == pytest.approx(result.predictions[0].probability, abs=1e-6)
        assert result.predictions == other.predictions
    classifier.model = torch.nn.Flatten()
    with pytest.raises(ValueError, match=r"^features are the input of the last layer, fc"):
        classifier.stream([CAT], features=True)


def test_an_endless_generator_is_consumed_as_it_goes(classifier: Classifier) -> None:
    alive: list[weakref.ref[Image.Image]] = []
    given = most = 0

    def counted() -> Iterator[Image.Image]:
        nonlocal given
        for image in pictures():
            given += 1
            alive.append(weakref.ref(image))
            yield image

    stream = classifier.stream(counted(), batch_size=4, workers=2)
    for taken, _ in zip(range(1, 101), stream, strict=False):
        assert given - taken < 3 * 4
        most = max(most, sum(each() is not None for each in alive))
    assert most <= 3 * 4 + 3  # one in the generator's hands, one in those of each thread
    stream.close()  # type: ignore[attr-defined]  # it is a generator
    assert no_thread_is_left()


def leave(classifier: Classifier) -> None:
    stream: Any = classifier.stream(pictures())
    next(stream)
    stream.close()


def fail(classifier: Classifier) -> None:
    def loop() -> None:
        for _ in classifier.stream(pictures()):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop()


def interrupt(classifier: Classifier) -> None:
    def interrupted() -> Iterator[Image.Image]:
        yield from pictures(40)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(classifier.stream(interrupted()))


def abandon_a_download(classifier: Classifier) -> None:
    """Of a server that takes the connection and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"https://127.0.0.1:{listener.getsockname()[1]}/x.jpg"
        stream: Any = classifier.stream(
            itertools.chain(pictures(4), itertools.repeat(address)), batch_size=4, workers=2
        )
        next(stream)
        time.sleep(0.3)  # by now two threads wait for an answer
        stream.close()


@pytest.mark.parametrize("end", [leave, fail, interrupt, abandon_a_download])
def test_threads_end_within_a_second(classifier: Classifier, end: Callable[[Classifier], None]) -> None:
    end(classifier)
    assert no_thread_is_left()


def test_one_classifier_answers_eight_threads_as_it_answers_one(classifier: Classifier) -> None:
    photos = [*pictures(20), CAT, COFFEE]
    alone = list(classifier.stream(photos, features=True))
    answers: dict[int, list[Result]] = {}

    def ask(number: int) -> None:
        answers[number] = list(classifier.stream(photos, features=number % 2 == 0))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    for results in answers.values():
        assert [each.predictions for each in results] == [each.predictions for each in alone]
