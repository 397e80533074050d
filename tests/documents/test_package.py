"""The wheel works away from the checkout."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, StandIn


@pytest.mark.slow
def test_wheel_is_complete_and_runs_away_from_the_checkout(stand_in: StandIn, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(wheels), str(ROOT)],
        check=True,
        cwd=tmp_path,
    )
    [wheel] = wheels.glob("shufflenetv2-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert archive.read("shufflenetv2/weights.json") == (ROOT / "weights.json").read_bytes()
    tracked = subprocess.run(
        ["git", "ls-files", "shufflenetv2"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(tracked) <= set(names)
    assert {name.partition("/")[0] for name in names if "dist-info" not in name} == {"shufflenetv2"}

    # The environment borrows this one's packages, except for the package under test.
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin/python"
    [site] = environment.glob("lib/python*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(here))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)], check=True
    )
    result = subprocess.run(
        [
            str(python),
            "-c",
            "import shufflenetv2, sys; print(shufflenetv2.__file__); print(len(shufflenetv2.categories()))",
        ],
        cwd=tmp_path,
        env=stand_in.environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == f"{site / 'shufflenetv2/__init__.py'}\n1000\n"
    script = site / "bin/shufflenetv2"
    listed = subprocess.run(
        [str(python), str(script), "weights", "path", "shufflenet_v2_x1_0/imagenet1k_v1"],
        cwd=tmp_path,
        env=stand_in.environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.endswith("checkpoints/shufflenetv2_x1-5666bf0f80.pth\n")
