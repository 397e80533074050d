"""Exporters and runtimes without their own chatter, while the rest of the process is left as it is."""

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

_ONE_AT_A_TIME = threading.RLock()


class _Divided:
    """A stream that is ``own`` for this thread and those started since; ``others`` for those there were."""

    def __init__(self, own: Any, others: Any) -> None:
        self._own, self._others = own, others
        self._known = {each.ident for each in threading.enumerate()} - {threading.get_ident()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._others if threading.get_ident() in self._known else self._own, name)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' own chatter: deprecations, and versions of packages they could also have used.

    What they print goes to stderr, since results alone go to stdout; what other threads print meanwhile stays there.
    One at a time: of two that overlap, the second would take for the usual state what the first has changed.
    """
    names = ("torch.onnx", "torch.utils._pytree", "nncf", "root")
    with _ONE_AT_A_TIME:
        levels = {logger: logger.level for logger in map(logging.getLogger, names)}
        for logger in levels:
            logger.setLevel(logging.ERROR)
        divided: Any = sys.stderr and sys.stdout and _Divided(sys.stderr, sys.stdout)  # under pythonw there is neither
        try:
            with warnings.catch_warnings(), redirect_stdout(divided):
                warnings.simplefilter("ignore")
                yield
        finally:
            for logger, level in levels.items():
                logger.setLevel(level)
