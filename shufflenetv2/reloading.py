"""How objects that ``torch.hub.load`` made are rebuilt in another process.

There, this package has a private name (see ``hubconf.py``) that another process cannot import, a spawned DataLoader
worker for one. What can be imported anywhere is ``torch.hub``, so such an object pickles as the call that makes it.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch

PACKAGE_NAME = "shufflenetv2"


def made_by_hub() -> bool:
    """Whether this copy of the package was imported by ``hubconf.py`` under its private name."""
    return __name__.partition(".")[0] != PACKAGE_NAME


def hub_call(entry_point: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """A ``__reduce__`` value: load ``entry_point`` with these arguments from this copy's directory."""
    directory = Path(__file__).resolve().parent.parent
    load = partial(torch.hub.load, source="local", **kwargs)
    return load, (str(directory), entry_point, *args)
