"""The reasons for which a test may be left out; CONTRIBUTING.md tells them in its own words."""

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
    "needs RLIMIT_AS",
    "other allocators than glibc's",
    "torch 2.10 exports no max-pool of dynamic size",
)

needs_posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
needs_linux = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux")
needs_root = pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs root")

# torch 2.10's own max-pool asks, while it is exported, whether the size is odd, and so ties it down.
needs_dynamic_sizes = pytest.mark.skipif(
    torch.__version__.startswith("2.10."), reason="torch 2.10 exports no max-pool of dynamic size"
)
