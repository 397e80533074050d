"""A test is only left out for a reason that CONTRIBUTING.md lists."""

import os
from pathlib import Path

from conftest import ROOT, run_python


def test_a_skip_without_permission_fails(tmp_path: Path) -> None:
    (tmp_path / "test_skips.py").write_text(
        "import pytest\n"
        "def test_permitted(): pytest.skip('needs root')\n"
        "def test_not_permitted(): pytest.skip('no time')\n"
        "@pytest.mark.skip(reason='later')\n"
        "def test_marked(): pass\n"
    )
    program = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    arguments = ("-p", "conftest", "-p", "no:cacheprovider", "-q", "test_skips.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    result = run_python(program, *arguments, cwd=tmp_path, env=environment, check=False)
    assert result.returncode == 1
    assert "1 failed, 1 skipped, 1 error" in result.stdout
    assert "not permitted: no time" in result.stdout
