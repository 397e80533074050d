"""The release that documents name: that of ``shufflenetv2/__init__.py``, the one place where it is changed."""

import re

from shufflenetv2 import __version__

_NAMED = re.compile(
    r"(org/repo:v|org_repo_v|gh/org/repo/v|org/repo/blob/v|org/repo/archive/v|^version: )\d+\.\d+\.\d+\w*", re.M
)


def rewritten(text: str) -> str:
    """``text`` with every tag and version of this repository brought up to date."""
    return _NAMED.sub(rf"\g<1>{__version__}", text)
