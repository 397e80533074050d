"""A run that is taken up again: as if nothing had happened, or an error that says what is not as it was."""

import csv
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.colours import ENVIRONMENT, SCRATCH, assert_equal, load, make_colours, train
from support.processes import ROOT, run_python

from shufflenetv2.builder import resolve
from shufflenetv2.errors import CheckpointError, TrainingError
from shufflenetv2.network.model import SPECS
from shufflenetv2.training.again import remember
from shufflenetv2.training.history import curves
from shufflenetv2.training.run import open_run
from shufflenetv2.weights.checkpoint import read_checkpoint, write_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")


def refused(room: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said when the run is to go on; nothing in its folder has changed."""
    before = {path.name: path.read_bytes() for path in (room / "run").iterdir() if path.is_file()}
    assert train(room / "data", room / "run", "--epochs", "2", "--resume", *arguments) == 1
    assert {path.name: path.read_bytes() for path in (room / "run").iterdir() if path.is_file()} == before
    message = capsys.readouterr().err
    assert message.startswith("shufflenetv2: error: ")
    assert message.count("\n") == 1
    return message


def rename_class(data: Path) -> None:
    (data / "blue").rename(data / "pink")  # now after green: the same three folders in another order


def drop_held_out(data: Path) -> None:
    for path in (data / "blue").iterdir():
        path.rename(path.with_name("x" + path.name))


def replace_photo(data: Path) -> None:
    shutil.copy(data / "red/1.png", data / "blue/1.png")


def add_class(data: Path) -> None:
    shutil.copytree(data / "red", data / "yellow")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (rename_class, "class 1 was 'blue', 3 photos to learn from"),
        (drop_held_out, "class 1 was 'blue', 3 photos to learn from"),
        (lambda data: (data / "green/2.png").unlink(), "is 'green', 2 photos to learn from"),
        (replace_photo, "class 1 was 'blue', 3 photos to learn from"),
        (add_class, "class 4 was none and is 'yellow', 3 photos to learn from"),
    ],
)
def test_other_photos_are_another_run(
    room: Path, change: Callable[[Path], object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(room / "data")
    assert said in refused(room, capsys)


def test_moved_photos_are_the_same_run(room: Path) -> None:
    (room / "data").rename(room / "elsewhere")
    assert train(room / "elsewhere", room / "run", "--epochs", "2", "--resume") == 0


@pytest.mark.parametrize("change", ["added", "dropped", "changed", "swapped"])
def test_another_validation_set_is_another_run(room: Path, change: str, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(room / "data", room / "val")
    options = ["--val", str(room / "val"), "--epochs", "1"]
    shutil.rmtree(room / "run")
    assert train(room / "data", room / "run", *options) == 0
    capsys.readouterr()
    if change == "added":
        shutil.copy(room / "val/red/1.png", room / "val/red/11.png")
    elif change == "changed":
        shutil.copy(room / "val/red/1.png", room / "val/red/2.png")
    elif change == "swapped":
        for old, new in (("red", "x"), ("blue", "red"), ("x", "blue")):
            (room / "val" / old).rename(room / "val" / new)
    if change == "dropped":
        assert "4 photos to validate on (" in refused(room, capsys, "--held-out", "0")
    else:
        message = refused(room, capsys, "--val", str(room / "val"))
        assert "4 photos to validate on (" in message
        assert "5 photos to validate on (" in message or change != "added"


@pytest.mark.slow
def test_other_weights_are_another_run(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = room / "weights.pth"
    shutil.copy(room / "run/best.pth", weights)
    shutil.rmtree(room / "run")
    assert train(room / "data", room / "run", "--weights", str(weights), "--epochs", "1") == 0
    capsys.readouterr()
    assert "weights file was one of contents " in refused(room, capsys)
    weights = weights.rename(room / "moved.pth")
    content = torch.load(weights, weights_only=True)
    content["state_dict"]["conv5.0.weight"][3, 2] += 1e-3
    torch.save(content, room / "other.pth")
    assert "weights file was one of contents " in refused(room, capsys, "--weights", str(room / "other.pth"))
    content = torch.load(weights, weights_only=True)
    content["preprocess"]["mean"][0] = 0.5
    torch.save(content, room / "other.pth")
    assert "normalisation was (0.485, " in refused(room, capsys, "--weights", str(room / "other.pth"))
    assert train(room / "data", room / "run", "--weights", str(weights), "--epochs", "2", "--resume") == 0


def test_settings_are_told_in_words(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(room, capsys, "--ema", "0.8", "--no-flip", "--label-smoothing", "0", "--photo-size", "40")
    for words in (
        "ema was 0.9 and is 0.8",
        "flip was True and is False",
        "label smoothing was 0.1 and is 0.0",
        "photo size was 32 and is 40",
        "--epochs, --sizes, --lr, --workers may differ",
    ):
        assert words in message


def test_a_run_is_not_overwritten(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (room / "run/last.pth").read_bytes()
    assert train(room / "data", room / "run", "--epochs", "1") == 1
    assert "holds a run already; give --resume" in capsys.readouterr().err
    assert (room / "run/last.pth").read_bytes() == before


def test_a_temperature_that_the_best_file_was_given_stays(room: Path) -> None:
    best = room / "run/best.pth"
    before, said, tensors = load(best), resolve(None, best).description, read_checkpoint(best, SPECS).state_dict
    write_checkpoint(best, tensors, replace(said, temperature=2.0))
    assert train(room / "data", room / "run", "--epochs", "1", "--resume") == 0
    assert_equal(load(best), before | {"temperature": 2.0})
    write_checkpoint(best, {**tensors, "fc.bias": torch.ones(3)}, said)  # as if killed before it was written
    assert train(room / "data", room / "run", "--epochs", "1", "--resume") == 0
    assert_equal(load(best), before)


@pytest.mark.parametrize("name", ["best.pth", "log.csv", "curves.png", "command.json"])
def test_files_of_others_are_not_replaced(name: str, room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = room / "own"
    own.mkdir()
    (own / name).write_text("mine")
    assert train(room / "data", own) == 1
    assert f"{own} holds files that the run would replace: {name}; give another --output" in capsys.readouterr().err
    assert [path.name for path in own.iterdir()] == [name]
    assert (own / name).read_text() == "mine"


def test_the_rest_of_a_run_is_not_replaced(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (room / "run/last.pth").unlink()  # to save space
    assert train(room / "data", room / "run") == 1
    assert "would replace: best.pth, log.csv, curves.png; give another" in capsys.readouterr().err


def test_a_run_that_was_killed_before_its_first_epoch_begins_anew(tmp_path: Path) -> None:
    remember(tmp_path, ["train"])
    (tmp_path / "notes.txt").touch()
    assert open_run(tmp_path, resume=False) is None


@pytest.mark.parametrize("name", ["mine.onnx", "mine.XML", "mine.pte"])
def test_a_run_is_not_called_like_another_format(name: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=rf"{name} would be read as another format \(\.onnx, .*; name another"):
        open_run(tmp_path / name, resume=False)
    assert list(tmp_path.iterdir()) == []


def test_there_is_nothing_to_resume(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name mistyped must not cost a run from the start."""
    assert train(room / "data", room / "rum", "--resume") == 1
    message = capsys.readouterr().err
    assert f"nothing can be resumed in {room / 'rum'}: it holds no last.pth" in message
    assert "leave out --resume" in message
    assert not (room / "rum").exists()


def test_fewer_epochs_than_lie_behind(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(room / "data", room / "run", "--epochs", "2", "--resume") == 0
    capsys.readouterr()
    assert train(room / "data", room / "run", "--epochs", "1", "--resume") == 1
    assert "has 2 epochs behind it; give --epochs 3 or more" in capsys.readouterr().err


def test_a_longer_schedule_may_be_resumed(room: Path) -> None:
    assert train(room / "data", room / "run", "--epochs", "2", "--resume") == 0
    assert load(room / "run/last.pth")["epoch"] == 2


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """``last.pth`` after ``change`` of what it holds."""

    def edit(path: Path) -> None:
        state = torch.load(path, weights_only=True)
        change(state)
        torch.save(state, path)

    return edit


def as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def momentum_of_another(state: dict[str, Any]) -> None:
    buffers = state["optimizer"]["state"]
    buffers[0]["momentum_buffer"] = torch.zeros(3)


KEYS = ("settings", "history", "best", "description", "epoch", "model", "average", "optimizer")
BROKEN: dict[str, Callable[[Path], object]] = {
    "directory": as_directory,
    "pipe": as_pipe,
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a model": lambda path: shutil.copy(path.with_name("best.pth"), path),
    "a list": lambda path: torch.save([1, 2], path),
    "text": lambda path: path.write_text("hello"),
    "another schema": edited(lambda state: state.update(schema_version=99)),
    "no schema": edited(lambda state: state.pop("schema_version")),
    "no epochs": edited(lambda state: state.update(epoch=0, history=[])),
    "epochs": edited(lambda state: state.update(epoch=7)),
    "rows": edited(lambda state: state.update(history=[{"epoch": 1}])),
    "row": edited(lambda state: state.update(history=[3])),
    "description": edited(lambda state: state["description"].pop("preprocess")),
    "tensors": edited(lambda state: state["model"].popitem()),
    "shapes": edited(lambda state: state["average"].update({"module.fc.bias": torch.zeros(7)})),
    "no tensor": edited(lambda state: state["model"].update({"fc.bias": "x"})),
    "groups": edited(lambda state: state["optimizer"].pop("param_groups")),
    "a group": edited(lambda state: state["optimizer"].update(param_groups=[1, 2])),
    "momentum": edited(lambda state: state["optimizer"].update(state={})),
    "foreign momentum": edited(momentum_of_another),
    **{f"without {key}": edited(lambda state, key=key: state.pop(key)) for key in KEYS},
    **{f"{key} as text": edited(lambda state, key=key: state.update({key: "x"})) for key in KEYS},
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_no_state_is_one_clear_error(room: Path, broken: str, capsys: pytest.CaptureFixture[str]) -> None:
    last = room / "run/last.pth"
    BROKEN[broken](last)
    message = refused(room, capsys)
    assert str(last) in message
    assert "another --output" in message
    assert "KeyError" not in message
    if broken in ("directory", "pipe"):
        assert f"cannot be read (is a {broken}" in message
    if "schema" in broken:
        assert "this code reads 1" in message


def test_a_state_is_no_model(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = room / "run/last.pth"
    said = f"{last} is the state of a training run, not a model; use best.pth beside it"
    with pytest.raises(CheckpointError, match="use best") as error:
        resolve(None, last)
    assert str(error.value) == said
    assert train(room / "data", room / "new", "--weights", str(last)) == 1
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_resumed_is_as_uninterrupted(one_epoch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between the state and what follows from it, without processes: quick enough for every run."""
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shufflenetv2.training.run.curves", lambda history: drawn.append(len(history)) or curves(history))
        assert train(one_epoch / "data", tmp_path / "whole", "--epochs", "2") == 0
        assert drawn == [2]  # once, at the end
        patch.setattr("shufflenetv2.training.run.table", interrupt)
        assert train(one_epoch / "data", tmp_path / "stopped", "--epochs", "2") == 130
        assert (load(tmp_path / "stopped/last.pth")["epoch"], drawn) == (1, [2])
    torch.manual_seed(99)  # whatever happened in between
    left = tmp_path / "stopped" / f".last.pth.{'0' * 32}.shufflenetv2-partial"
    left.write_bytes(b"what a killed process leaves")
    assert train(one_epoch / "data", tmp_path / "stopped", "--epochs", "2", "--resume") == 0
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def interrupt(*_: object) -> str:
    raise KeyboardInterrupt


def assert_same_run(left: Path, right: Path) -> None:
    assert sorted(path.name for path in left.iterdir()) == [
        "best.pth",
        "command.json",
        "curves.png",
        "last.pth",
        "log.csv",
    ]
    for name in ("last.pth", "best.pth"):
        assert_equal(load(left / name), load(right / name), name)
    assert_equal(rows(left), rows(right), "log.csv")
    assert (left / "curves.png").read_bytes() == (right / "curves.png").read_bytes()


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


# Each attempt is a fork of a process that has imported everything and computed nothing. It is killed before a call into
# the file system ("calls 12") or after a while ("seconds 0.4"), as the first argument lists; then one is left alone.
KILLED = """
import os, signal, sys, time
import matplotlib.figure, torch, torchvision.transforms.v2
from shufflenetv2 import files
from shufflenetv2.__main__ import main
import shufflenetv2.builder, shufflenetv2.training.run
kills, run, *arguments = sys.argv[1:]
torch.set_num_threads(1)

def deadly(function, left):
    def call(*args, **options):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)
    return call

killed = 0
for kill in [*filter(None, kills.split(", ")), "never 0"]:
    kind, _, when = kill.partition(" ")
    if not (child := os.fork()):
        if kind == "calls":
            left = [int(when)]
            for name in ("open", "fsync", "replace", "close"):
                setattr(os, name, deadly(getattr(os, name), left))
        resume = ["--resume"] * os.path.exists(run + "/last.pth")
        os._exit(main(["train", *arguments, "--output", run, *resume]))
    if kind == "seconds":
        time.sleep(float(when))
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != -signal.SIGKILL:
        break
    killed += 1
print(killed)
sys.exit(status)
"""
KILLS = st.one_of(st.integers(1, 60).map("calls {}".format), st.floats(0.05, 0.8).map("seconds {:.3f}".format))


@pytest.mark.slow
def test_killed_anywhere_and_resumed_is_as_uninterrupted(tmp_path: Path) -> None:
    data = make_colours(tmp_path / "data", 4)
    options = [str(data), *SCRATCH, "--epochs", "5", "--mixup", "0.2", "--trivial-augment"]
    assert train(data, tmp_path / "whole", *options[1:]) == 0
    killed = []

    @settings(max_examples=4, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    @given(kills=st.lists(KILLS, min_size=2, max_size=6).map(", ".join))
    def resumed(kills: str) -> None:
        run = tmp_path / f"run {len(killed)}"
        killed.append(
            int(run_python(KILLED, kills, str(run), *options, cwd=ROOT, env=ENVIRONMENT).stdout.splitlines()[-1])
        )
        assert_same_run(run, tmp_path / "whole")

    resumed()
    assert sum(killed) >= 6
