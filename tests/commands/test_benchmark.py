"""``benchmark`` measures what it says, in processes of their own, and its arithmetic is right."""

import argparse
import json
from pathlib import Path

import pytest

from shufflenetv2.__main__ import main
from shufflenetv2.commands import benchmark
from shufflenetv2.timing import GEMM_SIZE, Candidate, Task
from shufflenetv2.weights.manifest import load_manifest

ARCH = "shufflenet_v2_x0_5"


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


def test_missing_packages_get_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None if name == "openvino" else object())
    arguments = argparse.Namespace(folder=None, training=False, runtimes=["openvino"])
    with pytest.raises(ImportError, match="pip install openvino"):
        benchmark.choose_runtimes(arguments)
    arguments.runtimes = None
    assert "openvino" not in benchmark.choose_runtimes(arguments)


@pytest.mark.slow
def test_a_real_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(benchmark, "ROUNDS", 1)
    assert main(["benchmark", "--archs", ARCH, "--batch", "1", "--runtimes", "eager", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["machine"]["torch"]
    networks = [(row["network"], row["layout"]) for row in report["results"]]
    assert networks == benchmark.CANDIDATES["eager"]
    assert all(row["ms"] > 0 for row in report["results"])


@pytest.mark.slow
def test_a_folder_beside_torchvisions_way(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(benchmark, "FOLDER_ROUNDS", 1)
    photos = Path(__file__).parent.parent.parent / "images"
    assert main(["benchmark", "--archs", ARCH, "--folder", str(photos), "--json"]) == 0
    reference, ours = json.loads(capsys.readouterr().out)["results"]
    assert (reference["network"], ours["network"]) == ("torchvision", "deploy")
    assert ours["ratio_to_torchvision"]["nchw"] > 0
