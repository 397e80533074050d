"""`train --resume RUN` alone, two runs in one folder, and what a folder leaves out."""

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
from support.colours import ENVIRONMENT, SCRATCH, train
from support.processes import ROOT, run, run_python, started

from shufflenetv2.__main__ import main
from shufflenetv2.commands.train import add_arguments
from shufflenetv2.files import held
from shufflenetv2.training.again import complete, remember
from shufflenetv2.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


def epochs(run: Path) -> int:
    return len((run / "log.csv").read_text().splitlines()) - 1


@pytest.mark.slow
def test_the_run_says_how_it_began(room: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(room)
    assert train(Path("data"), Path("again"), "--epochs", "1") == 0
    assert main(["train", "--resume", "again", "--epochs", "2"]) == 0
    assert epochs(Path("again")) == 2
    monkeypatch.chdir(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(room)
    monkeypatch.chdir(link)  # the same folder by another name
    assert main(["train", "--epochs", "3", "--resume", "again"]) == 0
    assert epochs(Path("again")) == 3


@pytest.mark.slow
def test_a_copy_of_a_run_goes_on_in_the_copy(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(room)
    assert train(Path("data"), Path("mine"), "--epochs", "1") == 0
    shutil.copytree("mine", "backup")
    assert main(["train", "--resume", "backup", "--epochs", "2"]) == 0
    assert (epochs(Path("mine")), epochs(Path("backup"))) == (1, 2)


@pytest.mark.parametrize("spelling", [["--resume", "20"], ["--resume=20"]])
@pytest.mark.slow
def test_the_last_changes_are_what_goes_on(spelling: list[str], room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(room)
    run = Path("20")  # which is a value of an option, too
    assert train(Path("data"), run, "--epochs", "1") == 0
    epoch = Trainer.run_epoch

    def interrupted(trainer: Trainer, bar: object) -> object:
        assert trainer.recipe.epochs == 20
        assert trainer.recipe.lr == 0.01
        if trainer.epoch == stop:
            raise KeyboardInterrupt
        return epoch(trainer, bar)

    monkeypatch.setattr(Trainer, "run_epoch", interrupted)
    stop = 2
    assert main(["train", *spelling, "--epochs", "20", "--lr", "0.01"]) == 130
    stop = 3
    assert main(["train", *spelling]) == 130
    assert epochs(run) == 3


@pytest.mark.slow
def test_what_was_refused_is_not_remembered(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(room)
    assert train(Path("data"), Path("mine"), "--epochs", "1") == 0
    assert main(["train", "--resume", "mine", "--batch-size", "6"]) == 1
    assert "batch size was 12 and is 6" in capsys.readouterr().err
    assert main(["train", "--resume", "mine", "--epochs", "2"]) == 0
    assert train(Path("data"), Path("mine"), "--epochs", "3", "--resume") == 0  # the other spelling is, too
    assert main(["train", "--resume", "mine"]) == 0
    assert epochs(Path("mine")) == 3


@pytest.mark.slow
def test_a_best_file_that_is_gone_is_told_and_made_anew(
    room: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(room)
    assert train(Path("data"), Path("mine"), "--epochs", "2") == 0
    state = torch.load("mine/last.pth", weights_only=True)
    state["best"] = state["history"][0]["val_accuracy"] = 1.0
    state["history"][1]["val_accuracy"] = 0.0
    torch.save(state, "mine/last.pth")
    os.remove("mine/best.pth")
    assert main(["train", "--resume", "mine", "--epochs", "3"]) == 0
    assert "mine holds no best.pth: from here on the best is counted anew" in caplog.text
    assert os.path.exists("mine/best.pth")


def test_elsewhere_it_says_where_to_go_and_that_works(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(room)
    assert train(Path("data"), Path("again"), "--epochs", "1") == 0
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["train", "--resume", str(room / "again"), "--epochs", "2"]) == 1
    message = capsys.readouterr().err
    assert f"began in the folder {room}; go there" in message
    monkeypatch.chdir(message.partition("began in the folder ")[2].partition(";")[0])
    assert main(["train", "--resume", str(room / "again"), "--epochs", "2"]) == 0


@pytest.mark.parametrize("content", [None, b"{}", b"no json", b'{"directory": ".", "arguments": [1]}'])
def test_a_run_that_does_not_say_it(content: bytes | None, room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (room / "run/command.json").unlink()
    if content is not None:
        (room / "run/command.json").write_bytes(content)
    assert main(["train", "--resume", str(room / "run")]) == 1
    assert "give the command that began it once more, with --resume at its end" in capsys.readouterr().err
    assert train(room / "data", room / "run", "--epochs", "2", "--resume") == 0  # what it says


def test_the_flag_may_stand_before_the_folder(room: Path) -> None:
    command = ["train", "--resume", str(room / "data"), "--output", str(room / "run"), *SCRATCH, "--epochs", "2"]
    assert main(command) == 0
    assert epochs(room / "run") == 2


@pytest.mark.parametrize(
    ("argv", "began"),
    [
        ("data --output run --sizes 32 --resume", "data --output run --sizes 32"),
        ("--output run --sizes 32 --resume data", "data --output run --sizes 32"),
        ("--res=data --output run --sizes 32", "data --output run --sizes 32"),
        ("--output run --resume --sizes 32 -- data", "data --output run --sizes 32"),
        ("--output run --sizes 32 --lr 1 data", "--output run --sizes 32 --lr 1 data"),
    ],
)
def test_a_folder_that_an_option_might_take_is_remembered_before_the_options(argv: str, began: str) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = complete(argparse.Namespace(**vars(parser.parse_args(argv.split())), argv=["train", *argv.split()]))
    assert (arguments.data, arguments.output, arguments.began) == ("data", Path("run"), ["train", *began.split()])
    again = parser.parse_args([*arguments.began[1:], "--epochs", "3", "--resume"])
    assert (again.data, again.sizes, again.epochs, again.resume) == ("data", [(32, None)], 3, "")


@pytest.mark.parametrize("folder", [["--resume", "data"], ["--resume=data"]])
@pytest.mark.slow
def test_a_run_that_was_resumed_by_its_folder_goes_on_by_itself(
    folder: list[str], room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(room)
    assert main(["train", "--output", "run", *SCRATCH, "--epochs", "2", "--sizes", "64:0.5", "72:0.5", *folder]) == 0
    assert main(["train", "--resume", "run", "--epochs", "3"]) == 0
    assert epochs(Path("run")) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a folder of photos and --output RUN; to go on with a run, --resume RUN alone"),
        (["photos"], "give a folder of photos and --output RUN"),
        (["--output", "run"], "give a folder of photos and --output RUN"),
        (["photos", "--output", "run", "--resume", "run"], "both name the run; give --output RUN and --resume alone"),
        (["--resume", "missing"], "--resume missing is no folder that there is"),
        (["--resume", "run/last.pth"], "--resume run/last.pth is a file; give its folder, run"),
        (["--resume", "run", "--output", "run"], "--resume run goes on in that folder; leave --output out"),
        (["--resume", "run", "--output", "new"], "to go on in another, copy the folder and give the copy alone"),
        (["--resume", "run", "photos"], "--resume run goes on with the photos that its run began with; leave photos"),
        (["photos", "--resume=run", "--epochs", "9"], "leave photos out, or give the whole command that began it"),
        (["--resume", "photos"], "there is no command.json that could be read in it"),
    ],
)
def test_half_a_call_is_told(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("run", "photos"):
        (tmp_path / folder).mkdir()
    remember(tmp_path / "run", ["train", "photos", "--output", "run"])
    (tmp_path / "run/last.pth").touch()
    assert main(["train", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_two_runs_in_one_folder(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom shufflenetv2.files import held\n"
        f"with held({str(room / 'run')!r}) as free:\n    print(free, flush=True)\n    sys.stdin.read()\n"
    )
    with started(sys.executable, "-c", program, stdin=-1, stdout=-1) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        before = sorted(path.name for path in (room / "run").iterdir())
        assert train(room / "data", room / "run", "--epochs", "2", "--resume") == 1
        assert "another process is training in" in capsys.readouterr().err
        assert sorted(path.name for path in (room / "run").iterdir()) == before
    assert train(room / "data", room / "run", "--epochs", "2", "--resume") == 0  # it was killed: nothing to clear away


def test_a_folder_is_held_by_one(tmp_path: Path) -> None:
    with held(tmp_path) as first, held(tmp_path) as second:
        assert (first, second) == (True, False)
    with held(tmp_path) as again, held(tmp_path / "missing") as missing:
        assert again
        assert missing
    assert os.listdir(tmp_path) == []


def test_what_a_folder_leaves_out_is_told(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (room / "data/red/notes.txt").touch()
    (room / "data/readme.md").touch()
    assert train(room / "data", room / "other", "--epochs", "1") == 0
    told = capsys.readouterr().err
    assert "left out of" in told
    assert ".txt" in told
    assert "1 file in no class's folder" in told


@pytest.mark.slow
def test_a_call_that_cannot_be_understood_is_told_once() -> None:
    for arguments in (["train", "--epoch", "many"], ["classify"], ["evaluate", "x", "--batch-size", "0"]):
        launch = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "shufflenetv2", *arguments)
        ran = run(sys.executable, "-m", *launch, env=ENVIRONMENT, check=False)
        assert ran.returncode != 0
        assert ran.stderr.count("usage: shufflenetv2") <= 1
        assert ran.stderr.count("shufflenetv2 " + arguments[0] + ": error:") <= 1


def test_an_empty_argument_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["classify", ""], ["evaluate", ""], ["train", "photos", "--output", ""], ["weights", "list", ""]):
        with pytest.raises(SystemExit):
            main(command)
        assert "an argument is empty; is a variable of the shell not set?" in capsys.readouterr().err


@pytest.mark.slow
def test_help_under_torchrun_is_shown_once() -> None:
    ran = run_python(
        "import os\nos.environ.update(RANK='1', TORCHELASTIC_RUN_ID='1')\n"
        "from shufflenetv2.__main__ import main\nmain(['train', '--help'])",
        cwd=ROOT, check=False,
    )  # fmt: skip
    assert (ran.stdout, ran.stderr, ran.returncode) == ("", "", 0)


def test_the_end_names_the_model_and_a_command_that_works(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(room / "data", room / "an other", "--epochs", "1") == 0
    captured = capsys.readouterr()
    assert captured.out == f"{room / 'an other' / 'best.pth'}\n"
    said = captured.err.splitlines()[-1].partition("try it: shufflenetv2 ")[2]
    assert main([str(ROOT / "images/cat.jpg") if each == "PHOTO" else each for each in shlex.split(said)]) == 0
    assert "%" in capsys.readouterr().out


def test_a_run_named_without_a_path_is_told_how(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(room)
    photo = str(ROOT / "images/cat.jpg")
    assert main(["classify", photo, "--weights", "run"]) == 1
    own = capsys.readouterr().err.partition("is given as a path (")[2].partition(")")[0]
    assert own == "./run"
    assert main(["classify", photo, "--weights", own]) == 0
