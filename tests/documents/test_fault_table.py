"""The published table says what the tests say."""

import os
import subprocess
import sys

from support.fault_table import DOCUMENT, ROOT


def test_the_document_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "tests/support/fault_table.py")]
    made = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONUTF8": "1"}, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    stale = "docs/faults.md is out of date; type: python tests/support/fault_table.py --update"
    assert DOCUMENT.read_text(encoding="utf-8") == made.stdout, stale
