"""A copy of the repository whose ImageNet weights are torchvision's random ones, and a mirror that serves them."""

import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .checkpoints import ARCHS, checkpoint_bytes, reference_model
from .processes import ROOT
from .repository import copy_repository


@dataclass(frozen=True)
class StandIn:
    """The copy, and what a test needs to know of it and its mirror."""

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

    def cached_by_hub(self, home: Path, *refs: str) -> None:
        """Make ``home`` one of a user who loaded these tags before: torch.hub asks no network for a cached tag."""
        for ref in refs:
            cached = home / "torch" / "hub" / f"org_repo_{ref}"
            shutil.copytree(self.repository, cached)
            shutil.copytree(ROOT / "images", cached / "images", dirs_exist_ok=True)


@contextmanager
def serve_stand_in(directory: Path) -> Iterator[StandIn]:
    """Make the copy in ``directory``, and serve its weights on loopback."""
    data = {
        arch: checkpoint_bytes(
            reference_model(arch).state_dict(),
            legacy=arch in ("shufflenet_v2_x0_5", "shufflenet_v2_x1_0"),  # as the real files are
            counters=arch in ("shufflenet_v2_x1_5", "shufflenet_v2_x2_0"),
        )
        for arch in ARCHS
    }
    repository = copy_repository(directory / "repository", data)
    served = directory / "mirror"
    served.mkdir()
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
    try:
        yield StandIn(repository, f"http://127.0.0.1:{server.server_port}", files, requests)
    finally:
        server.shutdown()
        server.server_close()
