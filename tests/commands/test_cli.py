"""The command line as its user sees it: stdout, stderr and the exit status of fresh processes."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models
from PIL import Image
from support.checkpoints import reference_model
from support.fault_rows import fault
from support.processes import ROOT, run, run_module, run_python, started
from support.skips import needs_posix
from support.stand_in import StandIn

from shufflenetv2 import __main__ as cli
from shufflenetv2 import __version__
from shufflenetv2.commands import weights
from shufflenetv2.commands.options import arch
from shufflenetv2.description import Description, Preprocess
from shufflenetv2.network.formats.table import FORMATS
from shufflenetv2.network.model import SPECS, ShuffleNetV2
from shufflenetv2.photos.formats import MAX_PIXELS, MAX_PIXELS_COPIED
from shufflenetv2.weights import manifest
from shufflenetv2.weights.checkpoint import write_checkpoint

CAT, COFFEE = ROOT / "images/cat.jpg", ROOT / "images/coffee.jpg"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all of this file, filled by the first test that needs it."""
    return tmp_path_factory.mktemp("home")


LABELS = ("고양이", "강아지")


@pytest.fixture(scope="module")
def korean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with labels that ASCII has no letters for."""
    path = tmp_path_factory.mktemp("weights") / "고양이.pth"
    model = ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], num_classes=2)
    preprocess = Preprocess(40, 32, "bilinear", (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    write_checkpoint(path, model.state_dict(), Description("shufflenet_v2_x0_5", 3, LABELS, preprocess))
    return path


def command(stand_in: StandIn, home: Path, *arguments: object, **more: str) -> Any:
    environment = stand_in.environment(home, **more)
    return run_module("shufflenetv2", *arguments, cwd=stand_in.repository, env=environment, check=False)


def test_version_and_help_do_not_wait_for_torch(capsys: pytest.CaptureFixture[str]) -> None:
    program = """
import contextlib, sys, time, shufflenetv2.__main__ as cli
names = [[], *([name] for name in cli.COMMANDS)]
for call in [*([*name, '--help'] for name in names), *(['help', *name] for name in names)]:
    with contextlib.suppress(SystemExit):
        cli.main(call)
