"""Whatever is generated says what it was generated from; ``python -m tools check`` is the same for all of it."""

import inspect
from pathlib import Path

import pytest

from shufflenetv2 import __version__
from tools import documents, outputs, release, tables
from tools.__main__ import find, main, make_parser
from tools.documents import GENERATED, Picture, Text, chosen

SLOW = ("(outputs)", "(notebook)", "(faults)")  # they run what documents show, and collect all tests


def marked(part: Text | Picture) -> object:
    return pytest.param(part, marks=pytest.mark.slow if str(part).endswith(SLOW) else (), id=str(part))


@pytest.mark.parametrize("part", [marked(each) for each in GENERATED])
def test_nothing_is_stale(part: Text | Picture) -> None:
    assert not part.stale(), f"{part} is stale; type: python -m tools update {part.path}"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Documents of a test's own."""
    monkeypatch.setattr(documents, "CHECKOUT", tmp_path)
    return tmp_path


def test_another_release_is_noticed_and_mended(elsewhere: Path) -> None:
    text = '("org/repo:v{0}")\n`org_repo_v{0}`, org/repo/archive/v{0}.zip\nversion: {0}\ncff-version: 1.2.0\n'
    part = Text("CARD.md", release.rewritten)
    (elsewhere / part.path).write_text(text.format("0.9.0rc1"))
    assert part.stale()
    part.update()
    assert (elsewhere / part.path).read_text() == text.format(__version__)
    assert not part.stale()


def test_a_table_with_another_number_is_noticed(elsewhere: Path) -> None:
    part = Text("CARD.md", tables.rewritten)
    made = tables.rewritten("before\n<!-- begin errors -->\n<!-- end errors -->\nafter\n")
    assert "| shufflenet_v2_x1_0 | 30.64 | 11.68 |" in made  # as on pytorch.org's card
    (elsewhere / part.path).write_text(made)
    assert not part.stale()
    (elsewhere / part.path).write_text(made.replace("30.64", "30.46"))
    assert part.stale()


def test_a_figure_drawn_from_other_data_is_noticed(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [figure] = chosen(["images/shufflenet_v2_2.png"])
    assert isinstance(figure, Picture)
    (elsewhere / "images").mkdir()
    assert figure.stale()
    figure.update()
    first = (elsewhere / figure.path).read_bytes()
    assert not figure.stale()
    figure.draw(elsewhere / figure.path)
    assert (elsewhere / figure.path).read_bytes() == first  # under one version of matplotlib
    monkeypatch.setattr("tools.figures.load_manifest", lambda: tables.load_manifest()[1:])
    assert figure.stale()


def test_outputs_may_differ_as_cpus_do() -> None:
    assert outputs.same("cat.jpg\n  85.89%  cat\n", "cat.jpg\n  85.51%  cat\n")
    assert not outputs.same("85.89% cat\n", "85.02% cat\n")
    assert not outputs.same("85.89% cat\n", "85.89% dog\n")


def test_only_what_is_generated_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "LICENSE"]) == 1
    assert "nothing in LICENSE is generated" in capsys.readouterr().err


def test_check_names_what_is_stale_and_what_mends_it(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "CITATION.cff").write_text("version: 0.9.0\n")
    assert main(["check", "CITATION.cff"]) == 1
    assert capsys.readouterr().out == ("CITATION.cff (release) is stale; type: python -m tools update CITATION.cff\n")
    assert main(["update", "CITATION.cff"]) == 0
    assert main(["check", "CITATION.cff"]) == 0
    assert (elsewhere / "CITATION.cff").read_text() == f"version: {__version__}\n"


@pytest.mark.parametrize(
    "typed",
    [
        "update",
        "check",
        "measure --gpu",
        "folder",
        "cost",
        "faults",
        "api",
        "bundle best.pth --name flowers_v1 --url https://example.org/best.pth",
        "record flowers_v1 measured.json --dataset flowers --by me",
        "calibrate flowers_v1 train test --held-out 0.1 --by me",
        "foreign flowers_v1 --by me",
        "teacher photos folder",
        "draw test",
        pytest.param("mutate weights", marks=pytest.mark.slow),
        "photos",
    ],
)
def test_a_command_calls_its_function_with_what_is_typed(typed: str) -> None:
    given = vars(make_parser().parse_args(typed.split()))
    function = find(given.pop("function"))
    assert function.__name__ == typed.partition(" ")[0]
    inspect.signature(function).bind(**given)
