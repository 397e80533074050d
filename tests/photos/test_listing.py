"""Nothing in a folder is passed over without a word, and a split of a data set is told from a class."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.photo_mutants import CAT

from shufflenetv2.errors import DatasetError
from shufflenetv2.photos.folders import find_split, read_labelled
from shufflenetv2.photos.formats import suffixes
from shufflenetv2.photos.listing import find_photos


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(CAT.read_bytes())
    return folder


def left_out(folder: Path) -> tuple[list[str], list[str]]:
    """The photos found, and what was told."""
    told: list[str] = []
    found = [Path(each) for each in find_photos([folder], told.append)]
    return [str(path.relative_to(folder)) for path in found], told


def test_nothing_is_told_of_a_folder_of_photos(tmp_path: Path) -> None:
    put(tmp_path, *(f"sub/{suffix[1:]}{suffix.upper()}" for suffix in suffixes()))
    found, told = left_out(tmp_path)
    assert len(found) == len(suffixes())
    assert told == []


def test_what_is_no_photo_by_name_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shufflenetv2.photos.formats.importlib.util.find_spec", lambda name: None)  # no pillow-heif
    put(tmp_path, "b.jpg", "a/notes.txt", "one.HEIC", "two.heic", "a/README", ".DS_Store", ".git/x.jpg", "a/.b.png")
    assert left_out(tmp_path) == (
        ["b.jpg"],
        [
            f"left out of {tmp_path}: 3 hidden, 4 files that are no photos by name (.heic: pip install pillow-heif, "
            ".txt, without a suffix)"
        ],
    )
    put(tmp_path, *(f"x.{suffix}" for suffix in "abcdefg"))
    assert left_out(tmp_path)[1][0].endswith(".c, .d, ...)")


def test_thumbnails_of_synology_are_no_photos(tmp_path: Path) -> None:
    put(tmp_path, "ant/1.jpg", "ant/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "@eaDir/ant/2.jpg", "bee/@eaDir.jpg")
    assert left_out(tmp_path) == (["ant/1.jpg", "bee/@eaDir.jpg"], [f"left out of {tmp_path}: 2 hidden"])
    told: list[str] = []
    assert read_labelled(tmp_path, told=told.append).categories == ("ant", "bee")
    assert told == [f"left out of {tmp_path}: 2 hidden"]


def test_links_are_followed_once_and_counted_where_they_lead_nowhere(tmp_path: Path) -> None:
    elsewhere = put(tmp_path / "elsewhere", "far.jpg", "deep/er.jpg")
    top = put(tmp_path / "top", "a.jpg", "sub/b.jpg")
    (top / "broken.jpg").symlink_to("nothing.jpg")
    (top / "itself.jpg").symlink_to("itself.jpg")
    (top / "circle").symlink_to(top)
    (top / "sub" / "circle").symlink_to(top / "sub")
    (top / "again").symlink_to(top / "sub")
    (top / "linked").symlink_to(elsewhere)
    (top / "photo.jpg").symlink_to(elsewhere / "far.jpg")
    found, [told] = left_out(top)
    assert found == ["a.jpg", "photo.jpg", "sub/b.jpg", "linked/deep/er.jpg", "linked/far.jpg"]
    assert told == f"left out of {top}: 2 broken links, 3 links to folders read already"


def test_folders_that_cannot_be_listed_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.jpg", "closed/b.jpg")
    scandir = os.scandir

    def refuse(path: str | Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert left_out(tmp_path) == (["a.jpg"], [f"left out of {tmp_path}: 1 folder that cannot be listed"])
    with pytest.raises(DatasetError, match=r"closed cannot be listed: Permission denied"):
        find_photos([tmp_path / "closed"])


def test_a_folder_without_photos_says_what_is_in_it(tmp_path: Path) -> None:
    put(tmp_path, "one.txt")
    with pytest.raises(
        DatasetError, match=r"holds no photo \(\.jpg, .*\); in it: 1 file that is no photo by name \(\.txt"
    ):
        find_photos([tmp_path])


def test_one_line_for_each_folder(tmp_path: Path) -> None:
    told: list[str] = []
    folders = [put(tmp_path / name, "a.jpg", "b.txt", "sub/c.txt") for name in ("x", "y")]
    list(find_photos([*folders, tmp_path / "x" / "a.jpg"], told.append))
    assert [line.partition(":")[0] for line in told] == [f"left out of {folder}" for folder in folders]


def test_labelled_folders_tell_in_one_line(tmp_path: Path) -> None:
    put(tmp_path, "ant/1.jpg", "ant/x.txt", "bee/2.jpg", "bee/y.txt", "stray.jpg", ".hidden/3.jpg")
    (tmp_path / "gone").symlink_to("nowhere")
    told: list[str] = []
    photos = read_labelled(tmp_path, told=told.append)
    assert [path.name for path in photos.paths] == ["1.jpg", "2.jpg"]
    assert told == [
        f"left out of {tmp_path}: 1 hidden, 1 broken link, 1 file in no class's folder, 2 files that are no photos by "
        "name (.txt)"
    ]


def test_patterns(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "sub/b.jpg", "sub/deep/c.jpg", "note.txt")
    for pattern in ("**", "**/*"):
        found = [Path(each).name for each in find_photos([str(tmp_path / pattern)])]
        assert sorted(found) == ["a.jpg", "b.jpg", "c.jpg", "note.txt"], pattern  # what was named is tried, each once
    assert [Path(each).name for each in find_photos([str(tmp_path / "**/deep")])] == ["c.jpg"]
    assert [Path(each).name for each in find_photos([str(tmp_path / "s*")])] == ["b.jpg", "c.jpg"]
    with pytest.raises(DatasetError, match=r"^nothing fits the pattern .*x\*\.jpg, and no file has that name$"):
        list(find_photos([str(tmp_path / "x*.jpg")]))


def test_home_directories_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path, "data/train/ant/1.jpg")
    assert list(find_photos(["~/data"])) == [tmp_path / "data/train/ant/1.jpg"]
    assert find_split("~/data", ["train"]) == tmp_path / "data/train"
    assert read_labelled("~/data/train").categories == ("ant",)


@pytest.mark.parametrize(
    ("folders", "split"),
    [
        (["train/ant", "train/bee", "val/ant"], "train"),
        (["train/ant", "test/ant", ".cache"], "train"),
        (["train/ant"], "train"),
        (["ant", "bee"], None),
        (["train", "car", "bus"], None),  # trains, cars and buses
        (["test", "car", "train", "val"], None),
    ],
    ids=str,
)
def test_a_class_called_train_is_a_class_beside_other_classes(
    folders: list[str], split: str | None, tmp_path: Path
) -> None:
    put(tmp_path, *(f"{folder}/1.jpg" for folder in folders))
    assert find_split(tmp_path, ["train"]) == (split and tmp_path / split)


def test_a_folder_that_may_be_either_is_asked_about(tmp_path: Path) -> None:
    put(tmp_path, "train/ant/1.jpg", "val/ant/1.jpg", "rejected/1.jpg")
    with pytest.raises(
        DatasetError, match=r"train may be a class or a part of the data set: .* beside 'rejected'; give a"
    ):
        find_split(tmp_path, ["train"])


ODD = [b"new\nline.jpg", b"\x1b[31mred.jpg", "e\u0301t\xe9.jpg".encode(), b"\xff\xfe.jpg", "\u202egpj.exe.jpg".encode()]


def test_odd_names_are_found_in_order(tmp_path: Path) -> None:
    for name in ODD:
        (tmp_path / os.fsdecode(name)).write_bytes(CAT.read_bytes())
    assert sorted(os.fsencode(Path(path).name) for path in find_photos([tmp_path])) == sorted(ODD)


def test_folders_are_listed_without_pillow(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    program = (
        "import sys; sys.modules['PIL'] = None\n"
        "from shufflenetv2.photos.listing import find_photos\n"
        "print(len(list(find_photos([sys.argv[1]]))))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=CAT.parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "1\n"