print({'torch', 'PIL', 'requests', 'numpy'} & set(sys.modules), time.process_time())
"""
    result = run_python(program)
    imported, seconds = result.stdout.splitlines()[-1].rsplit(" ", 1)
    assert imported == "set()"
    assert float(seconds) < 0.5  # of the processor, for all of them
    assert all(f"usage: shufflenetv2 {command} " in result.stdout for command in cli.COMMANDS)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out.startswith(f"shufflenetv2 {__version__}")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], ": error: the following arguments are required: COMMAND"),
        (["classify", "x.jpg", "--jsn"], " classify: error: unrecognized arguments: --jsn; did you mean '--json'?"),
        (["weights", "list", "--jsn"], " weights list: error: unrecognized arguments: --jsn; did you mean '--json'?"),
        (["weights", "ftch"], " weights: error: argument ACTION: must be one of list, fetch, verify, path, got 'ftch'; "
         "did you mean 'fetch'?"),
        (["clasify"], f": error: argument COMMAND: must be one of {', '.join(cli.COMMANDS)}, got 'clasify'; "
         "did you mean 'classify'?"),
        (["help", "nonsense"], f": error: argument COMMAND: must be one of {', '.join(cli.COMMANDS)}, got 'nonsense'"),
        (["classify", "x.jpg", "--arch", "x9_0"], f" classify: error: argument --arch: must be one of "
         f"{', '.join(SPECS)}, got 'x9_0'"),
        (["benchmark", "--archs", "1.0", "shufflnet_v2_x1_0"], f" benchmark: error: argument --archs: must be one of "
         f"{', '.join(SPECS)}, got 'shufflnet_v2_x1_0'; did you mean 'shufflenet_v2_x1_0'?"),
        (["classify", "a.jpg", "--top", "2", "b.jpg"], " classify: error: unrecognized arguments: b.jpg; name all of "
         "them together, before the options or after them"),
        (["export", "--format", "onx"], " export: error: argument --format: must be one of "
         f"{', '.join(FORMATS)}, got 'onx'; did you mean 'onnx'?"),
    ],
)  # fmt: skip
def test_calls_that_cannot_be_understood(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    usage, *_, error = capsys.readouterr().err.splitlines()
    assert error == f"shufflenetv2{told}"
    assert usage.startswith(f"usage: shufflenetv2{told.partition(':')[0]} [-h]")


@pytest.mark.parametrize("short", ["shufflenet_v2_x1_5", "x1_5", "X1.5", "1.5", "1.5x", "1_5", "ShuffleNet_V2_X1_5"])
def test_an_architecture_is_known_by_its_width(short: str) -> None:
    assert arch(short) == "shufflenet_v2_x1_5"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["classify", CAT, "--weights", "cifar10", "--device", "mars"], "the device 'mars' cannot be used: "),
        (["classify", CAT, "--weights", "cifar10", "--device", "cuda:99"], "the device 'cuda:99' cannot be used: "),
        (["classify", CAT, "--weights", "cifar10", "--device", "meta"], "the device 'meta' cannot be used: "),
        (["evaluate", "photos", "--weights", "cifar10", "--device", "mars"], "the device 'mars' cannot be used: "),
        (["train", "photos", "--held-out", "0", "--output", "run", "--device", "mars"], "the device 'mars' cannot be"),
        (["benchmark", "--folder", "nowhere"], "--folder nowhere is not a folder"),
        (["demo", "--host", "192.0.2.1"], "cannot listen on 192.0.2.1: "),  # no machine's own (RFC 5737)
    ],
)
def test_errors_are_one_line(
    arguments: list[object],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        shutil.copy(CAT, tmp_path / "photos" / label)
    assert cli.main([str(each) for each in arguments]) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"shufflenetv2: error: {told}")
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argument", "wrong", "wanted"),
    [
        ("--batch-size", "x", "a whole number from 1 to 1000000"),
        ("--batch-size", "0", "a whole number from 1 to 1000000"),
        ("--lr", "nan", "above 0 and at most 1000000"),
        ("--sizes", "64:2", "above 0 and at most 1"),
        ("--sizes", "64:", "above 0 and at most 1"),
        ("--sizes", "31", "a whole number of pixels from 32 to 2048"),
        ("--warmup", "1", "at least 0 and below 1"),
        ("--weight-decay", "-1", "at least 0"),
        ("--workers", "-1", "a whole number from 0 to 256"),
        ("--seed", "x", "a whole number from 0 to 2**63 - 1"),
        ("classify x.jpg --top", "0", "a whole number from 1 to 1000000"),
        ("evaluate photos --workers", "0", "a whole number from 1 to 1000000"),
        ("benchmark --threads", "0", "a whole number from 1 to 1024"),
        ("benchmark --batch", "100000", "a whole number from 1 to 4096"),
        ("export --format onnx --size", "200000", "a whole number of pixels from 9 to 2048"),
        ("demo --port", "70000", "a whole number from 1 to 65535"),
    ],
)
def test_numbers_out_of_range(argument: str, wrong: str, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    *command, option = argument.split()
    with pytest.raises(SystemExit, match="2"):
        cli.main([*(command or ["train", "photos", "--output", "run"]), option, wrong])
    assert f"argument {option}: must be {wanted}, got {wrong.removeprefix('64:')!r}" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["SHUFFLENETV2_MAX_PIXELS", "SHUFFLENETV2_MAX_BYTES"])
def test_the_demo_tells_a_wrong_setting_at_its_start(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "lots")
    monkeypatch.setattr("shufflenetv2.builder.resolve", lambda *_: pytest.fail("weights are loaded"))
    assert cli.main(["demo", "--weights", "cifar10"]) == 1
    assert f"{variable} must be a number above 0, got 'lots'" in capsys.readouterr().err


def test_a_taken_port_is_told_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["demo", "--port", port]) == 1
    assert capsys.readouterr().err.startswith(f"shufflenetv2: error: cannot listen on 127.0.0.1 port {port}: ")


@fault(38, "a bad photo among those to classify", "the rest goes on, its row is marked, exit status 1")
@pytest.mark.slow
def test_classify_a_folder_in_order_with_a_bad_file(stand_in: StandIn, home: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    shutil.copy(CAT, tmp_path / "b/cat.JPG")
    shutil.copy(COFFEE, tmp_path / "b/coffee.jpeg")
    shutil.copy(CAT, tmp_path / ".hidden/cat.jpg")
    (tmp_path / "a.jpg").write_bytes(CAT.read_bytes()[:5000])
    (tmp_path / "notes.txt").write_text("no photo")
    result = command(stand_in, home, "classify", tmp_path, COFFEE, "--json", "--top", 3, "--batch-size", 2)
    assert result.returncode == 1
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    names = [tmp_path / "a.jpg", tmp_path / "b/cat.JPG", tmp_path / "b/coffee.jpeg", COFFEE]
    assert [row["photo"] for row in rows] == list(map(str, names))
    assert "cannot be decoded" in rows[0]["error"]
    assert [len(row["predictions"]) for row in rows[1:]] == [3, 3, 3]
    assert [each["label"] for each in rows[2]["predictions"]] == [each["label"] for each in rows[3]["predictions"]]
    preset = torchvision.models.ShuffleNet_V2_X1_0_Weights.DEFAULT.transforms()
    with Image.open(COFFEE) as photo, torch.inference_mode():
        expected = reference_model("shufflenet_v2_x1_0")(preset(photo).unsqueeze(0)).argmax()
    assert rows[3]["predictions"][0]["index"] == expected
    assert f"{tmp_path / 'a.jpg'} cannot be decoded" in result.stderr
    assert "1 of 4 photos could not be classified" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_device_that_is_none_says_which_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["classify", str(CAT), "--weights", "cifar10", "--device", "gpu"]
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert cli.main(call) == 1
    assert capsys.readouterr().err.endswith("; there are: cpu, cuda:0, cuda:1\n")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: None)
    assert cli.main(call) == 1
    assert capsys.readouterr().err.endswith("; there are: cpu\n")


def test_a_runs_folder_means_its_best_model(
    korean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(korean, tmp_path / "run/best.pth")
    monkeypatch.setenv("HOME", str(tmp_path))
    for run_folder in (tmp_path / "run", f"{tmp_path}/run/", "~/run"):
        assert cli.main(["classify", str(CAT), "--weights", str(run_folder), "--json"]) == 0
        predictions = json.loads(capsys.readouterr().out)["predictions"]
        assert {each["label"] for each in predictions} == set(LABELS)
    assert cli.main(["classify", str(CAT), "--weights", str(tmp_path)]) == 1
    assert f"{tmp_path} cannot be read: is a directory, expected a regular file" in capsys.readouterr().err


@pytest.mark.slow
def test_classify_text(stand_in: StandIn, home: Path) -> None:
    result = command(stand_in, home, "classify", CAT, COFFEE)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 12
    assert (lines[0], lines[6]) == (str(CAT), str(COFFEE))
    shares = [float(line.split("%")[0]) for line in lines[1:6]]
    assert shares == sorted(shares, reverse=True)


@pytest.mark.slow
def test_classify_without_any_server_ends_soon_with_one_message(stand_in: StandIn, tmp_path: Path) -> None:
    began = time.monotonic()
    nobody = "http://127.0.0.1:9"
    result = command(stand_in, tmp_path, "classify", CAT, SHUFFLENETV2_MIRROR=nobody, HTTPS_PROXY=nobody)
    assert time.monotonic() - began < 30
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("shufflenetv2: error: shufflenetv2_x1-5666bf0f80.pth")
    assert "SHUFFLENETV2_MIRROR" in result.stderr
    assert "Traceback" not in result.stderr


def test_weights_actions(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = manifest.parse_manifest((stand_in.repository / "weights.json").read_text())
    for module in (manifest, weights):
        monkeypatch.setattr(module, "load_manifest", lambda: entries)
    for name, value in stand_in.environment(tmp_path).items():
        monkeypatch.setenv(name, value)

    def act(*arguments: str) -> tuple[int, str, str]:
        return (cli.main(["weights", *arguments]), *capsys.readouterr())

    status, out, _ = act("list", "--json", "imagenet1k_v1")
    assert status == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["where"] for row in rows] == ["not fetched"] * 4
    own = next(entry for entry in entries if str(entry) == rows[1]["weights"])
    numbers = {"classes": own.num_classes, "input": own.preprocess.crop, "acc@1": own.metrics.acc1, "size": own.size}
    assert {**rows[1], "default": True, **numbers} == rows[1]
    status, out, _ = act("list")
    header, *lines = out.splitlines()
    assert header.split() == ["weights", "default", "classes", "input", "acc@1", "size", "where", "dataset"]
    assert [line.split()[1] == "default" for line in lines] == [entry.default for entry in entries]
    assert {line.index(entry.metrics.dataset) for line, entry in zip(lines, entries, strict=True)} == {
        header.index("dataset")
    }
    name = "shufflenet_v2_x1_0/imagenet1k_v1"
    path = tmp_path / "torch/hub/checkpoints/shufflenetv2_x1-5666bf0f80.pth"
    assert act("path", name) == (0, f"{path}\n", "")

    status, out, err = act("verify", name)
    assert (status, out) == (1, "")
    assert f"weights fetch {name}" in err
    status, out, _ = act("fetch", name)
    assert status == 0
    assert out.startswith(str(path))
    assert path.read_bytes() == stand_in.files[path.name]
    monkeypatch.setenv("SHUFFLENETV2_OFFLINE", "1")
    assert act("verify", name)[0] == 0

    path.write_bytes(b"x" * len(stand_in.files[path.name]))
    status, out, err = act("verify", name)
    assert (status, out) == (1, "")
    assert "expected sha256" in err
    status, _, err = act("fetch", "nonsense")
    assert status == 1
    assert "there are no weights 'nonsense'" in err
    (tmp_path / "mine.pth").touch()
    status, _, err = act("verify", str(tmp_path / "mine.pth"))
    assert status == 1
    assert "mine.pth is a file of your own, and `weights` is about those that are listed" in err


def shell(line: str, *arguments: object, **environment: str) -> Any:
    """What a shell makes of ``line``, in which "$@" is this command line with ``arguments``."""
    command = (sys.executable, "-m", "shufflenetv2", *arguments)
    return run("bash", "-c", line, "bash", *command, env={**os.environ, **environment}, check=False)


@pytest.mark.slow
def test_no_encoding_ends_a_command(korean: Path, tmp_path: Path) -> None:
    for label, photo in zip(LABELS, (CAT, COFFEE), strict=True):
        (tmp_path / label).mkdir()
        shutil.copy(photo, tmp_path / label)
    for command in (["classify", tmp_path], ["evaluate", tmp_path]):
        result = shell('"$@"', *command, "--weights", korean, PYTHONIOENCODING="ascii")
        assert (result.returncode, result.stderr) == (0, "")
        assert "\\uace0\\uc591\\uc774" in result.stdout  # 고양이
    result = shell('"$@"', "classify", tmp_path / "없다.jpg", "--weights", korean, PYTHONIOENCODING="ascii")
    assert result.returncode == 1
    assert "\\uc5c6\\ub2e4.jpg cannot be opened" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["weights", "list"], ["weights", "path", "--json"]], ids=" ".join
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.slow
def test_a_reader_who_goes_has_seen_enough(arguments: list[str], unbuffered: str) -> None:
    line = '"$@" | true; echo ${PIPESTATUS[0]}'
    result = shell(line, *arguments, PYTHONUNBUFFERED=unbuffered)
    assert (result.stdout, result.stderr) == ("0\n", "")


def test_nothing_in_a_message_acts_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["classify", str(CAT), "--weights", f"{tmp_path}/\033[31m\udcff.pth"]) == 1
    assert f"{tmp_path}/\\x1b[31m\\udcff.pth cannot be read" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main(["weights", "list", "--\033[31m"])
    assert "unrecognized arguments: --\\x1b[31m\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        ZeroDivisionError(),
    ],
)
def test_too_little_memory_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(weights, "run", fail)
    if isinstance(error, ZeroDivisionError):
        with pytest.raises(ZeroDivisionError):
            cli.main(["weights", "list"])
    else:
        assert cli.main(["weights", "list"]) == 1
        assert capsys.readouterr().err.startswith("shufflenetv2: error: out of memory; ")


@pytest.mark.slow
def test_closed_and_full_streams() -> None:
    assert shell('"$@" >&-', "weights", "list").stderr == ""
    assert shell('"$@" 2>&-', "weights", "list", "nonsense").stdout == ""
    result = shell('"$@" >/dev/full', "weights", "list")
    assert (result.returncode, result.stderr) == (1, "shufflenetv2: error: [Errno 28] No space left on device\n")


@needs_posix
def test_an_interrupt_that_a_library_turns_into_an_error_is_one_still(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def swallow(_: object) -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("cannot load module more than once per process") from None
        return 0

    monkeypatch.setattr(weights, "run", swallow)
    assert cli.main(["weights", "list"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_variable_of_other_launchers_silences_nothing() -> None:
    result = run_module("shufflenetv2", "--help", env={**os.environ, "RANK": "1", "LOCAL_RANK": "x"})
    assert "usage: shufflenetv2" in result.stdout


@needs_posix
@pytest.mark.parametrize("names", [["SIGTERM"], ["SIGTERM", "SIGTERM"], ["SIGINT", "SIGTERM"], ["SIGHUP"]], ids=str)
def test_a_signal_ends_a_command_like_ctrl_c(names: list[str], tmp_path: Path) -> None:
    """So that what is half written is removed: `timeout` sends two, a terminal that is closed SIGHUP."""
    program = """
import pathlib, sys, time
from shufflenetv2 import __main__, files
def run(argv):
    with files.whole_file(sys.argv[1]):
        try:
            print("writing", flush=True)
            time.sleep(60)
        finally:
            time.sleep(0.5)  # the second comes meanwhile
            print("cleared up", flush=True)
__main__._run = run
sys.exit(__main__.main())
"""
    command = [sys.executable, "-c", program, tmp_path / "file"]
    with started(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == "writing\n"
        assert len(list(tmp_path.iterdir())) == 1
        for name in names:
            process.send_signal(getattr(signal, name))
            time.sleep(0.1)
        assert process.communicate(timeout=30) == ("cleared up\n", "interrupted\n")
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []


def test_help_says_the_very_bounds_of_pixels() -> None:
    told = run_module("shufflenetv2", "classify", "--help").stdout.split("SHUFFLENETV2_MAX_PIXELS")[1]
    said = [float(each) for each in re.findall(r"\d+e6", told.partition("--fast-decode")[0])]
    assert said == [MAX_PIXELS, MAX_PIXELS_COPIED]
