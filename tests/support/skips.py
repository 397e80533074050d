"""The reasons for which a test may be left out; CONTRIBUTING.md tells them in its own words."""

import importlib.util
import os

import pytest
import torch

# How they begin.
PERMITTED_SKIPS = (
    "no GPU on this machine",
    "needs Chromium",
    "the CIFAR-10 photos are not here",
    "needs root",
    "needs the right to mount",
    "needs unshare",
    "needs port 53",
    "needs POSIX",
    "needs Linux",
    "needs the shell",
    "needs RLIMIT_AS",
    "other allocators than glibc's",
    "torch 2.10 exports no max-pool of dynamic size",
)
NOT_INSTALLED = "not installed: "  # permitted outside CI, which installs whatever its tests need
if "CI" not in os.environ:
    PERMITTED_SKIPS += (NOT_INSTALLED,)


def needs(*packages: str) -> pytest.MarkDecorator:
    """For tests that do not import ``packages`` themselves: where an import fails, ``conftest.py`` skips the file."""
    lacking = ", ".join(each for each in packages if importlib.util.find_spec(each) is None)
    return pytest.mark.skipif(bool(lacking), reason=NOT_INSTALLED + lacking)


needs_posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
needs_linux = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux")
needs_root = pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs root")

# torch 2.10's own max-pool asks, while it is exported, whether the size is odd, and so ties it down.
needs_dynamic_sizes = pytest.mark.skipif(
    torch.__version__.startswith("2.10."), reason="torch 2.10 exports no max-pool of dynamic size"
)
