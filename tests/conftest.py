"""What the tests share."""

import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from shufflenetv2.manifest import Entry, Metrics, Preprocess


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
