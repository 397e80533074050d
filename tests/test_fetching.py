"""Whatever a server does, a fetch ends with verified bytes or with an error that lists every attempt, in bounded time.

The time limits are set short here; the servers are real and really misbehave.
"""

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch.hub
from fault_rows import fault
from fault_server import FaultServer, Handler, answer, reset_after

from shufflenetv2 import __version__, fetching
from shufflenetv2.download import cache_path, fetch
from shufflenetv2.errors import DownloadError, IntegrityError, ShuffleNetError
from shufflenetv2.manifest import Entry

BODY = random.Random(0).randbytes(100_000)
OTHER = random.Random(1).randbytes(100_000)
MakeEntry = Callable[..., Entry]


@pytest.fixture(autouse=True)
def a_small_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ca_bundle: Path) -> None:
    """Short limits, an empty cache, the test authority, and no proxy of the machine's."""
    monkeypatch.setattr(fetching, "TOTAL_SECONDS", 5.0)
    monkeypatch.setattr(fetching, "PROGRESS_SECONDS", 0.5)
    monkeypatch.setattr(fetching, "BACKOFF_SECONDS", 0.02)
    for name in [*os.environ]:
        if name.lower().endswith("_proxy") or name.startswith("SHUFFLENETV2_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca_bundle))


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> object:
    """No temporary file in the cache, and no thread that still hangs in a read."""
    yield
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    left = [each.name for each in cache.iterdir()] if cache.exists() else []
    assert left in ([], ["weights.pth"])
    until = time.monotonic() + 2
    while any(thread.name.startswith("shufflenetv2") for thread in threading.enumerate()):
        assert time.monotonic() < until, threading.enumerate()
        time.sleep(0.01)


def test_fetches_verifies_and_caches(make_entry: MakeEntry, tls, capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer([answer(BODY)], tls) as server:
        entry = make_entry(BODY, server.url("models/weights.pth"))
        assert fetch(entry) == BODY
        assert cache_path(entry).read_bytes() == BODY
        assert fetch(entry) == BODY
    assert server.connections == 1
    request = server.requests[0]
    assert request.line == "GET /models/weights.pth HTTP/1.1"
    assert request.headers["user-agent"] == f"shufflenetv2/{__version__}"
    assert request.headers["accept-encoding"] == "identity"
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "weights.pth" in printed.err


def test_no_progress_means_silence(make_entry: MakeEntry, tls, capfd: pytest.CaptureFixture[str]) -> None:
    with FaultServer([answer(BODY)], tls) as server:
        fetch(make_entry(BODY, server.url()), progress=False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("handler", "tries", "error", "message"),
    [
        pytest.param(
            # Over TLS, Python reports a reset as the end of the file: only the length gives it away.
            reset_after(BODY, 40_000), 3, DownloadError, "reset|60000 more expected", id="reset",
            marks=fault(1, "connection reset in mid-body", "backs off, retries, then the next mirror"),
        ),
        pytest.param(
            answer(BODY[:40_000], length=len(BODY)), 3, DownloadError, "60000 more expected", id="closed-early",
            marks=fault(2, "closed before Content-Length", "backs off, retries, then the next mirror"),
        ),
        pytest.param(
            answer(BODY[:40_000], length=None), 3, IntegrityError, "expected 100000 bytes, got 40000", id="no-length",
            marks=fault(3, "truncated, no length given", "size differs from the manifest's: retries, then next mirror"),
        ),
    ],
)  # fmt: skip
def test_a_fault_of_one_mirror(
    handler: Handler, tries: int, error: type[ShuffleNetError], message: str, make_entry: MakeEntry, tls
) -> None:
    with FaultServer([handler], tls) as bad, FaultServer([answer(BODY)], tls) as good:
        alone = make_entry(BODY, bad.url("a?token=secret"))
        with pytest.raises(error, match=message) as caught:
            fetch(alone)
        assert bad.faults == bad.connections == tries
        assert str(caught.value).count(bad.url("a") + ": ") == tries
        assert "secret" not in str(caught.value)
        assert not cache_path(alone).exists()

        assert fetch(make_entry(BODY, bad.url(), good.url())) == BODY
        assert bad.faults == bad.connections == 2 * tries
        assert good.connections == 1
