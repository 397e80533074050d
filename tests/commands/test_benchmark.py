"""``benchmark`` measures what it says, in processes of their own, and its arithmetic is right."""

import importlib.util
import json
import shutil
import tomllib
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from pathlib import Path

import pytest
from support.processes import ROOT

from shufflenetv2 import save
from shufflenetv2.__main__ import main
from shufflenetv2.benchmarking import timing
from shufflenetv2.benchmarking.runtimes import FOLDER_ROUNDS, GEMM_SIZE, REFERENCE, ROUNDS, RUNTIMES, Candidate, Task
from shufflenetv2.commands import benchmark
from shufflenetv2.entrypoints import categories, shufflenet_v2_x0_5
from shufflenetv2.network.model import SPECS, Spec
from shufflenetv2.package import BUNDLED
from shufflenetv2.photos.listing import find_photos
from shufflenetv2.weights.manifest import find_entry, load_manifest

ARCH = "shufflenet_v2_x0_5"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Task], int]]:
    """What would have been measured; each candidate takes 10 ms."""
    calls: list[tuple[list[Task], int]] = []

    def measure(tasks: list[Task], rounds: int) -> list[list[float]]:
        calls.append((tasks, rounds))
        return [[10.0]] * len(tasks)

    monkeypatch.setattr(benchmark, "measure", measure)
    monkeypatch.setattr(timing, "write_onnx", lambda task, path: path.touch())
    return calls


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))


def test_summary_and_roofline() -> None:
    names = [("torchvision", "nchw"), ("torchvision", "channels-last"), ("deploy", "nchw"), ("gemm", "nchw")]
    tasks = [Task(Candidate("eager", *name), ARCH, 4) for name in names]
    rows = benchmark.add_roofline(benchmark.summarise(tasks, [[8, 10, 12], [6], [5, 5, 5], [100.0]]))
    assert [row["ms"] for row in rows] == [10, 6, 5, 100]
    assert rows[0]["ms_quartiles"] == [9, 11]
    assert rows[2]["ratio_to_torchvision"] == {"nchw": 2.0, "channels-last": 1.2}
    assert rows[2]["images_per_second"] == 800
    gflops = 2 * GEMM_SIZE**3 / 0.1 / 1e9
    assert rows[3]["gflops"] == pytest.approx(gflops, abs=0.05)
    macs = next(entry.macs for entry in load_manifest() if entry.arch == ARCH and entry.default)
    assert rows[2]["share_of_gemm"] == pytest.approx(2 * macs * 4 / 0.005 / 1e9 / gflops, abs=5e-4)


@pytest.mark.parametrize("entry", [each for each in load_manifest() if each.preprocess.crop == 224], ids=str)
def test_operations_are_counted_as_the_manifest_says(entry) -> None:
    assert timing.flops(entry.arch) == 2 * entry.macs


def test_a_width_without_weights_has_a_roofline_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPECS, "shufflenet_v2_x0_3", Spec(stage_channels=(24, 48, 96), head_channels=512))
    tasks = [Task(Candidate("eager", name, "nchw"), "shufflenet_v2_x0_3", 1) for name in ("deploy", "gemm")]
    ours, _ = benchmark.add_roofline(benchmark.summarise(tasks, [[1.0], [100.0]]))
    assert 0 < ours["share_of_gemm"] < 1


def test_the_extra_installs_what_the_table_needs() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "shufflenetv2[onnx,openvino]" in extras["benchmark"]
    installed = {*extras["benchmark"], *extras["onnx"], *extras["openvino"]} - {
        "shufflenetv2[onnx,openvino]",
        "packaging",
    }
    assert installed == {REFERENCE, *(each for runtime in RUNTIMES.values() for each in runtime.needs)}


