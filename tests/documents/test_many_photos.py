"""docs/many-photos.md and docs/serving.md are run as they stand."""

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from support.processes import ROOT, importing, run, started

from shufflenetv2.__main__ import main
from shufflenetv2.tables.rows import COLUMNS

PAGE = (ROOT / "docs/many-photos.md").read_text(encoding="utf-8")
SERVER = (ROOT / "docs/serving.md").read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.slow
def test_the_stream_and_the_query(tmp_path: Path) -> None:
    stream, query, *engines = blocks(PAGE)
    lines = run(sys.executable, "-c", stream, env=importing()).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["images/cat.jpg", "images/coffee.jpg", "gone.jpg"]
    assert lines[2].startswith("gone.jpg gone.jpg cannot be opened: ")
    main(["classify", str(ROOT / "images"), "--weights", "cifar10", "--output", str(tmp_path / "labels.parquet")])
    assert "count_star()" in run(sys.executable, "-c", query, env=importing(), cwd=tmp_path).stdout
    for block in engines:  # the engines themselves are tried in tests/tables/test_cluster.py
        compile(block, "docs/many-photos.md", "exec")


def test_every_column_is_listed() -> None:
    listed = re.findall(r"^\| (`.*?`) \|", PAGE, re.MULTILINE)
    assert re.findall(r"`(\w+)`", " ".join(listed)) == [*COLUMNS, "features"]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    [program] = blocks(SERVER)
    (tmp_path / "server.py").write_text(program.replace("port=8000", f"port={port}"))
    url = f"http://127.0.0.1:{port}"
    own = {"cwd": tmp_path, "env": importing(), "stdout": -3, "stderr": -3, "start_new_session": True}
    with started(sys.executable, "server.py", **own) as process:
        end = time.monotonic() + 120
        while time.monotonic() < end and process.poll() is None:
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        yield url
        os.killpg(process.pid, signal.SIGKILL)  # its workers are processes of their own, and would outlive it


@pytest.mark.slow
def test_the_service_answers_many_at_once_as_it_answers_one(address: str) -> None:
    photos = [(ROOT / "images" / name).read_bytes() for name in ("cat.jpg", "coffee.jpg")] + [b"no photo"]

    def ask(photo: bytes) -> dict[str, object]:
        answer: dict[str, object] = httpx.post(f"{address}/predict", files={"photo": photo}, timeout=60).json()
        return answer

    alone = [ask(photo) for photo in photos]
    assert [list(answer) for answer in alone] == [["labels"], ["labels"], ["error"]]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, photos * 12))

    def labels(answer: dict[str, object]) -> object:
        found = answer.get("labels")
        return [each["label"] for each in found] if isinstance(found, list) else str(answer["error"]).partition(":")[2]

    assert list(map(labels, answers)) == list(map(labels, alone)) * 12
    assert len(SERVER.splitlines()) <= 60
