"""The whole way as a user's machine sees it: the line from the README, an empty home, and nothing of torch.hub patched.

github.com, api.github.com and the weights host are a CONNECT proxy on loopback that holds certificates of a test
authority; torch.hub (urllib) and requests reach it through the variables that lead through any proxy.
"""

import hashlib
import io
import json
import os
import ssl
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import trustme
from support.checkpoints import checkpoint_bytes, reference_model
from support.fault_rows import fault
from support.fault_server import Exchange, FaultServer, head
from support.processes import ROOT, run_python
from support.repository import archive

from shufflenetv2 import __version__

ARCH = "shufflenet_v2_x1_0"
TAG = f"v{__version__}"
ZIP = f"https://github.com/org/repo/zipball/{TAG}"
LOAD = f'model = torch.hub.load("org/repo:{TAG}", "{ARCH}", pretrained=True, trust_repo=True)'
NAMES = [
    "categories", "classifier", "preprocess",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0",
]  # fmt: skip


@dataclass
class Internet:
    """What answers behind the proxy: ``pages`` by URL. ``asked`` lists what was asked for."""

    authority: trustme.CA
    pages: dict[str, bytes]
    asked: list[str] = field(default_factory=list)

    def serve(self, exchange: Exchange) -> None:
        request = exchange.read_request()
        if request is None:
            return
        method, target, _ = request.line.split()
        if method != "CONNECT":
            exchange.send(head(405))
            return
        host = target.partition(":")[0]
        exchange.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(host).configure_cert(context)
        with context.wrap_socket(exchange.connection, server_side=True) as secure:
            inner = Exchange(exchange.server, secure)
            request = inner.read_request()
            if request is None:
                return
            url = f"https://{host}{request.target}"
            self.asked.append(url)
            page = self.pages.get(url)
            status, body = (404, b"not here") if page is None else (200, page)
            inner.send(head(status, [("Content-Length", len(body)), ("Content-Type", "application/octet-stream")]))
            inner.send(body)


@contextmanager
def reachable(internet: Internet) -> Iterator[FaultServer]:
    with FaultServer([internet.serve]) as proxy:
        yield proxy


def with_manifest(original: bytes, rewrite: Callable[[str], str]) -> bytes:
    """The archive with weights.json alone rewritten; every other byte of every file is equal."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(original)) as source, zipfile.ZipFile(buffer, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            manifest = info.filename == source.infolist()[0].filename + "weights.json"
            target.writestr(info, rewrite(data.decode()) if manifest else data)
    with zipfile.ZipFile(io.BytesIO(original)) as before, zipfile.ZipFile(buffer) as after:
        assert before.namelist() == after.namelist()
        differing = [name for name in before.namelist() if before.read(name) != after.read(name)]
    assert [name.partition("/")[2] for name in differing] == ["weights.json"]
    return buffer.getvalue()


def for_stand_in(text: str, weights: bytes, sha256: str | None = None) -> str:
    manifest = json.loads(text)
    entry = next(each for each in manifest["entries"] if each["arch"] == ARCH and each["default"])
    entry.update(size=len(weights), sha256=sha256 or hashlib.sha256(weights).hexdigest())
    return json.dumps(manifest)


@pytest.fixture(scope="module")
def weights() -> bytes:
    """A file like the real one: torch's legacy format, without BatchNorm counters."""
    return checkpoint_bytes(reference_model(ARCH).state_dict(), legacy=True, counters=False)


@pytest.fixture(scope="module")
def weights_urls() -> list[str]:
    entries = json.loads((ROOT / "weights.json").read_text())["entries"]
    return next(each["urls"] for each in entries if each["arch"] == ARCH and each["default"])


@pytest.fixture(scope="module")
def make_internet(authority: trustme.CA, weights: bytes, weights_urls: list[str]) -> Callable[..., Internet]:
    original = archive()

    def make(sha256: str | None = None) -> Internet:
        branch = [{"name": TAG, "commit": {"sha": "0" * 40}}]
        pages = {
            "https://api.github.com/repos/org/repo/branches?per_page=100&page=1": b"[]",
            "https://api.github.com/repos/org/repo/tags?per_page=100&page=1": json.dumps(branch).encode(),
            ZIP: with_manifest(original, lambda text: for_stand_in(text, weights, sha256)),
            **dict.fromkeys(weights_urls, weights),
        }
        return Internet(authority, pages)

    return make


# Of the environment of the tests; without the number of threads, outputs would not be equal to the last bit.
KEPT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "OMP_NUM_THREADS")


