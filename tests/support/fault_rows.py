"""The mark by which a test claims a row of the fault table; ``docs/faults.md`` is made of nothing else."""

from typing import Literal

import pytest

Evidence = Literal["injected", "order observed", "elsewhere", "argued"]


def fault(row: int, what: str, happens: str, evidence: Evidence = "injected") -> pytest.MarkDecorator:
    """Row ``row``: when ``what`` goes wrong, ``happens`` is what follows, and the marked test shows it."""
    return pytest.mark.fault(row=row, what=what, happens=happens, evidence=evidence)
