"""``classify --explain`` writes an overlay of every photo, over no photo."""

import json
from pathlib import Path

import pytest
from PIL import Image
from support.processes import ROOT

from shufflenetv2.__main__ import main
from shufflenetv2.builder import resolve
from shufflenetv2.errors import ImageError
from shufflenetv2.inference.classifier import Classifier
from shufflenetv2.inference.overlays import Overlays
from shufflenetv2.photos.decode import open_photo

CAT = ROOT / "images/cat.jpg"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """It explains every photo alike: these tests are about files."""
    classifier = Classifier(resolve(None, "cifar10"))
    explanation = classifier.explain(CAT)
    classifier.explain = lambda photo, label=None: explanation  # type: ignore[method-assign]
    return classifier


def test_classify_writes_an_overlay_a_photo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, folder = tmp_path / "photos", tmp_path / "why" / "here"
    for name in ("a", "b"):
        (photos / name).mkdir(parents=True)
        open_photo(CAT).resize((90, 60)).save(photos / name / "x.jpg")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    arguments = ["classify", str(photos), "--weights", "cifar10", "--top", "1", "--explain", str(folder)]
    assert main(arguments) == 1  # for the broken one
    assert "broken.jpg" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["x.jpg-2.png", "x.jpg.png"]
    for path in folder.iterdir():
        with Image.open(path) as image:
            assert (image.format, image.size) == ("PNG", (90, 60))
    assert main(arguments) == 1  # again: they are replaced
    assert len(list(folder.iterdir())) == 2


def test_what_does_not_go_with_explain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in (["--output", str(tmp_path / "x.csv")], ["-"]):
        assert main(["classify", str(CAT), *more, "--weights", "cifar10", "--explain", str(tmp_path / "why")]) == 1
        assert "--explain" in capsys.readouterr().err
    assert not (tmp_path / "why").exists()
    (tmp_path / "file").touch()
    explain = ["--weights", "cifar10", "--explain"]
    for arguments, told in (
        ([str(CAT), *explain, str(tmp_path / "file")], "file: File exists; name a folder"),
        ([str(CAT), *explain, str(CAT.parent)], "lies in the folder of --explain; choose another"),
        ([f"{CAT.parent}/*.jpg", *explain, str(CAT.parent)], "lies in the folder of --explain; choose another"),
        (["/dev/fd/0", *explain, str(tmp_path / "why")], "can be read once"),
        ([str(CAT), *explain, str(tmp_path / "why"), "--runtime", "onnxruntime"], "leave --runtime out"),
    ):
        assert main(["classify", *arguments]) == 1
        said = capsys.readouterr()
        assert told in said.err
        assert said.out == ""  # nothing was computed


def test_overlays_are_no_photos_of_the_next_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_photo(CAT).resize((90, 60)).save(tmp_path / "x.jpg")
    arguments = ["classify", str(tmp_path), "--weights", "cifar10", "--json", "--explain", str(tmp_path / "why")]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert [json.loads(line)["photo"] for line in said.out.splitlines()] == [str(tmp_path / "x.jpg")]
    assert said.err == f"shufflenetv2: left out 1 in {(tmp_path / 'why').resolve()}, where the overlays are\n"


def test_photos_in_the_folder_of_overlays_are_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "why").mkdir()
    photo = tmp_path / "why" / "x.jpg"
    open_photo(CAT).resize((90, 60)).save(photo)
    (tmp_path / "why" / "gone.jpg").symlink_to("nowhere")
    arguments = ["classify", str(tmp_path), "--weights", "cifar10", "--json", "--explain", str(tmp_path / "why")]
    for overlays in (0, 1):
        assert main(arguments) == 0
        said = capsys.readouterr()
        assert [json.loads(line)["photo"] for line in said.out.splitlines()] == [str(photo)]
        assert said.err.count(f"left out {overlays} in") == overlays


def test_no_picture_of_the_users_is_overwritten(tmp_path: Path, classifier: Classifier) -> None:
    for _ in range(2):  # an overlay is
        Overlays(tmp_path, classifier).write("/photos/x.jpg")
    (tmp_path / "mine.png.png").write_bytes(CAT.read_bytes())
    with pytest.raises(FileExistsError, match="is no overlay; choose another folder"):
        Overlays(tmp_path, classifier).write("/photos/mine.png")
    assert (tmp_path / "mine.png.png").read_bytes() == CAT.read_bytes()


def test_a_photo_that_is_gone_when_it_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(self: Classifier, photo: Path, label: str | None = None) -> None:
        raise ImageError(f"{photo} cannot be opened: it is gone")

    monkeypatch.setattr(Classifier, "explain", gone)
    arguments = ["classify", str(CAT), str(CAT), "--weights", "cifar10", "--explain", str(tmp_path)]
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert said.out.count(f"{CAT}\n") == 2
    assert said.err.count("cannot be opened: it is gone") == 2
    assert "2 of 2 photos" in said.err


def test_names_of_every_kind(tmp_path: Path, classifier: Classifier) -> None:
    overlays = Overlays(tmp_path, classifier)
    given = [
        "/a/x.jpg",
        "/b/X.JPG",
        "/a/x.jpg-2",
        "https://host/p/cat.jpg?token=secret",
        "https://host/",
        "/a/" + "é" * 120,
    ]
    names = [overlays.write(photo).name for photo in given]
    assert names[:5] == ["x.jpg.png", "X.JPG-2.png", "x.jpg-2-2.png", "cat.jpg.png", "photo.png"]
    assert names[5] == "é" * 40 + ".png"
    assert len(list(tmp_path.iterdir())) == len(given)


def test_not_sure(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["classify", str(CAT), "--weights", "cifar10", "--min-probability"]
    assert main([*arguments, "1"]) == 0
    assert capsys.readouterr().out == f"{CAT}\n not sure\n"
    assert main([*arguments, "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"photo": str(CAT), "predictions": []}
    assert main([*arguments, "0.2"]) == 0
    assert "cat" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*arguments, "1.5"])
    assert "must be from 0 to 1" in capsys.readouterr().err
