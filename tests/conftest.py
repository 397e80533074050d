"""What several test files share: torchvision checkpoints, copies of this repository, and a network of their own."""

import hashlib
import http.server
import io
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models
import trustme

from shufflenetv2.description import Metrics, Preprocess
from shufflenetv2.weights.manifest import Entry

ROOT = Path(__file__).resolve().parent.parent
ARCHS = ("shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0")
# What torch.hub gets to see of a checkout; tests, figures and documents make no difference to it.
HUB_FILES = ("hubconf.py", "weights.json", "shufflenetv2")

# torch 2.10's own max-pool asks, while it is exported, whether the size is odd, and so ties it down.
needs_dynamic_sizes = pytest.mark.skipif(
    torch.__version__.startswith("2.10."), reason="torch 2.10 exports no max-pool of dynamic size"
)


def reference_model(arch: str, seed: int = 0) -> torch.nn.Module:
    """torchvision's network, in eval mode, with BatchNorm statistics that are not the initial ones."""
    torch.manual_seed(seed)
    model: torch.nn.Module = getattr(torchvision.models, arch)().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)  # with the initial ones the output hardly depends on the image
    return model


def checkpoint_bytes(state_dict: dict[str, Any], legacy: bool = False, counters: bool = True) -> bytes:
    """The file torch.save makes, in either of torch's formats, with or without ``num_batches_tracked``."""
    if not counters:
        state_dict = {key: value for key, value in state_dict.items() if not key.endswith("num_batches_tracked")}
    buffer = io.BytesIO()
    torch.save(state_dict, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def copy_repository(target: Path, replaced: dict[str, bytes] | None = None) -> Path:
    """Copy what torch.hub sees; in weights.json alone, the ImageNet entries are rewritten for ``replaced``."""
    for name in HUB_FILES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
    if replaced:
        manifest = json.loads((target / "weights.json").read_text())
        for entry in manifest["entries"]:
            data = replaced.get(entry["arch"])
            if data is not None and entry["name"] == "imagenet1k_v1":
                entry.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        (target / "weights.json").write_text(json.dumps(manifest))
    return target


@dataclass(frozen=True)
class StandIn:
    """A copy of the repository whose ImageNet weights are torchvision's random ones, and a mirror that serves them."""

    repository: Path
    mirror: str
    files: dict[str, bytes]  # by name in the cache
    requests: list[str]  # paths asked of the mirror so far

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """A fresh user's environment: an empty home, and the mirror."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SHUFFLENETV2_", "XDG_"))}
        kept.pop("PYTHONPATH", None)
        return {
            **kept,
            "HOME": str(home),
            "TORCH_HOME": str(home / "torch"),
            "SHUFFLENETV2_MIRROR": self.mirror,
            **more,
        }


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    data = {
        arch: checkpoint_bytes(
            reference_model(arch).state_dict(),
            legacy=arch in ("shufflenet_v2_x0_5", "shufflenet_v2_x1_0"),  # as the real files are
            counters=arch in ("shufflenet_v2_x1_5", "shufflenet_v2_x2_0"),
        )
        for arch in ARCHS
    }
    repository = copy_repository(tmp_path_factory.mktemp("stand-in") / "repository", data)
    served = tmp_path_factory.mktemp("mirror")
    files = {}
    for entry in json.loads((repository / "weights.json").read_text())["entries"]:
        if entry["name"] == "imagenet1k_v1":
            files[entry["file"]] = data[entry["arch"]]
            (served / entry["file"]).write_bytes(data[entry["arch"]])
    requests: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            requests.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield StandIn(repository, f"http://127.0.0.1:{server.server_port}", files, requests)
    server.shutdown()
    server.server_close()


def run_python(program: str, *arguments: str, cwd: Path, env: dict[str, str], check: bool = True) -> Any:
    """Run ``program`` in a fresh interpreter; with ``check``, its failure shows what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=120
    )
    if check and result.returncode:
        raise AssertionError(f"exit status {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """What a server on loopback needs to speak TLS under a certificate of ``authority``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def ca_bundle(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def own_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ca_bundle: Path) -> Path:
    """An empty torch home (returned), the test authority, and none of the machine's proxies."""
    for name in [*os.environ]:
        foreign = name.lower().endswith("_proxy") or name.startswith("SHUFFLENETV2_")
        if foreign or name in ("CURL_CA_BUNDLE", "SSL_CERT_FILE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca_bundle))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def make_entry() -> Callable[..., Entry]:
    """An entry for ``data``, as the manifest would list it."""

    def make(data: bytes, *urls: str, file: str = "weights.pth", path: str | None = None) -> Entry:
        return Entry(
            name="tiny_v1",
            arch="shufflenet_v2_x0_5",
            default=True,
            num_classes=1000,
            file=file,
            urls=urls,
            path=path,
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            num_params=1,
            macs=1,
            categories="imagenet1k.txt",
            preprocess=Preprocess(256, 224, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            metrics=Metrics("ImageNet-1K validation", 60.0, 80.0, "nobody"),
            license="none",
            source="none",
            recipe="none",
        )

    return make


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(row, what, happens, evidence): a row of docs/faults.md")


# How the reasons begin for which a test may be left out; CONTRIBUTING.md tells them in its own words.
PERMITTED_SKIPS = (
    "no GPU on this machine",
    "needs Chromium",
    "the CIFAR-10 photos are not here",
    "needs root",
    "needs the right to mount",
    "needs unshare",
    "needs port 53",
    "ru_maxrss is POSIX",
    "needs RLIMIT_AS",
    "other allocators than glibc's",
    "torch 2.10 exports no max-pool of dynamic size",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[None]"
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that is skipped for any other reason has failed."""
    report = yield
    if report.skipped and call.excinfo is not None and not str(call.excinfo.value).startswith(PERMITTED_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped for a reason that is not permitted: {call.excinfo.value}"
    return report


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch computes in one thread: on cores that others use too, threads that wait for each other take far longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="rewrite what documents show instead of comparing with it")
