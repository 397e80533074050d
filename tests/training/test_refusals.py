"""What cannot go well is refused in one line before time is spent, and what is written can be read."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.colours import COLOURS, load, make_colours, train

from shufflenetv2.__main__ import main
from shufflenetv2.builder import resolve
from shufflenetv2.description import STANDARD, Description
from shufflenetv2.network.model import SPECS, ShuffleNetV2
from shufflenetv2.photos.folders import read_apart, read_labelled
from shufflenetv2.weights.checkpoint import write_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_colours(tmp_path_factory.mktemp("colours") / "data", 4)


@pytest.fixture(autouse=True)
def no_epoch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "refused" in request.node.name:
        monkeypatch.setattr("shufflenetv2.training.trainer.Trainer.run_epoch", lambda *_: pytest.fail("time is spent"))


@pytest.fixture(autouse=True)
def no_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Nothing is left behind by what is refused."""
    yield
    assert not (tmp_path / "run").exists() or "refused" not in request.node.name


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    message = capsys.readouterr().err
    assert message.startswith("shufflenetv2: error: ")
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize(
    ("arguments", "resize", "crop"),
    [
        (["--val-size", "1792", "--photo-size", "224"], 1792, 1792),
        (["--val-size", "96"], 96, 96),
        (["--sizes", "64"], 64, 64),
        (["--weights", "cifar10", "--arch", "{arch}"], None, None),
        (["--val-size", "2048", "--sizes", "64"], 2048, 2048),
    ],
)
def test_what_is_written_is_read(
    data: Path, tmp_path: Path, arguments: list[str], resize: int | None, crop: int | None
) -> None:
    """Small photos are enlarged whole; ``--photo-size`` is among the options of all these runs."""
    source = resolve(None, "cifar10")
    arguments = [each.format(arch=source.arch) for each in arguments]
    assert train(data, tmp_path, "--epochs", "1", "--held-out", "0", *arguments) == 0
    weights = resolve(None, tmp_path / "best.pth")
    assert weights.labels == list(COLOURS)
    assert (weights.preprocess.resize, weights.preprocess.crop) == (resize or 72, crop or 72)
    assert load(tmp_path / "best.pth")["preprocess"]["mean"] == list(weights.preprocess.mean)  # type: ignore[index]


def big(data: Path, output: Path, *arguments: str) -> int:
    """As ``train``, without ``--photo-size``: the centre is cut out of the photos."""
    scratch = ["--weights", "none", "--arch", "shufflenet_v2_x0_5", "--workers", "0", "--held-out", "0"]
    return main(["train", str(data), "--output", str(output), *scratch, "--epochs", "1", *arguments])


