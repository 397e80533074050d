"""The command line as its user sees it: stdout, stderr and the exit status of fresh processes."""

import json
import shutil
import socket
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
from support.processes import ROOT, run, run_module, run_python
from support.skips import needs_posix
from support.stand_in import StandIn

from shufflenetv2 import __main__ as cli
from shufflenetv2 import __version__
from shufflenetv2.commands import weights
from shufflenetv2.weights import manifest

CAT, COFFEE = ROOT / "images/cat.jpg", ROOT / "images/coffee.jpg"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all of this file, filled by the first test that needs it."""
    return tmp_path_factory.mktemp("home")


def command(stand_in: StandIn, home: Path, *arguments: object, **more: str) -> Any:
    environment = stand_in.environment(home, **more)
    return run_module("shufflenetv2", *arguments, cwd=stand_in.repository, env=environment, check=False)


def test_version_and_help_do_not_wait_for_torch(capsys: pytest.CaptureFixture[str]) -> None:
    program = (
        "import sys, shufflenetv2.__main__ as cli\ntry: cli.main(['--help'])\nfinally: print('torch' in sys.modules)"
    )
    result = run_python(program)
    assert result.stdout.endswith("False\n")
    assert all(command in result.stdout for command in cli.COMMANDS)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out.startswith(f"shufflenetv2 {__version__}")


@pytest.mark.parametrize(("arguments", "hint"), [([], "COMMAND"), (["classify"], "PHOTO"), (["nonsense"], "invalid")])
def test_calls_that_cannot_be_understood(arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert hint in capsys.readouterr().err


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
        ("--lr", "nan", "above 0"),
        ("--sizes", "64:2", "above 0 and at most 1"),
        ("--sizes", "31", "a whole number of pixels from 32 to 2048"),
        ("--warmup", "1", "at least 0 and below 1"),
        ("--weight-decay", "-1", "at least 0"),
    ],
)
def test_numbers_out_of_range(argument: str, wrong: str, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["train", "photos", "--output", "run", argument, wrong])
    assert f"argument {argument}: must be {wanted}, got {wrong.removeprefix('64:')!r}" in capsys.readouterr().err


def test_a_taken_port_is_told_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["demo", "--port", port]) == 1
    assert capsys.readouterr().err.startswith(f"shufflenetv2: error: cannot listen on 127.0.0.1 port {port}: ")


@fault(38, "a bad photo among those to classify", "the rest goes on, its row is marked, exit status 1")
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
        logits = reference_model("shufflenet_v2_x1_0")(preset(photo.convert("RGB")).unsqueeze(0))
    assert rows[3]["predictions"][0]["index"] == logits.argmax()
    assert f"{tmp_path / 'a.jpg'} cannot be decoded" in result.stderr
    assert "1 of 4 photos could not be classified" in result.stderr
    assert "Traceback" not in result.stderr


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
    assert [json.loads(line)["where"] for line in out.splitlines()] == ["not fetched"] * 4
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


@pytest.mark.slow
@needs_posix
def test_output_into_a_closed_pipe_is_no_traceback(stand_in: StandIn, home: Path) -> None:
    pipe = f"{sys.executable} -m shufflenetv2 weights list | head -c 1"
    result = run("sh", "-c", pipe, cwd=stand_in.repository, env=stand_in.environment(home))
    assert len(result.stdout) == 1
    assert result.stderr == ""
