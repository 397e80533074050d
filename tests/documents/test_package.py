"""The wheel works away from the checkout."""

import sys
import venv
import zipfile
from pathlib import Path

import pytest
from support.processes import ROOT, run, run_module
from support.stand_in import StandIn

IMPORT = "import shufflenetv2; print(shufflenetv2.__file__); print(len(shufflenetv2.categories()))"


@pytest.mark.slow
def test_wheel_is_complete_and_runs_away_from_the_checkout(stand_in: StandIn, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    run_module("pip", "wheel", "-q", "--no-deps", "-w", wheels, ROOT, cwd=tmp_path)
    [wheel] = wheels.glob("shufflenetv2-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert archive.read("shufflenetv2/weights.json") == (ROOT / "weights.json").read_bytes()
    assert set(run("git", "ls-files", "shufflenetv2").stdout.split()) <= set(names)
    assert {name.partition("/")[0] for name in names if "dist-info" not in name} == {"shufflenetv2"}

    # The environment borrows this one's packages, except for the package under test.
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin/python"
    [site] = environment.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    run_module("pip", "install", "-q", "--no-deps", "--target", site, wheel)
    user = {"cwd": tmp_path, "env": stand_in.environment(tmp_path)}
    assert run(python, "-c", IMPORT, **user).stdout == f"{site / 'shufflenetv2/__init__.py'}\n1000\n"
    listed = run(python, site / "bin/shufflenetv2", "weights", "path", "shufflenet_v2_x1_0/imagenet1k_v1", **user)
    assert listed.stdout.endswith("checkpoints/shufflenetv2_x1-5666bf0f80.pth\n")
