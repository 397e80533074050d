"""Fresh processes: the one ``run``, and the programs that tests give it."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent


def run(
    *command: object,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    timeout: float = 200,
    **options: Any,
) -> Any:
    """Run ``command`` and capture what it prints, as text; with ``check``, a failure shows it.

    Returns:
        A ``subprocess.CompletedProcess``.
    """
    options = {"text": True, **options}
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, timeout=timeout, **options
    )
    if check and result.returncode:
        raise AssertionError(f"exit status {result.returncode} of {command}\n{result.stdout}\n{result.stderr}")
    return result


def run_python(program: str, *arguments: object, **options: Any) -> Any:
    """``run`` a program's text in a fresh interpreter."""
    return run(sys.executable, "-c", program, *arguments, **options)


def run_module(*arguments: object, **options: Any) -> Any:
    """``run`` a module with its arguments: ``run_module("shufflenetv2", "classify", photo)``."""
    return run(sys.executable, "-m", *arguments, **options)


def torchrun(processes: int, *arguments: object, **options: Any) -> Any:
    """``run`` a module in several processes, of one thread each."""
    launch = ("torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m")
    return run_module(*launch, *arguments, env={**os.environ, "OMP_NUM_THREADS": "1"}, **options)


def importing() -> dict[str, str]:
    """An environment in which this checkout's package is imported from any directory."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@contextmanager
def started(*command: object, cwd: Path = ROOT, **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """A process that runs beside the test; it is killed at the end if it has not ended by itself."""
    with subprocess.Popen([str(part) for part in command], cwd=cwd, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()
