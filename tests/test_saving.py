"""A network of one's own training loop becomes a file that everything takes; what no reader could know is refused."""

import copy
import enum
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from support.colours import make_colours
from support.processes import ROOT, run, run_module
from support.repository import copy_repository
from torch import nn
from torch.nn.utils import prune

import shufflenetv2
from shufflenetv2 import classifier, deploy, preprocess, save, shufflenet_v2_x0_5, shufflenet_v2_x1_0
from shufflenetv2.__main__ import main
from shufflenetv2.description import Description, Preprocess
from shufflenetv2.errors import CheckpointError
from shufflenetv2.network.model import SPECS, ShuffleNetV2, spec_of
from shufflenetv2.weights.checkpoint import Checkpoint, load, write_checkpoint

CAT = ROOT / "images/cat.jpg"
TEN = shufflenetv2.categories(weights="cifar10")
SAID = {"resize": 40, "crop": 32, "interpolation": "bilinear", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def cifar() -> ShuffleNetV2:
    return shufflenet_v2_x0_5(weights="cifar10")


@pytest.fixture
def ants() -> ShuffleNetV2:
    torch.manual_seed(0)
    return shufflenet_v2_x0_5(weights="cifar10", num_classes=2)


# What hangs on a network.


@pytest.mark.parametrize("form", [False, True], ids=["plain", "deploy"])
@pytest.mark.slow
def test_labels_preprocessing_and_weights_hang_on_a_loaded_network(form: bool) -> None:
    model: Any = shufflenet_v2_x0_5(weights="cifar10", deploy=form)
    assert model.categories == TEN
    assert model.weights.title == "shufflenet_v2_x0_5/cifar10_v2"
    assert (model.weights.num_classes, model.weights.metrics.acc1) == (10, 88.78)
    assert torch.equal(model.preprocess()(CAT), preprocess(weights="cifar10")(CAT))
    for twin in (copy.deepcopy(model), copy.copy(model), pickle.loads(pickle.dumps(model)), model.double()):
        assert (twin.categories, twin.weights) == (TEN, model.weights)
    assert torch.compile(model).categories == TEN


def test_without_weights_nobody_knows() -> None:
    model: Any = shufflenet_v2_x0_5()
    assert model.weights is None
    assert model.categories is None
    with pytest.raises(ValueError, match=r"built without weights.*the entry point preprocess gives"):
        model.preprocess()
    assert ShuffleNetV2(SPECS["shufflenet_v2_x0_5"]).weights is None


def test_another_classifier_has_no_labels_of_the_weights(cifar: Any, ants: Any) -> None:
    assert ants.categories is None
    assert ants.weights.title.endswith("cifar10_v2")
    assert ants.preprocess().preprocess == cifar.preprocess().preprocess
    assert deploy(cifar.eval()).categories == TEN
    cifar.fc = nn.Linear(1024, 10)  # as many, and others
    assert cifar.categories is None
    assert deploy(cifar.eval()).categories is None
    assert deploy(cifar).weights.title.endswith("cifar10_v2")
    assert shufflenet_v2_x0_5(weights="cifar10", num_classes=0).categories is None


def test_grey_networks_prepare_grey_photos() -> None:
    assert shufflenet_v2_x0_5(weights="cifar10", in_channels=1).preprocess()(CAT).shape == (1, 1, 32, 32)
    with pytest.raises(ValueError, match="needs your own transform"):
        shufflenet_v2_x0_5(weights="cifar10", in_channels=4).preprocess()


@pytest.mark.slow
def test_nothing_of_it_is_in_programs_or_state_dicts(cifar: Any, tmp_path: Path) -> None:
    bare = ShuffleNetV2(spec_of("shufflenet_v2_x0_5", small_stem=True), 10)
    bare.load_state_dict(cifar.state_dict())
    assert [*bare.state_dict()] == [*cifar.state_dict()]
    assert [name for name, _ in bare.named_modules()] == [name for name, _ in cifar.named_modules()]
    sizes = []
    for model in (cifar.eval(), bare.eval()):
        scripted = torch.jit.script(model)
        scripted.save(str(tmp_path / "scripted.pt"))
        again = torch.jit.load(str(tmp_path / "scripted.pt"))
        assert torch.equal(again(torch.ones(1, 3, 64, 64)), model(torch.ones(1, 3, 64, 64)))
        assert not {"weights", "categories", "_origin"} & {*dir(again)}
        sizes.append(len(torch.export.export(model, (torch.ones(1, 3, 64, 64),)).graph.nodes))
    assert sizes[0] == sizes[1]


# Saving.


def train_a_little(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    model.train()(torch.randn(4, 3, 64, 64)).square().mean().backward()
    optimizer.step()


def test_a_loop_of_ones_own_ends_in_a_file_the_classifier_takes(ants: Any, tmp_path: Path) -> None:
    train_a_little(ants)
    before = {key: tensor.clone() for key, tensor in ants.state_dict().items()}
    path = ants.save(tmp_path / "mine.pth", categories=["ant", "bee"])
    assert path == tmp_path / "mine.pth"
    assert ants.training  # left as it is
    assert all(torch.equal(before[key], tensor) for key, tensor in ants.state_dict().items())
    classify = classifier(weights=path)
    assert classify.categories == ["ant", "bee"]
    assert classify.transform.preprocess == ants.preprocess().preprocess
    expected = ants.eval()(ants.preprocess()(CAT)).softmax(1)[0]
    [first, second] = classify(CAT)
    assert {first.label, second.label} == {"ant", "bee"}
    assert first.probability == pytest.approx(expected[first.index].item(), abs=1e-5)
    again: Any = shufflenet_v2_x0_5(weights=path)
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in before.items())
    assert again.categories == ["ant", "bee"]
    assert sorted(os.listdir(tmp_path)) == ["mine.pth"]


@pytest.mark.slow
def test_every_command_takes_the_file(ants: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_colours(tmp_path / "photos")
    ants.fc = nn.Linear(1024, 3)
    file = str(ants.save(tmp_path / "mine.pth", categories=["blue", "green", "red"]))
    assert main(["classify", str(CAT), "--weights", file, "--json"]) == 0
    labels = {each["label"] for each in json.loads(capsys.readouterr().out)["predictions"]}
    assert labels == {"blue", "green", "red"}
    assert main(["evaluate", str(tmp_path / "photos"), "--weights", file]) == 0
    run_folder = str(tmp_path / "run")
    train = ["train", str(tmp_path / "photos"), "--weights", file, "--output", run_folder, "--epochs", "1"]
    assert main([*train, "--workers", "0", "--batch-size", "4"]) == 0
    assert main(["export", "--format", "onnx", "--weights", file, "-o", str(tmp_path / "mine.onnx")]) == 0


WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "compile": torch.compile,
    "AveragedModel": torch.optim.swa_utils.AveragedModel,
    "both": lambda model: torch.compile(nn.DataParallel(model)),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_the_network_is_found_in_its_wrapper(wrap: Callable[[nn.Module], Any], cifar: Any, tmp_path: Path) -> None:
    save(wrap(cifar), tmp_path / "mine.pth")
    assert torch.equal(shufflenet_v2_x0_5(weights=tmp_path / "mine.pth").fc.weight, cifar.fc.weight)


HEADS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(1024, 3),
    "dropout": lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(1024, 3)),
    "without bias": lambda: nn.Linear(1024, 3, bias=False),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_usual_classifiers_are_saved(head: Callable[[], nn.Module], cifar: Any, tmp_path: Path) -> None:
    cifar.fc = head()
    cifar.save(tmp_path / "mine.pth", categories=["a", "b", "c"])
    images = torch.randn(2, 3, 64, 64)
    assert torch.allclose(shufflenet_v2_x0_5(weights=tmp_path / "mine.pth")(images), cifar.eval()(images), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_saved(dtype: torch.dtype, cifar: Any, tmp_path: Path) -> None:
    cifar.to(dtype).save(tmp_path / "mine.pth")
    assert torch.equal(shufflenet_v2_x0_5(weights=tmp_path / "mine.pth").fc.weight, cifar.fc.weight.float())


@pytest.mark.slow
def test_torchvisions_network_is_saved(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models", reason="not installed: torchvision")
    model = models.shufflenet_v2_x1_0(num_classes=2)
    with pytest.raises(ValueError, match="how were the photos prepared"):
        save(model, tmp_path / "mine.pth", categories=["ant", "bee"])
    transforms = models.ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1.transforms()
    with pytest.raises(TypeError, match=r"ImageClassification; .*: weights=ShuffleNet_V2_X1_0_Weights\.IMAGENET1K_V1$"):
        save(model, tmp_path / "mine.pth", categories=["ant", "bee"], preprocess=transforms)
    for weights in ("imagenet1k_v1", models.ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1, "default"):
        save(model, tmp_path / "mine.pth", categories=["ant", "bee"], weights=weights)
        assert classifier(weights=tmp_path / "mine.pth").transform.preprocess.crop == 224
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(shufflenet_v2_x1_0(weights=tmp_path / "mine.pth")(images), model.eval()(images))


def test_the_small_stem_is_told(tmp_path: Path) -> None:
    model: Any = shufflenet_v2_x0_5(num_classes=10, small_stem=True).eval()
    model.save(tmp_path / "mine.pth", categories=TEN, preprocess=SAID)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(shufflenet_v2_x0_5(weights=tmp_path / "mine.pth")(images), model(images))


def edited(edit: Callable[[Any], None]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = shufflenet_v2_x0_5(weights="cifar10")
        edit(model)
        return model

    return make


def set_nan(model: Any) -> None:
    model.fc.weight.data[0, 0] = float("nan")


class Insect(enum.StrEnum):
    ANT = "ant"
    BEE = "bee"


@pytest.mark.parametrize("labels", [numpy.array(["ant", "bee"]), [Insect.ANT, Insect.BEE], ("ant", "bee")])
def test_labels_of_every_kind_are_read_again(labels: Any, ants: Any, tmp_path: Path) -> None:
    path = ants.save(tmp_path / "mine.pth", categories=labels)
    assert shufflenetv2.categories(weights=path) == ["ant", "bee"]
    torch.save(ants.state_dict(), tmp_path / "bare.pth")
    known = classifier(weights=tmp_path / "bare.pth", categories=labels).categories
    assert known == ["ant", "bee"]
    assert {type(each) for each in known} == {str}


def bounded(model: Any) -> None:
    """ReLU6 where the activations of small random images never pass 6."""
    for unit in model.stage4:
        unit.branch2[7] = nn.ReLU6()


class Shrinking(ShuffleNetV2):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.interpolate(images, size=(112, 112)) if images.shape[3] > 112 else images)


def keep_activations(model: Any) -> None:
    model.conv1.register_forward_hook(lambda module, given, output: setattr(model, "seen", output))
    model.train()
    model(torch.randn(2, 3, 64, 64))


class Remembering(ShuffleNetV2):
    """What a quantised layer does: something else than tensors is in the state dict."""

    def get_extra_state(self) -> Any:
        return torch.qint8


class Int8Tensor(torch.Tensor):
    """As torchao's, which quantise a network by tensors of another kind."""


class DTensor(torch.Tensor):
    """As FSDP's, which hold a part each."""

    def full_tensor(self) -> None: ...


def made_of(kind: type[torch.Tensor]) -> Callable[[Any], None]:
    return lambda model: setattr(model.fc, "weight", nn.Parameter(model.fc.weight.detach().as_subclass(kind)))


def of_class(kind: type) -> Callable[[Any], None]:
    return lambda model: setattr(model, "__class__", kind)


def cut_down(model: Any) -> None:
    model.fc.weight.data, model.fc.bias.data = model.fc.weight.data[:5], model.fc.bias.data[:5]


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "deploy form": (lambda: shufflenet_v2_x0_5(weights="cifar10", deploy=True), "save the network it was made from"),
    "linear": (lambda: nn.Linear(1, 1), "save takes a ShuffleNetV2, got a Linear"),
    "no module": (lambda: {"fc": 1}, "save takes a ShuffleNetV2, got a dict"),
    "activation": (edited(lambda model: model.conv5.__setitem__(2, nn.SiLU())), "compute something else"),
    "stride": (edited(lambda model: setattr(model.conv1[0], "stride", (2, 2))), "compute something else"),
    "pool": (edited(lambda model: setattr(model, "maxpool", nn.MaxPool2d(3, 2, 1))), "compute something else"),
    "more layers": (
        edited(lambda model: setattr(model, "fc", nn.Sequential(nn.Linear(1024, 9), nn.Linear(9, 10)))),
        "cannot be read again",
    ),
    "norm": (
        edited(lambda model: setattr(model, "fc", nn.Sequential(nn.BatchNorm1d(1024), nn.Linear(1024, 10)))),
        r"holds 1 linear layers \(its tensors: fc\.0\.weight, .* and no other tensors",
    ),
    "scale": (
        edited(lambda model: setattr(model, "fc", nn.Sequential(nn.Linear(1024, 10), nn.Tanh()))),
        "compute something else",
    ),
    "bound": (edited(bounded), "compute something else"),
    "size": (edited(of_class(Shrinking)), "compute something else"),
    "kept activations": (edited(keep_activations), "cannot be compared with its file"),
    "tuple": (
        edited(lambda model: model.register_forward_hook(lambda module, images, logits: {"logits": logits})),
        "the network answers with a dict",
    ),
    "extra state": (edited(of_class(Remembering)), "is no plain tensor: save it before it is quantised"),
    "torchao": (edited(made_of(Int8Tensor)), "keeps 'fc.weight' as a Int8Tensor: save it before it is quantised"),
    "FSDP": (edited(made_of(DTensor)), "'fc.weight' is spread over several processes .* get the full state dict"),
    "script": (lambda: torch.jit.script(nn.Linear(1, 1)), "the network that was scripted or traced, not its script"),
    "one class": (edited(lambda model: setattr(model, "fc", nn.Linear(1024, 1))), "the network has one class, whose"),
    "meta": (edited(lambda model: model.to("meta")), "has no values yet"),
    "lazy": (edited(lambda model: setattr(model, "fc", nn.LazyLinear(10))), "has no values yet"),
    "convolution": (edited(lambda model: setattr(model, "fc", nn.Conv2d(1024, 10, 1))), "holds 0 linear layers"),
    "attention": (edited(lambda model: model.conv5.append(nn.Conv2d(1024, 1024, 1))), "cannot be read again"),
    "nan": (edited(set_nan), "NaN or infinity"),
    "pruned": (
        edited(lambda model: prune.l1_unstructured(model.conv5[0], "weight", 0.5)),
        "cannot be read again from a file; make it permanent: torch.nn.utils.prune.remove",
    ),
    "weight_norm": (
        edited(lambda model: nn.utils.weight_norm(model.fc)),
        r"computed from others \(fc\.weight_g\).*torch\.nn\.utils\.remove_weight_norm",
    ),
    "width": (
        lambda: ShuffleNetV2(shufflenetv2.Spec((8, 16, 32), 64), 10),
        "has the widths of none of the architectures",
    ),
    "features": (lambda: shufflenet_v2_x0_5(weights="cifar10", num_classes=0), "no classifier, so it has no labels"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_again_is_refused(make: Callable[[], Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError, CheckpointError), match=message):
        save(make(), tmp_path / "mine.pth", categories=TEN, preprocess=SAID)
    assert os.listdir(tmp_path) == []


def test_tensors_of_another_kind_are_not_loaded(cifar: Any) -> None:
    tensors = {**cifar.state_dict(), "fc.weight": cifar.fc.weight.detach().as_subclass(Int8Tensor)}
    with pytest.raises(CheckpointError, match=r"'fc\.weight' must be a dense tensor with data, got a Int8Tensor of"):
        load(cifar, Checkpoint(tensors, None, "file"))


def test_one_logit_is_two_classes_by_the_advice_to_the_letter(tmp_path: Path) -> None:
    model: Any = shufflenet_v2_x0_5(weights="cifar10", num_classes=1)
    torch.save(model.state_dict(), bare := tmp_path / "bare.pth")
    said = Description("shufflenet_v2_x0_5", 3, ("cat",), Preprocess(**SAID), small_stem=True)
    write_checkpoint(old := tmp_path / "old.pth", model.state_dict(), said)
    for given in ({"weights": bare}, {"weights": bare, "categories": ["cat"]}, {"weights": old}):
        with pytest.raises(CheckpointError, match=r"(bare|old)\.pth has one class, whose probability would be 1"):
            classifier(**given)
    assert shufflenet_v2_x0_5(weights=old).num_classes == 1
    with pytest.raises(ValueError, match="the network has one class") as caught:
        model.save(tmp_path / "mine.pth", categories=["cat"])
    with torch.inference_mode():
        expected = model(model.preprocess()(CAT)).sigmoid().item()
    exec(str(caught.value).split("`")[1], {"model": model, "torch": torch})  # as a user would paste it
    model.save(tmp_path / "mine.pth", categories=["no", "yes"])
    found = {each.label: each.probability for each in classifier(weights=tmp_path / "mine.pth")(CAT)}
    assert found == pytest.approx({"yes": expected, "no": 1 - expected}, abs=1e-5)
    assert abs(expected - 0.5) > 0.001


def test_what_is_not_known_is_asked_for_by_name(ants: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    with pytest.raises(ValueError, match=r"what do the 2 classes mean\? Give categories=\[\.\.\.\], 2 labels"):
        ants.save(file)
    with pytest.raises(ValueError, match="categories has 1 label, and the network 2 classes"):
        ants.save(file, categories=["ant"])
    for wrong in ("ants", [1, 2]):
        with pytest.raises(TypeError, match="list of labels"):
            ants.save(file, categories=wrong)
    for unordered in ({"bee": 1, "ant": 0}, {"ant", "bee"}, frozenset(["ant", "bee"])):
        with pytest.raises(
            TypeError, match=r"in the order of the logits, got a .*sorted\(class_to_idx, key=class_to_idx.get"
        ):
            ants.save(file, categories=unordered)
    with pytest.raises(ValueError, match="printable"):
        ants.save(file, categories=["ant", "b\x1bee"])
    with pytest.raises(ValueError, match="leave one out"):
        ants.save(file, categories=["ant", "bee"], weights="cifar10", preprocess=SAID)
    with pytest.raises(ValueError, match="the field 'crop' must be at most resize"):
        ants.save(file, categories=["ant", "bee"], preprocess={**SAID, "crop": 48})
    with pytest.raises(TypeError, match=r"got 3$"):
        ants.save(file, categories=["ant", "bee"], preprocess=3)
    with pytest.raises(ValueError, match="there are no weights 'resnet'"):
        ants.save(file, categories=["ant", "bee"], weights="resnet")
    with pytest.raises(ValueError, match="the field 'acc@5' is missing"):
        ants.save(file, categories=["ant", "bee"], metrics={"acc@1": 90.0})
    with pytest.raises(TypeError, match="unexpected keyword"):
        ants.save(file, categories=["ant", "bee"], labels=["ant"])
    assert os.listdir(tmp_path) == []


def test_the_advice_for_scratch_works_to_the_letter(tmp_path: Path) -> None:
    model: Any = shufflenet_v2_x0_5(num_classes=2)
    with pytest.raises(ValueError, match="such as ") as caught:
        model.save(tmp_path / "mine.pth", categories=["ant", "bee"])
    said = eval(str(caught.value).partition("such as ")[2])  # as a user would paste it
    model.save(tmp_path / "mine.pth", categories=["ant", "bee"], preprocess=said)
    assert classifier(weights=tmp_path / "mine.pth").transform.preprocess == shufflenetv2.description.STANDARD  # type: ignore[attr-defined]


@pytest.mark.parametrize("given", ["mapping", "transform", "value", "file"])
@pytest.mark.slow
def test_preprocessing_is_taken_in_every_form(given: str, ants: Any, cifar: Any, tmp_path: Path) -> None:
    first = cifar.save(tmp_path / "first.pth", preprocess=SAID)
    forms = {"mapping": {"preprocess": SAID}, "transform": {"preprocess": preprocess(weights=first)},
             "value": {"preprocess": preprocess(weights=first).preprocess}, "file": {"weights": first}}  # fmt: skip
    ants.save(tmp_path / "mine.pth", categories=["ant", "bee"], **forms[given])
    assert classifier(weights=tmp_path / "mine.pth").transform.preprocess == preprocess(weights=first).preprocess


@pytest.mark.slow
def test_weights_are_taken_in_every_form(ants: Any, cifar: Any, tmp_path: Path) -> None:
    labels = {"categories": ["ant", "bee"]}
    (tmp_path / "run").mkdir()
    first = cifar.save(tmp_path / "run" / "best.pth", preprocess=SAID)
    said = preprocess(weights=first).preprocess
    script = tmp_path / "first.pt"
    assert main(["export", "--format", "torchscript", "--weights", str(first), "-o", str(script)]) == 0
    folder = tmp_path / "folder"
    assert main(["export", "--format", "safetensors", "--weights", str(first), "-o", str(folder)]) == 0
    for weights in (tmp_path / "run", str(tmp_path / "run"), script, folder, shufflenet_v2_x0_5(weights=first).weights):
        ants.save(tmp_path / "mine.pth", **labels, weights=weights)
        assert preprocess(weights=tmp_path / "mine.pth").preprocess == said
    entry = next(each for each in shufflenetv2.list_weights() if each.name.startswith("cifar10"))
    ants.save(tmp_path / "mine.pth", **labels, weights=entry)
    assert preprocess(weights=tmp_path / "mine.pth").preprocess == entry.preprocess


def test_what_a_file_does_not_say_is_not_passed_on_as_said(
    ants: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(ants.state_dict(), tmp_path / "bare.pth")
    model: Any = shufflenet_v2_x0_5(weights=tmp_path / "bare.pth", small_stem=True)
    with pytest.raises(ValueError, match="how were the photos prepared"):
        model.save(tmp_path / "mine.pth", categories=["ant", "bee"])
    assert model.preprocess().preprocess.crop == 224
    assert "bare.pth does not say how its photos are prepared: treated like ImageNet's" in caplog.text
    with pytest.raises(CheckpointError, match="or write a file that says both") as caught:
        classifier(weights=tmp_path / "bare.pth")
    assert ".save(NEW, categories=[...], weights=NAME)" in str(caught.value)
    model.save(tmp_path / "mine.pth", categories=["ant", "bee"], weights="cifar10")
    assert classifier(weights=tmp_path / "mine.pth").transform.preprocess == preprocess(weights="cifar10").preprocess


def test_weights_of_the_other_stem_are_refused(cifar: Any, tmp_path: Path) -> None:
    torch.save(cifar.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match=r"bare\.pth', small_stem=True\)\.save\(NEW, .* leave it out for others"):
        classifier(weights=tmp_path / "bare.pth")
    said = {"categories": TEN, "weights": "cifar10"}
    wrong: Any = shufflenet_v2_x0_5(weights=tmp_path / "bare.pth")
    with pytest.raises(ValueError, match=r"weights='cifar10' is for the small stem .*load it with small_stem=True, an"):
        wrong.save(tmp_path / "mine.pth", **said)
    with pytest.raises(ValueError, match=r"is for the paper's stem .* load it with small_stem=False, an"):
        cifar.save(tmp_path / "mine.pth", weights="imagenet1k_v1")
    assert os.listdir(tmp_path) == ["bare.pth"]
    right: Any = shufflenet_v2_x0_5(weights=tmp_path / "bare.pth", small_stem=True)
    right.save(tmp_path / "mine.pth", **said)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(shufflenet_v2_x0_5(weights=tmp_path / "mine.pth")(images), cifar(images))
    with pytest.raises(ValueError, match=r"mine\.pth' is for the small stem"):
        wrong.save(tmp_path / "other.pth", categories=TEN, weights=tmp_path / "mine.pth")


def test_a_network_loaded_in_inference_mode_is_saved(tmp_path: Path) -> None:
    with torch.inference_mode():
        model: Any = shufflenet_v2_x0_5(weights="cifar10")
    model.save(tmp_path / "mine.pth")
    assert torch.equal(shufflenet_v2_x0_5(weights=tmp_path / "mine.pth").fc.weight, model.fc.weight)


def test_labels_of_a_classifier_that_was_cut_in_place_are_asked_for(cifar: Any, tmp_path: Path) -> None:
    cut_down(cifar)
    with pytest.raises(ValueError, match="what do the 5 classes mean"):
        cifar.save(tmp_path / "mine.pth")
    cifar.save(tmp_path / "mine.pth", categories=TEN[:5])
    assert len(classifier(weights=tmp_path / "mine.pth").categories) == 5


def test_metrics_are_kept(cifar: Any, tmp_path: Path) -> None:
    said = {"dataset": "mine", "acc@1": 90.0, "acc@5": 99.0, "measured_by": "me"}
    model: Any = shufflenet_v2_x0_5(weights=cifar.save(tmp_path / "mine.pth", metrics=said))
    assert (model.weights.metrics.dataset, model.weights.metrics.acc1) == ("mine", 90.0)


@pytest.mark.slow
def test_a_temperature_is_kept_and_told(cifar: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = cifar.save(tmp_path / "first.pth", temperature=2.0)
    model: Any = shufflenet_v2_x0_5(weights=first)
    model.save(tmp_path / "second.pth")
    assert "the temperature 2, fitted to the weights that the network came with, is kept" in caplog.text
    assert classifier(weights=tmp_path / "second.pth")(CAT) == classifier(weights=first)(CAT)
    assert classifier(weights=first)(CAT) != classifier(weights="cifar10")(CAT)
    ants: Any = shufflenet_v2_x0_5(weights=first, num_classes=2)  # a new classifier: nothing was fitted to it
    ants.save(tmp_path / "ants.pth", categories=["ant", "bee"])
    with pytest.raises(ValueError, match="temperature"):
        cifar.save(tmp_path / "third.pth", temperature=0.0)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{}/missing/mine.pth", "mine.pth cannot be written: No such file"),
        ("{}", "is a directory; name a file, such as mine.pth"),
        (".", r"^\. cannot be written: is a directory"),
        ("/", "^/ cannot be written: is a directory"),
        ("{}/model.safetensors", r"model\.safetensors would be read as a part of an exported file; call it mine\.pth"),
        ("{}/config.json", "would be read as a part of an exported file"),
        ("{}/README.md", "would be read as a part of an exported file"),
        ("{}/new/", "/new/ is the name of a folder; name a file, such as .*/new/mine.pth"),
        ("cifar10_v2", "would be read as a name of weights"),
        ("", "would be read as a name"),
    ],
)
def test_where_nothing_can_be_written(path: str, message: str, cifar: Any, tmp_path: Path) -> None:
    with pytest.raises((ValueError, CheckpointError), match=message):
        cifar.save(path.format(tmp_path))
    assert os.listdir(tmp_path) == []
    with pytest.raises(TypeError, match="path must be the path of a file, got 7"):
        cifar.save(7)


def test_a_part_of_an_export_is_not_replaced(cifar: Any, tmp_path: Path) -> None:
    (tmp_path / "net.xml").touch()
    with pytest.raises(ValueError, match=r"net\.bin would be read as a part of an exported file; call it mine\.pth"):
        cifar.save(tmp_path / "net.bin")
    assert os.listdir(tmp_path) == ["net.xml"]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_a_pipe_is_not_replaced(cifar: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="pipe cannot be written: is a pipe, a socket or a device; name a file"):
        cifar.save(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
@pytest.mark.slow
def test_a_full_disk(tmp_path: Path) -> None:
    program = f"""\
import resource, signal, shufflenetv2
model = shufflenetv2.shufflenet_v2_x0_5(weights="cifar10")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # to the process like a full disk
try:
    model.save({str(tmp_path / "mine.pth")!r})
except shufflenetv2.CheckpointError as error:
    print(error)
"""
    assert "mine.pth cannot be written: File too large" in run(sys.executable, "-c", program).stdout
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_on_the_hub_without_importing_the_package(tmp_path: Path) -> None:
    repository = copy_repository(tmp_path / "repository")
    program = """\
import torch
model = torch.hub.load({0!r}, "shufflenet_v2_x0_5", weights="cifar10", num_classes=2, source="local")
model.save("mine.pth", categories=["ant", "bee"])
classify = torch.hub.load({0!r}, "classifier", weights="mine.pth", source="local")
print(sorted(each.label for each in classify({1!r})))
""".format(str(repository), str(CAT))
    assert run(sys.executable, "-c", program, cwd=tmp_path).stdout == "['ant', 'bee']\n"
    assert run_module("shufflenetv2", "classify", CAT, "--weights", tmp_path / "mine.pth").returncode == 0


def test_labels_of_a_classifier_that_was_trained_are_asked_for(cifar: Any, tmp_path: Path) -> None:
    """Its ten classes may be others by now."""
    for dtype in (torch.bfloat16, torch.float16, torch.float64):  # a cast is no training
        copy.deepcopy(cifar).to(dtype).float().save(tmp_path / "cast.pth")
    loss = nn.functional.cross_entropy(cifar.train()(torch.randn(4, 3, 64, 64)), torch.arange(4))
    loss.backward()
    torch.optim.SGD(cifar.parameters(), lr=0.1).step()
    with pytest.raises(ValueError, match=r"trained since it was loaded: do its 10 classes still mean what those of"):
        cifar.save(tmp_path / "mine.pth")
    assert not (tmp_path / "mine.pth").exists()
    cifar.save(tmp_path / "mine.pth", categories=cifar.categories)
    assert classifier(weights=tmp_path / "mine.pth").categories == TEN
