"""``classify --explain`` writes an overlay of every photo, over no photo."""

import json
from pathlib import Path

import pytest
from PIL import Image
from support.processes import ROOT

from shufflenetv2.__main__ import main
from shufflenetv2.builder import resolve
from shufflenetv2.inference.classifier import Classifier
from shufflenetv2.inference.explain import Explanation
from shufflenetv2.inference.overlays import Overlays
from shufflenetv2.photos.decode import open_photo

CAT = ROOT / "images/cat.jpg"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    return Classifier(resolve(None, "cifar10")).explain(CAT)


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
    assert main(["classify", str(CAT), "--weights", "cifar10", "--explain", str(tmp_path / "file")]) == 1
    assert "file" in capsys.readouterr().err


def test_no_photo_is_overwritten(tmp_path: Path, explanation: Explanation) -> None:
    overlays = Overlays(tmp_path, lambda photo: explanation)
    with pytest.raises(ValueError, match="lies in the folder of --explain"):
        overlays.write(tmp_path / "sub" / ".." / "x.jpg")
    assert list(tmp_path.iterdir()) == []


def test_names_of_every_kind(tmp_path: Path, explanation: Explanation) -> None:
    overlays = Overlays(tmp_path, lambda photo: explanation)
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