def test_every_runtime_can_be_made() -> None:
    assert timing.STEPS.keys() == {*RUNTIMES, "file"}  # the last for --files


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--folder", "empty"], "the folder empty holds no photo ("),
        (["--folder", "bad"], "bad/cut.jpg cannot be decoded ("),
        (["--folder", "bad", "--runtimes", "eager"], "--folder and --training are measured in PyTorch alone; "),
        (["--training", "--runtimes", "eager"], "--folder and --training are measured in PyTorch alone; "),
    ],
)
def test_what_cannot_be_measured_is_told_first(
    arguments: list[str],
    told: str,
    measured: list[tuple[list[Task], int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cat = ROOT / "images/cat.jpg"
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    shutil.copy(cat, tmp_path / "bad")
    (tmp_path / "bad/cut.jpg").write_bytes(cat.read_bytes()[:20_000])
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"shufflenetv2: error: {told}")
    assert (printed.out, printed.err.count("\n"), measured) == ("", 1, [])


class DeadProcess:
    """What is left of one: its end of the pipe is closed, and it is asked nothing any more."""

    def __init__(self, target: object, args: tuple[Connection, Task]) -> None:
        self.theirs, _ = args

    def start(self) -> None:
        self.theirs.send("ready")

    def join(self) -> None:
        pass

    terminate = join


def test_a_process_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Not the success that it is when a reader of the output goes, although writing fails alike."""
    monkeypatch.setattr(SpawnContext, "Process", DeadProcess)
    assert main(["benchmark", "--archs", "0.5", "--runtimes", "eager"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1].endswith("died; its own message is above")


@pytest.mark.usefixtures("without_openvino")
def test_what_is_named_and_missing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--runtimes", "openvino"]) == 1
    assert "needs openvino, which is not installed; type: pip install 'openvino>=2025.3'" in capsys.readouterr().err


@pytest.mark.usefixtures("without_openvino")
def test_what_the_default_run_leaves_out_is_said(
    measured: list[tuple[list[Task], int]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing.torch.cuda, "is_available", lambda: False)
    assert main(["benchmark", "--archs", ARCH, "--batch", "1", "--json"]) == 0
    printed = capsys.readouterr()
    reason = "measuring in OpenVINO needs openvino, which is not installed; type: pip install 'openvino>=2025.3'"
    assert printed.err.splitlines()[0] == f"left out: {reason}"
    assert json.loads(printed.out)["left_out"] == [{"runtime": "openvino", "reason": reason}]
    assert [tasks[0].candidate.runtime for tasks, _ in measured] == ["eager", "torchscript", "onnxruntime"]
    (onnx_tasks,) = (tasks for tasks, _ in measured if tasks[0].candidate.runtime == "onnxruntime")
    names = [task.onnx_file and task.onnx_file.name for task in onnx_tasks]
    assert names == [f"{ARCH}-{network}.onnx" for network in ("torchvision", "plain", "deploy")]


def test_folder_and_training_have_batches_and_rounds_of_their_own(
    measured: list[tuple[list[Task], int]], capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tuple(find_photos([ROOT / "images"]))
    assert main(["benchmark", "--archs", ARCH, "--folder", str(ROOT / "images"), "--training", "--json"]) == 0
    (folder, folder_rounds), (training, training_rounds) = measured
    assert [(task.batch, task.photos) for task in folder] == [(16, photos)] * 2
    assert [(task.batch, task.photos) for task in training] == [(64, ())] * 4
    assert (folder_rounds, training_rounds) == (FOLDER_ROUNDS, ROUNDS)
    report = json.loads(capsys.readouterr().out)
    assert report["left_out"] == []
    assert {row["images_per_second"] for row in report["results"] if row["runtime"] == "training"} == {6400}


@pytest.mark.slow
def test_a_real_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(RUNTIMES, "eager", replace(RUNTIMES["eager"], rounds=1))
    assert main(["benchmark", "--archs", ARCH, "--batch", "1", "--runtimes", "eager", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["machine"]["torch"]
    networks = [(row["network"], row["layout"]) for row in report["results"]]
    assert networks == list(RUNTIMES["eager"].networks)
    assert all(row["ms"] > 0 for row in report["results"])


@pytest.mark.slow
def test_a_folder_beside_torchvisions_way(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(RUNTIMES, "folder", replace(RUNTIMES["folder"], rounds=1))
    assert main(["benchmark", "--archs", ARCH, "--folder", str(ROOT / "images"), "--json"]) == 0
    reference, ours = json.loads(capsys.readouterr().out)["results"]
    assert (reference["network"], ours["network"]) == ("torchvision", "deploy")
    assert ours["ratio_to_torchvision"]["nchw"] > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_exported_files_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "half").mkdir()
    files = [str(tmp_path / name) for name in ("net.pt", "half/net.pt")]
    for file, precision in zip(files, ("float32", "bfloat16"), strict=True):
        options = ["--weights", "cifar10", "--precision", precision]
        assert main(["export", "--format", "torchscript", "-o", file, *options]) == 0
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    shutil.copy(ROOT / "images" / "cat.jpg", tmp_path / "photos" / "cat")
    capsys.readouterr()
    options = ["--batch", "1", "--labelled", str(tmp_path / "photos"), "--threads", "1"]
    assert main(["benchmark", "--files", *files, *options, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["files"]
    assert [first["precision"], second["precision"]] == ["float32", "bfloat16"]
    assert [first["file"], second["file"]] == files
    assert first["ratio_to_float32"] == 1
    assert second["ratio_to_float32"] == round(first["ms"] / second["ms"], 2)
    other = tmp_path / "other.pth"
    save(
        shufflenet_v2_x0_5(num_classes=10, small_stem=True),
        other,
        categories=categories(weights="cifar10"),
        weights="cifar10",
    )
    options = ["--weights", str(other), "--precision", "bfloat16"]
    assert main(["export", "--format", "torchscript", "-o", str(tmp_path / "other.pt"), *options]) == 0
    capsys.readouterr()
    command = ["benchmark", "--files", files[0], str(tmp_path / "other.pt"), "--batch", "1", "--threads", "1", "--json"]
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)["files"]
    assert [row["ratio_to_float32"] for row in rows] == [1, None]  # another network's float32 says nothing
    assert second["megabytes"] < 0.6 * first["megabytes"]
    assert (first["acc@1"], first["photos"]) == (100, 1)


def test_files_that_cannot_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--files", "x.onnx", "--runtimes", "eager", "--training"]) == 1
    assert "--files says what is compared, so leave out --runtimes, --training" in capsys.readouterr().err
    assert main(["benchmark", "--training", "--batch", "4"]) == 1
    assert "--training and --folder have batches of their own; leave --batch out" in capsys.readouterr().err
    assert main(["benchmark", "--labelled", "."]) == 1
    assert "--labelled is for --files" in capsys.readouterr().err
    bundled = str(BUNDLED / find_entry("shufflenet_v2_x0_5", "cifar10").file)
    assert main(["benchmark", "--files", bundled]) == 1
    assert "is a checkpoint: measure it without --files" in capsys.readouterr().err
