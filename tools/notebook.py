"""docs/tutorial.ipynb: executed from top to bottom, as in a fresh notebook service, and what its cells print."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from support.stand_in import serve_stand_in

from .outputs import prepare_reader, same

LONGEST = 300  # seconds a cell may take
LARGEST = 200_000  # characters of the file with all of its outputs


def executed(text: str) -> Any:
    """The notebook with what its cells give, where torch.hub has the release and an empty folder is at hand.

    Raises:
        CellExecutionError: a cell fails.
    """
    notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as directory, serve_stand_in(Path(directory, "stand-in")) as stand_in:
        reader = prepare_reader(stand_in, Path(directory))
        empty = Path(directory, "content")
        empty.mkdir()
        manager = KernelManager()
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        manager._kernel_spec = KernelSpec(argv=argv, display_name="Python 3", language="python")
        client = NotebookClient(notebook, km=manager, timeout=LONGEST, resources={"metadata": {"path": str(empty)}})
        client.owns_km = True  # it ends the kernel, and closes what leads to it
        client.execute(env={**os.environ, **reader.environment, "IPYTHONDIR": directory, "PYTHONPATH": ""})
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [_plain(output) for output in cell.outputs]
    return notebook


def _plain(output: Any) -> Any:
    if "execution_count" in output:
        output.execution_count = None
    return output


def printed(notebook: Any) -> list[str]:
    """What each cell of code printed, or gave in words."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(_text(output) for output in cell.outputs) for cell in cells]


def _text(output: Any) -> str:
    return str(
        output.get("text", "") or ("" if "image/png" in output.get("data", {}) else output["data"]["text/plain"])
    )


def rewritten(text: str, execute: Callable[[str], Any] = executed) -> str:
    """``text`` with what its cells give today, where what they print differs by more than CPUs do.

    Raises:
        ValueError: a cell writes to stderr, or the file would be larger than a page should be.
    """
    old: Any = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    new = execute(text)
    for cell in new.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise ValueError(f"docs/tutorial.ipynb: a cell complains: {output.text[:400]}")
    if all(same(*pair) for pair in zip(printed(new), printed(old), strict=True)):
        return text
    written: str = nbformat.writes(new, indent=1) + "\n"  # type: ignore[no-untyped-call]
    if len(written) > LARGEST:
        raise ValueError(f"docs/tutorial.ipynb would have {len(written)} characters, of {LARGEST} at most")
    return written
