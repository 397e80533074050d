"""What training begins with: random draws, or weights whose classifier fits the folders."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.colours import COLOURS, load, make_colours, train
from torch import nn

from shufflenetv2.builder import Weights, resolve
from shufflenetv2.description import STANDARD, Category, Description
from shufflenetv2.network.model import ShuffleNetV2, spec_of
from shufflenetv2.training.digests import contents
from shufflenetv2.training.start import beginning, rows_of
from shufflenetv2.weights.checkpoint import write_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

ARCH = "shufflenet_v2_x0_5"
NAMES = tuple(COLOURS)
WANTED = Description(ARCH, 3, NAMES, STANDARD)


def saved(path: Path, categories: tuple[str, ...]) -> Weights:
    torch.manual_seed(3)
    model = ShuffleNetV2(spec_of(ARCH), len(categories))
    write_checkpoint(path, model.state_dict(), Description(ARCH, 3, categories, STANDARD))
    return resolve(None, path)


def begun(source: Weights | None) -> tuple[ShuffleNetV2, list[str]]:
    told: list[str] = []
    return beginning(source, WANTED, 7, False, told.append), told


def drawn() -> nn.Linear:
    torch.manual_seed(7)
    return nn.Linear(1024, 3)


def test_the_same_classes_in_another_order_keep_their_rows(tmp_path: Path) -> None:
    source = saved(tmp_path / "mine.pth", NAMES[::-1])
    before, theirs = contents(source.read(False).state_dict), source.read(False).state_dict
    model, told = begun(source)
    assert torch.equal(model.fc.weight, theirs["fc.weight"].flip(0))
    assert torch.equal(model.fc.bias, theirs["fc.bias"].flip(0))
    assert torch.equal(model.conv1[0].weight, theirs["conv1.0.weight"])
    assert told == []
    assert contents(source.read(False).state_dict) == before  # by which a resumed run knows its weights
    assert model.categories is None  # those of the weights are in another order
    model, _ = begun(saved(tmp_path / "same.pth", NAMES))
    assert model.categories == [*NAMES]


def test_classes_are_known_by_their_wordnet_ids_too(tmp_path: Path) -> None:
    source = saved(tmp_path / "mine.pth", ("crane", "crane", "teal"))
    birds = [Category(label, name) for label, name in zip(source.labels, NAMES[::-1], strict=True)]
    model, told = begun(replace(source, classes=tuple(birds)))
    assert torch.equal(model.fc.weight, source.read(False).state_dict["fc.weight"].flip(0))
    assert told == []


@pytest.mark.parametrize("categories", [("red", "green", "pink"), ("ant", "bee", "cow")])
def test_other_classes_get_a_new_classifier(categories: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    model, told = begun(saved(path, categories))
    assert torch.equal(model.fc.weight, drawn().weight)
    assert told == [f"{path} knows other classes than the folders: the classifier begins anew"]
    more, told = begun(saved(path, (*categories, "more")))  # as for another number, of which nothing is told
    assert torch.equal(more.fc.weight, model.fc.weight)
    assert told == []


def test_a_file_that_does_not_say_its_classes_gets_a_new_classifier(tmp_path: Path) -> None:
    source = saved(tmp_path / "mine.pth", NAMES)
    torch.save(source.read(False).state_dict, tmp_path / "bare.pth")
    model, [told] = begun(resolve(None, tmp_path / "bare.pth", described=False))
    assert torch.equal(model.fc.weight, drawn().weight)
    assert "bare.pth does not say its classes, which may be others than the folders: the classifier begins" in told


def test_random_networks_are_drawn_as_ever() -> None:
    model, _ = begun(None)
    torch.manual_seed(7)
    expected = ShuffleNetV2(spec_of(ARCH), 3).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_where_classes_are() -> None:
    assert rows_of(["b", "n2"], [Category("a", "n2"), Category("b", "n1")]) == [1, 0]
    accent = [Category("e\u0301"), Category("b")]
    assert rows_of(["\xe9", "b"], accent) == [0, 1]
    for classes in ([Category("a"), Category("a")], [Category("a")], [Category(each) for each in "abc"], []):
        assert rows_of(["a", "b"], classes) == []


@pytest.mark.slow
def test_a_run_begins_with_the_rows_and_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_colours(tmp_path / "data", 4)
    source = saved(tmp_path / "mine.pth", NAMES[::-1])
    options = ["--weights", source.title, "--freeze-backbone", "--ema", "0", "--lr", "1e-9"]
    assert train(data, tmp_path / "run", *options, "--epochs", "1") == 0
    found = load(tmp_path / "run/best.pth")["state_dict"]["fc.weight"]  # type: ignore[index]
    expected = source.read(False).state_dict["fc.weight"].flip(0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    saved(tmp_path / "other.pth", ("ant", "bee", "cow"))
    options[1] = str(tmp_path / "other.pth")
    assert train(data, tmp_path / "anew", *options, "--epochs", "1") == 0
    assert "the classifier begins anew" in capsys.readouterr().err
    assert train(data, tmp_path / "anew", *options, "--epochs", "2", "--resume") == 0
    assert "the classifier begins anew" not in capsys.readouterr().err