@dataclass
class Machine:
    """A user's machine: an empty home, and a way to the internet or none."""

    home: Path
    ca_bundle: Path
    proxy: str

    @property
    def checkpoints(self) -> Path:
        return self.home / ".cache" / "torch" / "hub" / "checkpoints"

    def run(self, program: str, **more: str) -> Any:
        """Run ``program`` in a fresh interpreter, from a directory that has nothing to do with the repository."""
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        environment = {
            "HOME": str(self.home),
            "HTTPS_PROXY": self.proxy,
            "SSL_CERT_FILE": str(self.ca_bundle),
            "REQUESTS_CA_BUNDLE": str(self.ca_bundle),
        }
        elsewhere = self.home / "elsewhere"
        elsewhere.mkdir(parents=True, exist_ok=True)
        return run_python(program, env={**kept, **environment, **more}, cwd=elsewhere, check=False)


@pytest.fixture
def machine(tmp_path: Path, ca_bundle: Path) -> Callable[[FaultServer], Machine]:
    return lambda proxy: Machine(tmp_path / "home", ca_bundle, f"http://localhost:{proxy.port}")


LOAD_AND_COMPUTE = f"""
import torch
{LOAD}
assert not model.training
images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
with torch.inference_mode():
    torch.save(model(images), "logits.pt")
"""
FIRST_VISIT = (
    LOAD_AND_COMPUTE
    + f"""
import sys
assert not {{"torchvision", "PIL"}} & set(sys.modules), "imported by loading"
print(torch.hub.list("org/repo:{TAG}", trust_repo=True, verbose=False))
print(torch.hub.help("org/repo:{TAG}", "{ARCH}", trust_repo=True).splitlines()[0])
"""
)


def logits(machine: Machine) -> torch.Tensor:
    return torch.load(machine.home / "elsewhere" / "logits.pt")


@pytest.mark.slow
def test_the_line_from_the_readme(
    make_internet: Callable[..., Internet],
    machine: Callable[[FaultServer], Machine],
    weights: bytes,
    weights_urls: list[str],
) -> None:
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = reference_model(ARCH)(images)
    internet = make_internet()
    with reachable(internet) as proxy:
        user = machine(proxy)
        ran = user.run(FIRST_VISIT)
        assert ran.returncode == 0, ran.stderr
        downloading, names, help_text = ran.stdout.splitlines()
        assert downloading.startswith(f'Downloading: "{ZIP}"')  # torch.hub's own
        assert eval(names) == NAMES  # a list of strings
        assert help_text.startswith("ShuffleNet V2 1.0x")
        assert "Warning" not in ran.stderr
        assert torch.equal(logits(user), expected)
        assert internet.asked[0] == "https://api.github.com/repos/org/repo/branches?per_page=100&page=1"
        assert internet.asked[-2:] == [ZIP, weights_urls[0]]
        (cached,) = user.checkpoints.iterdir()
        assert cached.read_bytes() == weights
        asked = len(internet.asked)

    # The proxy is gone: no network at all.
    (user.home / "elsewhere" / "logits.pt").unlink()
    ran = user.run(LOAD_AND_COMPUTE)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    assert torch.equal(logits(user), expected)
    assert len(internet.asked) == asked

    # Someone changes one bit of the cached file.
    tampered = weights[:-1000] + bytes([weights[-1000] ^ 1]) + weights[-999:]
    cached.write_bytes(tampered)
    (user.home / "elsewhere" / "logits.pt").unlink()
    ran = user.run(LOAD_AND_COMPUTE)
    assert ran.returncode == 1
    assert f"IntegrityError: {cached} is not the file of {ARCH}/imagenet1k_v1: expected sha256 " in ran.stderr
    assert cached.read_bytes() == tampered
    assert not (user.home / "elsewhere" / "logits.pt").exists()
    with reachable(internet) as proxy:
        user.proxy = f"http://localhost:{proxy.port}"
        ran = user.run(LOAD_AND_COMPUTE)
        assert ran.returncode == 0, ran.stderr
        assert internet.asked[asked:] == [weights_urls[0]]
    assert "fetching it anew" in ran.stderr
    assert torch.equal(logits(user), expected)
    assert [each.read_bytes() == weights for each in user.checkpoints.iterdir()] == [True]


WRONG_HASH = f"""
import torch
try:
    {LOAD}
except RuntimeError as error:
    print(type(error).__name__)
    print(error)
"""


@pytest.mark.slow
@fault(17, "hash mismatch on every mirror, the whole way", "IntegrityError; nothing is loaded, nothing stays behind")
def test_a_wrong_hash(
    make_internet: Callable[..., Internet],
    machine: Callable[[FaultServer], Machine],
    weights: bytes,
    weights_urls: list[str],
) -> None:
    internet = make_internet(sha256="0" * 64)
    with reachable(internet) as proxy:
        user = machine(proxy)
        ran = user.run(WRONG_HASH)
    assert ran.returncode == 0, ran.stderr
    _, kind, *message = ran.stdout.splitlines()
    assert kind == "IntegrityError"
    for url in weights_urls:
        assert internet.asked.count(url) == 1
        assert f"  {url}: expected sha256 {'0' * 64}, got {hashlib.sha256(weights).hexdigest()}" in message
    assert not user.checkpoints.exists()
