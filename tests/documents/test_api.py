"""The public names: each has a page with what it takes, gives and raises, and an example that runs."""

import html
import inspect
import re
from pathlib import Path

import pytest
from support.processes import run_module, run_python
from support.stand_in import StandIn

import shufflenetv2
from shufflenetv2 import errors
from tools.outputs import prepare_reader

FUNCTIONS = [name for name in shufflenetv2.__all__ if inspect.isfunction(getattr(shufflenetv2, name))]
CLASSES = [name for name in shufflenetv2.__all__ if isinstance(getattr(shufflenetv2, name), type)]
ERRORS = [name for name in shufflenetv2.__all__ if name.endswith("Error")]


def documentation(name: str) -> str:
    return inspect.getdoc(getattr(shufflenetv2, name)) or ""


@pytest.mark.slow
def test_every_public_name_is_on_the_page(tmp_path: Path) -> None:
    run_module("tools", "api", tmp_path)
    page = html.unescape((tmp_path / "shufflenetv2.html").read_text(encoding="utf-8"))
    text = re.sub(r"<[^>]+>|\s+", "", page)
    for name in shufflenetv2.__all__:
        assert f'id="{name}"' in page, name
        first = documentation(name).partition("\n")[0] if name != "SPECS" else "Spec(stage_channels=(48, 96, 192)"
        assert re.sub(r"\s+|`", "", first) in text.replace("`", ""), name
    assert "https://fonts" not in page
    assert not re.findall(r'(?:src|href)="https?://[^"]+\.(?:js|css)"', page)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_say_what_they_take_give_and_raise(name: str) -> None:
    said = documentation(name)
    positions = [said.index(f"{part}:") for part in ("Args", "Returns", "Raises", "Example")]
    assert positions == sorted(positions)


def test_every_error_is_public() -> None:

    raised = [
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    ]
    assert sorted(raised) == ERRORS
    assert all(documentation(name) for name in ERRORS)


@pytest.mark.slow
def test_the_examples_run(stand_in: StandIn, tmp_path: Path) -> None:
    """As they stand, in a fresh process, where torch.hub has the release and a mirror the weights."""
    reader = prepare_reader(stand_in, tmp_path)
    program = """
import doctest, inspect, sys
import torch
import shufflenetv2
tried = 0
for name in sys.argv[1:]:
    said = inspect.getdoc(getattr(shufflenetv2, name))
    example = doctest.DocTestParser().get_doctest(said, {"torch": torch, "shufflenetv2": shufflenetv2}, name, None, 0)
    assert example.examples, name
    runner = doctest.DocTestRunner()
    with torch.random.fork_rng():
        runner.run(example)
    tried += runner.tries
    assert not runner.failures, name
print(tried)
"""
    names = [*FUNCTIONS, *(name for name in CLASSES if name not in ERRORS), "ShuffleNetError"]
    result = run_python(program, *names, cwd=reader.checkout, env=reader.environment, timeout=400)
    assert int(result.stdout.splitlines()[-1]) > 2 * len(names)
