"""Fixtures that several test files share, and the rules for choosing and skipping tests. Helpers are in support/."""

import hashlib
import os
import shutil
import signal
import ssl
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from support.processes import ROOT
from support.skips import NOT_INSTALLED, PERMITTED_SKIPS, needs

from shufflenetv2.description import STANDARD, Metrics
from shufflenetv2.weights.manifest import Entry

if TYPE_CHECKING:
    import trustme
    from support.stand_in import StandIn

# Which tests the workflow's other jobs run, by how their path in tests/ begins: `-m portable` on macOS and Windows,
# `-m core` under the oldest supported versions.
JOBS = {
    "portable": ("weights/", "photos/", "commands/test_cli.py", "test_files.py", "test_hub.py"),
    "core": (
        "network/test_model.py",
        "network/test_deploy.py",
        "weights/",
        "photos/test_transform.py",
        "test_entrypoints.py",
        "test_hub.py",
    ),
}

OWN = ("shufflenetv2", "support", "tools", "conftest")
# Packages of the extras that tests need beyond those that their files import.
NEEDED = {
    "commands/test_benchmark.py": ("torchvision",),
    "commands/test_evaluate.py": ("torchvision",),
    "commands/test_export.py": ("onnx", "onnxruntime", "onnxscript"),
    "documents/test_bundle.py": ("matplotlib", "playwright"),
    "test_details.py": ("torchvision", "tqdm", "matplotlib"),
    "training/": ("torchvision", "tqdm", "matplotlib"),
}


def pytest_configure(config: pytest.Config) -> None:
    """Share the cores out: workers that each start a thread on every one mostly wait for each other's threads.

    And hear Ctrl-C: what a shell starts in the background ignores it, and so would all that the tests start.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    workers = os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if workers:
        threads = max(1, (os.cpu_count() or 1) // int(workers))
        torch.set_num_threads(threads)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # for the processes that tests start


def in_tests(path: Path) -> str:
    return path.relative_to(ROOT / "tests").as_posix()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What a job does not run is not even imported: the packages that it needs may be missing there."""
    job = config.option.markexpr
    leave_out = job in JOBS and collection_path.name.startswith("test_")
    leave_out = leave_out and not in_tests(collection_path).startswith(JOBS[job])
    return leave_out or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(ROOT / "tests"):
            for job, beginnings in JOBS.items():
                if in_tests(item.path).startswith(beginnings):
                    item.add_marker(job)
            for beginning, packages in NEEDED.items():
                if in_tests(item.path).startswith(beginning):
                    item.add_marker(needs(*packages))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A file that imports a package of an extra is skipped where that is not installed; in CI it is an error."""
    report = yield
    error = report.call.excinfo and report.call.excinfo.value.__cause__
    foreign = isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] not in OWN
    if foreign and NOT_INSTALLED in PERMITTED_SKIPS:
        report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: {NOT_INSTALLED}{error.name}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[None]"
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that is skipped for any other reason than a permitted one has failed."""
    report = yield
    if report.skipped and call.excinfo is not None and not str(call.excinfo.value).startswith(PERMITTED_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped for a reason that is not permitted: {call.excinfo.value}"
    return report


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Outputs are equal to the last bit under equal numbers of threads; for small tensors, one is also fastest."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator["StandIn"]:
    pytest.importorskip("torchvision", reason=NOT_INSTALLED + "torchvision")
    from support.stand_in import serve_stand_in

    with serve_stand_in(tmp_path_factory.mktemp("stand-in")) as copy:
        yield copy


@pytest.fixture(scope="session")
def authority() -> "trustme.CA":
    return pytest.importorskip("trustme", reason=NOT_INSTALLED + "trustme").CA()


@pytest.fixture(scope="session")
def tls(authority: "trustme.CA") -> ssl.SSLContext:
    """What a server on loopback needs to speak TLS under a certificate of ``authority``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def ca_bundle(authority: "trustme.CA", tmp_path_factory: pytest.TempPathFactory) -> Path:
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
            preprocess=STANDARD,
            metrics=Metrics("ImageNet-1K validation", 60.0, 80.0, "nobody"),
            license="none",
            source="none",
            recipe="none",
        )

    return make


@pytest.fixture(scope="session")
def one_epoch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data``, and in ``run`` one epoch on it."""
    from support.colours import make_colours, train

    root = tmp_path_factory.mktemp("one-epoch")
    assert train(make_colours(root / "data", 4), root / "run", "--epochs", "1") == 0
    return root


@pytest.fixture
def room(one_epoch: Path, tmp_path: Path) -> Path:
    """A copy of both to change."""
    return Path(shutil.copytree(one_epoch, tmp_path / "room"))
