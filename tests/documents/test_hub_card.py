"""The hub cards obey pytorch/hub's checker (scripts/sanity_check.py there), and their code runs as it stands.

pytorch/hub's run_pytorch.sh concatenates the python blocks of a card and runs them in one fresh process; so does this.
"""

from pathlib import Path

import pytest
from support.processes import ROOT, run_python
from support.stand_in import StandIn

from shufflenetv2 import __version__
from tools.outputs import read_blocks

CARDS = [ROOT / "docs/shufflenet_v2.md", ROOT / "docs/shufflenet_v2.ko.md"]
FIRST_LINES = ["---", "layout: hub_detail", "background-class: hub-background", "body-class: hub"]
REQUIRED = {"title", "summary", "image", "author", "tags", "github-link", "category"}
LINKS = {"github-link", "demo-model-link"}
OPTIONAL = {"featured_image_1", "featured_image_2", "github-id", "accelerator", "order", "demo-model-link"}

pytestmark = pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)


def split(card: Path) -> tuple[dict[str, str], list[str]]:
    """Front matter and the lines after it."""
    lines = card.read_text(encoding="utf-8").splitlines()
    assert lines[:4] == FIRST_LINES
    end = lines.index("---", 1)
    fields = [line.partition(": ") for line in lines[4:end]]
    assert len({field for field, _, _ in fields}) == len(fields)
    return {field: value for field, _, value in fields}, lines[end + 1 :]


def code_of(card: Path) -> str:
    blocks = read_blocks(card.read_text(encoding="utf-8"))
    assert {block.language for block in blocks} == {"python"}
    return "\n".join(block.code for block in blocks)


def test_front_matter(card: Path) -> None:
    fields, _ = split(card)
    assert set(fields) >= REQUIRED
    assert set(fields) <= REQUIRED | OPTIONAL
    assert not [field for field, value in fields.items() if ":" in value and field not in LINKS]
    assert all(fields.values())
    assert set(fields["tags"].strip("[]").split(", ")) <= {"vision", "nlp", "generative", "audio", "scriptable"}
    assert fields["category"] in ("researchers", "developers")
    assert fields["accelerator"] in ("cuda", "cuda-optional")
    assert fields["order"].isdigit()
    for image in ("image", "featured_image_1", "featured_image_2"):
        assert (ROOT / "images" / fields[image]).is_file()
    prefix = f"https://github.com/{fields['github-id']}/blob/v{__version__}/"
    assert (ROOT / fields["github-link"].removeprefix(prefix)).is_file()


def test_headings(card: Path) -> None:
    _, body = split(card)
    headings = [line for line in body if line.startswith("###")]
    assert {"### Model Description", "### Example", "### References"} <= set(headings)
    assert not [heading for heading in headings if ":" in heading]


def test_both_languages_run_the_same_code(card: Path) -> None:
    lines = code_of(card).splitlines(), code_of(CARDS[0]).splitlines()
    ours, first = ([code for line in each if (code := line.partition("#")[0].rstrip())] for each in lines)
    assert ours == first


@pytest.mark.slow
def test_code_runs(card: Path, stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.cached_by_hub(tmp_path, f"v{__version__}")
    check = """
assert torch.equal(input_batch.cpu(), images), "torchvision's input differs from ours"
assert torch.equal(output, logits), "the model answers torchvision's input otherwise"
print(float(probabilities.sum()))
"""
    result = run_python(code_of(card) + check, cwd=tmp_path, env=stand_in.environment(tmp_path))
    lines = result.stdout.splitlines()
    assert [len(line.split("  ")[0]) for line in lines[:5]] == [6] * 5  # five probabilities with their labels
    assert float(lines[-1]) == pytest.approx(1, abs=1e-5)
    assert "arning" not in result.stderr