@pytest.mark.parametrize("arguments", [["--sizes", "64"], ["--sizes", "64", "--val-size", "1792"], ["--sizes", "33"]])
def test_what_is_written_of_large_photos_is_read(data: Path, tmp_path: Path, arguments: list[str]) -> None:
    assert big(data, tmp_path, *arguments) == 0
    preprocess = resolve(None, tmp_path / "best.pth").preprocess
    assert preprocess.crop == int(arguments[-1])
    assert preprocess.resize == round(int(arguments[-1]) * 256 / 224)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--val-size", "1900"], "--val-size 1900 asks for photos of 2171 pixels"),
        (["--val-size", "1793", "--sizes", "64"], "--val-size 1793 asks for photos of 2049 pixels"),
        (["--sizes", "64", "2000"], "--sizes 2000 asks for photos of 2286 pixels"),
    ],
)
def test_a_size_that_nobody_could_read_is_refused(
    data: Path, tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert big(data, tmp_path / "run", *arguments) == 1
    message = error_of(capsys)
    assert said in message
    assert "more than 2048; give --val-size 1792 or less" in message


@pytest.mark.parametrize(
    "name", ["x" * 201, " ", "two\nlines", "bell\x07", b"latin\xe9".decode("utf-8", "surrogateescape")]
)
def test_a_folder_whose_name_is_no_label_is_refused(
    data: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("red", "blue"):
        (tmp_path / "data" / (name if folder == "red" else folder)).mkdir(parents=True)
        (tmp_path / "data" / (name if folder == "red" else folder) / "0.png").symlink_to(data / folder / "0.png")
    assert train(tmp_path / "data", tmp_path / "run") == 1
    message = error_of(capsys)
    assert f"the folder {name!r:.80}" in message
    assert str(tmp_path / "data") in message
    assert "rename it" in message


@pytest.mark.parametrize("sizes", [["32"], ["64", "32"], ["32", "64"]])
def test_one_small_photo_is_refused(
    data: Path, tmp_path: Path, sizes: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert big(data, tmp_path / "run", "--batch-size", "1", "--sizes", *sizes) == 1
    assert "--batch-size 1 with --sizes 32" in error_of(capsys)


@pytest.mark.parametrize("size", ["31", "2049", "200000", "64.5", "x", "64:0", "64:2"])
def test_sizes_out_of_range_are_refused(
    data: Path, tmp_path: Path, size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        big(data, tmp_path / "run", "--sizes", size)
    assert "argument --sizes: must be" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["0.1", "0.9"])
def test_an_empty_side_is_refused(data: Path, tmp_path: Path, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(data, tmp_path / "run", "--held-out", part) == 1
    assert f"holding out {part} of the 4 photos of class 'blue' leaves" in error_of(capsys)


@pytest.mark.parametrize("inside", [".", "green", "green/some"])
def test_photos_that_are_learnt_from_are_refused_for_validation(
    inside: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = Path(shutil.copytree(data, tmp_path / "photos"))
    shutil.copytree(data / "red", photos / "green/some/red")
    val = photos / inside
    assert train(photos, tmp_path / "run", "--val", str(val)) == 1
    assert f"{val}, to validate on, is {photos} or lies in it, so that its photos would be" in error_of(capsys)


@pytest.mark.parametrize("link", ["folder", "file", "hard"])
def test_photos_that_are_learnt_from_by_a_link_are_refused_for_validation(
    link: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, val = Path(shutil.copytree(data, tmp_path / "photos")), Path(shutil.copytree(data, tmp_path / "val"))
    linked = val / "green/again.png"
    if link == "folder":
        linked = val / "red/0.png"
        shutil.rmtree(val / "red")
        (val / "red").symlink_to(photos / "red")
    elif link == "file":
        linked.symlink_to(photos / "green/0.png")
    else:
        linked.hardlink_to(photos / "green/0.png")
    assert train(photos, tmp_path / "run", "--val", str(val)) == 1
    one, count = photos / linked.parent.name / "0.png", 4 if link == "folder" else 1
    assert f"{count} photos to validate on would be learnt from: {linked} is by a link the file {one};" in error_of(
        capsys
    )
    assert not (tmp_path / "run").exists()


def test_photos_to_validate_on_may_lie_where_nothing_is_learnt_from(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = Path(shutil.copytree(data, tmp_path / "photos"))
    for folder in (".val", "@eaDir"):
        shutil.copytree(data, photos / folder)
        shutil.rmtree(photos / folder / "red")
        told: list[str] = []
        learnt, val = read_apart(photos / folder, photos, sorted(COLOURS), told.append), read_labelled(photos)
        assert (len(learnt), len(val), val.categories) == (8, 12, tuple(sorted(COLOURS)))
        assert told == [f"{photos / folder} has no photos of 'red': its accuracy is that of the other classes"]


def test_too_few_photos_are_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(data, tmp_path / "run", "--accumulate", "100") == 1
    assert "photos are too few for 1 processes and --accumulate 100" in error_of(capsys)


def test_weights_for_other_images_are_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, grey = SPECS["shufflenet_v2_x0_5"], tmp_path / "grey.pth"
    description = Description("shufflenet_v2_x0_5", 1, ("a", "b"), STANDARD)
    write_checkpoint(grey, ShuffleNetV2(spec, 2, in_channels=1).state_dict(), description)
    assert train(data, tmp_path / "run", "--weights", str(grey)) == 1
    message = error_of(capsys)
    assert f"{grey} is for images of 1 channel, and photos have 3" in message


def test_an_output_that_cannot_be_written_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shufflenetv2.builder.build", lambda *_: pytest.fail("weights are fetched"))
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file", tmp_path / "file/run", Path("/proc/self/run"), Path("/proc")):
        assert train(data, output) == 1
        assert f"{output} cannot be used as the folder of a run" in error_of(capsys)
    assert (tmp_path / "file").read_text() == "mine"
